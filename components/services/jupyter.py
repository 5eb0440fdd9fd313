"""Jupyter: notebooks on the cluster, with clients of every service that is on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pulumi

from components.connection import Connection
from components.delta_sharing_settings import ShareAccess
from components.jupyter_settings import JupyterSettings, examples, problems
from components.kafka_settings import KafkaConnection
from components.object_store_connection import StoreConnection
from components.problems import Problem
from components.service import Demand, Need, Service, tls_files
from components.settings import Settings
from components.spark_settings import SparkCluster, SparkConnection, s3a_properties
from components.templates import render
from components.workload import Endpoint, File, Group, Probe, Route, Scheme, Volume, Workload

_PORT = 8888
_UID = 1000
_CONFIG = "/etc/millrace/jupyter"
_FOLDER = "/run/millrace/jupyter"
_LAB_SETTINGS = "/etc/jupyter/labconfig/default_setting_overrides.json"
"""Where JupyterLab takes defaults for its users' settings from, in the built and in the official image."""
_SPARK_CONF = "/run/millrace/spark/conf"
_HOME = "/var/lib/millrace/jupyter"
_PROXY = "proxy"
"""Credential that the proxy shows, so that nobody else can say who is there."""


class Jupyter(Service):
    """JupyterLab with PySpark on the cluster, and clients of the platform's services ready to use.

    All users work on the same files, with the rights of the service: its own users of the other services.
    """

    key = "jupyter"
    settings_model = JupyterSettings
    settings: JupyterSettings

    @classmethod
    def needs(cls, settings: JupyterSettings, platform: Settings) -> Iterable[Need]:
        """Every service it has a client of, where it is on."""
        return settings.needs(platform)

    @classmethod
    def credentials(cls, settings: JupyterSettings, demands: Sequence[Demand]) -> Iterable[str]:
        """The secret between the proxy and the server."""
        return [_PROXY]

    @classmethod
    def calls_out(cls, settings: JupyterSettings, platform: Settings) -> bool:
        """Notebooks do, if the settings say so."""
        return settings.internet

    @classmethod
    def check(
        cls, settings: JupyterSettings, demands: Sequence[Demand], platform: Settings
    ) -> Iterable[Problem]:
        """See :func:`components.jupyter_settings.problems`."""
        return problems(settings, platform)

    def build(self) -> None:
        """One container."""
        self.deploy(self._server())

    def connections(self) -> Mapping[str, Any]:
        """Where the server is inside the platform and outside, and what it connects to."""
        return {
            "url": f"https://{self.hostname}:{_PORT}",
            "public_url": self.public_url(),
            "services": sorted(self._connections()),
        }

    # -- parts

    def _server(self) -> Workload:
        proxy = self.credential(_PROXY).password
        route = Route(
            host=self.hostname,
            access=self.settings.access,
            title="Jupyter",
            purpose="Notebooks with Spark, SQL and Python",
            group=Group.ANALYTICS,
            body_limit_mib=256,
            headers={"X-Millrace-Proxy": proxy},
        )
        scripts = ("start.sh", "probe.py", "jupyter_server_config.py")
        return Workload(
            name=self.key,
            image="jupyter",
            command=("sh", f"{_CONFIG}/start.sh"),
            user=_UID,
            files=(
                *tls_files(self.certificate(), self.trusted),
                *(File(path=f"{_CONFIG}/{name}", content=render(f"jupyter/{name}")) for name in scripts),
                *(
                    File(path=f"{_CONFIG}/lib/{name}", content=render(f"jupyter/{name}"))
                    for name in ("millrace.py", "spark_share.py")
                ),
                File(path=_LAB_SETTINGS, content=render("jupyter/lab_settings.json")),
                File(path=f"{_FOLDER}/proxy", content=proxy, secret=True),
                File(path=f"{_FOLDER}/connections.json", content=self._connections_file(), secret=True),
                *(
                    File(path=f"{_CONFIG}/examples/{name}", content=text)
                    for name, text in examples(self.settings).items()
                ),
                *self._spark_files(),
            ),
            volumes=(Volume(name="home", path=_HOME),),
            endpoints=(Endpoint(name="https", port=_PORT, scheme=Scheme.HTTPS, route=route),),
            # Whichever Python the image has; both know `python3`.
            probe=Probe(command=("python3", f"{_CONFIG}/probe.py")),
            limits=self.settings.limits,
            egress=self.settings.internet,
        )

    def _spark_files(self) -> tuple[File, ...]:
        """Configuration of the notebooks' drivers."""
        spark = self._connect("spark", SparkCluster())
        if not isinstance(spark, SparkConnection):
            return ()
        java = pulumi.Output.concat(
            # Java unpacks native libraries before it loads them, which /tmp doesn't allow.
            spark.defaults["spark.driver.extraJavaOptions"], f" -Djava.io.tmpdir={_HOME}/tmp"
        )  # fmt: skip
        own: dict[str, pulumi.Input[str]] = {
            "spark.driver.memory": f"{self.settings.driver_memory_mib}m",
            "spark.driver.extraJavaOptions": java,
            "spark.local.dir": f"{_HOME}/tmp",
        }
        store = self._store()
        # Spark needs the object store itself, so that is there.
        assert store is not None
        own |= s3a_properties(store) | {"spark.sql.warehouse.dir": f"s3a://{store.path}/warehouse"}
        return (
            File(path=f"{_SPARK_CONF}/spark-defaults.conf", content=spark.defaults_file(own), secret=True),
            File(path=f"{_CONFIG}/truststore.sh", content=render("spark/truststore.sh")),
        )

    def _connections_file(self) -> pulumi.Output[str]:
        return pulumi.Output.secret(
            pulumi.Output.from_input(self._connections()).apply(lambda a: json.dumps(a, indent=2) + "\n")
        )

    def _connections(self) -> dict[str, dict[str, Any]]:
        """What the helper module reads: one entry for each service that is on."""
        out: dict[str, dict[str, Any]] = {}
        if spark := self._connect("spark", SparkCluster()):
            out["spark"] = {"host": spark.host, "port": spark.port}
        if store := self._store():
            out["object_store"] = {
                "endpoint": store.endpoint,
                "access_key": store.user,
                "secret_key": store.password,
                "bucket": store.path,
                "region": store.region,
                "ca": store.ca_path,
                "client_config": store.client_config,
            }
        databases = self.settings.databases(self.context.platform.settings)
        if databases and (postgres := self._connect("postgres", databases[0])):
            out["postgres"] = {**_login(postgres), "databases": [access.database for access in databases]}
        if presto := self._connect("presto", self.settings.queries):
            out["presto"] = {**_login(presto), "scheme": presto.scheme}
        kafka = self._connect("kafka", self.settings.topics)
        if isinstance(kafka, KafkaConnection):
            out["kafka"] = {
                "bootstrap": kafka.bootstrap,
                "user": kafka.user,
                "password": kafka.password,
                "group": kafka.group,
                "security_protocol": kafka.security_protocol,
                "sasl_mechanism": kafka.sasl_mechanism,
            }
        if sharing := self._connect("delta_sharing", ShareAccess()):
            endpoint = pulumi.Output.all(sharing.host, sharing.port).apply(
                lambda a: f"https://{a[0]}:{a[1]}/{sharing.path}"
            )
            out["delta_sharing"] = {"endpoint": endpoint, "password": sharing.password}
        return out

    def _store(self) -> StoreConnection | None:
        store = self._connect("object_store", self.settings.lake)
        assert store is None or isinstance(store, StoreConnection)
        return store

    def _connect(self, service: str, request: Any) -> Connection | None:
        """The connection to a service, or None when it is off."""
        platform = self.context.platform
        if service not in platform.settings.services:
            return None
        return platform.connect(self.key, service, request)


def _login(connection: Connection) -> dict[str, Any]:
    return {
        "host": connection.host,
        "port": connection.port,
        "user": connection.user,
        "password": connection.password,
    }
