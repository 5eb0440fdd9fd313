"""Settings of Postgres and their mistakes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from postgres_sample import SETTINGS, demand

from components.postgres_settings import Database, DatabaseAccess, PostgresSettings, Privilege
from components.problems import SettingsError
from components.service import Demand
from components.services.postgres import Postgres
from components.settings import load


def mistakes(*demands: Demand, **values: Any) -> list[str]:
    found = Postgres.check(PostgresSettings.model_validate(values), demands, None)  # type: ignore[arg-type]
    return [problem.line("f", "m") for problem in found]


def test_good_settings_have_no_mistakes() -> None:
    own = demand("airflow", Database(name="airflow", role="airflow"))
    other = demand("bi", DatabaseAccess(database="sales", role="bi"))
    assert mistakes(own, own, other, **SETTINGS) == []


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"databases": [{"name": "a"}, {"name": "a"}]}, 'f: m:databases[1].name: database "a" stands here'),
        ({"roles": [{"name": "a"}, {"name": "a"}]}, 'f: m:roles[1].name: role "a" stands here a second'),
        (
            {"databases": [{"name": "a", "owner": "bos"}], "roles": [{"name": "boss"}]},
            'f: m:databases[0].owner: no role "bos" among roles - did you mean "boss"?',
        ),
        (
            {"databases": [{"name": "sales"}], "roles": [{"name": "r", "grants": [{"database": "sale"}]}]},
            'f: m:roles[0].grants[0].database: no database "sale" among databases - did you mean "sales"?',
        ),
        (
            {
                "databases": [{"name": "sales", "schemas": ["marts"]}],
                "roles": [{"name": "r", "grants": [{"database": "sales", "schemas": ["mart"]}]}],
            },
            'f: m:roles[0].grants[0].schemas: no schema "mart" in database sales - did you mean "marts"?',
        ),
        (
            {
                "databases": [{"name": "a"}],
                "roles": [
                    {"name": "r", "grants": [{"database": "a", "privilege": "owner", "schemas": ["public"]}]}
                ],
            },
            "f: m:roles[0].grants[0].schemas: has no meaning with privilege owner",
        ),
        ({"databases": [{"name": "template1"}]}, 'f: m:databases[0].name: "template1" is a database of'),
        ({"databases": [{"name": "public"}]}, 'f: m:databases[0].owner: "public" is a role of'),
        ({"databases": [{"name": "a", "schemas": ["pg_x"]}]}, 'f: m:databases[0].schemas[0]: "pg_x" is a'),
        (
            {"databases": [{"name": "a", "schemas": ["x", "x"]}]},
            'f: m:databases[0].schemas[1]: schema "x" stands',
        ),
        ({"roles": [{"name": "postgres"}]}, 'f: m:roles[0].name: "postgres" is a role of'),
        ({"roles": [{"name": "pg_monitor"}]}, 'f: m:roles[0].name: "pg_monitor" is a role of'),
        ({"parameters": {"hba_file": "x"}}, "f: m:parameters.hba_file: is set by the platform itself"),
        ({"parameters": {"ssl_ciphers": "x"}}, "f: m:parameters.ssl_ciphers: is set by the platform itself"),
        ({"parameters": {"max_connections": 7}}, "f: m:parameters.max_connections: has a key of its own"),
        ({"init_sql": "nowhere/at/all"}, 'f: m:init_sql: no folder "nowhere/at/all" - give a path'),
        ({"init_sql": "x" * 5000}, "f: m:init_sql: no folder"),
    ],
)
def test_each_mistake_is_one_line(values: dict[str, Any], line: str) -> None:
    (found,) = mistakes(**values)
    assert found.startswith(line)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("parameters", {"Work_Mem": "1MB"}),
        ("parameters", {"work_mem": "1MB\nssl = off"}),
        ("parameters", {"x y": 1}),
        ("max_connections", 5),
        ("memory_mib", 64),
        ("databases", [{"name": "Sales"}]),
        ("databases", [{"name": 'a"b'}]),
        ("roles", [{"name": "a", "grants": [{"database": "a", "schemas": []}]}]),
        ("roles", [{"name": "a", "grants": [{"database": "a", "privilege": "all"}]}]),
        ("roles", [{"name": "a", "connection_limit": 0}]),
    ],
)
def test_values_that_the_model_refuses(key: str, value: Any) -> None:
    with pytest.raises(SettingsError) as caught:
        load({"users": [{"name": "ada", "role": "admin"}], "postgres": {key: value}}, "Pulumi.test.yaml")
    assert all(line.startswith("Pulumi.test.yaml: millrace:postgres.") for line in caught.value.lines)


def test_requests_of_services_share_nothing() -> None:
    first = demand("a", Database(name="x", role="x"))

    def only(*others: Demand, **values: Any) -> str:
        return mistakes(first, *others, **values)[0]

    assert only(demand("b", Database(name="y", role="x"))) == 'f: m: services a and b both want role "x"'
    assert only(demand("b", Database(name="x", role="y"))) == 'f: m: services a and b both want database "x"'
    assert "is the role of service a" in only(roles=[{"name": "x"}])
    taken = only(databases=[{"name": "x", "owner": "o"}], roles=[{"name": "o"}])
    assert taken.startswith('f: m:databases[0]: "x" is the database of service a')
    assert "which b uses" in only(demand("b", DatabaseAccess(database="nope", role="b")))


def grant(database: str, privilege: str = "owner", **more: Any) -> dict[str, Any]:
    return {"database": database, "privilege": privilege, **more}


@pytest.mark.parametrize(
    ("of_deputy", "said"),
    [
        ([grant("sales")], "who is owner in hr too"),
        ([grant("sales"), grant("hr", "read-write")], "who is owner in hr too"),
        ([grant("sales"), grant("hr")], None),
        ([grant("sales", "read-write")], None),
        ([grant("other")], None),
    ],
)
def test_who_acts_as_an_owner_holds_what_the_owner_has(of_deputy: list[Any], said: str | None) -> None:
    databases = [{"name": "sales", "owner": "boss"}, {"name": "hr", "owner": "boss"}, {"name": "other"}]
    roles = [{"name": "boss"}, {"name": "deputy", "grants": of_deputy}]
    found = mistakes(databases=databases, roles=roles)
    if said is None:
        assert found == []
        return
    (line,) = found
    assert line.startswith(
        "f: m:roles[1].grants[0].privilege: owner of sales makes deputy a member of boss, "
    )
    assert said in line


@pytest.mark.parametrize(
    ("of_boss", "of_deputy", "good"),
    [
        (grant("hr", "read-only"), None, False),
        (grant("hr", "read-only"), grant("hr", "read-only"), True),
        (grant("hr", "read-only"), grant("hr", "read-write"), True),
        (grant("hr", "read-write"), grant("hr", "read-only"), False),
        (grant("hr", "read-only", schemas=["a", "b"]), grant("hr", "read-only", schemas=["a"]), False),
        (grant("hr", "read-only", schemas=["a"]), grant("hr", "read-only", schemas=["b", "a"]), True),
        (grant("hr", "read-only"), grant("hr", "read-only", schemas=["a", "b"]), False),
        # And what an owner acts as: by way of it, one would be that too.
        (grant("hr"), None, False),
    ],
)
def test_who_acts_as_an_owner_has_the_owners_grants(of_boss: Any, of_deputy: Any, good: bool) -> None:
    databases = [{"name": "sales", "owner": "boss"}, {"name": "hr", "schemas": ["a", "b"]}]
    roles = [
        {"name": "boss", "grants": [of_boss]},
        {"name": "deputy", "grants": [grant("sales"), *([of_deputy] if of_deputy else [])]},
    ]
    assert (mistakes(databases=databases, roles=roles) == []) is good


def test_a_service_that_acts_as_an_owner_is_named() -> None:
    databases = [{"name": "sales", "owner": "boss"}, {"name": "hr", "owner": "boss"}]
    wanted = demand("lab", DatabaseAccess(database="sales", role="lab", privilege=Privilege.OWNER))
    (line,) = mistakes(wanted, databases=databases, roles=[{"name": "boss"}])
    assert line.startswith(
        "f: m:databases: owner of sales makes lab a member of boss, who is owner in hr too"
    )


def test_owners_cannot_act_for_each_other() -> None:
    databases = [{"name": "a", "owner": "ann"}, {"name": "b", "owner": "bob"}]
    roles = [{"name": "ann", "grants": [grant("b")]}, {"name": "bob", "grants": [grant("a")]}]
    (line,) = mistakes(databases=databases, roles=roles)
    assert line.startswith("f: m:roles: ann and bob cannot be owners of each other's databases")


def test_init_sql_belongs_to_a_database_and_is_text(tmp_path: Path) -> None:
    (tmp_path / "sale").mkdir()
    (tmp_path / "loose.sql").write_text("SELECT 1;")
    (tmp_path / "sales").mkdir()
    (tmp_path / "sales" / "bad.sql").write_bytes(b"\xff\xfe")
    (tmp_path / "sales" / "a b.sql").write_text("SELECT 1;")
    found = mistakes(init_sql=str(tmp_path), databases=[{"name": "sales"}])
    assert len(found) == 4
    for part in (
        "loose.sql belongs to no",
        'did you mean "sales"?',
        "a b.sql - use letters",
        "bad.sql cannot be",
    ):
        assert any(part in line for line in found), part
