"""The demo's own settings, and the names that it goes by in those of the other services."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, Field

from components import folders
from components.object_store_settings import ObjectStoreSettings
from components.postgres_settings import PostgresSettings, Privilege
from components.problems import Problem
from components.service import Login
from components.settings import ServiceSettings
from components.settings_types import Cpus, Float, Int, Line, MiB, Name

if TYPE_CHECKING:
    from components.settings import Settings

KEY = "demo"

FOLDER = "pipelines/demo"
"""Where the pipelines are."""

JOBS_FOLDER = f"{FOLDER}/jobs"
"""The Spark jobs among them."""

_JOBS_KIB = 1024
"""They are part of the stack's state."""

SIMULATOR = "shop_simulator"
"""Role that owns the simulator's database."""
READER = "shop_reader"
"""Role that may only read it."""
TOPIC = "shop-orders"
"""Topic of the orders' events."""
PUBLISHER = "shop-simulator"
"""User of Kafka that writes the topic."""
INGEST = "shop-ingest"
"""User of Kafka that reads it."""
RAW, JOBS = "raw", "jobs"
"""Buckets of the raw files and of the Spark jobs."""
SEEDER = "demo-seed"
"""User of the object store that puts them there."""

_SOURCES = ("kafka", "object_store", "postgres")
"""Services that the sources use."""

_RO, _RW, _WO = "read-only", "read-write", "write-only"

PIPELINE_USERS: Mapping[str, Mapping[str, str]] = {
    "demo-bronze": {JOBS: _RO, RAW: _RO, "bronze": _RW},
    "demo-silver": {JOBS: _RO, "bronze": _RO, "silver": _RW},
    "demo-gold": {JOBS: _RO, "silver": _RO, "lake": _RW},
    "demo-export": {RAW: _WO},
}
"""Users of the pipelines with their buckets: each layer's writes its own bucket and reads the one before."""

_PRESETS = ("@once", "@continuous", "@hourly", "@daily", "@weekly", "@monthly", "@quarterly", "@yearly")
_NAMES = {
    name: number
    for names in (
        ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"),
        ("mon", "tue", "wed", "thu", "fri", "sat", "sun"),
    )
    for number, name in enumerate(names, 1)
}
_FIELDS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
"""Minute, hour, day, month and day of the week."""


def _schedule(value: str) -> str:
    fields = value.lower().split()
    cron = len(fields) == len(_FIELDS) and all(map(_is_field, fields, _FIELDS))
    if not cron and value not in (*_PRESETS, "none"):
        raise ValueError(
            f'not a schedule - write five fields such as "0 6 * * *", {", ".join(_PRESETS)}, or none'
        )
    return value


def _is_field(text: str, bounds: tuple[int, int]) -> bool:
    """Whether it is a field of a cron expression: ``*``, ``5``, ``1-5``, ``*/10``, or several with commas."""
    for part in text.split(","):
        found = re.fullmatch(r"(\*|(\w{1,4})(-(\w{1,4}))?)(/(\d{1,4}))?", part)
        if not found or found[6] == "0":
            return False
        ends = [str(_NAMES.get(end, end)) for end in (found[2], found[4]) if end is not None]
        if not all(end.isdecimal() and bounds[0] <= int(end) <= bounds[1] for end in ends):
            return False
        if len(ends) == 2 and int(ends[0]) > int(ends[1]):
            return False
    return True


Schedule = Annotated[Line, AfterValidator(_schedule)]


