"""The demo's sources: the course of the simulated shop, its events, its probe, and seeded files."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import zipfile
from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from minio.error import S3Error

IMAGE = Path(__file__).resolve().parents[2] / "images" / "demo"
sys.path.append(str(IMAGE))

import split_flights  # noqa: E402
from sources import heartbeat, orders, seeder, shop, simulator  # noqa: E402
from sources.orders import BRANCHES, GAP_S, START, STATUSES, Change, Course, Era  # noqa: E402

EVER = datetime(9000, 1, 1, tzinfo=UTC)


def course_of(seed: int, last: int) -> list[Change]:
    """Everything that happens, in one go."""
    return Course([Era(1, seed)], 1, last).take(EVER, 10**9)


def resumed(done: list[Change], eras: list[Era], last: int) -> Course:
    """The course as the database gives it after these changes."""
    stages: dict[int, int] = {}
    for change in done:
        stages[change.order_id] = change.stage
    open_orders = [(number, stage) for number, stage in stages.items() if stage + 1 < len(STATUSES)]
    return Course(eras, max(stages, default=0) + 1, last, open_orders)


# -- the course


@settings(max_examples=100)
@given(st.integers(0, 2**31 - 1), st.integers(1, 60), st.lists(st.integers(1, 40), max_size=12))
def test_the_same_seed_makes_the_same_course_whatever_interrupts_it(
    seed: int, last: int, pieces: list[int]
) -> None:
    whole = course_of(seed, last)
    done: list[Change] = []
    for size in pieces:
        done += resumed(done, [Era(1, seed)], last).take(EVER, size)
    done += resumed(done, [Era(1, seed)], last).take(EVER, 10**9)
    assert done == whole


@settings(max_examples=50)
@given(st.integers(0, 2**31 - 1))
def test_every_order_goes_through_all_statuses_in_time(seed: int) -> None:
    changes = course_of(seed, 40)
    assert changes == sorted(changes)
    assert Counter(change.order_id for change in changes) == dict.fromkeys(range(1, 41), 3)
    for number in range(1, 41):
        mine = [change for change in changes if change.order_id == number]
        assert [change.status for change in mine] == list(STATUSES)
        placed = START + timedelta(seconds=(number - 1) * GAP_S)
        assert placed <= mine[0].at < placed + timedelta(seconds=GAP_S)
        assert timedelta(hours=1) <= mine[1].at - mine[0].at < timedelta(hours=12)


def test_the_known_beginning() -> None:
    """A change of these makes other orders of the seeds that people have: it must be meant."""
    first, later = orders.order(1, 1), orders.order(1, 100_000)
    assert (first.branch_id, first.customer_id, str(first.amount)) == (7, 1038, "337.06")
    assert [f"{at:%Y-%m-%dT%H:%M:%S}" for at in first.times] == [
        "2024-01-01T00:05:56", "2024-01-01T08:30:30", "2024-01-02T02:55:56",
    ]  # fmt: skip
    assert (later.branch_id, later.customer_id, str(later.amount)) == (4, 1310, "19.47")
    assert [f"{at:%Y-%m-%dT%H:%M:%S}" for at in later.times] == [
        "2026-04-13T07:57:28", "2026-04-13T19:09:19", "2026-04-14T06:53:05",
    ]  # fmt: skip


def test_another_seed_counts_for_later_orders_alone() -> None:
    changes = course_of(1, 30)[:50]
    eras = [Era(1, 1), Era(31, 2)]
    course = resumed(changes, eras, 40)
    rest = course.take(EVER, 10**9)
    assert [c for c in (*changes, *rest) if c.order_id <= 30] == course_of(1, 30)
    assert course.order(30) == orders.order(1, 30)
    assert course.order(31) == orders.order(2, 31)


def test_a_higher_limit_goes_on_where_it_ended() -> None:
    changes = course_of(5, 20)
    assert resumed(changes, [Era(1, 5)], 20).next_at() is None
    more = resumed(changes, [Era(1, 5)], 30).take(EVER, 10**9)
    assert sorted([*changes, *more]) == course_of(5, 30)


def test_orders_are_of_the_kind_that_the_pipelines_expect() -> None:
    many = [orders.order(1, number) for number in range(1, 3001)]
    assert (
        {order.branch_id for order in many} == {branch.branch_id for branch in BRANCHES} == set(range(1, 13))
    )
    assert all(1 <= order.customer_id <= 1500 for order in many)
    assert all(Decimal("4.99") <= order.amount < 505 for order in many)
    assert all(order.amount == round(order.amount, 2) for order in many)
    hours = {
        b.branch_id: [
            (o.times[2] - o.times[1]).total_seconds() / 3600 for o in many if o.branch_id == b.branch_id
        ]
        for b in BRANCHES
    }
    for branch in BRANCHES:
        own = hours[branch.branch_id]
        assert branch.hours * 0.5 <= min(own) and max(own) <= branch.hours * 1.5


# -- events


def test_an_event_is_what_its_readers_expect() -> None:
    at = datetime(2024, 1, 16, 3, 14, 15, tzinfo=UTC)
    event = shop.Event(("7310", 5310), 1811, 4, 77, Decimal("23.90"), "INTRANSIT", at)
    text = simulator.message(event).decode()
    assert json.loads(text, parse_float=Decimal) == {
        "event_id": 5310,
        "order_id": 1811,
        "branch_id": 4,
        "customer_id": 77,
        "amount": Decimal("23.90"),
        "status": "INTRANSIT",
        "occurred_at": "2024-01-16T03:14:15Z",
    }
    assert '"amount": 23.90,' in text


class Broker:
    """Takes what is produced; ``refuses`` fail, ``loses`` never arrive."""

    def __init__(self, *, refuses: int = 0, loses: int = 0, full: int = 0) -> None:
        self.refuses, self.loses, self.full = refuses, loses, full
        self.sent: list[tuple[str, str, bytes]] = []
        self.purged = False
        self._waiting: list[Any] = []

    def produce(self, topic: str, *, key: str, value: bytes, on_delivery: Any) -> None:
        if self.full:
            self.full -= 1
            raise BufferError
        self.sent.append((topic, key, value))
        self._waiting.append(on_delivery)

    def poll(self, seconds: float) -> None:
        pass

    def flush(self, seconds: float) -> int:
        while len(self._waiting) > self.loses:
            self._waiting.pop(0)("refused" if self.refuses else None, None)
        return len(self._waiting)

    def purge(self) -> None:
        self.purged = True


EVENTS = [
    shop.Event(("5", n), 10 + n, 1, 2, Decimal("5.00"), "NEW", START + timedelta(seconds=n))
    for n in (1, 2, 3)
]


def test_events_are_sent_in_order_even_when_the_buffer_is_full() -> None:
    broker = Broker(full=2)
    simulator.send(broker, "shop-orders", EVENTS)  # type: ignore[arg-type]
    assert [(topic, key) for topic, key, _ in broker.sent] == [("shop-orders", k) for k in ("11", "12", "13")]


@pytest.mark.parametrize(
    ("broker", "error"), [(Broker(refuses=1), simulator.KafkaException), (Broker(loses=2), TimeoutError)]
)
def test_what_is_not_delivered_is_a_failure_that_leaves_nothing_on_the_way(
    broker: Broker, error: type[Exception]
) -> None:
    with pytest.raises(error):
        simulator.send(broker, "shop-orders", EVENTS)  # type: ignore[arg-type]
    assert broker.purged


def test_a_failure_that_is_no_lost_connection_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(uri: str) -> Any:
        raise ZeroDivisionError(uri)

    monkeypatch.setattr(shop, "connect", connect)
    with pytest.raises(ZeroDivisionError):
        simulator.Simulator({}, "", {}).run()


# -- the probe


def test_both_parts_must_give_signs_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "beats"
    monkeypatch.setattr(heartbeat, "FOLDER", folder)
    assert heartbeat.main() == 1
    heartbeat.beat("writer")
    (line,) = heartbeat.silent(folder, (folder / "writer").stat().st_mtime)
    assert line == "publisher: Kafka took nothing from it yet"
    heartbeat.beat("publisher")
    assert heartbeat.main() == 0
    os.utime(folder / "writer", (0, 0))
    (line,) = heartbeat.silent(folder, 100.0)
    assert line == "writer: Postgres took nothing from it for 100 s"


def test_the_probe_needs_no_package() -> None:
    """It runs every few seconds: what it imports is paid for each time."""
    run = subprocess.run(
        # Without packages, but those of Python itself.
        [sys.executable, "-S", "-m", "sources", "probe"],
        env={"PYTHONPATH": str(IMAGE)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1
    assert run.stderr == (
        "writer: Postgres took nothing from it yet\npublisher: Kafka took nothing from it yet\n"
    )


# -- files


class Store:
    """An object store in memory, with what the seeder asks of its client."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], tuple[bytes, dict[str, str]]] = {}
        self.puts = 0

    def put(self, bucket: str, key: str, content: bytes) -> None:
        self.objects[bucket, key] = (content, {})

    def stat_object(self, bucket: str, key: str) -> Any:
        if (bucket, key) not in self.objects:
            raise S3Error(None, "NoSuchKey", "", "", "", "")  # type: ignore[arg-type]
        return SimpleNamespace(metadata=self.objects[bucket, key][1])

    def put_object(self, bucket: str, key: str, data: Any, length: int, metadata: dict[str, str]) -> None:
        content = data.read()
        assert len(content) == length
        self.puts += 1
        self.objects[bucket, key] = (content, {f"x-amz-meta-{k}": v for k, v in metadata.items()})

    def list_objects(self, bucket: str, prefix: str, recursive: bool) -> Any:
        assert recursive
        return [
            SimpleNamespace(object_name=k) for b, k in self.objects if b == bucket and k.startswith(prefix)
        ]

    def remove_object(self, bucket: str, key: str) -> None:
        del self.objects[bucket, key]


