"""Presto's catalogs, made of the data services that are on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pulumi

from components.kafka_settings import (
    KafkaAccess,
    KafkaConnection,
    KafkaSettings,
    TopicSettings,
    table_name,
)
from components.object_store_settings import Bucket
from components.postgres_settings import DatabaseAccess, PostgresSettings
from components.presto_settings import METASTORE_BUCKET, Engine, PrestoSettings, database_catalog
from components.service import TLS_FOLDER, Need
from components.settings import Settings
from components.templates import render
from components.workload import File

FOLDER = "/etc/millrace/presto"
"""Where a container finds its configuration; Presto calls it ``etc``."""

LAKE = "lake"
"""Catalog of the Delta tables."""

ROLE = "presto"
"""Postgres role of the catalogs."""

_KAFKA = KafkaAccess(read=("*",))


@dataclass(frozen=True, kw_only=True)
class Database:
    """A catalog of a Postgres database."""

    catalog: str
    request: DatabaseAccess


def databases(platform: Settings) -> list[Database]:
    """Catalogs of the declared databases: ``postgres`` for the first, ``postgres_<name>`` for the others."""
    postgres = platform.services.get("postgres")
    if not isinstance(postgres, PostgresSettings):
        return []
    return [
        Database(
            catalog=database_catalog(database.name) if index else "postgres",
            request=DatabaseAccess(database=database.name, role=ROLE),
        )
        for index, database in enumerate(postgres.databases)
    ]


def topics(platform: Settings) -> list[TopicSettings]:
    """Topics that say what their messages hold; the others make no tables."""
    kafka = platform.services.get("kafka")
    return [t for t in kafka.topics if t.message] if isinstance(kafka, KafkaSettings) else []


def has_lake(platform: Settings) -> bool:
    """Whether there is an object store for the lake."""
    return "object_store" in platform.services


def buckets(settings: PrestoSettings) -> tuple[Bucket, Bucket]:
    """The lake's bucket and the one with the list of its tables."""
    return Bucket(name=settings.lake_bucket), Bucket(name=METASTORE_BUCKET)


def needs(settings: PrestoSettings, platform: Settings) -> Iterable[Need]:
    """What the catalogs ask of the services that are on."""
    for database in databases(platform):
        yield Need(service="postgres", request=database.request, optional=True)
    if topics(platform):
        # Only queries call it.
        yield Need(service="kafka", request=_KAFKA, optional=True, wait=False)
    if has_lake(platform):
        for bucket in buckets(settings):
            yield Need(service="object_store", request=bucket, optional=True)


def names(settings: PrestoSettings, platform: Settings) -> list[str]:
    """All catalogs that people see."""
    found = [database.catalog for database in databases(platform)]
    found += ["kafka"] if topics(platform) else []
    found += [LAKE] if has_lake(platform) else []
    return [*found, "tpch"]


def files(settings: PrestoSettings, platform: Any) -> list[File]:
    """Files of all catalogs; ``platform`` is the :class:`components.platform.Platform`."""
    found = [File(path=_path("tpch"), content="connector.name=tpch\n")]
    for database in databases(platform.settings):
        connection = platform.connect("presto", "postgres", database.request)
        found.append(
            _secret(database.catalog, "postgres", url=connection.jdbc_url, password=connection.password)
        )
    if declared := topics(platform.settings):
        found += _kafka(settings.engine, platform.connect("presto", "kafka", _KAFKA), declared)
    if has_lake(platform.settings):
        store, metastore = (platform.store("presto", bucket) for bucket in buckets(settings))
        values = {
            "endpoint": store.endpoint,
            "region": store.region,
            "metastore": f"s3://{metastore.path}/{settings.engine}",
        }
        found.append(
            _secret(LAKE, f"lake-{settings.engine}", values, user=store.user, password=store.password)
        )
    return found


def _path(catalog: str) -> str:
    return f"{FOLDER}/catalog/{catalog}.properties"


def _secret(
    catalog: str,
    template: str,
    values: Mapping[str, object] | None = None,
    **outputs: pulumi.Input[str] | None,
) -> File:
    given = {**(values or {}), "ca": f"{TLS_FOLDER}/ca.crt", "role": ROLE}
    content = pulumi.Output.all(**outputs).apply(
        lambda found: render(f"presto/catalog/{template}.properties.j2", **given, **found)
    )
    return File(path=_path(catalog), content=pulumi.Output.secret(content), secret=True)


def _kafka(engine: Engine, connection: KafkaConnection, declared: Sequence[TopicSettings]) -> list[File]:
    values = {
        "tables": ",".join(table_name(topic) for topic in declared),
        "folder": f"{FOLDER}/kafka",
        "engine": engine,
        "protocol": connection.security_protocol,
        "mechanism": connection.sasl_mechanism,
    }
    found = [_secret("kafka", "kafka", values, jaas=connection.jaas, nodes=connection.bootstrap)]
    if engine is Engine.TRINO:
        client = connection.jaas.apply(
            lambda jaas: render("presto/kafka-client.properties.j2", **values, jaas=jaas)
        )
        found.append(
            File(path=f"{FOLDER}/kafka-client.properties", content=pulumi.Output.secret(client), secret=True)
        )
    for topic in declared:
        found.append(File(path=f"{FOLDER}/kafka/{table_name(topic)}.json", content=description(topic)))
    return found


def description(topic: TopicSettings) -> str:
    """What the Kafka connectors read of a topic."""
    assert topic.message is not None
    kind = topic.message.format
    fields = []
    for place, column in enumerate(topic.message.columns):
        mapping = column.mapping or {"json": column.name, "csv": str(place)}.get(kind, "0")
        field = {"name": column.name, "type": column.type, "mapping": mapping}
        if column.format is not None:
            field["dataFormat"] = column.format
        fields.append(field)
    return (
        json.dumps(
            {
                "tableName": table_name(topic),
                "schemaName": "default",
                "topicName": topic.name,
                "message": {"dataFormat": kind, "fields": fields},
            },
            indent=2,
        )
        + "\n"
    )
