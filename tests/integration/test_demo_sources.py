"""The demo's sources: orders in Postgres, events in Kafka, files in the object store, who may do what."""

from __future__ import annotations

import contextlib
import io
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from confluent_kafka import Consumer, KafkaException, TopicPartition
from minio.error import S3Error

from components.demo_overlay import additions
from components.demo_settings import PIPELINE_USERS, DemoSettings
from tests.integration.clients import kafka, object_store, postgres
from tests.integration.conftest import USERS
from tests.integration.stack import PATIENCE_S, ROOT, Stack, crash, free_port, proxy_ports, wait_until

sys.path.append(str(ROOT / "images" / "demo"))

from sources.orders import BRANCHES, STATUSES, Course, Era

INITIAL = 400
SEED = 3
MINE = 9_000_000
"""Orders from here on are the tests' own, which the simulator has nothing to do with."""
EVER = datetime(9000, 1, 1, tzinfo=UTC)
STORE = additions(DemoSettings())["object_store"]
BUCKETS = [bucket["name"] for bucket in STORE["buckets"]]

Row = tuple[Any, ...]


@pytest.fixture(scope="module")
def stack(new_stack: Callable[..., Stack]) -> Iterator[Stack]:
    """The sources without pipelines; the pipelines' users of the object store stand in the settings."""
    stack = new_stack(
        {
            "proxy": proxy_ports(),
            "users": USERS[:1],
            "postgres": {"memory_mib": 256, "loopback_port": free_port()},
            "kafka": {"memory_mib": 512, "loopback_port": free_port()},
            "object_store": {"loopback_port": free_port(), **STORE},
            "demo": {
                "pipelines": False,
                "seed": SEED,
                "initial_orders": INITIAL,
                # Ten orders in a second, and thirty changes.
                "orders_per_minute": 600,
            },
        },
        name="demo",
    )
    stack.up()
    yield stack
    stack.destroy()


def rows(stack: Stack, sql: str, role: str = "shop_reader") -> list[Row]:
    """Rows of one statement."""
    with postgres(stack, "shop", role) as connection:
        connection.execute("SET time zone 'UTC'")
        return connection.execute(sql.encode()).fetchall()


def number(stack: Stack, sql: str) -> int:
    """One number."""
    found = rows(stack, sql)[0][0]
    assert isinstance(found, int)
    return found


def newest(stack: Stack) -> int:
    """The latest order's number."""
    return number(stack, f"SELECT max(order_id) FROM orders WHERE order_id < {MINE}")


def history(stack: Stack) -> list[Row]:
    """The changes of all orders, in the order in which they happened."""
    sql = (
        f"SELECT order_id, status, changed_at FROM order_history WHERE order_id < {MINE} ORDER BY history_id"
    )
    return rows(stack, sql)


def events(stack: Stack) -> dict[int, list[dict[str, Any]]]:
    """All there is in the topic now, by event."""
    consumer = Consumer(kafka(stack, "shop-ingest", group_id="shop-ingest", enable_auto_commit=False))
    found: dict[int, list[dict[str, Any]]] = {}
    try:
        ends = {p: consumer.get_watermark_offsets(TopicPartition("shop-orders", p))[1] for p in range(3)}
        consumer.assign([TopicPartition("shop-orders", p, 0) for p in ends])
        left = {p for p, end in ends.items() if end}
        deadline = time.monotonic() + PATIENCE_S
        while left:
            assert time.monotonic() < deadline, "the topic cannot be read to its end"
            for message in consumer.consume(500, 1.0):
                assert message.error() is None, message.error()
                event = json.loads(message.value() or b"", parse_float=Decimal)
                assert message.key() == str(event["order_id"]).encode()
                if event["order_id"] < MINE:
                    found.setdefault(event["event_id"], []).append(event)
                partition, offset = message.partition(), message.offset()
                assert partition is not None and offset is not None
                if offset + 1 >= ends[partition]:
                    left.discard(partition)
    finally:
        consumer.close()
    return found