@pytest.fixture
def flights(tmp_path: Path) -> Path:
    folder = tmp_path / "flights"
    (folder / "airlines").mkdir(parents=True)
    (folder / "airlines" / "airlines.csv.gz").write_bytes(gzip.compress(b"carrier,name\nAA,American\n"))
    return folder


AIRLINES = ("raw", "flights/airlines/airlines.csv")


def test_seeding_again_changes_nothing(flights: Path) -> None:
    store: Any = Store()
    plan = {"jobs/demo": {"a.py": "a", "b.py": "b"}}
    assert seeder.seed(store, "raw", plan, flights) == {"written": 3, "deleted": 0}
    assert store.objects[AIRLINES][0] == b"carrier,name\nAA,American\n"
    before = dict(store.objects)
    assert seeder.seed(store, "raw", plan, flights) == {"unchanged": 3, "deleted": 0}
    assert store.objects == before and store.puts == 3


def test_a_changed_job_is_written_and_a_removed_one_deleted(flights: Path) -> None:
    store: Any = Store()
    seeder.seed(store, "raw", {"jobs/demo": {"a.py": "a", "b.py": "b"}}, flights)
    assert seeder.seed(store, "raw", {"jobs/demo": {"a.py": "new"}}, flights) == {
        "written": 1, "unchanged": 1, "deleted": 1,
    }  # fmt: skip
    assert {key for bucket, key in store.objects if bucket == "jobs"} == {"demo/a.py"}
    assert store.objects["jobs", "demo/a.py"][0] == b"new"


