"""A stack with the demo, as its tests use it: sources, runs, faults."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Container as Container_
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition
from docker.models.containers import Container

from scripts.dag_runs import Airflow, Run, failure, follow, ready
from scripts.demo import DAGS
from scripts.https import Site, trusting
from tests.e2e.checkout import Checkout
from tests.integration import clients
from tests.integration.stack import wait_until
from tests.integration.web import Web

COPIES = 20
"""Of how many messages copies are sent."""

Reports = dict[str, dict[str, Any]]
"""Reports of jobs by their names."""


class Demo:
    """Everything below is done the way a user, or the fate, does it."""

    def __init__(self, stack: Checkout) -> None:
        self.stack = stack
        outputs = stack.outputs_once
        self.own = outputs["connections"]["demo"]
        url = str(outputs["connections"]["airflow"]["public_url"])
        engineer = ("engineer", Web(stack).password("engineer"))
        self.airflow = Airflow(Site(url, trusting(outputs["ca_certificate"]), *engineer))
        self.runs: dict[str, Run] = {}
        """The latest run of each DAG."""

    # -- runs

    def command(self) -> str:
        """What `make demo` printed."""
        printed = self.stack.make("demo")
        for dag in DAGS:
            newest = self.airflow.get(f"/dags/{dag}/dagRuns?order_by=-run_after&limit=1")["dag_runs"][0]
            self.runs[dag] = Run(dag, newest["dag_run_id"])
        return printed

    def run(self, *dags: str) -> None:
        """Run these DAGs to success."""
        for dag in dags:
            ready(self.airflow, dag)
            self.runs[dag] = self.airflow.start(dag)
        states = follow(self.airflow, [self.runs[dag] for dag in dags])
        for run, state in states.items():
            assert state == "success", failure(self.airflow, run)

    def last_reports(self) -> Reports:
        """What the jobs of the latest runs of both pipelines reported, by job."""
        found = {}
        for dag, run in self.runs.items():
            for layer, bucket in (("bronze", "bronze"), ("silver", "silver"), ("gold", "lake")):
                job = f"{layer}_{dag.removeprefix('demo_')}"
                if dag in DAGS:
                    folder = re.sub(r"[^A-Za-z0-9_.-]", "-", run.id)
                    found[job] = json.loads(self.get(bucket, f"_reports/{folder}/{job}.json"))
        return found

    def wait_for(self, bucket: str, prefix: str) -> None:
        """Until there is an object."""
        store = clients.object_store(self.stack, "root")
        wait_until(lambda: list(store.list_objects(bucket, prefix)), seconds=900, every=0.5)

    def wait_for_reader(self) -> None:
        """Until Spark reads from the shop's database."""
        sql = "SELECT 1 AS one FROM pg_stat_activity WHERE usename = 'shop_reader'"
        wait_until(lambda: self.admin(sql), seconds=900, every=0.1)

    # -- sources

    @property
    def simulator(self) -> Container:
        """Its container."""
        return self.stack.container(self.own["simulator"])

    def admin(self, sql: str) -> list[dict[str, Any]]:
        """Rows of a query as the database's administrator, who has no password but psql in the container."""
        whole = f"SELECT coalesce(json_agg(r), '[]') FROM ({sql}) r"
        command = ["psql", "-X", "-qAt", "-U", "postgres", "-d", self.own["database"], "-c", whole]
        code, output = self.stack.container("postgres").exec_run(command)
        assert code == 0, output
        return list(json.loads(output, parse_float=Decimal))

    def count(self, table: str) -> int:
        """How many rows a table of the shop has."""
        return int(self.admin(f"SELECT count(*) AS n FROM {table}")[0]["n"])

    def publish(self, messages: Sequence[tuple[bytes, bytes]]) -> None:
        """Messages as the simulator's own user sends them."""
        producer = Producer(clients.kafka(self.stack, "shop-simulator"))
        for key, value in messages:
            producer.produce(self.own["topic"], value, key)
        assert producer.flush(60) == 0

    def copies(self) -> list[tuple[bytes, bytes]]:
        """Events that were published before."""
        rows = self.admin(
            "SELECT history_id AS event_id, order_id, branch_id, customer_id, amount, h.status,"
            " changed_at AS occurred_at"
            f" FROM order_history h JOIN orders USING (order_id) ORDER BY 1 LIMIT {COPIES}"
        )
        return [
            (str(row["order_id"]).encode(), json.dumps({**row, "amount": float(row["amount"])}).encode())
            for row in rows
        ]

    def messages(self) -> int:
        """How many messages the topic has."""
        consumer = Consumer(clients.kafka(self.stack, "shop-ingest", group_id="shop-ingest"))
        try:
            topic = self.own["topic"]
            found = consumer.list_topics(topic, timeout=30).topics[topic]
            places = [TopicPartition(topic, number) for number in found.partitions]
            marks = [consumer.get_watermark_offsets(place, timeout=30) for place in places]
        finally:
            consumer.close()
        return sum(high - low for low, high in marks)

    def get(self, bucket: str, key: str) -> bytes:
        """An object."""
        answer = clients.object_store(self.stack, "root").get_object(bucket, key)
        try:
            return answer.read()
        finally:
            answer.close()
            answer.release_conn()

    def put(self, bucket: str, key: str, content: bytes) -> None:
        """An object, as somebody else brings it."""
        clients.object_store(self.stack, "root").put_object(bucket, key, io.BytesIO(content), len(content))

    def download(self, bucket: str, prefix: str, folder: Path, without: Container_[str]) -> None:
        """Objects below a prefix."""
        folder.mkdir(parents=True)
        for entry in clients.object_store(self.stack, "root").list_objects(bucket, prefix, recursive=True):
            key = str(entry.object_name)
            if key not in without:
                (folder / key.rsplit("/", 1)[1]).write_bytes(self.get(bucket, key))

    # -- faults

    @contextmanager
    def meanwhile(self, act: Callable[[], None]) -> Iterator[None]:
        """Do something beside the block; it has to be done when the block ends."""
        errors: list[BaseException] = []

        def guarded() -> None:
            try:
                act()
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=guarded, daemon=True)
        thread.start()
        try:
            yield
        finally:
            thread.join(60)
        if errors:
            raise errors[0]
        assert not thread.is_alive(), "it did not happen in time"

    def crash(self, name: str) -> None:
        """Kill a container's processes as a crash does; Docker starts it again."""
        os.kill(self.stack.container(name).attrs["State"]["Pid"], signal.SIGKILL)