def expect_exact(stack: Stack, eras: list[Era]) -> int:
    """Nothing is lost or doubled: tables and history are the simulated course, events the history.

    Returns:
        How many events came more than once.
    """
    seen = history(stack)
    course = Course(eras, 1, newest(stack))
    assert seen == [(c.order_id, c.status, c.at) for c in course.take(EVER, len(seen))]
    # What was seen is in the topic soon; what came after it meanwhile does no harm.
    published = wait_until(lambda: found if len(found := events(stack)) >= len(seen) else None)
    sql = (
        "SELECT history_id, h.order_id, branch_id, customer_id, amount, h.status, h.changed_at"
        f" FROM order_history h JOIN orders USING (order_id) WHERE order_id < {MINE}"
        f" ORDER BY 1 LIMIT {len(seen)}"
    )
    for id_, order_id, branch, customer, amount, status, at in rows(stack, sql):
        expected = {
            "event_id": id_,
            "order_id": order_id,
            "branch_id": branch,
            "customer_id": customer,
            "amount": amount,
            "status": status,
            "occurred_at": f"{at:%Y-%m-%dT%H:%M:%SZ}",
        }
        assert all(event == expected for event in published[id_]), id_
        order = course.order(order_id)
        assert (branch, customer, amount) == order[1:4]
    known = {row[0] for row in rows(stack, "SELECT history_id FROM order_history")}
    assert set(published) <= known
    return sum(len(same) > 1 for same in published.values())


# -- orders and events


def test_orders_and_their_events_flow(stack: Stack) -> None:
    assert number(stack, "SELECT count(*) FROM orders") >= INITIAL
    assert rows(stack, "SELECT * FROM branches ORDER BY 1") == [branch[:4] for branch in BRANCHES]
    before, began = newest(stack), time.monotonic()
    # Ten in a second. It makes up for seconds without a core, and this program may be late to see it.
    wait_until(lambda: newest(stack) >= before + 300, every=0.1)
    assert 12 < time.monotonic() - began < 120
    assert expect_exact(stack, [Era(1, SEED)]) == 0
    # Each order stands where its history ended.
    wrong = """
        SELECT o.order_id FROM orders o, LATERAL (
            SELECT status, changed_at FROM order_history h WHERE h.order_id = o.order_id
            ORDER BY history_id DESC LIMIT 1
        ) latest WHERE (o.status, o.updated_at) <> (latest.status, latest.changed_at)
    """
    assert rows(stack, wrong) == []
    assert {status for (status,) in rows(stack, "SELECT DISTINCT status FROM orders")} == set(STATUSES)


def test_a_killed_simulator_loses_and_doubles_nothing(stack: Stack) -> None:
    name = "demo-shop-simulator"
    for pause in (0.0, 1.3, 2.9):
        time.sleep(pause)
        crash(stack.container(name))
        before = number(stack, "SELECT max(history_id) FROM order_history")
        wait_until(lambda: number(stack, "SELECT max(history_id) FROM order_history") > before + 60)  # noqa: B023
    stack.container(name).restart()
    before = len(history(stack))
    wait_until(lambda: len(history(stack)) > before)
    expect_exact(stack, [Era(1, SEED)])


def test_a_restart_of_its_servers_stops_it_for_a_moment(stack: Stack) -> None:
    restarts = stack.container("demo-shop-simulator").attrs["RestartCount"]
    before = max(events(stack))
    for server in ("postgres", "kafka-1"):
        stack.container(server).restart(timeout=30)
    wait_until(lambda: max(events(stack)) > before)
    assert stack.container("demo-shop-simulator").attrs["RestartCount"] == restarts
    expect_exact(stack, [Era(1, SEED)])


def test_what_one_changes_by_hand_is_history_too(stack: Stack) -> None:
    with postgres(stack, "shop", "shop_simulator") as connection:
        for statement in (
            "INSERT INTO orders VALUES (9000001, 1, 1, 12.30, 'NEW', now(), now())",
            "UPDATE orders SET status = 'DELIVERED', updated_at = now() WHERE order_id = 9000001",
            "UPDATE orders SET amount = 45.60 WHERE order_id = 9000001",
        ):
            connection.execute(statement.encode())
    changes = (
        "SELECT status, changed_in::text FROM order_history WHERE order_id = 9000001 ORDER BY history_id"
    )
    (first, second) = rows(stack, changes)
    assert (first[0], second[0]) == ("NEW", "DELIVERED") and int(first[1]) < int(second[1])
    (latest,) = rows(stack, "SELECT changed_in::text FROM orders WHERE order_id = 9000001")
    assert int(latest[0]) > int(second[1])


