"""Settings of Jupyter, and the services it connects to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePath
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from components import folders
from components.delta_sharing_settings import ShareAccess
from components.kafka_settings import KafkaAccess, TopicPattern
from components.object_store_settings import Bucket, BucketName, BucketPrivilege
from components.postgres_settings import DatabaseAccess, PostgresSettings, Privilege
from components.presto_settings import QueryAccess
from components.problems import Problem
from components.service import Need
from components.settings import ServiceSettings
from components.settings_types import Cpus, Int, Line, MiB
from components.spark_settings import SparkCluster
from components.workload import Access

if TYPE_CHECKING:
    from components.settings import Settings

NOTEBOOKS_FOLDER = "configs/jupyter/examples"
"""Examples when the settings name no other folder."""

ROLE = "jupyter"
"""Postgres role of the notebooks."""

_SERVER_MIB = 256
"""What the server itself takes, with a reserve (measured: 130 MiB)."""
_KERNEL_MIB = 256
"""What a notebook's Python takes before it has data (measured with pandas: 150 MiB)."""
_EXAMPLES_KIB = 1024
"""Examples are part of the stack's state."""


class JupyterSettings(ServiceSettings):
    """JupyterLab with PySpark on the cluster and clients of the services that are on."""

    memory_mib: Annotated[MiB, Field(ge=512)] = 2048
    """Memory limit of the server and all notebooks together, in MiB."""
    cpus: Cpus = 2.0
    """CPU limit of the server and all notebooks together, in cores."""
    access: Access = Access.ENGINEER
    """Who may open it. All who may work on the same files with the same rights, so nothing below user."""
    driver_memory_mib: Annotated[Int, Field(ge=512)] = 512
    """Heap of a notebook's Spark driver (spark.driver.memory), in MiB."""
    lake_bucket: BucketName = "lake"
    """Bucket of the object store to work in."""
    lake_privilege: BucketPrivilege = BucketPrivilege.READ_WRITE
    """read-write, read-only or write-only."""
    postgres_privilege: Privilege = Privilege.READ_ONLY
    """read-only, read-write or owner, in every database of the settings."""
    kafka_read: tuple[TopicPattern, ...] = ("*",)
    """Topics to read: names, or prefixes such as `orders-*`; `*`, and nothing given, for all."""
    kafka_write: tuple[TopicPattern, ...] = ()
    """Topics to write to, likewise; none without it."""
    presto_write: bool = False
    """Let queries change the lake."""
    notebooks_folders: tuple[Line, ...] = (NOTEBOOKS_FOLDER,)
    """Folders with notebooks to show as read-only examples, relative to Pulumi.yaml;
    `configs/jupyter/examples` without it."""
    internet: bool = False
    """Let notebooks reach the outside, such as package indexes."""

    @property
    def lake(self) -> Bucket:
        """The bucket it asks for."""
        return Bucket(name=self.lake_bucket, privilege=self.lake_privilege)

    @property
    def queries(self) -> QueryAccess:
        """The user of Presto it asks for."""
        return QueryAccess(write=self.presto_write)

    @property
    def topics(self) -> KafkaAccess:
        """The user of Kafka it asks for."""
        return KafkaAccess(read=self.kafka_read, write=self.kafka_write)

    def databases(self, platform: Settings) -> list[DatabaseAccess]:
        """The databases of Postgres it asks for: all that the settings declare."""
        postgres = platform.services.get("postgres")
        declared = postgres.databases if isinstance(postgres, PostgresSettings) else ()
        return [
            DatabaseAccess(database=database.name, role=ROLE, privilege=self.postgres_privilege)
            for database in declared
        ]

    def needs(self, platform: Settings) -> Iterator[Need]:
        """Every service it can use; none that it can't do without."""
        for name, request in (
            ("object_store", self.lake),
            ("spark", SparkCluster()),
            ("presto", self.queries),
            ("kafka", self.topics),
            ("delta_sharing", ShareAccess()),
        ):
            # Only notebooks call them.
            yield Need(service=name, request=request, optional=True, wait=False)
        for access in self.databases(platform):
            yield Need(service="postgres", request=access, optional=True, wait=False)


def examples(settings: JupyterSettings) -> dict[str, str]:
    """Paths and texts of the example notebooks."""
    return folders.texts(settings.notebooks_folders, _is_example)


def _is_example(path: PurePath) -> bool:
    return path.suffix in _SUFFIXES and ".ipynb_checkpoints" not in path.parts


_SUFFIXES = (".ipynb", ".py", ".md", ".sql")


def problems(settings: JupyterSettings, platform: Settings) -> Iterator[Problem]:
    """Memory that doesn't suffice, a folder that isn't there, a page open to all."""
    if settings.access is Access.PUBLIC:
        yield Problem(("access",), "whoever opens it can run programs - use user or higher")
    if "spark" in platform.services:
        needed = settings.driver_memory_mib * 13 // 10 + _SERVER_MIB + _KERNEL_MIB
        if settings.memory_mib < needed:
            yield Problem(
                ("memory_mib",),
                f"too little for one notebook with Spark: driver ({settings.driver_memory_mib} and a third), "
                f"server and kernel take {needed} - give as much or lower driver_memory_mib",
            )
    yield from _examples(settings)


def _examples(settings: JupyterSettings) -> Iterator[Problem]:
    found = list(
        folders.problems(
            settings.notebooks_folders,
            "notebooks_folders",
            _is_example,
            limit_kib=_EXAMPLES_KIB,
            advice="clear the notebooks' outputs",
        )
    )
    yield from found
    if not found:
        # Empty files can't be put into a container.
        for name in (name for name, text in examples(settings).items() if not text):
            yield Problem(("notebooks_folders",), f"{name} is empty - remove it")
