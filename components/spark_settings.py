"""Settings of Spark, what services may request of it, and the configuration that drivers share."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated

import pulumi
from pydantic import Field

from components.connection import Connection, Secret
from components.object_store_connection import StoreConnection
from components.object_store_settings import Bucket
from components.problems import Problem
from components.settings import ServiceSettings
from components.settings_types import Cpus, Int, MiB
from components.workload import Access

EVENTS = Bucket(name="spark-events")
"""Where all jobs write their event logs. Its user is Spark's own and reaches no other bucket."""

TRUST_STORE = "/tmp/truststore.p12"
"""Java trust store with the platform's CA, which ``configs/spark/truststore.sh`` makes."""

TRUST_STORE_OPTIONS = (
    # Java insists on a password for what holds public certificates; this one stands in its documentation.
    f"-Djavax.net.ssl.trustStore={TRUST_STORE} -Djavax.net.ssl.trustStorePassword=changeit"
)

_DAEMON_MIB = 320
"""What a worker's container needs besides executors: the daemon (measured: 140 MiB) and a reserve."""

_EXECUTOR_SHARE = 0.7
"""Part of the rest that executors get as heap. They need more than their heap: at least 384 MiB or a tenth
by Spark's own reckoning (``spark.executor.memoryOverhead``), and Python's processes on top."""

_SMALLEST_EXECUTOR_MIB = 512
"""Spark refuses executors with less than 450 MiB of heap, of which Java reports some less than was given."""


@dataclass(frozen=True, kw_only=True)
class SparkCluster:
    """Request of a service: run jobs on the cluster, by a driver of its own or by REST."""


@dataclass(frozen=True, kw_only=True)
class SparkConnection(Connection):
    """The cluster as one consumer sees it: ``password`` is the authentication secret.

    ``defaults`` is what the consumer's ``spark-defaults.conf`` has to say besides the keys of its own
    buckets; it holds secrets. Drivers run on Java's trust store ``TRUST_STORE``, which the script
    ``configs/spark/truststore.sh`` makes of the CA in ``/run/millrace/tls``. A consumer whose drivers run
    under another host name than the service's own replaces ``spark.driver.host``. ``rest_url`` takes
    submissions with the header ``Authorization: Bearer <rest_token>``; it is verified with
    ``ca_certificate``.
    """

    defaults: Mapping[str, pulumi.Input[str]]
    rest_url: str
    rest_token: Secret

    @property
    def master(self) -> pulumi.Output[str]:
        """Address of the master, as in ``spark.master``."""
        return pulumi.Output.concat(
            "spark://", self.host, ":", pulumi.Output.from_input(self.port).apply(str)
        )

    def defaults_file(self, more: Mapping[str, pulumi.Input[str]] | None = None) -> Secret:
        """The text of ``spark-defaults.conf``, with ``more`` properties; secret."""
        return properties_text({**self.defaults, **(more or {})})


class SparkSettings(ServiceSettings):
    """Spark cluster: standalone master, workers, REST submission and history server."""

    memory_mib: Annotated[MiB, Field(ge=320)] = 512
    """Memory limit of the master and of the history server each, in MiB."""
    cpus: Cpus = 1.0
    """CPU limit of the master and of the history server each, in cores."""
    workers: Annotated[Int, Field(ge=1, le=20)] = 1
    """Number of workers."""
    worker_memory_mib: Annotated[MiB, Field(ge=1088)] = 2048
    """Memory limit of a worker and all its executors, in MiB. Executors get seven tenths of what is left
    after 320 MiB as heap."""
    worker_cores: Annotated[Int, Field(ge=1, le=256)] = 2
    """Cores of a worker: its CPU limit, and how many tasks it runs at once."""
    executor_memory_mib: Annotated[MiB, Field(ge=_SMALLEST_EXECUTOR_MIB)] = 512
    """Heap of an executor whose job asks for nothing else (spark.executor.memory), in MiB."""
    job_cores: Annotated[Int, Field(ge=1, le=5120)] = 1
    """Cores of a job that asks for nothing else (spark.cores.max). Jobs hold them until they end, a
    notebook as long as it is open."""
    history_days: Annotated[Int, Field(ge=1, le=3650)] = 30
    """The history server deletes event logs that are older, in days."""
    ui_access: Access = Access.ENGINEER
    """Who may open the web pages. They only show: nothing there stops a job."""
    api_route: bool = True
    """Offer REST submission at https://spark-api.<domain>; its clients authenticate with a token."""

    @property
    def executors_memory_mib(self) -> int:
        """Heap that a worker offers to executors, in MiB."""
        return int((self.worker_memory_mib - _DAEMON_MIB) * _EXECUTOR_SHARE)


