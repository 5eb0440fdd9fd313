"""Settings of Postgres, what services may request of it, and the mistakes a single value doesn't show."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from components.checks import duplicates
from components.folders import is_folder
from components.problems import PathPart, Problem, nearest, shown
from components.service import Demand
from components.settings import ServiceSettings
from components.settings_types import Form, Int, Line, MiB, Model, Name, Port, Text

INIT_SQL = "configs/postgres/init"
"""Where init SQL is looked for when the settings name no other folder: one folder per database."""

_RESERVED_ROLES = {"postgres", "public", "none", "user", "current_role", "current_user", "session_user"}
_RESERVED_DATABASES = {"postgres", "template0", "template1"}
_RESERVED_SCHEMAS = {"information_schema", "millrace"}

# What the platform's security and its health check rest on; anything else in postgresql.conf is free.
_OWN_PARAMETERS = {
    "config_file", "data_directory", "external_pid_file", "hba_file", "ident_file", "listen_addresses",
    "log_destination", "logging_collector", "password_encryption", "port", "unix_socket_directories",
    "unix_socket_group", "unix_socket_permissions",
}  # fmt: skip


class Privilege(StrEnum):
    """What a role may do in a database; see docs of :class:`Grant`."""

    READ_ONLY = "read-only"
    READ_WRITE = "read-write"
    OWNER = "owner"


@dataclass(frozen=True, kw_only=True)
class Database:
    """Request of a service: a database of its own, owned by ``role``."""

    name: str
    role: str


@dataclass(frozen=True, kw_only=True)
class DatabaseAccess:
    """Request of a service: a role on a database that somebody else declares, on all its schemas or some."""

    database: str
    role: str
    privilege: Privilege = Privilege.READ_ONLY
    schemas: tuple[str, ...] | None = None


def _printable(value: str) -> str:
    if not value.isprintable():
        raise ValueError("holds a control character - write one line of plain text")
    return value


ParameterName = Annotated[
    str,
    Form(
        r"[a-z_][a-z0-9_]*(\.[a-z_][a-z0-9_]*)?",
        "write the name of a Postgres parameter such as log_min_duration_statement",
    ),
]
ParameterValue = Annotated[Text, AfterValidator(_printable)]


class DatabaseSettings(Model):
    """A database. Taking it out of the settings keeps its data and shuts everybody but its owner out."""

    name: Name
    """Name of the database."""
    owner: Name | None = None
    """Role that owns it, one of `roles`; without it a role of the database's name."""
    schemas: tuple[Name, ...] = ()
    """Schemas to create besides `public`, which every database has."""

    @property
    def owner_name(self) -> str:
        """The owner, given or by default."""
        return self.owner or self.name


class Grant(Model):
    """What a role may do in one database, on tables that exist and on those its owner creates later."""

    database: Name
    """One of `databases`, or the database of a service."""
    privilege: Privilege = Privilege.READ_ONLY
    """read-only: select; read-write: insert, update, delete as well; owner: act as the database's owner."""
    schemas: Annotated[tuple[Name, ...], Field(min_length=1)] | None = None
    """Only these schemas; without it all, those created later included."""


class RoleSettings(Model):
    """A role that logs in with a generated password (stack output `credentials`)."""

    name: Name
    """Name to log in with."""
    connection_limit: Annotated[Int, Field(ge=1, le=262143)] | None = None
    """Most connections at a time; without it only max_connections limits them."""
    grants: tuple[Grant, ...] = ()
    """What it may do, besides everything in the databases it owns."""


class PostgresSettings(ServiceSettings):
    """PostgreSQL 15 with TLS, its databases, roles and privileges."""

    memory_mib: Annotated[MiB, Field(ge=128)] = 512
    """Memory limit of the server, in MiB; caches and work memory follow it."""
    max_connections: Annotated[Int, Field(ge=10, le=10000)] = 100
    """Most client connections at a time."""
    databases: tuple[DatabaseSettings, ...] = ()
    """Databases to have."""
    roles: tuple[RoleSettings, ...] = ()
    """Roles that log in."""
    init_sql: Line | None = None
    """Folder with SQL of your own, `<database>/*.sql`, run as the database's owner; configs/postgres/init
    without it. A file runs once, and again when its content changes."""
    loopback_port: Port | None = None
    """Port on 127.0.0.1 of the host, for clients there."""
    parameters: dict[ParameterName, ParameterValue] = {}
    """More parameters for postgresql.conf, such as `work_mem: 8MB`."""

    @property
    def init_folder(self) -> Path:
        """The folder of the init SQL, relative to Pulumi.yaml."""
        return Path(self.init_sql or INIT_SQL)


def role_names(settings: PostgresSettings, demands: Sequence[Demand]) -> list[str]:
    """All roles that log in: declared, owners without a declaration, and those of other services."""
    names = [role.name for role in settings.roles]
    names += [database.owner_name for database in settings.databases]
    names += [demand.request.role for demand in demands]
    return list(dict.fromkeys(names))


