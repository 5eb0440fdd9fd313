"""What the setup job of Postgres brings about, and the SQL it does it with."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from postgres_sample import demand, settings
from scramp import ScramClient, ScramMechanism

from components.postgres_plan import (
    Group,
    ident,
    init_sql,
    literal,
    passwords_sql,
    plan,
    scram_verifier,
    setup_sql,
    tuning,
)
from components.postgres_settings import Database, DatabaseAccess, PostgresSettings, Privilege

# -- the plan


def test_privileges_are_memberships_of_groups() -> None:
    made = plan(settings(), [])
    assert made.memberships == (
        ("millrace:sales:read-only", "analyst"),
        ("millrace:sales.marts:read-only", "reporter"),
        ("millrace:sales.raw:read-only", "reporter"),
        ("millrace:sales:read-write", "loader"),
        ("boss", "deputy"),
    )
    sales, app = made.databases
    assert (sales.owner, app.owner) == ("boss", "app")
    assert sales.acting_owners == ("deputy",)
    assert made.roles_of(sales) == ["boss", "deputy", "analyst", "reporter", "loader"]
    assert [role.name for role in made.roles] == ["boss", "analyst", "reporter", "loader", "deputy", "app"]
    assert {role.name: role.connection_limit for role in made.roles}["analyst"] == 5


def test_services_get_what_they_request() -> None:
    made = plan(
        settings(),
        [
            demand("airflow", Database(name="airflow", role="airflow")),
            demand("bi", DatabaseAccess(database="sales", role="bi", schemas=("marts",))),
            demand("dev", DatabaseAccess(database="airflow", role="dev", privilege=Privilege.READ_WRITE)),
        ],
    )
    assert made.databases[2].name == made.databases[2].owner == "airflow"
    assert ("millrace:sales.marts:read-only", "bi") in made.memberships
    assert ("millrace:airflow:read-write", "dev") in made.memberships


def test_group_names_fit_and_differ() -> None:
    names = {
        Group(database="d" * 41, privilege=privilege, schema=schema).name
        for privilege in (Privilege.READ_ONLY, Privilege.READ_WRITE)
        for schema in (None, "s" * 41, "s" * 40 + "t")
    }
    assert len(names) == 6
    assert all(len(name) <= 63 and name.startswith("millrace:") for name in names)


# -- what it renders


def test_the_setup_names_everything_and_no_password() -> None:
    sql = setup_sql(plan(settings(), []))
    for part in (
        'ALTER ROLE "analyst" LOGIN',
        "CONNECTION LIMIT 5",
        'CREATE SCHEMA IF NOT EXISTS "marts" AUTHORIZATION "boss"',
        'GRANT CONNECT, TEMPORARY ON DATABASE "sales" TO "millrace:sales:read-write"',
        'ALTER DEFAULT PRIVILEGES FOR ROLE "boss" IN SCHEMA "marts" GRANT SELECT ON TABLES TO '
        '"millrace:sales.marts:read-only"',
        'ALTER DEFAULT PRIVILEGES FOR ROLE "boss" GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO '
        '"millrace:sales:read-write"',
        'REVOKE ALL ON DATABASE "app" FROM PUBLIC',
        "REVOKE ALL ON SCHEMA public FROM PUBLIC",
        'ALTER ROLE "deputy" IN DATABASE "sales" SET role = \'boss\'',
    ):
        assert part in sql, part
    assert "SCRAM" not in sql


def test_no_data_is_ever_dropped() -> None:
    sql = setup_sql(plan(settings(), [])).upper()
    for word in (
        "DROP DATABASE",
        "DROP SCHEMA",
        "DROP TABLE",
        "DROP OWNED",
        "CASCADE",
        "TRUNCATE",
        "DELETE FROM",
    ):
        assert word not in sql


def test_an_empty_plan_renders() -> None:
    sql = setup_sql(plan(PostgresSettings(), []))
    assert "json_to_recordset('[]')" in sql


def test_init_sql_runs_once_per_content(tmp_path: Path) -> None:
    (tmp_path / "sales").mkdir()
    (tmp_path / "sales" / "2.sql").write_text("SELECT 2;")
    (tmp_path / "sales" / "10.sql").write_text("SELECT 10;")
    (tmp_path / "sales" / "empty.sql").write_text("")
    (tmp_path / "sales" / "notes.txt").write_text("not SQL")
    made = plan(settings(init_sql=str(tmp_path)), [])
    (database,) = made.init_databases
    assert [file.name for file in database.init] == ["10.sql", "2.sql"]
    sql = init_sql(database)
    assert re.findall(r"^\\i (.*)$", sql, re.M) == ["init/sales/10.sql", "init/sales/2.sql"]
    assert all(file.sha256 in sql for file in database.init)
    assert "millrace.init_file" in setup_sql(made)
    assert "millrace.init_file" not in setup_sql(plan(settings(), []))


def test_quoting() -> None:
    assert ident('a"b') == '"a""b"'
    assert literal("a'b\\") == "'a''b\\'"


def test_a_verifier_proves_the_password_and_hides_it() -> None:
    verifier = scram_verifier("correct horse", "sixteen letters!")
    assert verifier == scram_verifier("correct horse", "sixteen letters!")
    form = r"SCRAM-SHA-256\$4096:(?P<salt>[^$]+)\$(?P<stored>[^:]+):(?P<server>.+)"
    match = re.fullmatch(form, verifier)
    assert match
    assert "correct" not in verifier
    assert _logs_in(match, "correct horse")
    assert not _logs_in(match, "wrong horse")
    assert verifier != scram_verifier("correct horse", "another salt 123")


def _logs_in(match: re.Match[str], password: str) -> bool:
    """What the server does with the verifier when a client knows ``password``."""
    from base64 import b64decode

    from scramp import ScramException

    mechanism = ScramMechanism("SCRAM-SHA-256")
    stored = (b64decode(match["salt"]), b64decode(match["stored"]), b64decode(match["server"]), 4096)
    server = mechanism.make_server(lambda _user: stored)
    client = ScramClient(["SCRAM-SHA-256"], "role", password)
    try:
        server.set_client_first(client.get_client_first())
        client.set_server_first(server.get_server_first())
        server.set_client_final(client.get_client_final())
        client.set_server_final(server.get_server_final())
    except ScramException:
        return False
    return True


def test_passwords_are_one_statement_each() -> None:
    text = passwords_sql({"a": "SCRAM-SHA-256$1", "b": "x'y"})
    assert text.count("INSERT INTO pg_temp.verifier") == 2
    assert "('b', 'x''y')" in text


@pytest.mark.parametrize("memory", [128, 512, 4096, 65536])
@pytest.mark.parametrize("connections", [10, 100, 1000])
def test_memory_settings_stay_within_the_limit(memory: int, connections: int) -> None:
    values = tuning(memory, 2.0, connections)
    assert values["shared_buffers"] == f"{memory // 4}MB"
    assert int(values["work_mem"].removesuffix("kB")) >= 1024
    assert int(values["maintenance_work_mem"].removesuffix("MB")) <= memory // 8
    assert values["max_parallel_workers_per_gather"] == "1"