def test_bookmarks_miss_no_transaction_that_commits_late(stack: Stack) -> None:
    """A reader that goes by `changed_in` sees each row once, whatever is under way while it looks."""
    horizon = "SELECT pg_snapshot_xmin(pg_current_snapshot())::text"
    taken: Counter[int] = Counter()
    with postgres(stack, "shop", "shop_simulator") as late, postgres(stack, "shop", "shop_reader") as reader:
        late.autocommit = False
        late.execute("INSERT INTO orders VALUES (9000002, 1, 1, 1, 'NEW', now(), now())")
        mark = "0"
        for step in range(12):
            if step == 6:
                late.commit()
            row = reader.execute(horizon).fetchone()
            assert row is not None
            upto = str(row[0])
            taken.update(
                id_
                for (id_,) in reader.execute(
                    "SELECT history_id FROM order_history"
                    " WHERE changed_in >= %s::text::xid8 AND changed_in < %s::text::xid8",
                    [mark, upto],
                )
            )
            mark = upto
            time.sleep(0.2)
        found = reader.execute("SELECT history_id FROM order_history WHERE order_id = 9000002").fetchone()
        assert found is not None and taken[found[0]] == 1
        everything = {
            row[0]
            for row in reader.execute(
                "SELECT history_id FROM order_history WHERE changed_in < %s::text::xid8", [mark]
            )
        }
    assert set(taken.values()) == {1} and set(taken) == everything