def declared_roles(settings: PostgresSettings) -> dict[str, list[str]]:
    """Roles of the settings, owners without a declaration included, with the databases each may use."""
    found: dict[str, list[str]] = {role.name: [] for role in settings.roles}
    for database in settings.databases:
        found.setdefault(database.owner_name, []).append(database.name)
    for role in settings.roles:
        found[role.name] += [g.database for g in role.grants if g.database not in found[role.name]]
    return found


def all_grants(
    settings: PostgresSettings, demands: Sequence[Demand]
) -> Iterator[tuple[tuple[PathPart, ...], str, Grant]]:
    """Each grant of settings and services with where it stands, nowhere for a service's, and its role."""
    for index, role in enumerate(settings.roles):
        for place, grant in enumerate(role.grants):
            yield ("roles", index, "grants", place), role.name, grant
    for demand in demands:
        if isinstance(request := demand.request, DatabaseAccess):
            grant = Grant(database=request.database, privilege=request.privilege, schemas=request.schemas)
            yield (), request.role, grant


def owners(settings: PostgresSettings, demands: Sequence[Demand]) -> dict[str, str]:
    """The owner of each database: declared ones and those of other services."""
    found = {database.name: database.owner_name for database in settings.databases}
    for demand in demands:
        if isinstance(demand.request, Database):
            found.setdefault(demand.request.name, demand.request.role)
    return found


def database_names(settings: PostgresSettings, demands: Sequence[Demand]) -> list[str]:
    """All databases: declared ones and those of other services."""
    return list(owners(settings, demands))


def problems(settings: PostgresSettings, demands: Sequence[Demand]) -> Iterator[Problem]:
    """Duplicates, unknown and reserved names, clashes with other services' requests, parameters, files."""
    yield from duplicates([d.name for d in settings.databases], ("databases",), "database")
    yield from duplicates([r.name for r in settings.roles], ("roles",), "role")
    yield from _databases(settings)
    yield from _roles(settings, demands)
    yield from _demands(settings, demands)
    yield from _acting_owners(settings, demands)
    yield from _parameters(settings)
    yield from _init_sql(settings, database_names(settings, demands))


def _reserved(name: str, path: tuple[PathPart, ...], reserved: Iterable[str], what: str) -> Iterator[Problem]:
    if name in reserved or name.startswith("pg_"):
        yield Problem(
            path, f'"{name}" is a {what} of Postgres or of the platform itself - choose another name'
        )


def _databases(settings: PostgresSettings) -> Iterator[Problem]:
    roles = [role.name for role in settings.roles]
    for index, database in enumerate(settings.databases):
        path: tuple[PathPart, ...] = ("databases", index)
        yield from _reserved(database.name, (*path, "name"), _RESERVED_DATABASES, "database")
        if database.owner is None:
            if database.name not in _RESERVED_DATABASES:
                yield from _reserved(database.name, (*path, "owner"), _RESERVED_ROLES, "role")
        elif database.owner not in roles:
            yield Problem(
                (*path, "owner"), f'no role "{database.owner}" among roles{nearest(database.owner, roles)}'
            )
        for place, schema in enumerate(database.schemas):
            yield from _reserved(schema, (*path, "schemas", place), _RESERVED_SCHEMAS, "schema")
            if schema in database.schemas[:place]:
                yield Problem(
                    (*path, "schemas", place), f'schema "{schema}" stands here a second time - remove it'
                )


def _roles(settings: PostgresSettings, demands: Sequence[Demand]) -> Iterator[Problem]:
    schemas = {d.name: {"public", *d.schemas} for d in settings.databases}
    for demand in demands:
        if isinstance(demand.request, Database):
            schemas.setdefault(demand.request.name, {"public"})
    for index, role in enumerate(settings.roles):
        yield from _reserved(role.name, ("roles", index, "name"), _RESERVED_ROLES, "role")
        for place, grant in enumerate(role.grants):
            path: tuple[PathPart, ...] = ("roles", index, "grants", place)
            if grant.database not in schemas:
                yield Problem(
                    (*path, "database"),
                    f'no database "{grant.database}" among databases{nearest(grant.database, schemas)}',
                )
                continue
            if grant.schemas is None:
                continue
            if grant.privilege is Privilege.OWNER:
                yield Problem(
                    (*path, "schemas"),
                    "has no meaning with privilege owner, which is of the whole database - remove it",
                )
            for schema in grant.schemas:
                if schema not in schemas[grant.database]:
                    yield Problem(
                        (*path, "schemas"),
                        f'no schema "{schema}" in database {grant.database}'
                        f"{nearest(schema, schemas[grant.database])}",
                    )


