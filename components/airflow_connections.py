"""What Airflow's tasks request of the other services, and its connections made of the platform's.

The entries' keys are those of ``airflow.models.Connection``; a local secrets backend reads them from a file.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pulumi

from components.airflow_settings import LOG_BUCKET, AirflowSettings, ConnectionSettings
from components.connection import Connection
from components.delta_sharing_settings import ShareAccess
from components.kafka_settings import KafkaAccess, KafkaConnection
from components.object_store_connection import StoreConnection
from components.object_store_settings import Bucket
from components.postgres_settings import DatabaseAccess
from components.presto_settings import QueryAccess
from components.problems import Problem, nearest
from components.service import TLS_FOLDER, Login, Need
from components.spark_settings import SparkCluster, SparkConnection

if TYPE_CHECKING:
    from components.platform import Platform
    from components.settings import Settings

CA = f"{TLS_FOLDER}/ca.crt"

TASK_ROLE = "airflow_tasks"
"""Role of tasks in the declared databases; the metadata database is not for them."""

LOGS = Bucket(name=LOG_BUCKET)

_OWN_IDS = (
    "aws_default",
    "delta_sharing_default",
    "kafka_default",
    "object_store",
    "postgres_default",
    "presto_default",
    "spark_default",
    "trino_default",
)
"""What no connection of the settings may be called, besides `postgres_<database>`."""

Entry = dict[str, Any]


def needs(settings: AirflowSettings, platform: Settings) -> Iterable[Need]:
    """All that tasks can use, of the services that are on."""
    yield Need(service="object_store", request=LOGS)
    for name in settings.buckets:
        yield Need(service="object_store", request=Bucket(name=name))
    for request in warehouses(settings, platform).values():
        yield Need(service="postgres", request=request)
    for service, request in _optional(settings).items():
        # Only tasks call them.
        yield Need(service=service, request=request, optional=True, wait=False)
    for wanted in settings.connections.values():
        yield Need(service=wanted.service, request=_login(wanted, platform), optional=True, wait=False)


def warehouses(settings: AirflowSettings, platform: Settings) -> dict[str, DatabaseAccess]:
    """What is requested of each database that the settings of Postgres declare."""
    postgres: Any = platform.services.get("postgres")
    return {
        database.name: DatabaseAccess(
            database=database.name, role=TASK_ROLE, privilege=settings.warehouse_privilege
        )
        for database in (postgres.databases if postgres else ())
    }


def _optional(settings: AirflowSettings) -> dict[str, Any]:
    return {
        "kafka": KafkaAccess(read=settings.kafka_read, write=settings.kafka_write),
        "delta_sharing": ShareAccess(),
        "presto": QueryAccess(write=True),
        "spark": SparkCluster(),
    }


def document(key: str, settings: AirflowSettings, platform: Platform) -> pulumi.Output[str]:
    """The file with all connections, by the ids that DAGs use; secret."""
    entries = entries_of(key, settings, platform)

    def text(found: Mapping[str, Entry]) -> str:
        ready = {name: {**entry, "extra": json.dumps(entry["extra"])} for name, entry in found.items()}
        return json.dumps(ready, indent=1, sort_keys=True) + "\n"

    return pulumi.Output.secret(pulumi.Output.from_input(entries).apply(text))


def entries_of(key: str, settings: AirflowSettings, platform: Platform) -> dict[str, Entry]:
    """The connections by id."""
    store = _object_store(platform.store(key, LOGS))
    entries: dict[str, Entry] = {"object_store": store, "aws_default": store}
    databases = warehouses(settings, platform.settings)
    for name, request in databases.items():
        entries[f"postgres_{name}"] = _postgres(platform.connect(key, "postgres", request))
    if databases:
        entries["postgres_default"] = entries[f"postgres_{next(iter(databases))}"]
    for service, request in _optional(settings).items():
        if service in platform.settings.services:
            name, entry = _MAKE[service](platform.connect(key, service, request))
            entries[name] = entry
    for id_, wanted in settings.connections.items():
        login = _login(wanted, platform.settings)
        entries[id_] = _DECLARED[wanted.service](platform.connect(key, wanted.service, login))
    return entries


def bucket_names(key: str, settings: AirflowSettings, platform: Platform) -> dict[str, str]:
    """What the buckets that tasks may use are called in the object store, by their names in the settings."""
    found = dict(platform.store(key, LOGS).buckets)
    for wanted in settings.connections.values():
        if wanted.service == "object_store":
            found |= platform.store(key, _login(wanted, platform.settings)).buckets
    return found


def _login(wanted: ConnectionSettings, platform: Settings) -> Login:
    """The request for a connection's user; without a database it is for the only one there is."""
    databases = _declared(wanted.service, platform).get(wanted.user, ())
    return Login(user=wanted.user, database=wanted.database or next(iter(databases), ""))