class DemoSettings(ServiceSettings):
    """The demo: a simulated shop, raw files of real flights, and pipelines that refine both."""

    memory_mib: Annotated[MiB, Field(ge=64)] = 128
    """Memory limit of the simulator, in MiB."""
    cpus: Cpus = 0.5
    """CPU limit of the simulator, in cores."""
    orders_per_minute: Annotated[Float, Field(gt=0, le=6000)] = 60.0
    """How many orders the simulator makes in a minute. Each has two more changes of status later."""
    orders: Annotated[Int, Field(ge=1, le=10**9)] = 100_000
    """How many orders it makes in all; then it completes those on the way and rests."""
    initial_orders: Annotated[Int, Field(ge=0, le=100_000)] = 2000
    """How many of them there are from the start."""
    seed: Annotated[Int, Field(ge=0, le=2**31 - 1)] = 1
    """The same seed makes the same orders. Another one counts for the orders that are not made yet."""
    database: Name = "shop"
    """Database of Postgres that the simulator owns."""
    pipelines: bool = True
    """Off leaves the sources alone, which need neither Spark nor Airflow."""
    schedule: Schedule = "@hourly"
    """When the pipelines run: five fields of cron, a preset such as @daily, or none for by hand only."""

    @property
    def simulator_login(self) -> Login:
        """The role that it writes as."""
        return Login(user=SIMULATOR, database=self.database)

    @property
    def required(self) -> tuple[str, ...]:
        """Services that it does nothing without."""
        return (*_SOURCES, "airflow", "spark") if self.pipelines else _SOURCES


def is_job(path: PurePath) -> bool:
    """A Python file right in the folder of the jobs."""
    return path.suffix == ".py" and len(path.parts) == 1


def store_users(settings: DemoSettings, *, managed: bool = False) -> dict[str, Mapping[str, str]]:
    """Users of the object store, with the privilege on each of their buckets.

    In a ``managed`` store nobody can be limited to writing: who writes reads, too.
    """
    if not settings.pipelines:
        return {SEEDER: {RAW: _RW}}
    found: dict[str, Mapping[str, str]] = {SEEDER: {RAW: _RW, JOBS: _RW}, **PIPELINE_USERS}
    if managed:
        wider = {_WO: _RW}
        found = {name: {b: wider.get(p, p) for b, p in access.items()} for name, access in found.items()}
    return found


def problems(settings: DemoSettings, platform: Settings) -> Iterator[Problem]:
    """Services that are missing, and entries of the user's that leave the demo without what it needs."""
    for name in settings.required:
        # Of those of the sources, which are needs, the platform reports it.
        if name not in (*_SOURCES, *platform.services):
            yield Problem((), f"needs {name}, which is off - add the key {name}")
    if settings.pipelines:
        found = folders.problems([JOBS_FOLDER], "jobs", is_job, limit_kib=_JOBS_KIB, advice="split it")
        yield from (Problem((), problem.text) for problem in found)
    postgres, store = platform.services.get("postgres"), platform.services.get("object_store")
    if isinstance(postgres, PostgresSettings):
        yield from _database(settings.database, postgres)
    if isinstance(store, ObjectStoreSettings):
        managed = platform.managed_store is not None
        yield from _buckets(store_users(settings, managed=managed), store)


def _database(name: str, postgres: PostgresSettings) -> Iterator[Problem]:
    for database in postgres.databases:
        if database.name == name and database.owner_name != SIMULATOR:
            yield Problem(
                ("database",),
                f'postgres.databases has "{name}" already, of {database.owner_name} - give another name',
            )
            return
    grants = {g.database: g for role in postgres.roles if role.name == READER for g in role.grants}
    grant = grants.get(name)
    if grant is not None and (grant.privilege is not Privilege.READ_ONLY or grant.schemas is not None):
        yield Problem(
            (),
            f"postgres.roles gives {READER} another grant on {name} - the demo's is read-only, remove yours",
        )


def _buckets(users: Mapping[str, Mapping[str, str]], store: ObjectStoreSettings) -> Iterator[Problem]:
    given = {user.name: {b.bucket: b.privilege for b in user.buckets} for user in store.users}
    for name, access in users.items():
        for bucket, privilege in access.items():
            if given.get(name, {}).get(bucket, privilege) != privilege:
                yield Problem(
                    (),
                    f"object_store.users gives {name} another privilege on bucket {bucket} - the demo's is "
                    f"{privilege}, remove yours",
                )
