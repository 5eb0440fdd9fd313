"""What the Postgres setup job brings about, worked out from settings and demands, and its files."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scramp import ScramMechanism  # type: ignore[import-untyped]

from components.postgres_settings import (
    PostgresSettings,
    Privilege,
    all_grants,
    init_files,
    owners,
    role_names,
)
from components.service import Demand
from components.templates import render

_SCRAM_ITERATIONS = 4096
_LONGEST_NAME = 63
"""Bytes of a Postgres identifier."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """A role that nobody logs in as and that holds the privileges on a database or one schema.

    To grant them is to make somebody a member, to revoke them to end the membership, whatever tables exist.
    """

    database: str
    privilege: Privilege
    schema: str | None

    @property
    def name(self) -> str:
        """``millrace:<database>[.<schema>]:<privilege>``; names that people give have no colon."""
        place = self.database if self.schema is None else f"{self.database}.{self.schema}"
        name = f"millrace:{place}:{self.privilege}"
        if len(name) > _LONGEST_NAME:
            digest = hashlib.sha256(name.encode()).hexdigest()[:12]
            name = f"millrace:{digest}:{self.database}"[:_LONGEST_NAME]
        return name

    @property
    def writes(self) -> bool:
        """Whether it may change rows."""
        return self.privilege is Privilege.READ_WRITE


@dataclass(frozen=True, kw_only=True)
class PlannedRole:
    """A role that logs in."""

    name: str
    connection_limit: int


@dataclass(frozen=True, kw_only=True)
class InitFile:
    """A file of the user's own SQL."""

    name: str
    text: str

    @property
    def sha256(self) -> str:
        """Hash of the content: another one makes the file run again."""
        return hashlib.sha256(self.text.encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class PlannedDatabase:
    """A database with its groups; ``acting_owners`` are other roles that work in it as its owner."""

    name: str
    owner: str
    schemas: tuple[str, ...]
    groups: tuple[Group, ...]
    acting_owners: tuple[str, ...]
    init: tuple[InitFile, ...]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything the setup job makes true."""

    roles: tuple[PlannedRole, ...]
    databases: tuple[PlannedDatabase, ...]
    memberships: tuple[tuple[str, str], ...]
    """Pairs of group (or owner) and member."""

    @property
    def groups(self) -> tuple[Group, ...]:
        """All groups of all databases."""
        return tuple(group for database in self.databases for group in database.groups)

    def roles_of(self, database: PlannedDatabase) -> list[str]:
        """Roles that may connect to a database, its owner first."""
        groups = {group.name for group in database.groups}
        members = [m for g, m in self.memberships if g in groups]
        return list(dict.fromkeys([database.owner, *database.acting_owners, *members]))

    @property
    def init_databases(self) -> tuple[PlannedDatabase, ...]:
        """The databases with init SQL."""
        return tuple(database for database in self.databases if database.init)


def plan(settings: PostgresSettings, demands: Sequence[Demand]) -> Plan:
    """The plan for valid settings."""
    limits = {role.name: role.connection_limit for role in settings.roles}
    owner_of = owners(settings, demands)
    schemas = {d.name: d.schemas for d in settings.databases}
    names = role_names(settings, demands)
    memberships: dict[tuple[str, str], None] = {}
    groups: dict[str, dict[Group, None]] = {name: {} for name in owner_of}
    acting: dict[str, dict[str, None]] = {name: {} for name in owner_of}
    for _, role, grant in all_grants(settings, demands):
        owner = owner_of[grant.database]
        if role == owner:
            continue
        if grant.privilege is Privilege.OWNER:
            memberships[owner, role] = None
            acting[grant.database][role] = None
            continue
        for schema in grant.schemas or (None,):
            group = Group(database=grant.database, privilege=grant.privilege, schema=schema)
            groups[grant.database][group] = None
            memberships[group.name, role] = None
    return Plan(
        roles=tuple(PlannedRole(name=name, connection_limit=limits.get(name) or -1) for name in names),
        databases=tuple(
            PlannedDatabase(
                name=name,
                owner=owner,
                schemas=tuple(s for s in schemas.get(name, ()) if s != "public"),
                groups=tuple(groups[name]),
                acting_owners=tuple(acting[name]),
                init=tuple(_init(settings.init_folder, name)),
            )
            for name, owner in owner_of.items()
        ),
        memberships=tuple(memberships),
    )


def _init(folder: Path, database: str) -> Iterator[InitFile]:
    for path in init_files(folder, database):
        # A file without statements has nothing to run, and empty files can't be put into a container.
        if text := path.read_text(encoding="utf-8"):
            yield InitFile(name=path.name, text=text)


def setup_sql(planned: Plan, *, managed: bool = False, admin_database: str = "postgres") -> str:
    """SQL for psql, as superuser, that makes the plan true; running it again changes nothing.

    With ``managed`` as the administrator of a managed cluster, who may make roles and databases, no more.
    """
    return render(
        "postgres/setup.sql.j2",
        plan=planned,
        managed=managed,
        admin_database=admin_database,
        ident=ident,
        literal=literal,
        wanted_roles=literal(json.dumps([r.name for r in planned.roles])),
        wanted_databases=literal(json.dumps([d.name for d in planned.databases])),
        wanted_members=literal(json.dumps([{"role": g, "member": m} for g, m in planned.memberships])),
        acting_owners=literal(
            json.dumps([{"role": m, "db": d.name} for d in planned.databases for m in d.acting_owners])
        ),
    )


def init_sql(database: PlannedDatabase) -> str:
    """SQL for psql, as the database's owner, that runs the init files that have not run with this content."""
    return render("postgres/init.sql.j2", database=database, literal=literal)


def passwords_sql(verifiers: Mapping[str, str]) -> str:
    """SQL that hands the verifiers to the setup script, which creates the table."""
    lines = [
        f"INSERT INTO pg_temp.verifier (role, value) VALUES ({literal(role)}, {literal(value)});"  # noqa: S608
        for role, value in verifiers.items()
    ]
    return "\n".join(lines) + "\n"


def scram_verifier(password: str, salt: str) -> str:
    """What Postgres stores for a password (RFC 5803's form): it proves a login but cannot be used for one."""
    mechanism = ScramMechanism("SCRAM-SHA-256")
    raw, stored_key, server_key, iterations = mechanism.make_auth_info(
        password, iteration_count=_SCRAM_ITERATIONS, salt=salt.encode()
    )
    return f"SCRAM-SHA-256${iterations}:{_base64(raw)}${_base64(stored_key)}:{_base64(server_key)}"


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def ident(name: str) -> str:
    """A name as a quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Text as an SQL string; standard_conforming_strings is on."""
    return "'" + text.replace("'", "''") + "'"


def tuning(memory_mib: int, cpus: float, max_connections: int) -> dict[str, str]:
    """Memory and planner parameters from the container's limits.

    A quarter of the memory is shared buffers; as the page cache of the data files counts against the
    container's limit too, the planner may assume three quarters in all. A query uses several times work_mem,
    so a third of an even share of the rest is its limit.
    """
    shared = memory_mib // 4
    work_kib = max(1024, (memory_mib - shared) * 1024 // (max_connections * 3))
    workers = max(1, int(cpus))
    return {
        "shared_buffers": f"{shared}MB",
        "effective_cache_size": f"{memory_mib * 3 // 4}MB",
        "work_mem": f"{work_kib}kB",
        "maintenance_work_mem": f"{min(1024, max(16, memory_mib // 16))}MB",
        "max_wal_size": f"{min(8192, max(512, memory_mib * 2))}MB",
        "min_wal_size": "80MB",
        "max_parallel_workers": str(workers),
        "max_parallel_workers_per_gather": str(workers // 2),
        "max_parallel_maintenance_workers": str(workers // 2),
    }