def _declared(service: str, platform: Settings) -> Mapping[str, Sequence[str]]:
    from components.services import registry

    own = platform.services.get(service)
    return {} if own is None else registry()[service].logins(own)


def problems(settings: AirflowSettings, platform: Settings) -> Iterator[Problem]:
    """Connections whose id is the platform's own, or whose user or database there is not."""
    ours = {*_OWN_IDS, *(f"postgres_{name}" for name in warehouses(settings, platform))}
    for id_, wanted in settings.connections.items():
        path = ("connections", id_)
        if id_ in ours:
            yield Problem(path, "is a connection of the platform itself - choose another id")
        if wanted.service not in platform.services:
            yield Problem(
                (*path, "service"), f"{wanted.service} is off - add the key {wanted.service} or remove this"
            )
            continue
        declared = _declared(wanted.service, platform)
        if wanted.user not in declared:
            where = "roles" if wanted.service == "postgres" else "users"
            yield Problem(
                (*path, "user"),
                f'no user "{wanted.user}" among {wanted.service}.{where}{nearest(wanted.user, declared)}',
            )
            continue
        yield from _database(wanted, declared[wanted.user], path)


def _database(wanted: ConnectionSettings, known: Sequence[str], path: tuple[str, ...]) -> Iterator[Problem]:
    path = (*path, "database")
    if wanted.service != "postgres":
        if wanted.database is not None:
            yield Problem(path, f"has no meaning for {wanted.service} - remove it")
    elif wanted.database is None:
        if not known:
            yield Problem(path, f'role "{wanted.user}" may use no database - give it a grant')
        elif len(known) > 1:
            yield Problem(path, f'missing - role "{wanted.user}" may use {", ".join(sorted(known))}')
    elif wanted.database not in known:
        yield Problem(
            path, f'role "{wanted.user}" has no grant on "{wanted.database}"{nearest(wanted.database, known)}'
        )


def _base(connection: Connection, conn_type: str, **extra: object) -> Entry:
    return {
        "conn_type": conn_type,
        "host": connection.host,
        "port": connection.port,
        "login": connection.user,
        "password": connection.password,
        "extra": extra,
    }


def _postgres(connection: Connection) -> Entry:
    entry = _base(connection, "postgres", sslmode="verify-full", sslrootcert=CA)
    return entry | {"schema": connection.path}


def _object_store(connection: StoreConnection) -> Entry:
    return {
        "conn_type": "aws",
        "login": connection.user,
        "password": connection.password,
        "extra": {
            "endpoint_url": connection.endpoint,
            "region_name": connection.region,
            "verify": connection.ca_path,
            "config_kwargs": connection.client_config,
        },
    }


def _kafka(connection: KafkaConnection) -> tuple[str, Entry]:
    return "kafka_default", _kafka_user(connection)


def _kafka_user(connection: KafkaConnection) -> Entry:
    # The hooks hand the extra field to librdkafka as it is.
    return {"conn_type": "kafka", "extra": {**connection.librdkafka(CA), "group.id": connection.group}}


def _presto(connection: Connection) -> tuple[str, Entry]:
    engine = connection.scheme
    return f"{engine}_default", _base(connection, engine, protocol="https", verify=CA, catalog="system")


def _http(connection: Connection, port: pulumi.Input[int], token: pulumi.Input[str]) -> Entry:
    # Whatever the hook does not know in the extra field becomes a header.
    header = pulumi.Output.concat("Bearer ", token)
    return {
        "conn_type": "http",
        "schema": "https",
        "host": connection.host,
        "port": port,
        "password": token,
        "extra": {"verify": CA, "Authorization": header},
    }


def _spark(connection: SparkConnection) -> tuple[str, Entry]:
    port = int(connection.rest_url.rpartition(":")[2])
    return "spark_default", _http(connection, port, connection.rest_token)


def _delta_sharing(connection: Connection) -> tuple[str, Entry]:
    return "delta_sharing_default", _http(connection, connection.port, connection.password)


_MAKE: Mapping[str, Any] = {
    "kafka": _kafka,
    "delta_sharing": _delta_sharing,
    "presto": _presto,
    "spark": _spark,
}

_DECLARED: Mapping[str, Any] = {"postgres": _postgres, "object_store": _object_store, "kafka": _kafka_user}
"""Entries for users that the settings declare."""
