"""Runs the demo's Spark jobs case after case in one JVM, and writes what came of it: see test_demo_jobs.py.

By spark-submit, with the jobs on PYTHONPATH: demo_jobs_driver.py FOLDER [CASE...]. Raw files of the first and
second run are in FOLDER/first and FOLDER/second. A class stands in for the shop's database and its topic.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import bronze_flights
import bronze_retail
import common
import gold_flights
import gold_retail
import maintenance
import silver_flights
import silver_retail
import storage
import tables
from pyspark.sql import DataFrame

FOLDER = Path(sys.argv[1])
FOUND: dict[str, Any] = {}
LAYERS = ("raw", "bronze", "silver", "lake")

FLIGHTS = (bronze_flights, silver_flights, gold_flights)
RETAIL = (bronze_retail, silver_retail, gold_retail)


class World:
    """Four buckets of their own."""

    def __init__(self, name: str) -> None:
        self.folder = FOLDER / "worlds" / name
        for layer in LAYERS:
            (self.folder / layer).mkdir(parents=True)

    def arguments(self, run: str) -> list[str]:
        buckets = (part for layer in LAYERS for part in (f"--{layer}", f"file://{self.folder}/{layer}"))
        return ["--run", run, *buckets]

    def put(self, files: str) -> None:
        """Raw files of flights, written just now."""
        for source in sorted((FOLDER / files).rglob("*")):
            if source.is_file():
                target = self.folder / "raw" / "flights" / source.relative_to(FOLDER / files)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(source.read_bytes())
        # The next file is newer than these, also in whole milliseconds.
        time.sleep(0.01)

    def run(self, run: str, *jobs: Any, more: tuple[str, ...] = ()) -> list[dict[str, Any]]:
        """Reports of the jobs, also of one that fails, which is the last then."""
        reports = []
        for job in jobs:
            try:
                reports.append(job.main([*self.arguments(run), *more]))
            except SystemExit:
                reports.append(self.report(run, job))
                break
        return reports

    def report(self, run: str, job: Any) -> dict[str, Any]:
        (layer,) = (
            n for n in ("bronze", "silver", "lake") if job.NAME.startswith("gold" if n == "lake" else n)
        )
        path = self.folder / layer / "_reports" / common.folder_of(run) / f"{job.NAME}.json"
        return dict(json.loads(path.read_text()))

    def rows(self, table: str, *columns: str) -> list[list[Any]]:
        """A table of a layer, sorted; without columns all of them, but those about runs."""
        uri = f"file://{self.folder}/{table}"
        if not tables.DeltaTable.isDeltaTable(spark(), uri):
            return []
        found = spark().read.format("delta").load(uri)
        chosen = columns or [
            n for n in found.columns if n not in ("_run", "_modified", "_file", "refused_at", "run")
        ]
        return sorted((list(row) for row in found.select(*chosen).collect()), key=str)

    def commits(self, table: str) -> int:
        """Latest version of a table."""
        path = self.folder / table / "_delta_log"
        return max(int(p.stem) for p in path.glob("*.json"))

    def flights(self) -> dict[str, Any]:
        figures = (
            "flights", "cancelled", "on_time", "on_time_percent", "average_departure_delay_minutes",
            "average_arrival_delay_minutes",
        )  # fmt: skip
        return {
            "airlines": self.rows("lake/flights/airline_punctuality", "carrier", "airline", *figures),
            "airports": self.rows(
                "lake/flights/airport_punctuality", "airport", "airport_name", "direction", *figures
            ),
        }

    def everything(self, *names: str) -> dict[str, Any]:
        """Contents of tables, to compare with those of another world."""
        return {name: self.rows(name) for name in names}


def spark() -> Any:
    from pyspark.sql import SparkSession

    return SparkSession.builder.getOrCreate()


@contextmanager
def replaced(module: Any, name: str, value: Any) -> Iterator[None]:
    original = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, original)


@contextmanager
def crash(module: Any, name: str, *, after: int, done: bool) -> Iterator[None]:
    """The function fails at a call, the first being number 1: when it has done its work, or before."""
    original, calls = getattr(module, name), [0]

    def call(*arguments: Any, **more: Any) -> Any:
        calls[0] += 1
        if calls[0] == after and not done:
            raise RuntimeError("crash")
        result = original(*arguments, **more)
        if calls[0] == after:
            raise RuntimeError("crash")
        return result

    with replaced(module, name, call):
        yield
    if calls[0] < after:
        raise AssertionError(f"{name} was called {calls[0]} times, and was to fail at call {after}")


# -- flights


def flights_step_by_step() -> None:
    world = World("flights")
    world.put("first")
    FOUND["first reports"] = world.run("run 1:00", *FLIGHTS)
    FOUND["first"] = world.flights()
    before = world.commits("bronze/flights/flights")
    FOUND["again reports"] = world.run("run 2:00", *FLIGHTS)
    FOUND["again"] = world.flights()
    FOUND["again commits"] = world.commits("bronze/flights/flights") - before
    world.put("second")
    FOUND["second reports"] = world.run("run 3:00", *FLIGHTS)
    FOUND["second"] = world.flights()
    FOUND["refused flights"] = world.rows("silver/quarantine/flights", "raw", "reason", "source", "run")
    FOUND["refused weather"] = world.rows("silver/quarantine/weather", "raw", "reason")
    FOUND["refused files"] = world.rows("silver/quarantine/files", "source", "reason", "run")
    FOUND["joined"] = world.rows(
        "silver/flights/flights", "month", "flight", "airline", "origin_name", "dest_name", "manufacturer",
        "model", "temp", "wind_speed",
    )  # fmt: skip
    FOUND["runs"] = world.rows(
        "lake/operations/job_runs", "run", "job", "state", "read", "written", "quarantined"
    )
    FOUND["quality"] = world.rows("lake/operations/data_quality", "run", "job", "check", "passed")
    _maintained(world)
    reference(world)


def _maintained(world: World) -> None:
    before = world.flights()
    reports = [world.run("upkeep", maintenance, more=("--layer", layer))[0] for layer in ("bronze", "lake")]
    FOUND["maintenance"] = {name: counts for report in reports for name, counts in report["counts"].items()}
    # Compacted files are the same rows: none of them is new to silver.
    after = world.run("run 4:00", *FLIGHTS)
    FOUND["after maintenance"] = [report["counts"] for report in after]
    FOUND["maintained alike"] = world.flights() == before


REFERENCE: dict[str, Any] = {}
COMPARED = (
    "bronze/flights/flights", "silver/flights/flights", "silver/flights/weather",
    "silver/quarantine/flights", "silver/quarantine/files",
    "lake/flights/airline_punctuality", "lake/flights/airport_punctuality",
)  # fmt: skip


def reference(world: World) -> None:
    REFERENCE.update(world.everything(*COMPARED))


def flights_through_crashes() -> None:
    """Each job fails at each of its steps, and is started again."""
    world = World("crashes")
    world.put("first")
    failures = 0

    run = "run 1"

    def broken(job: Any, module: Any, name: str, after: int, done: bool) -> None:
        nonlocal failures
        with crash(module, name, after=after, done=done):
            (report,) = world.run(run, job)
        failures += report["state"] == "failed" and report["retry"] and "crash" in report["error"]

    # After two of the five tables were written; after all of them, but before the bookmark moved.
    broken(bronze_flights, bronze_flights, "append", 2, done=True)
    broken(bronze_flights, bronze_flights, "append", 5, done=True)
    world.run(run, bronze_flights)
    # With a list half made; between quarantine and table of the flights; after both.
    broken(silver_flights, tables, "replace", 3, done=True)
    broken(silver_flights, tables, "upsert", 1, done=False)
    broken(silver_flights, tables, "upsert", 1, done=True)
    world.run(run, silver_flights)
    broken(gold_flights, gold_flights, "replace", 2, done=False)
    world.run(run, gold_flights)
    world.put("second")
    run = "run 2"
    broken(bronze_flights, bronze_flights, "append", 3, done=True)
    world.run(run, bronze_flights)
    broken(silver_flights, tables, "upsert", 1, done=False)
    broken(silver_flights, tables, "upsert", 1, done=True)
    world.run(run, silver_flights, gold_flights)
    FOUND["crashes"] = failures
    found = world.everything(*COMPARED)
    FOUND["crashed alike"] = {
        name: _without_place(rows) == _without_place(REFERENCE[name]) for name, rows in found.items()
    }
    FOUND["counted through crashes"] = [
        world.report(run, bronze_flights)["counts"]["flights"]["written"],
        world.report(run, silver_flights)["counts"]["flights/flights"],
    ]
    a_check_that_fails(world)


def _without_place(rows: list[list[Any]]) -> list[str]:
    """Rows as text, without the names of the worlds they are of."""
    return sorted(re.sub(r"/worlds/\w+/", "/", str(row)) for row in rows)


def nothing_there() -> None:
    world = World("nothing")
    FOUND["nothing"] = [r["state"] for r in world.run("run 1", *FLIGHTS)]
    FOUND["nothing written"] = world.rows("lake/flights/airline_punctuality")


def a_check_that_fails(world: World) -> None:
    original = tables.replace

    def short(rows: DataFrame, uri: str) -> None:
        original(rows.limit(2), uri)

    # What a job leaves whose processes were killed.
    (done,) = (world.folder / "silver" / "_reports").glob("run-1/silver_flights.json")
    killed = done.parent.with_name("killed") / done.name
    killed.parent.mkdir()
    killed.write_text(json.dumps({**json.loads(done.read_text()), "run": "killed", "state": "running"}))
    with replaced(gold_flights, "replace", short):
        (FOUND["failed check"],) = world.run("short", gold_flights)
    FOUND["failed check kept"] = world.rows("lake/operations/data_quality", "run", "check", "passed")
    FOUND["failed run kept"] = world.rows("lake/operations/job_runs", "run", "job", "state")


# -- the lock


def one_writer() -> None:
    world = World("lock")
    bucket = f"file://{world.folder}/bronze"
    files = storage.Files(spark())
    first = storage.WriterLock(files, bucket, "first")
    first.acquire()
    try:
        storage.WriterLock(files, bucket, "second").acquire(patience_s=3 * storage.STALE_S)
    except TimeoutError as error:
        FOUND["lock held"] = str(error)
    waiting = storage.WriterLock(files, bucket, "third")
    taken = threading.Event()
    thread = threading.Thread(target=lambda: (waiting.acquire(), taken.set()))
    thread.start()
    FOUND["lock waits"] = not taken.wait(1.5)
    first.release()
    thread.join(10)
    FOUND["lock passed on"] = taken.is_set()
    # A holder that died: its file stays as it is.
    waiting._ended.set()
    waiting._beating.join()
    began = time.monotonic()
    lost: list[str] = []
    fourth = storage.WriterLock(files, bucket, "fourth", lost.append)
    fourth.acquire()
    FOUND["lock taken over"] = time.monotonic() - began >= storage.STALE_S
    # One that was only asleep sees that the lock is another's.
    files.write(fourth.uri, json.dumps({"owner": "fifth", "token": "x"}))
    fourth._beating.join(10)
    FOUND["lock lost"] = lost
    fourth.release()
    FOUND["lock of others stays"] = files.exists(fourth.uri)
    files.delete(fourth.uri)


# -- the shop


class Shop:
    """Stands in for database and topic: rows with transactions, and messages with offsets."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.orders: dict[int, dict[str, Any]] = {}
        self.history: list[dict[str, Any]] = []
        self.messages = 0
        self.horizon = 100
        self.inbox = world.folder / "topic"
        self.inbox.mkdir()

    def order(self, number: int, status: str, transaction: int, *, hours: int = 0, **changed: Any) -> None:
        """An order's new status, and the event of it."""
        created = f"2024-01-01 {number % 24:02}:00:00"
        at = f"2024-01-{1 + (number % 24 + hours) // 24:02} {(number % 24 + hours) % 24:02}:30:00"
        row = {
            "order_id": number, "branch_id": 1 + number % 3, "customer_id": 1 + number % 5,
            "amount": f"{number}.25", "status": status, "created_at": created, "updated_at": at,
            "changed_in": transaction,
        }  # fmt: skip
        self.orders[number] = row | changed
        self.history.append(
            {
                "history_id": len(self.history) + 1, "order_id": number, "status": status, "changed_at": at,
                "changed_in": transaction,
            }
        )  # fmt: skip

    def query(self, job: Any, sql: str) -> DataFrame:
        if "horizon" in sql:
            return spark().createDataFrame([(self.horizon,)], "horizon LONG")
        if "branches" in sql:
            rows = [(n, f"Branch {n}", f"City {n}", "North") for n in (1, 2, 3, 4)]
            return spark().createDataFrame(rows, "branch_id INT, name STRING, city STRING, region STRING")
        low, high = map(int, re.findall(r"'(\d+)'::xid8", sql))
        table = re.search(r"FROM (\w+)", sql).group(1)
        found = list(self.orders.values()) if table == "orders" else self.history
        rows = [json.dumps(row) for row in found if low <= row["changed_in"] < high]
        kinds = {
            "orders": "order_id LONG, branch_id INT, customer_id INT, amount DECIMAL(12,2), status STRING, "
            "created_at TIMESTAMP, updated_at TIMESTAMP, changed_in LONG",
            "order_history": "history_id LONG, order_id LONG, status STRING, changed_at TIMESTAMP, "
            "changed_in LONG",
        }[table]
        assert all(name in sql for name in re.findall(r"(\w+) [A-Z]", kinds))
        return spark().read.schema(kinds).json(spark().sparkContext.parallelize(rows, 1))

    def send(self, *values: bytes | None) -> None:
        """Messages of one partition."""
        rows = []
        for value in values:
            text = None if value is None else bytearray(value)
            rows.append((bytearray(b"1"), text, "shop-orders", 0, self.messages, "2024-01-01 00:00:00"))
            self.messages += 1
        kinds = "key BINARY, value BINARY, topic STRING, partition INT, offset LONG, timestamp STRING"
        spark().createDataFrame(rows, kinds).coalesce(1).write.mode("append").parquet(f"file://{self.inbox}")

    def event(self, number: int) -> bytes:
        """The event of a row of the history."""
        change = self.history[number - 1]
        order = self.orders[change["order_id"]]
        return json.dumps(
            {
                "event_id": number, "order_id": change["order_id"], "branch_id": order["branch_id"],
                "customer_id": order["customer_id"], "amount": float(order["amount"]),
                "status": change["status"],
                "occurred_at": change["changed_at"].replace(" ", "T") + "Z",
            }
        ).encode()  # fmt: skip

    def stream(self, job: Any) -> DataFrame:
        kinds = "key BINARY, value BINARY, topic STRING, partition INT, offset LONG, timestamp STRING"
        found = spark().readStream.schema(kinds).parquet(f"file://{self.inbox}")
        return found.withColumn("timestamp", found.timestamp.cast("timestamp"))

    def run(self, run: str, *jobs: Any) -> list[dict[str, Any]]:
        with replaced(bronze_retail, "query", self.query), replaced(bronze_retail, "messages", self.stream):
            return self.world.run(run, *(jobs or RETAIL))

    def figures(self) -> dict[str, Any]:
        return {
            "branches": [
                [str(value) if index == 5 else value for index, value in enumerate(row)]
                for row in self.world.rows(
                    "lake/retail/branch_performance", "branch_id", "branch", "orders", "delivered",
                    "average_delivery_hours", "revenue",
                )
            ],
            "segments": [
                [*row[:3], str(row[3])]
                for row in self.world.rows(
                    "lake/retail/segment_revenue", "market_segment", "nation", "orders", "revenue"
                )
            ],
        }  # fmt: skip


