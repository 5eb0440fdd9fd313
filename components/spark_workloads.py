"""The containers of a Spark cluster: master, workers, history server, and the job that fetches connectors."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pulumi

from components.certificates import Certificate
from components.connection import Secret
from components.images import IMAGES
from components.object_store_connection import StoreConnection
from components.service import tls_files
from components.spark_settings import (
    TRUST_STORE_OPTIONS,
    SparkSettings,
    encoded_key,
    encryption_properties,
    event_logs,
    job_properties,
    properties_text,
    token,
)
from components.templates import CONFIGS
from components.workload import (
    Access,
    Endpoint,
    File,
    Group,
    Job,
    Limits,
    Probe,
    Route,
    Scheme,
    Volume,
    Workload,
)

KEY = "spark"
"""Settings key of the service, and name of the master's workload."""

MASTER_PORT = 7077
REST_PORT = 6066

_UID = 185
_UI_PORT = 8480
_HISTORY_PORT = 18480
_OWN = "/run/millrace/spark"
_SCRATCH = Volume(name="scratch", path="/var/lib/millrace/spark-scratch", data=False)
_RECOVERY = Volume(name="recovery", path="/var/lib/millrace/spark-recovery")
_JARS = "/var/lib/millrace/spark-connectors"
_LOCK = IMAGES / "spark" / "connectors.lock"
_FILTER = "org.apache.spark.ui.JWSFilter"