def problems(settings: SparkSettings) -> Iterator[Problem]:
    """Mistakes that no single value shows."""
    if settings.executor_memory_mib > settings.executors_memory_mib:
        needed = -(-settings.executor_memory_mib * 10 // 7) + _DAEMON_MIB
        yield Problem(
            ("executor_memory_mib",),
            f"no worker could run one: of worker_memory_mib {settings.worker_memory_mib} executors get "
            f"{settings.executors_memory_mib} - give workers {needed} or executors less",
        )
    if settings.job_cores > (cores := settings.workers * settings.worker_cores):
        yield Problem(("job_cores",), f"all workers together have {cores} - lower it or give more")
    if settings.ui_access is Access.PUBLIC:
        yield Problem(
            ("ui_access",), "jobs' data shows on these pages, and they know no logins - use user or higher"
        )


def properties_text(values: Mapping[str, pulumi.Input[str]]) -> Secret:
    """Properties as ``spark-defaults.conf`` holds them; secret."""
    names = sorted(values)
    text = pulumi.Output.all(*(values[name] for name in names)).apply(
        lambda found: "".join(f"{name} {value}\n" for name, value in zip(names, found, strict=True))
    )
    return pulumi.Output.secret(text)


def s3a_properties(store: Connection, bucket: str | None = None) -> dict[str, pulumi.Input[str]]:
    """S3A's keys for a user of the object store: those of all buckets, or of ``bucket`` alone."""
    prefix = f"spark.hadoop.fs.s3a.bucket.{bucket}" if bucket else "spark.hadoop.fs.s3a"
    return {f"{prefix}.access.key": store.user, f"{prefix}.secret.key": store.password}


def encryption_properties() -> dict[str, pulumi.Input[str]]:
    """Mutual authentication by the shared secret, and AES-GCM between all parts of a cluster.

    Version 2 of the protocol derives keys with HKDF; Spark's documentation recommends it for new clusters.
    """
    return {
        "spark.authenticate": "true",
        "spark.network.crypto.enabled": "true",
        "spark.network.crypto.authEngineVersion": "2",
        "spark.network.crypto.cipher": "AES/GCM/NoPadding",
    }


def event_logs(store: StoreConnection) -> str:
    """Where event logs go."""
    return f"s3a://{store.path}/"


def job_properties(settings: SparkSettings, store: StoreConnection, url: str) -> dict[str, pulumi.Input[str]]:
    """What every driver is configured with: encryption, object store, Delta, event log, web page.

    ``store`` is the connection to the bucket of event logs, ``url`` the address of the master's web page,
    through which a driver's is reached.
    """
    return {
        **encryption_properties(),
        **s3a_properties(store, store.path),
        "spark.hadoop.fs.s3a.endpoint": store.endpoint,
        "spark.hadoop.fs.s3a.endpoint.region": store.region,
        "spark.hadoop.fs.s3a.path.style.access": "true",
        # Without a list S3A would ask the cloud's metadata service, which is not there, and wait for it.
        "spark.hadoop.fs.s3a.aws.credentials.provider": ",".join(
            (
                "org.apache.hadoop.fs.s3a.SimpleAWSCredentialsProvider",
                "software.amazon.awssdk.auth.credentials.EnvironmentVariableCredentialsProvider",
            )
        ),
        # Hadoop 3.5's own choice reads ahead with threads, buffers and connections of its own.
        "spark.hadoop.fs.s3a.input.stream.type": "classic",
        # Blocks wait on disk for their upload, where Spark's scratch files are; /tmp is small.
        "spark.hadoop.fs.s3a.buffer.dir": "${env.SPARK_LOCAL_DIRS:-/tmp}/s3a",
        "spark.hadoop.fs.s3a.multipart.size": "32M",
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        # Tasks that read a table's log. Delta's own choice is 50: on few cores they outlast all else.
        "spark.databricks.delta.snapshotPartitions": str(settings.workers * settings.worker_cores),
        "spark.eventLog.enabled": "true",
        "spark.eventLog.dir": event_logs(store),
        # An object is there when it is closed: a rolled part of the log is seen while the job runs.
        "spark.eventLog.rolling.enabled": "true",
        "spark.eventLog.rolling.maxFileSize": "10m",
        # Else a driver that is slow for a second logs whole events, and those of jobs hold all properties.
        "spark.scheduler.listenerbus.logSlowEvent": "false",
        "spark.executor.memory": f"{settings.executor_memory_mib}m",
        "spark.cores.max": str(settings.job_cores),
        "spark.pyspark.python": "/usr/bin/python3",
        "spark.driver.bindAddress": "0.0.0.0",
        "spark.ui.reverseProxy": "true",
        "spark.ui.reverseProxyUrl": url,
        # Buttons would act on the browser's stored login, whatever page of whatever site pressed them.
        "spark.ui.killEnabled": "false",
        "spark.ui.showConsoleProgress": "false",
    }


def token(key: str, subject: str) -> str:
    """A JSON web token (RFC 7519, HS256) for ``subject``, the same at each call; a new key ends it."""
    head, body = (
        _base64url(json.dumps(part, separators=(",", ":")).encode())
        for part in ({"alg": "HS256", "typ": "JWT"}, {"sub": subject})
    )
    signature = hmac.new(key.encode(), f"{head}.{body}".encode(), hashlib.sha256).digest()
    return f"{head}.{body}.{_base64url(signature)}"


def encoded_key(key: str) -> str:
    """A token's key as Spark's filter reads it."""
    return _base64url(key.encode())


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