def _demands(settings: PostgresSettings, demands: Sequence[Demand]) -> Iterator[Problem]:
    """A role or database that a service requests is its alone: neither settings nor others may share it."""
    declared = {d.name: ("databases", i) for i, d in enumerate(settings.databases)}
    roles = {r.name: ("roles", i) for i, r in enumerate(settings.roles)}
    owners = {d.owner_name: ("databases", i) for i, d in enumerate(settings.databases)}
    role_of: dict[str, str] = {}
    database_of: dict[str, Demand] = {}
    for demand in demands:
        request = demand.request
        path: tuple[PathPart, ...] | None = roles.get(request.role) or owners.get(request.role)
        if path:
            yield Problem(
                path, f'"{request.role}" is the role of service {demand.consumer} - choose another name'
            )
        if role_of.setdefault(request.role, demand.consumer) != demand.consumer:
            yield Problem(
                (), f'services {role_of[request.role]} and {demand.consumer} both want role "{request.role}"'
            )
        if isinstance(request, Database):
            if request.name in declared:
                yield Problem(
                    declared[request.name],
                    f'"{request.name}" is the database of service {demand.consumer} - choose another name',
                )
            first = database_of.setdefault(request.name, demand)
            if first.request.role != request.role:
                yield Problem(
                    (), f'services {first.consumer} and {demand.consumer} both want database "{request.name}"'
                )
    known = database_names(settings, demands)
    for demand in demands:
        if isinstance(demand.request, DatabaseAccess) and demand.request.database not in known:
            wanted = demand.request.database
            yield Problem(
                ("databases",),
                f'no database "{wanted}", which {demand.consumer} uses{nearest(wanted, known)}',
            )


def _acting_owners(settings: PostgresSettings, demands: Sequence[Demand]) -> Iterator[Problem]:
    """Who acts as a database's owner is a member of that role, in every database and with all its grants.

    So it has to hold by grants of its own what it gets that way; and no two may be members of each other.
    """
    owner_of = owners(settings, demands)
    rights: defaultdict[str, list[Grant]] = defaultdict(list)
    for database, owner in owner_of.items():
        rights[owner].append(Grant(database=database, privilege=Privilege.OWNER))
    grants = [entry for entry in all_grants(settings, demands) if entry[2].database in owner_of]
    for _, role, grant in grants:
        rights[role].append(grant)
    acts_as: defaultdict[str, set[str]] = defaultdict(set)
    for path, role, grant in grants:
        owner = owner_of[grant.database]
        if grant.privilege is not Privilege.OWNER or role == owner:
            continue
        acts_as[role].add(owner)
        for more in rights[owner]:
            if not _covered(more, rights[role]):
                yield Problem(
                    (*path, "privilege") if path else ("databases",),
                    f"owner of {grant.database} makes {role} a member of {owner}, who is {more.privilege} in "
                    f"{more.database} too - grant {role} that as well, or give one of them another owner",
                )
    try:
        TopologicalSorter(acts_as).prepare()
    except CycleError as error:
        *names, _ = error.args[1]
        yield Problem(
            ("roles",),
            f"{' and '.join(sorted(names))} cannot be owners of each other's databases - take one of the "
            "grants away",
        )


def _covered(wanted: Grant, held: Sequence[Grant]) -> bool:
    """Whether grants hold at least what another one says, schema by schema."""
    order = list(Privilege)

    def covered(schema: str | None) -> bool:
        return any(
            grant.database == wanted.database
            and order.index(grant.privilege) >= order.index(wanted.privilege)
            and (grant.privilege is Privilege.OWNER or grant.schemas is None or schema in grant.schemas)
            for grant in held
        )

    return all(covered(schema) for schema in wanted.schemas or (None,))


def _parameters(settings: PostgresSettings) -> Iterator[Problem]:
    for name in settings.parameters:
        if name in ("max_connections",):
            yield Problem(("parameters", name), f"has a key of its own - write `{name}` beside `parameters`")
        elif name in _OWN_PARAMETERS or name.startswith(("ssl", "include")):
            yield Problem(("parameters", name), "is set by the platform itself - remove it")


def _init_sql(settings: PostgresSettings, databases: Sequence[str]) -> Iterator[Problem]:
    folder = settings.init_folder
    if not is_folder(folder):
        if settings.init_sql is not None:
            yield Problem(
                ("init_sql",), f"no folder {shown(settings.init_sql)} - give a path relative to Pulumi.yaml"
            )
        return
    for entry in sorted(folder.iterdir()):
        if entry.is_dir() and entry.name not in databases:
            yield Problem(
                ("init_sql",),
                f"{entry} is for a database that is not declared{nearest(entry.name, databases)}",
            )
        if entry.is_file() and entry.suffix == ".sql":
            yield Problem(("init_sql",), f"{entry} belongs to no database - move it to {folder}/<database>/")
    for database in databases:
        for file in init_files(folder, database):
            if not re.fullmatch(r"[A-Za-z0-9._-]+", file.name):
                yield Problem(
                    ("init_sql",), f"{file} - use letters, digits, dots, hyphens and underscores in its name"
                )
            try:
                file.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                yield Problem(("init_sql",), f"{file} cannot be read as UTF-8 text: {error}")


def init_files(folder: Path, database: str) -> list[Path]:
    """The SQL files of a database in the order they run, that of their names."""
    return sorted(path for path in (folder / database).glob("*.sql") if path.is_file())
