"""Presto's settings: mistakes, division of memory, who may do what, tables of topics."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from components.kafka_settings import TopicSettings, table_name
from components.presto_access import KEEPER, PROBE, Rights, password_file, rights, rules
from components.presto_catalogs import databases, description, names, needs
from components.presto_settings import (
    LEAST_MEMORY_MIB,
    Engine,
    PrestoSettings,
    QueryAccess,
    consumers,
    memory,
)
from components.problems import SettingsError
from components.service import Demand
from components.settings import Role, Settings, User, load, settings_model

PEOPLE = [{"name": "ada", "role": "admin"}]
ALL: dict[str, Any] = {
    "postgres": {"databases": [{"name": "shop"}, {"name": "web-shop"}]},
    "kafka": {
        "topics": [
            {
                "name": "Web.Visits-1",
                "message": {"format": "json", "columns": [{"name": "n", "type": "BIGINT"}]},
            },
            {"name": "silent"},
        ]
    },
    "object_store": {},
}


def loaded(presto: dict[str, Any], **services: Any) -> Settings:
    settings_model.cache_clear()
    return load({"users": PEOPLE, "presto": presto, **services}, "f")


def mistakes(presto: dict[str, Any], **services: Any) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        loaded(presto, **services)
    return caught.value.lines


@pytest.mark.parametrize(
    ("presto", "line"),
    [
        (
            {"memory_mib": 1000},
            "f: millrace:presto.memory_mib: 1000 MiB is too little for trino - at least 1024",
        ),
        (
            {"engine": "prestodb", "memory_mib": 1024},
            "f: millrace:presto.memory_mib: 1024 MiB is too little for prestodb - at least 1152",
        ),
        (
            {"lake_tables": [{"name": "a.b", "folder": "x"}, {"name": "a.b", "folder": "y"}]},
            'f: millrace:presto.lake_tables[1].name: table "a.b" stands here a second time',
        ),
        (
            {"lake_bucket": "presto-metastore"},
            'f: millrace:presto.lake_bucket: "presto-metastore" is Presto\'s own',
        ),
        ({"lake_tables": [{"name": "A.b", "folder": "x"}]}, "f: millrace:presto.lake_tables[0].name: "),
        (
            {"lake_tables": [{"name": "a.b", "folder": "x/../y"}]},
            "f: millrace:presto.lake_tables[0].folder: ",
        ),
        ({"lake_tables": [{"name": "a.b", "folder": "x'y"}]}, "f: millrace:presto.lake_tables[0].folder: "),
        ({"engine": "presto"}, "f: millrace:presto.engine: "),
        ({"workers": -1}, "f: millrace:presto.workers: "),
    ],
)
def test_each_mistake_is_one_line(presto: dict[str, Any], line: str) -> None:
    (found,) = mistakes(presto, object_store={})
    assert found.startswith(line)


def test_tables_need_a_lake() -> None:
    (line,) = mistakes({"lake_tables": [{"name": "a.b", "folder": "x"}]})
    assert (
        line
        == "f: millrace:presto.lake_tables: has no meaning without an object store - add the key object_store"
    )


def test_databases_that_would_share_a_catalog() -> None:
    postgres = {"databases": [{"name": "shop"}, {"name": "a-b"}, {"name": "a_b"}]}
    found = mistakes({}, postgres=postgres)
    assert any("postgres_a_b" in line and "postgres.databases[2]" in line for line in found)


@pytest.mark.parametrize("engine", list(Engine))
@pytest.mark.parametrize("limit", [1152, 1536, 2048, 8192, 65536])
def test_memory_fits_into_the_limit(engine: Engine, limit: int) -> None:
    found = memory(PrestoSettings(engine=engine, memory_mib=limit))
    assert found.heap + min(480, limit // 5) <= limit
    # What the engines themselves check when they start.
    assert found.query + found.headroom < found.heap
    assert limit < 2500 or found.heap >= limit * 0.79


def test_the_least_memory_leaves_a_heap() -> None:
    for engine, least in LEAST_MEMORY_MIB.items():
        assert memory(PrestoSettings(engine=engine, memory_mib=least)).heap >= 512


# -- catalogs


def test_catalogs_are_of_what_is_on() -> None:
    everything = loaded({}, **ALL)
    assert names(everything.services["presto"], everything) == [  # type: ignore[arg-type]
        "postgres",
        "postgres_web_shop",
        "kafka",
        "lake",
        "tpch",
    ]
    assert [d.request.database for d in databases(everything)] == ["shop", "web-shop"]
    for off, gone in (("postgres", "postgres"), ("kafka", "kafka"), ("object_store", "lake")):
        settings = loaded({}, **{key: value for key, value in ALL.items() if key != off})
        own: Any = settings.services["presto"]
        assert not [name for name in names(own, settings) if name.startswith(gone)]
        assert off not in {need.service for need in needs(own, settings)}
    alone = loaded({})
    assert list(needs(alone.services["presto"], alone)) == []  # type: ignore[arg-type]


def test_topics_without_a_message_make_no_catalog() -> None:
    settings = loaded({}, kafka={"topics": [{"name": "silent"}]})
    assert list(needs(settings.services["presto"], settings)) == []  # type: ignore[arg-type]


def test_a_topics_table() -> None:
    columns = [
        {"name": "id", "type": "BIGINT", "mapping": "order/id"},
        {"name": "at", "type": "TIMESTAMP", "format": "iso8601"},
    ]
    topic = TopicSettings.model_validate(
        {"name": "Web.Visits-1", "message": {"format": "json", "columns": columns}}
    )
    assert table_name(topic) == "web_visits_1"
    assert json.loads(description(topic)) == {
        "tableName": "web_visits_1",
        "schemaName": "default",
        "topicName": "Web.Visits-1",
        "message": {
            "dataFormat": "json",
            "fields": [
                {"name": "id", "type": "BIGINT", "mapping": "order/id"},
                {"name": "at", "type": "TIMESTAMP", "mapping": "at", "dataFormat": "iso8601"},
            ],
        },
    }
    csv = topic.model_copy(
        update={"message": topic.message.model_copy(update={"format": "csv"})}  # type: ignore[union-attr]
    )
    assert [field["mapping"] for field in json.loads(description(csv))["message"]["fields"]] == [
        "order/id",
        "1",
    ]


# -- rights


def test_passwords_are_known_by_the_prefix_both_engines_take() -> None:
    text = password_file({"ada": "$2a$10$abc", "bob": "$2b$12$d$e", "eve": "$2y$10$f"})
    assert text == "ada:$2y$10$abc\nbob:$2y$12$d$e\neve:$2y$10$f\n"


def test_rights_follow_roles_and_requests() -> None:
    users = [
        User(name=name, role=Role(role)) for name, role in (("a", "admin"), ("e", "engineer"), ("u", "user"))
    ]
    demands = [
        Demand(consumer="bi", request=QueryAccess()),
        Demand(consumer="flow", request=QueryAccess()),
        Demand(consumer="flow", request=QueryAccess(write=True)),
    ]
    found = rights(users, consumers(demands))
    assert (found.admins, found.writers) == (("a",), ("e", "flow"))


def allowed(engine: Engine, given: Rights, user: str, catalog: str) -> str:
    """The first catalog rule that fits, as both engines read them."""
    for rule in json.loads(rules(engine, given))["catalogs"]:
        if re.fullmatch(rule.get("user", ".*"), user) and re.fullmatch(rule.get("catalog", ".*"), catalog):
            return str(rule["allow"])
    return "none"


@pytest.mark.parametrize("engine", list(Engine))
def test_the_first_rule_that_fits(engine: Engine) -> None:
    given = Rights(admins=("ada",), writers=("erin", "flow"))
    for user, lake, postgres in (
        ("ada", "all", "all"),
        ("erin", "all", "read-only"),
        ("flow", "all", "read-only"),
        ("uma", "read-only", "read-only"),
        ("bi", "read-only", "read-only"),
        ("adam", "read-only", "read-only"),
        (KEEPER, "all", "read-only"),
        ("millraceXlake", "read-only", "read-only"),
        (PROBE, "none", "none"),
    ):
        assert allowed(engine, given, user, "lake") == lake, user
        assert allowed(engine, given, user, "postgres") == postgres, user


def test_no_catalogs_own_functions_run_but_the_lakes_history() -> None:
    found = json.loads(rules(Engine.TRINO, Rights(admins=("ada",), writers=("erin",))))["functions"]

    def may(user: str, catalog: str, schema: str, function: str) -> bool:
        given = {"user": user, "catalog": catalog, "schema": schema, "function": function}
        for rule in found:
            if all(re.fullmatch(rule.get(key, ".*"), value) for key, value in given.items()):
                return "EXECUTE" in rule["privileges"]
        return False

    for user in ("ada", "erin", "uma", "bi", KEEPER):
        assert may(user, "system", "builtin", "count") and may(user, "lake", "system", "table_changes")
        assert not may(user, "postgres", "system", "query") and not may(user, "postgres_x", "system", "query")
    assert not may(PROBE, "lake", "system", "table_changes")


@pytest.mark.parametrize("engine", list(Engine))
def test_nobody_has_rights_by_an_empty_list(engine: Engine) -> None:
    given = Rights(admins=(), writers=())
    assert allowed(engine, given, "", "lake") == "read-only"
    assert all(rule.get("user") != "" for kind in json.loads(rules(engine, given)).values() for rule in kind)


def test_prestodb_takes_no_other_name_than_the_logins() -> None:
    (rule,) = json.loads(rules(Engine.PRESTODB, Rights(admins=(), writers=())))["principals"]
    assert rule == {"principal": "([a-z0-9_.-]+)", "principal_to_user": "$1", "allow": True}
    for name, is_one in (("ada", True), ("millrace.lake", True), ("big_consumer", True), ("CN=ada", False)):
        assert bool(re.fullmatch(rule["principal"], name)) == is_one
