"""The simulator: one thread writes orders to Postgres, another publishes what the history shows to Kafka.

Each goes on when the other can't. What is published is taken from the history alone, so an order that was
never committed is never an event, and each row is one at least once.
"""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
from confluent_kafka import KafkaException, Producer

from sources import heartbeat, shop
from sources.orders import GAP_S, Course

PLAN, DATABASE, BROKER = (
    Path(path)
    for path in (
        "/etc/millrace/demo/plan.json",
        "/run/millrace/demo/database",
        "/run/millrace/demo/kafka.json",
    )
)

_TICK_S = 0.25
_BATCH = 500
_PUBLISHED_AT_ONCE = 2000
_DELIVERY_S = 30
_ASK_AFTER_S = 10
"""How long a part that has nothing to do leaves it at that, before it asks its server for a sign of life."""


class Simulator:
    """Both threads, until :meth:`stop`."""

    def __init__(self, plan: dict[str, Any], database: str, broker: dict[str, str]) -> None:
        self._plan = plan
        self._database = database
        self._broker = broker
        self._stopped = threading.Event()
        self._failure: BaseException | None = None

    def run(self) -> None:
        """Run until it is stopped.

        Raises:
            Exception: whatever a thread could not go on after; a lost connection is not of that kind.
        """
        threads = [
            threading.Thread(target=self._keep, args=("writer", self._write)),
            threading.Thread(target=self._keep, args=("publisher", self._publish)),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self._failure is not None:
            raise self._failure

    def stop(self, *_: object) -> None:
        """Let both end what they are at."""
        self._stopped.set()

    def _keep(self, name: str, work: Callable[[shop.Connection], None]) -> None:
        """Do the work, again with a new connection whenever one is lost."""
        pause = 1.0
        while not self._stopped.is_set():
            began = time.monotonic()
            try:
                with shop.connect(self._database) as connection:
                    work(connection)
            except (psycopg.OperationalError, psycopg.InterfaceError, KafkaException, TimeoutError) as error:
                pause = 1.0 if time.monotonic() - began > 60 else min(pause * 2, 15.0)
                print(f"{name}: {' '.join(str(error).split())}; again in {pause:.0f} s", flush=True)
                self._stopped.wait(pause)
            except BaseException as error:
                self._failure = error
                self._stopped.set()

    # -- orders

    def _write(self, connection: shop.Connection) -> None:
        shop.prepare(connection)
        course, clock = shop.resume(connection, self._plan["seed"], self._plan["orders"])
        print(f"writer: from order {course.next_order}, {clock:%Y-%m-%d %H:%M} in the shop", flush=True)
        self._stock(connection, course)
        speed = GAP_S * self._plan["orders_per_minute"] / 60
        began, clock = time.monotonic(), self._clock(connection)
        asked = float("-inf")
        while not self._stopped.is_set():
            now = time.monotonic()
            if changes := course.take(clock + timedelta(seconds=(now - began) * speed), _BATCH):
                shop.write(connection, course, changes)
            elif now - asked > _ASK_AFTER_S:
                connection.execute("SELECT 1")
                asked = now
            else:
                self._stopped.wait(_TICK_S)
                continue
            heartbeat.beat("writer")
            if len(changes) < _BATCH:
                self._stopped.wait(_TICK_S)

    def _stock(self, connection: shop.Connection, course: Course) -> None:
        """The orders that there are from the start, as fast as the database takes them."""
        first = min(self._plan["initial_orders"], self._plan["orders"])
        while not self._stopped.is_set() and course.next_order <= first:
            until = course.order(first).times[0]
            shop.write(connection, course, course.take(until, _BATCH))

    def _clock(self, connection: shop.Connection) -> datetime:
        found = connection.execute("SELECT clock FROM simulator.progress").fetchone()
        assert found is not None
        clock = found[0]
        assert isinstance(clock, datetime)
        return clock

    # -- events

    def _publish(self, connection: shop.Connection) -> None:
        connection.execute("SET time zone 'UTC'")
        producer = Producer(
            {
                **self._broker,
                "client.id": "shop-simulator",
                # The order of an order's events survives retries.
                "enable.idempotence": True,
                "linger.ms": 20,
                "message.timeout.ms": _DELIVERY_S * 1000,
                "log_level": 2,
            }
        )
        topic = self._plan["topic"]
        asked = float("-inf")
        while not self._stopped.is_set():
            try:
                events = shop.pending(connection, topic, _PUBLISHED_AT_ONCE)
            except psycopg.errors.UndefinedTable:
                # The writer is about to make them.
                self._stopped.wait(_TICK_S)
                continue
            if events:
                send(producer, topic, events)
                shop.published(connection, topic, events[-1].position)
            elif time.monotonic() - asked > _ASK_AFTER_S:
                producer.list_topics(topic, timeout=10)
                asked = time.monotonic()
            else:
                self._stopped.wait(_TICK_S)
                continue
            heartbeat.beat("publisher")


def send(producer: Producer, topic: str, events: list[shop.Event]) -> None:
    """Publish events and wait until the brokers have them all.

    Raises:
        KafkaException: when they don't; some of them may be there all the same.
    """
    failed: list[Any] = []

    def delivered(error: Any, _: Any) -> None:
        if error is not None:
            failed.append(error)

    for event in events:
        while True:
            try:
                producer.produce(topic, key=str(event.order_id), value=message(event), on_delivery=delivered)
                break
            except BufferError:
                producer.poll(0.1)
    left = producer.flush(_DELIVERY_S + 5)
    if failed or left:
        # What is still on the way must not arrive after what the next attempt sends.
        producer.purge()
        producer.flush(5)
        raise KafkaException(failed[0]) if failed else TimeoutError(f"{left} events are not delivered")


def message(event: shop.Event) -> bytes:
    """An event as its readers find it. The amount is a number with two digits, whatever their language."""
    head = {
        "event_id": event.position[1],
        "order_id": event.order_id,
        "branch_id": event.branch_id,
        "customer_id": event.customer_id,
    }
    tail = {"status": event.status, "occurred_at": f"{event.occurred_at:%Y-%m-%dT%H:%M:%SZ}"}
    return f'{json.dumps(head)[:-1]}, "amount": {event.amount}, {json.dumps(tail)[1:]}'.encode()


def main() -> None:
    """Simulate until SIGTERM."""
    simulator = Simulator(
        json.loads(PLAN.read_text(encoding="utf-8")),
        DATABASE.read_text(encoding="utf-8").strip(),
        json.loads(BROKER.read_text(encoding="utf-8")),
    )
    signal.signal(signal.SIGTERM, simulator.stop)
    signal.signal(signal.SIGINT, simulator.stop)
    simulator.run()