# Daemons of one container each, which are idle most of the time: a small collector, and the compiler that
# is frugal (master, worker and history server together: 540 MiB, with Java's own choice 755).
_DAEMON_OPTIONS = "-XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=48m -Xss512k"
_WORKER_HEAP_MIB = 128


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """What the containers of one cluster have in common, and a method for each kind of them.

    ``store`` is the connection of the event logs' user, ``secret`` what all parts authenticate with,
    ``tokens`` the key that tokens are signed with, ``url`` and ``history_url`` the public addresses of the
    pages, ``certificate`` makes the one of a host, ``trusted`` are the CAs that servers are verified with.
    ``official`` says that the image is not the built one.
    """

    settings: SparkSettings
    hostname: str
    store: StoreConnection
    secret: Secret
    tokens: Secret
    url: str
    history_url: str
    certificate: Callable[[str], Certificate]
    trusted: pulumi.Input[str]
    official: bool
    maven_mirror: str | None

    @property
    def master_url(self) -> str:
        """Address of the master."""
        return f"spark://{self.hostname}:{MASTER_PORT}"

    def token(self, subject: str) -> Secret:
        """A token for who ``subject`` is."""
        return pulumi.Output.secret(self.tokens.apply(lambda key: token(key, subject)))

    def master(self) -> Workload:
        """The master, and the TLS side of its REST server."""
        return self._workload(
            KEY,
            ("master", "--host", self.hostname, "--port", str(MASTER_PORT), "--webui-port", "8080"),
            heap_mib=self.settings.memory_mib // 2,
            limits=self.settings.limits,
            properties={
                **self._page_properties("standalone"),
                "spark.deploy.recoveryMode": "FILESYSTEM",
                "spark.deploy.recoveryDirectory": _RECOVERY.path,
                # Seconds for known workers and jobs to report to a new master; then they count as lost.
                "spark.deploy.recoveryTimeout": "20s",
                "spark.deploy.defaultCores": str(self.settings.job_cores),
                "spark.master.rest.enabled": "true",
                "spark.master.rest.host": "127.0.0.1",
                "spark.master.rest.port": "6067",
                "spark.master.rest.filters": _FILTER,
                "spark.master.ui.historyServerUrl": self.history_url,
            },
            files=(
                self._script("rest_tls.py"),
                File(path=f"{_OWN}/secret", content=self.secret, secret=True),
            ),
            volumes=(_SCRATCH, _RECOVERY, *((self._jars(),) if self.official else ())),
            endpoints=self._master_endpoints(),
            probe=("master",),
        )

    def _master_endpoints(self) -> tuple[Endpoint, ...]:
        page = Route(
            host="spark",
            access=self.settings.ui_access,
            title="Spark",
            purpose="Cluster, running jobs and their pages",
            group=Group.PROCESSING,
            headers=self._authorization,
        )
        rest = Route(
            host="spark-api",
            access=Access.PUBLIC,
            title="Spark REST",
            purpose="Submit jobs, with a token",
            group=Group.PROCESSING,
            own_login=True,
        )
        return (
            Endpoint(name="rpc", port=MASTER_PORT),
            Endpoint(name="ui", port=_UI_PORT, scheme=Scheme.HTTPS, route=page),
            Endpoint(
                name="rest",
                port=REST_PORT,
                scheme=Scheme.HTTPS,
                route=rest if self.settings.api_route else None,
            ),
        )

    def worker(self, number: int) -> Workload:
        """A worker; the first is number 1."""
        settings = self.settings
        host = f"{self.hostname}-worker-{number}"
        return self._workload(
            f"worker-{number}",
            ("worker", "--host", host, "--webui-port", "8080", self.master_url),
            heap_mib=_WORKER_HEAP_MIB,
            limits=Limits(
                memory_mib=settings.worker_memory_mib, cpus=settings.worker_cores, cpus_key="worker_cores"
            ),
            properties={
                # Drivers in cluster mode run here, and have this file for their own.
                **job_properties(settings, self.store, self.url),
                **self._page_properties("standalone"),
                "spark.master": self.master_url,
                "spark.authenticate.secret": self.secret,
                "spark.worker.cleanup.enabled": "true",
                "spark.worker.cleanup.appDataTtl": "86400",
                # Where the master is asked for, not what its own name means to it.
                "spark.worker.preferConfiguredMasterAddress": "true",
            },
            env={
                "SPARK_WORKER_CORES": str(settings.worker_cores),
                "SPARK_WORKER_MEMORY": f"{settings.executors_memory_mib}m",
                "SPARK_LOCAL_HOSTNAME": host,
            },
            volumes=(_SCRATCH, *self._jars_read()),
            endpoints=(Endpoint(name="ui", port=_UI_PORT, scheme=Scheme.HTTPS),),
            probe=("worker", host),
        )

    def history(self) -> Workload:
        """The history server."""
        page = Route(
            host="spark-history",
            access=self.settings.ui_access,
            title="Spark history",
            purpose="Jobs that ran, from their event logs",
            group=Group.PROCESSING,
            headers=self._authorization,
        )
        store = job_properties(self.settings, self.store, self.url)
        return self._workload(
            "history",
            ("history",),
            heap_mib=self.settings.memory_mib // 2,
            limits=self.settings.limits,
            properties={
                **{name: value for name, value in store.items() if name.startswith("spark.hadoop.")},
                **self._page_properties("historyServer"),
                "spark.history.fs.logDirectory": event_logs(self.store),
                "spark.history.fs.cleaner.enabled": "true",
                "spark.history.fs.cleaner.maxAge": f"{self.settings.history_days}d",
                "spark.history.fs.numReplayThreads": "1",
                "spark.history.retainedApplications": "10",
            },
            volumes=(_SCRATCH, *self._jars_read()),
            endpoints=(Endpoint(name="ui", port=_HISTORY_PORT, scheme=Scheme.HTTPS, route=page),),
            probe=("history",),
        )

    def _workload(
        self,
        name: str,
        arguments: tuple[str, ...],
        *,
        heap_mib: int,
        limits: Limits,
        properties: Mapping[str, pulumi.Input[str]],
        volumes: tuple[Volume, ...],
        endpoints: tuple[Endpoint, ...],
        probe: tuple[str, ...],
        files: tuple[File, ...] = (),
        env: Mapping[str, pulumi.Input[str]] | None = None,
    ) -> Workload:
        host = self.hostname if name == KEY else f"{self.hostname}-{name}"
        certificate = self.certificate(host)
        return Workload(
            name=name,
            image="spark",
            command=("bash", f"{_OWN}/start.sh", *arguments),
            user=_UID,
            env={
                "SPARK_HOME": "/opt/spark",
                "PYSPARK_PYTHON": "/usr/bin/python3",
                "SPARK_DAEMON_MEMORY": f"{heap_mib}m",
                "SPARK_DAEMON_JAVA_OPTS": _DAEMON_OPTIONS,
                "TRUST_STORE_OPTIONS": TRUST_STORE_OPTIONS,
                **({"SPARK_DIST_CLASSPATH": f"{_JARS}/{_lock_id()}/*"} if self.official else {}),
                **(env or {}),
            },
            files=(
                *tls_files(certificate, self.trusted),
                self._script("start.sh"),
                self._script("truststore.sh"),
                self._script("probe.py"),
                File(
                    path=f"{_OWN}/spark-defaults.conf",
                    content=properties_text({**encryption_properties(), **properties}),
                    secret=True,
                ),
                File(path=f"{_OWN}/token", content=self.token("probe"), secret=True),
                *files,
            ),
            volumes=volumes,
            endpoints=endpoints,
            probe=Probe(command=("python3", f"{_OWN}/probe.py", *probe)),
            limits=limits,
            binds_own_name=True,
        )

    def _page_properties(self, namespace: str) -> dict[str, pulumi.Input[str]]:
        """Web pages over TLS for who has a token."""
        port = _HISTORY_PORT if namespace == "historyServer" else _UI_PORT
        return {
            f"spark.ssl.{namespace}.enabled": "true",
            f"spark.ssl.{namespace}.port": str(port),
            f"spark.ssl.{namespace}.protocol": "TLS",
            f"spark.ssl.{namespace}.keyStore": "/tmp/spark/server.p12",
            f"spark.ssl.{namespace}.keyStoreType": "PKCS12",
            # The proxy passes the name on that browsers use, and the certificate has another.
            "spark.ui.jetty.sniHostCheckEnabled": "false",
            "spark.ui.filters": _FILTER,
            f"spark.{_FILTER}.param.secretKey": self.tokens.apply(encoded_key),
            "spark.ui.reverseProxy": "true" if namespace == "standalone" else "false",
            "spark.ui.reverseProxyUrl": self.url,
            "spark.ui.killEnabled": "false",
        }

    # -- connectors, where the image is the official one

    def connectors(self) -> Job:
        """Downloads the connectors, which the official image lacks, into a volume of the master."""
        mirror = self.maven_mirror
        return Job(
            name="connectors",
            image="spark",
            command=("python3", f"{_OWN}/maven-get", f"{_OWN}/connectors.lock", f"{_JARS}/{_lock_id()}"),
            user=_UID,
            env={"MAVEN_CACHE": f"{_JARS}/cache", **({"MAVEN_MIRROR": mirror} if mirror else {})},
            files=(
                File(path=f"{_OWN}/maven-get", content=(IMAGES / "fetch" / "maven-get").read_text()),
                File(path=f"{_OWN}/connectors.lock", content=_LOCK.read_text()),
            ),
            volumes=(self._jars(of=self.hostname),),
            limits=Limits(memory_mib=256, cpus=self.settings.cpus),
            timeout_s=600,
            egress=True,
        )

    def _jars(self, *, of: str | None = None, read_only: bool = False) -> Volume:
        return Volume(name="connectors", path=_JARS, data=False, of=of, read_only=read_only)

    def _jars_read(self) -> tuple[Volume, ...]:
        return (self._jars(of=self.hostname, read_only=True),) if self.official else ()

    @property
    def _authorization(self) -> dict[str, pulumi.Input[str]]:
        return {"Authorization": pulumi.Output.concat("Bearer ", self.token("proxy"))}

    def _script(self, name: str) -> File:
        return File(path=f"{_OWN}/{name}", content=(CONFIGS / "spark" / name).read_text())


def _lock_id() -> str:
    """Another lock gets another folder: two versions of a connector must not meet."""
    return hashlib.sha256(Path(_LOCK).read_bytes()).hexdigest()[:12]
