"""Spark: a standalone cluster with REST submission, and a history server on the object store."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from components.certificates import Certificate
from components.problems import Problem
from components.service import Demand, Need, Service, dns_name
from components.settings import ImageSource, Settings
from components.spark_settings import (
    EVENTS,
    TRUST_STORE_OPTIONS,
    SparkConnection,
    SparkSettings,
    event_logs,
    job_properties,
    problems,
)
from components.spark_workloads import KEY, MASTER_PORT, REST_PORT, Cluster

# What jobs may read from, where it is on.
_LINKED = ("kafka", "postgres")


class Spark(Service):
    """Spark cluster: standalone master, workers, REST submission and history server.

    All parts know one authentication secret and encrypt what they say to each other with it. Web pages and
    REST server ask for a token that the proxy adds after its own check of who is there.
    """

    key = KEY
    settings_model = SparkSettings
    settings: SparkSettings

    @classmethod
    def needs(cls, settings: SparkSettings, platform: Settings) -> Iterable[Need]:
        """The bucket of event logs; jobs may read from Postgres and Kafka."""
        yield Need(service="object_store", request=EVENTS)
        for name in _LINKED:
            yield Need(service=name, optional=True, wait=False)

    @classmethod
    def credentials(cls, settings: SparkSettings, demands: Sequence[Demand]) -> Iterable[str]:
        """The secret of all parts, and the key that tokens are signed with."""
        return ["secret", "tokens"]

    @classmethod
    def calls_out(cls, settings: SparkSettings, platform: Settings) -> bool:
        """To download connectors, which the official image lacks."""
        return _official(settings, platform)

    @classmethod
    def check(
        cls, settings: SparkSettings, demands: Sequence[Demand], platform: Settings
    ) -> Iterable[Problem]:
        """See :func:`components.spark_settings.problems`."""
        return problems(settings)

    def build(self) -> None:
        """Master, workers, history server."""
        platform = self.context.platform.settings
        self._cluster = cluster = Cluster(
            settings=self.settings,
            hostname=self.hostname,
            store=self.context.platform.store(self.key, EVENTS),
            secret=self.credential("secret").password,
            tokens=self.credential("tokens").password,
            url=self.public_url("spark"),
            history_url=self.public_url("spark-history"),
            certificate=self._certificate,
            trusted=self.trusted,
            official=_official(self.settings, platform),
            maven_mirror=platform.package_mirrors.maven,
        )
        master = self.deploy(cluster.master())
        ready = list(master.ready)
        if cluster.official:
            ready.append(self.run(cluster.connectors(), after=ready))
        for number in range(1, self.settings.workers + 1):
            self.deploy(cluster.worker(number), after=ready)
        self.deploy(cluster.history(), after=ready)

    def connect(self, demand: Demand) -> SparkConnection:
        """The cluster for a consumer's drivers."""
        cluster = self._cluster
        return SparkConnection(
            scheme="spark",
            host=self.hostname,
            port=MASTER_PORT,
            user=demand.consumer,
            password=cluster.secret,
            ca_certificate=self.context.platform.authority.certificate,
            defaults={
                **job_properties(self.settings, cluster.store, cluster.url),
                "spark.master": cluster.master_url,
                "spark.authenticate.secret": cluster.secret,
                "spark.driver.host": dns_name(demand.consumer),
                "spark.driver.extraJavaOptions": TRUST_STORE_OPTIONS,
            },
            rest_url=f"https://{self.hostname}:{REST_PORT}",
            rest_token=cluster.token(demand.consumer),
        )

    def connections(self) -> Mapping[str, Any]:
        """Addresses of the cluster, and a token for submissions from outside."""
        out: dict[str, Any] = {
            "master": self._cluster.master_url,
            "secret": self._cluster.secret,
            "rest": f"https://{self.hostname}:{REST_PORT}",
            "rest_token": self._cluster.token("stack"),
            "event_logs": event_logs(self._cluster.store),
        }
        if self.settings.api_route:
            out["public_rest"] = self.public_url("spark-api")
        return out

    def _certificate(self, host: str) -> Certificate:
        return self.certificate(
            "server" if host == self.hostname else host.removeprefix(f"{self.hostname}-"), names=[host]
        )


def _official(settings: SparkSettings, platform: Settings) -> bool:
    """Whether it runs an image that is not built here."""
    return (settings.images or platform.images) is ImageSource.UPSTREAM or settings.image is not None