# -- rights


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO orders VALUES (9000003, 1, 1, 1, 'NEW', now(), now())",
        "UPDATE orders SET amount = 1",
        "DELETE FROM order_history",
        "TRUNCATE branches",
        "CREATE TABLE mine (n int)",
        "UPDATE simulator.progress SET next_order = 1",
        "ALTER TABLE orders DISABLE TRIGGER stamp",
    ],
)
def test_the_reader_cannot_write(stack: Stack, statement: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        rows(stack, statement)


@pytest.mark.parametrize("statement", ["UPDATE order_history SET status = 'NEW'", "TRUNCATE order_history"])
def test_history_is_only_ever_added_to(stack: Stack, statement: str) -> None:
    with pytest.raises(psycopg.errors.RaiseException, match="rows of order_history are only ever added"):
        rows(stack, statement, "shop_simulator")


def test_the_topics_reader_cannot_write_nor_its_writer_read(stack: Stack) -> None:
    from tests.integration.test_kafka import GROUP_REFUSED, TOPIC_REFUSED, received, refused, send

    with refused(TOPIC_REFUSED):
        send(stack, "shop-ingest", "shop-orders", "mine")
    with refused(TOPIC_REFUSED, GROUP_REFUSED), contextlib.suppress(AssertionError):
        received(stack, "shop-simulator", "shop-orders", 1)
        raise KafkaException("it read an event")


def attempt(work: Callable[[], Any]) -> bool:
    """Whether the store let it happen."""
    try:
        work()
    except S3Error as error:
        if error.code != "AccessDenied":
            raise
        return False
    return True


@pytest.mark.parametrize("user", sorted(PIPELINE_USERS))
def test_each_pipeline_reaches_its_own_buckets_alone(stack: Stack, user: str) -> None:
    client, root = object_store(stack, user), object_store(stack, "root")
    done = {}
    for bucket in BUCKETS:
        root.put_object(bucket, "probe/there", io.BytesIO(b"x"), 1)
        reads = attempt(lambda: client.stat_object(bucket, "probe/there"))  # noqa: B023
        writes = attempt(lambda: client.put_object(bucket, "probe/mine", io.BytesIO(b"x"), 1))  # noqa: B023
        deletes = attempt(lambda: client.remove_object(bucket, "probe/mine"))  # noqa: B023
        if reads or writes or deletes:
            done[bucket] = {
                (True, False, False): "read-only",
                (True, True, True): "read-write",
                (False, True, False): "write-only",
            }[reads, writes, deletes]
        for key in ("probe/there", "probe/mine"):
            root.remove_object(bucket, key)
    assert done == PIPELINE_USERS[user]


# -- files


def test_raw_files_are_there(stack: Stack) -> None:
    client = object_store(stack, "demo-bronze")
    found = {
        entry.object_name: client.get_object("raw", str(entry.object_name)).read().decode().splitlines()
        for entry in client.list_objects("raw", prefix="flights/", recursive=True)
    }
    months = [f"2013-{month:02}" for month in range(1, 13)]
    assert set(found) == {
        *(f"flights/flights/{month}.csv" for month in months),
        *(f"flights/weather/{month}.jsonl" for month in months),
        *(f"flights/{name}/{name}.csv" for name in ("airlines", "airports", "planes")),
    }
    flights = [found[f"flights/flights/{month}.csv"] for month in months]
    assert sum(len(lines) - 1 for lines in flights) == 336_776
    assert {lines[0] for lines in flights} == {flights[0][0]}
    assert all(line.startswith("2013,2,") for line in flights[1][1:])
    weather = [json.loads(line) for month in months for line in found[f"flights/weather/{month}.jsonl"]]
    assert len(weather) == 26_115 and {row["origin"] for row in weather} == {"EWR", "JFK", "LGA"}
    assert len(found["flights/airlines/airlines.csv"]) == 17


def test_other_settings_change_what_they_say_and_no_file(stack: Stack) -> None:
    root = object_store(stack, "root")
    mine = b"carrier,name\nXX,Mine\n"
    key = "flights/airlines/airlines.csv"

    def objects() -> dict[str, tuple[str, datetime]]:
        listed = root.list_objects("raw", prefix="flights/", recursive=True)
        return {str(e.object_name): (str(e.etag), e.last_modified or EVER) for e in listed}

    root.put_object("raw", key, io.BytesIO(mine), len(mine))
    root.remove_object("raw", "flights/planes/planes.csv")
    before = objects()
    # Far enough away not to be reached before `up` is through.
    last = number(stack, "SELECT next_order FROM simulator.progress") + 4000
    more = {"seed": SEED + 1, "orders_per_minute": 6000, "orders": last, "cpus": 0.6}
    with stack.changed(demo={**stack.config["demo"], **more}):
        output = stack.up().output
        assert f"s3://raw/{key} is not of the demo and stays as it is" in output
        after = objects()
        assert after.pop("flights/planes/planes.csv")
        assert after == before
        assert root.get_object("raw", key).read() == mine
        stack.no_change()
    wait_until(lambda: len(history(stack)) == 3 * last)
    # Orders from there on are of the other seed; those before are what they were.
    (_, (first, seed)) = rows(stack, "SELECT first_order, seed FROM simulator.eras ORDER BY 1")
    assert seed == SEED + 1 and first < last
    assert newest(stack) == last
    expect_exact(stack, [Era(1, SEED), Era(first, seed)])


def test_at_rest_it_sees_to_it_that_its_servers_are_there(stack: Stack) -> None:
    simulator = stack.container("demo-shop-simulator")
    probe = simulator.attrs["Config"]["Healthcheck"]["Test"][1:]
    wait_until(lambda: simulator.exec_run(probe).exit_code == 0)

    def silent() -> bool:
        """Without the signs there were, and before the next ones come, as they do every ten seconds."""
        forget = ["sh", "-c", 'rm -f /tmp/shop-simulator/* && exec "$@"', "sh", *probe]
        code, text = simulator.exec_run(forget)
        parts = (b"writer: Postgres", b"publisher: Kafka")
        return code == 1 and all(part + b" took nothing from it yet" in text for part in parts)

    assert wait_until(silent)
    wait_until(lambda: simulator.exec_run(probe).exit_code == 0)
