"""The demo: a simulated shop, raw files of real flights, and pipelines that refine both."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pulumi

from components import folders
from components.connection import Connection
from components.demo_settings import (
    JOBS,
    JOBS_FOLDER,
    PUBLISHER,
    RAW,
    SEEDER,
    TOPIC,
    DemoSettings,
    is_job,
    problems,
)
from components.kafka_settings import KafkaConnection
from components.problems import Problem
from components.service import Demand, Login, Need, Service, ca_file, dns_name
from components.settings import Settings
from components.workload import File, Job, Limits, Probe, Workload

_RUN = "/run/millrace/demo"
_ETC = "/etc/millrace/demo"
_PYTHON = "/opt/demo/bin/python"
_UID = 65534
_SIMULATOR = "shop_simulator"


class Demo(Service):
    """The demo: a simulated shop, raw files of real flights, and pipelines that refine both.

    All it needs of other services are settings of theirs, which :mod:`components.demo_settings` adds. What it
    runs itself are the sources: the simulator, and a job that puts files into the object store.
    """

    key = "demo"
    settings_model = DemoSettings
    settings: DemoSettings

    @classmethod
    def needs(cls, settings: DemoSettings, platform: Settings) -> Iterable[Need]:
        """The users of the simulator and the seeder."""
        yield Need(service="kafka", request=Login(user=PUBLISHER))
        yield Need(service="object_store", request=Login(user=SEEDER))
        yield Need(service="postgres", request=settings.simulator_login)

    @classmethod
    def routed(cls, settings: DemoSettings, platform: Settings) -> bool:
        """It has no page."""
        return False

    @classmethod
    def check(
        cls, settings: DemoSettings, demands: Sequence[Demand], platform: Settings
    ) -> Iterable[Problem]:
        """See :func:`components.demo_settings.problems`."""
        return problems(settings, platform)

    def build(self) -> None:
        """Simulator and seeder."""
        self._shop = self._connect("postgres", self.settings.simulator_login)
        kafka = self._connect("kafka", Login(user=PUBLISHER))
        assert isinstance(kafka, KafkaConnection)
        self._kafka = kafka
        self._store = self.context.platform.store(self.key, Login(user=SEEDER))
        links = [link for link in self.context.links if link[1] in ("kafka", "postgres")]
        self.deploy(self._simulator(), links=links)
        self.run(self._seed())

    def connections(self) -> Mapping[str, Any]:
        """Where the sources are."""
        return {
            "database": self.settings.database,
            "topic": TOPIC,
            "files": f"s3://{self._store.buckets[RAW]}/flights/",
            "simulator": f"{dns_name(self.key)}-{dns_name(_SIMULATOR)}",
        }

    # -- parts

    def _connect(self, service: str, login: Login) -> Connection:
        return self.context.platform.connect(self.key, service, login)

    def _simulator(self) -> Workload:
        settings = self.settings
        plan = {
            "seed": settings.seed,
            "orders": settings.orders,
            "initial_orders": settings.initial_orders,
            "orders_per_minute": settings.orders_per_minute,
            "topic": TOPIC,
        }
        ca = ca_file(self.trusted)
        broker = self._kafka.librdkafka(ca.path)
        return Workload(
            name=_SIMULATOR,
            image="demo",
            command=(_PYTHON, "-m", "sources", "simulate"),
            user=_UID,
            env={"PGSSLROOTCERT": ca.path},
            files=(
                ca,
                File(path=f"{_ETC}/plan.json", content=json.dumps(plan, indent=1) + "\n"),
                File(path=f"{_RUN}/database", content=self._shop.uri, secret=True),
                File(path=f"{_RUN}/kafka.json", content=_json(broker), secret=True),
            ),
            probe=Probe(command=(_PYTHON, "-m", "sources", "probe")),
            limits=settings.limits,
        )

    def _seed(self) -> Job:
        store = self._store
        access = {
            "endpoint": store.endpoint.removeprefix("https://"),
            "region": store.region,
            "ca": store.ca_path,
            "raw": store.buckets[RAW],
            "access_key": store.user,
            "secret_key": store.password,
        }
        plan = {}
        if self.settings.pipelines:
            plan[f"{store.buckets[JOBS]}/{self.key}"] = folders.texts([JOBS_FOLDER], is_job)
        return Job(
            name="seed",
            image="demo",
            command=(_PYTHON, "-m", "sources", "seed"),
            user=_UID,
            files=(
                ca_file(self.trusted),
                File(path=f"{_ETC}/seed.json", content=json.dumps(plan, indent=0, sort_keys=True) + "\n"),
                File(path=f"{_RUN}/object-store.json", content=_json(access), secret=True),
            ),
            limits=Limits(memory_mib=128, cpus=self.settings.cpus),
            timeout_s=300,
        )


def _json(values: Mapping[str, Any]) -> pulumi.Output[str]:
    return pulumi.Output.secret(
        pulumi.Output.from_input(dict(values)).apply(lambda found: json.dumps(found, indent=1) + "\n")
    )
