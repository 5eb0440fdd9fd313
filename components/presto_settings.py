"""Settings of Presto, what services may request of it, and mistakes a single value doesn't show."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

import pulumi
from pydantic import AfterValidator, Field

from components.checks import duplicates
from components.connection import Connection
from components.object_store_settings import BucketName
from components.postgres_settings import PostgresSettings
from components.problems import Problem
from components.service import Demand
from components.settings import ServiceSettings, Settings
from components.settings_types import Cpus, Form, Int, MiB, Model

METASTORE_BUCKET = "presto-metastore"
"""Bucket of the object store with Presto's own list of the lake's tables."""


class Engine(StrEnum):
    """The two descendants of the original Presto."""

    TRINO = "trino"
    PRESTODB = "prestodb"


@dataclass(frozen=True, kw_only=True)
class QueryAccess:
    """Request of a service: a user that reads all catalogs and, with ``write``, changes the lake."""

    write: bool = False


@dataclass(frozen=True, kw_only=True)
class PrestoConnection(Connection):
    """A user of Presto. ``uri`` is SQLAlchemy's, ``jdbc_url`` asks for verified TLS."""

    @property
    def jdbc_url(self) -> pulumi.Output[str] | None:
        """JDBC URL without credentials; the driver takes the CA from ``SSLTrustStorePath`` or the JVM."""
        return pulumi.Output.all(self.host, self.port).apply(
            lambda a: f"jdbc:{self.jdbc}://{a[0]}:{a[1]}?SSL=true"
        )


def _folder(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._=-]+(/[A-Za-z0-9._=-]+)*", value) or ".." in value.split("/"):
        raise ValueError("not a folder of a bucket - write names with / between them, such as raw/orders")
    return value


class LakeTable(Model):
    """A Delta table at a place of its own in the lake."""

    name: Annotated[
        str,
        Form(
            r"[a-z0-9_]{1,60}\.[a-z0-9_]{1,60}", "write <schema>.<table> in lower-case letters, digits and _"
        ),
    ]
    """Its name in the catalog `lake`, `<schema>.<table>`."""
    folder: Annotated[str, AfterValidator(_folder)]
    """Its folder in the lake's bucket."""


class PrestoSettings(ServiceSettings):
    """Trino or Presto: a coordinator, workers, and catalogs of all the data services that are on."""

    engine: Engine = Engine.TRINO
    """trino or prestodb."""
    workers: Annotated[Int, Field(ge=0, le=100)] = 0
    """Number of workers; with 0 the coordinator does their work too."""
    memory_mib: MiB = 1536
    """Memory limit of the coordinator and of each worker, in MiB; heap and query memory follow it."""
    cpus: Cpus = 2.0
    """CPU limit of the coordinator and of each worker, in cores."""
    lake_bucket: BucketName = "lake"
    """Bucket of the object store that holds the Delta tables of the catalog `lake`."""
    lake_tables: tuple[LakeTable, ...] = ()
    """Delta tables elsewhere than in `<schema>/<table>` of the bucket, where they are found by themselves."""
    lake_refresh_s: Annotated[Int, Field(ge=5, le=86400)] = 60
    """How often to look for Delta tables that are new or gone, in seconds."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """How a container's memory is divided, in MiB: ``heap`` of Java, and of it ``query`` for one query on
    this node and ``headroom`` for what no query is charged for.
    """

    heap: int
    headroom: int
    query: int


# Classes, compiled code, threads and buffers outside the heap: what an idle server was seen to need, and some
# for each that runs queries.
_OUTSIDE = {Engine.TRINO: 480, Engine.PRESTODB: 480}

LEAST_MEMORY_MIB = {Engine.TRINO: 1024, Engine.PRESTODB: 1152}
"""Smallest limits that a server with all catalogs starts with and answers queries."""


def memory(settings: PrestoSettings) -> Memory:
    """The division of the limit: a fifth, but at least what an idle server needs, stays outside the heap."""
    limit = settings.memory_mib
    heap = limit - max(_OUTSIDE[settings.engine], limit // 5)
    return Memory(heap=heap, headroom=heap // 4, query=heap // 2)


def consumers(demands: Sequence[Demand]) -> dict[str, bool]:
    """Services with a user of their own, and whether they may write."""
    found: dict[str, bool] = {}
    for demand in demands:
        found[demand.consumer] = found.get(demand.consumer, False) or demand.request.write
    return found


def problems(settings: PrestoSettings, demands: Sequence[Demand], platform: Settings) -> Iterator[Problem]:
    """Too little memory, tables named twice or without a lake, users that services have too."""
    least = LEAST_MEMORY_MIB[settings.engine]
    if settings.memory_mib < least:
        yield Problem(
            ("memory_mib",),
            f"{settings.memory_mib} MiB is too little for {settings.engine} - at least {least}",
        )
    yield from duplicates([table.name for table in settings.lake_tables], ("lake_tables",), "table")
    if settings.lake_tables and "object_store" not in platform.services:
        yield Problem(("lake_tables",), "has no meaning without an object store - add the key object_store")
    if settings.lake_bucket == METASTORE_BUCKET:
        yield Problem(("lake_bucket",), f'"{METASTORE_BUCKET}" is Presto\'s own - choose another bucket')
    yield from _catalogs(platform)
    services = consumers(demands)
    for index, user in enumerate(platform.users):
        if user.name in services:
            yield Problem(
                (),
                f'"{user.name}" is the user of service {user.name} here - choose another name at '
                f"users[{index}].name",
            )


def database_catalog(name: str) -> str:
    """Catalog of a Postgres database other than the first."""
    return f"postgres_{name.replace('-', '_')}"


def _catalogs(platform: Settings) -> Iterator[Problem]:
    postgres = platform.services.get("postgres")
    seen: dict[str, str] = {}
    for index, database in enumerate(postgres.databases if isinstance(postgres, PostgresSettings) else ()):
        catalog = database_catalog(database.name)
        other = seen.setdefault(catalog, database.name) if index else database.name
        if other != database.name:
            yield Problem(
                (),
                f'databases "{other}" and "{database.name}" would both be catalog {catalog} - rename one at '
                f"postgres.databases[{index}]",
            )