BAD_MESSAGES = (
    b"not JSON", b"[1, 2]", b"\xff\xfe\x00", None, b"{}",
    b'{"event_id": "x1", "order_id": 1, "branch_id": 1, "customer_id": 1, "amount": 1, "status": "NEW", '
    b'"occurred_at": "2024-01-01T00:00:00Z"}',
    b'{"event_id": 900, "order_id": 1, "branch_id": 1, "customer_id": 1, "amount": -1, "status": "LOST", '
    b'"occurred_at": "2024-01-01T00:00:00Z"}',
    b'{"event_id": 901, "order_id": 1, "branch_id": 1, "cust',
)  # fmt: skip


def shop_step_by_step() -> None:
    world = World("shop")
    shop = Shop(world)
    for number in range(1, 13):
        shop.order(number, "NEW", 10 + number)
    for number in range(1, 7):
        shop.order(number, "INTRANSIT", 30 + number, hours=5)
    for number in range(1, 4):
        shop.order(number, "DELIVERED", 40 + number, hours=20 + number)
    # Begun, and not over: it is beyond the horizon, and so is all that came later.
    shop.horizon = 50
    shop.order(13, "NEW", 55)
    shop.send(*(shop.event(n) for n in range(1, 22)))
    FOUND["shop first reports"] = shop.run("run 1")
    FOUND["shop first"] = shop.figures()
    FOUND["shop again"] = [report["counts"] for report in shop.run("run 2")]
    # The slow transaction is over, another one wrote less late; orders go on; one is mended by hand.
    shop.horizon = 80
    shop.order(14, "NEW", 50)
    shop.order(4, "DELIVERED", 61, hours=30)
    shop.order(1, "DELIVERED", 62, hours=90, amount="1000.00")
    shop.order(15, "NEW", 63, amount="-5.00")
    shop.order(16, "UNKNOWN", 64)
    shop.send(*(shop.event(n) for n in (20, 21, 22, 23, 24, 24)), *BAD_MESSAGES)
    files = world.folder / "raw" / "tpch"
    files.mkdir()
    (files / "customer.csv").write_text(
        "custkey,name,nationkey,mktsegment\n"
        + "".join(f"{n},C{n},{n % 2},SEG{n % 2}\n" for n in (1, 2, 3, 4))
    )
    (files / "nation.csv").write_text("nationkey,name\n0,PERU\n1,KENYA\n")
    FOUND["shop second reports"] = shop.run("run 3")
    FOUND["shop second"] = shop.figures()
    FOUND["shop events"] = [row[0] for row in world.rows("silver/retail/order_events", "event_id")]
    FOUND["shop refused"] = world.rows("silver/quarantine/order_events", "reason", "source")
    FOUND["shop refused orders"] = world.rows("silver/quarantine/orders", "reason", "source")
    FOUND["shop state"] = world.rows("silver/retail/orders", "order_id", "status")
    # Somebody removed a bookmark: what comes again is known.
    shutil.rmtree(world.folder / "silver/_checkpoints")
    FOUND["shop bookmark gone"] = [r["state"] for r in shop.run("run 4", silver_retail, gold_retail)]
    FOUND["shop the same"] = shop.figures() == FOUND["shop second"]
    shop.horizon = 70
    FOUND["shop older"] = shop.run("run 5", bronze_retail)
    shop.horizon = 90
    (files / "nation.csv").write_text("nationkey,country\n0,PERU\n")
    FOUND["shop tpch"] = shop.run("run 6", bronze_retail)