def test_what_somebody_else_put_there_stays(flights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store: Any = Store()
    for place in (AIRLINES, ("jobs", "demo/a.py"), ("jobs", "demo/mine.py"), ("jobs", "other/x.py")):
        store.put(*place, b"mine")
    done = seeder.seed(store, "raw", {"jobs/demo": {"a.py": "a"}}, flights)
    assert done == {"left alone": 2, "deleted": 0}
    assert all(content == b"mine" for content, _ in store.objects.values())
    assert capsys.readouterr().out.splitlines() == [
        "WARNING s3://raw/flights/airlines/airlines.csv is not of the demo and stays as it is",
        "WARNING s3://jobs/demo/a.py is not of the demo and stays as it is",
    ]


def test_flights_are_taken_apart_by_month(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package, target = tmp_path / "data", tmp_path / "out"
    package.mkdir()
    rows = ["2013,1,1,517,UA\n", "2013,10,1,NA,AA\n", "2013,1,2,600,B6\n"]
    with zipfile.ZipFile(package / "flights.csv.zip", "w") as archive:
        archive.writestr("flights.csv", "".join(["year,month,day,dep_time,carrier\n", *rows]))
    (package / "weather.csv").write_text("origin,year,month,temp,wind\nEWR,2013,1,39.02,NA\nJFK,2013,2,5,1\n")
    for name in split_flights.LISTS:
        (package / f"{name}.csv").write_text(f"{name}\n")
    monkeypatch.setattr(sys, "argv", ["split_flights.py", str(package), str(target)])
    split_flights.main()
    found = {key.removeprefix("flights/"): content.decode() for key, content in seeder.raw_files(target)}
    assert found == {
        "flights/2013-01.csv": f"year,month,day,dep_time,carrier\n{rows[0]}{rows[2]}",
        "flights/2013-10.csv": f"year,month,day,dep_time,carrier\n{rows[1]}",
        "weather/2013-01.jsonl": '{"origin": "EWR", "year": 2013, "month": 1, "temp": 39.02, "wind": null}\n',
        "weather/2013-02.jsonl": '{"origin": "JFK", "year": 2013, "month": 2, "temp": 5, "wind": 1}\n',
        **{f"{name}/{name}.csv": f"{name}\n" for name in split_flights.LISTS},
    }
    before = {path: path.read_bytes() for path in target.rglob("*.gz")}
    split_flights.main()
    assert {path: path.read_bytes() for path in target.rglob("*.gz")} == before
