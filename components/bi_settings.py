"""Settings of the BI service, and the data sources it gets from the services that are on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from pydantic import Field

from components import bi_dashboard_problems, bi_dashboards
from components.postgres_settings import Database, DatabaseAccess
from components.presto_catalogs import names
from components.presto_settings import QueryAccess
from components.problems import Problem
from components.service import Demand, Need
from components.settings import ServiceSettings, Settings
from components.settings_types import Int, Line, MiB

METADATA = Need(service="postgres", request=Database(name="bi", role="bi"))
"""Where charts, dashboards and accounts are kept."""

PRESTO = Need(service="presto", request=QueryAccess(), optional=True, wait=False)
"""A user of Presto's that reads all catalogs. While it starts, Superset's setup job migrates."""

READER = "bi_reader"
"""Role that reads the declared databases."""

_LEAST_MIB = {"superset": 512, "metabase": 1024}

# Measured with one worker: 225 MiB after the start, 290 after some hundred pages and queries. What a worker
# holds beyond that are results: 200 leave room for a hundred thousand rows.
_MAIN_MIB, _WORKER_MIB = 300, 200


class BiSettings(ServiceSettings):
    """Dashboards and SQL in the browser: Superset or Metabase."""

    engine: Literal["superset", "metabase"] = "superset"
    """superset or metabase. Neither reads what was made in the other."""
    memory_mib: MiB = 768
    """Memory limit, in MiB; at least 512 with superset, whose number of workers follows it, and 1024 with
    metabase."""
    row_limit: Annotated[Int, Field(ge=100, le=1_000_000)] = 100_000
    """Most rows a chart or a query gets."""
    query_timeout_s: Annotated[Int, Field(ge=10, le=3600)] = 300
    """How long a query may take, in seconds."""
    cache_s: Annotated[Int, Field(ge=0, le=604_800)] = 300
    """How long results of charts are kept and shown again, in seconds (superset); 0 asks the data source each
    time."""
    dashboards_folders: tuple[Line, ...] = ()
    """Folders with dashboards in YAML, relative to Pulumi.yaml, which each `up` makes as they say."""

    @property
    def workers(self) -> int:
        """Processes that answer requests, as many as memory and twice the cores allow."""
        return max(1, min((self.memory_mib - _MAIN_MIB) // _WORKER_MIB, int(self.cpus * 2)))

    def dashboards_file(self) -> str:
        """The dashboards' definitions as the setup jobs read them."""
        return json.dumps(bi_dashboards.dashboards(self.dashboards_folders), indent=2) + "\n"


@dataclass(frozen=True, kw_only=True)
class PostgresSource:
    """A declared database as a data source."""

    request: DatabaseAccess

    @property
    def name(self) -> str:
        """What people see."""
        return f"Postgres {self.request.database}"


def postgres_sources(platform: Settings) -> list[PostgresSource]:
    """One for each declared database."""
    postgres: Any = platform.services.get("postgres")
    names = [database.name for database in postgres.databases] if postgres is not None else []
    return [PostgresSource(request=DatabaseAccess(database=name, role=READER)) for name in names]


def presto_catalogs(platform: Settings) -> list[str]:
    """Presto's catalogs, none where it is off."""
    presto: Any = platform.services.get("presto")
    return names(presto, platform) if presto is not None else []


def data_source_ids(platform: Settings) -> list[str]:
    """What definitions of dashboards call the data sources."""
    found = [f"postgres/{source.request.database}" for source in postgres_sources(platform)]
    return [*found, "presto"] if presto_catalogs(platform) else found


def needs(settings: BiSettings, platform: Settings) -> Iterator[Need]:
    """The metadata database and every data source there is."""
    yield METADATA
    for source in postgres_sources(platform):
        yield Need(service="postgres", request=source.request)
    # Metabase starts for longer than Presto, and its API refuses a data source that does not answer.
    yield replace(PRESTO, wait=settings.engine == "metabase")


def problems(settings: BiSettings, demands: Sequence[Demand], platform: Settings) -> Iterable[Problem]:
    """Too little memory for the engine, settings without effect, mistakes in definitions of dashboards."""
    least = _LEAST_MIB[settings.engine]
    if settings.memory_mib < least:
        yield Problem(("memory_mib",), f"too little for {settings.engine} - give at least {least}")
    if settings.engine != "superset" and "cache_s" in settings.model_fields_set:
        yield Problem(
            ("cache_s",), f"has no meaning for {settings.engine}, which has a setting of its own - remove it"
        )
    yield from bi_dashboard_problems.problems(settings.dashboards_folders, data_source_ids(platform))