def shop_through_crashes() -> None:
    world = World("shopcrash")
    shop = Shop(world)
    for number in range(1, 13):
        shop.order(number, "NEW", 10 + number)
    shop.send(*(shop.event(n) for n in range(1, 13)))
    failures = 0
    for job, module, steps in (
        (bronze_retail, bronze_retail, (("append", 1), ("append", 2), ("finish", 1))),
        (silver_retail, tables, (("upsert", 1), ("upsert", 3))),
        (gold_retail, gold_retail, (("replace", 1),)),
    ):
        for name, after in steps:
            with crash(module, name, after=after, done=True):
                (report,) = shop.run("run 1", job)
            failures += report["state"] == "failed" and report["retry"]
        shop.run("run 1", job)
    FOUND["shop crashes"] = failures
    FOUND["shop crashed"] = {
        name: len(world.rows(f"bronze/retail/{name}")) for name in ("orders", "order_history", "order_events")
    } | {f"silver {name}": len(world.rows(f"silver/retail/{name}")) for name in ("orders", "order_events")}


def main() -> None:
    storage.BEAT_S, storage.STALE_S = 0.2, 1.0
    cases: tuple[Callable[[], None], ...] = (
        flights_step_by_step, flights_through_crashes, nothing_there, one_writer,
        shop_step_by_step, shop_through_crashes,
    )  # fmt: skip
    for case in cases:
        if sys.argv[2:] and case.__name__ not in sys.argv[2:]:
            continue
        began = time.monotonic()
        try:
            case()
        except Exception:
            FOUND[f"error in {case.__name__}"] = traceback.format_exc()
        print(f"CASE {case.__name__}: {time.monotonic() - began:.1f} s", flush=True)
        (FOLDER / "found.json").write_text(json.dumps(FOUND, default=str))


main()
