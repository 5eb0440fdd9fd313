"""Postgres: settings and their mistakes, the plan, the files it renders, and what gets deployed."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from graph import PLANTED, bare, plain_texts, platform
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
from components.problems import SettingsError
from components.service import Demand, Need, Service
from components.services.postgres import Postgres
from components.settings import ServiceSettings, load
from components.workload import Job, Limits

SETTINGS: dict[str, Any] = {
    "databases": [{"name": "sales", "owner": "boss", "schemas": ["raw", "marts"]}, {"name": "app"}],
    "roles": [
        {"name": "boss"},
        {"name": "analyst", "connection_limit": 5, "grants": [{"database": "sales"}]},
        {"name": "reporter", "grants": [{"database": "sales", "schemas": ["marts", "raw"]}]},
        {"name": "loader", "grants": [{"database": "sales", "privilege": "read-write"}]},
        {"name": "deputy", "grants": [{"database": "sales", "privilege": "owner"}]},
    ],
}


def settings(**values: Any) -> PostgresSettings:
    return PostgresSettings.model_validate({**SETTINGS, **values})


def mistakes(*demands: Demand, **values: Any) -> list[str]:
    found = Postgres.check(PostgresSettings.model_validate(values), demands, None)  # type: ignore[arg-type]
    return [problem.line("f", "m") for problem in found]


def demand(consumer: str, request: Any) -> Demand:
    return Demand(consumer=consumer, request=request)


# -- settings


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


# -- what gets deployed


class Consumer(Service):
    """A service with a database of its own."""

    key = "consumer"
    settings_model = ServiceSettings
    request = Database(name="consumer", role="consumer")

    @classmethod
    def needs(cls, settings: Any) -> Iterable[Need]:
        return [Need(service="postgres", request=cls.request)]

    def build(self) -> None:
        connection = self.context.platform.connect(self.key, "postgres", self.request)
        self.run(
            Job(
                name="use",
                image="postgres",
                command=("true",),
                user=999,
                limits=Limits(memory_mib=64),
                env={"URI": connection.uri, "JDBC": connection.jdbc_url or ""},
            )
        )


def deployed(**values: Any) -> Any:
    services = {"postgres": Postgres, "consumer": Consumer}
    return platform({"postgres": {**SETTINGS, **values}, "consumer": {}}, services=services)


@pytest.fixture(scope="module")
def graph() -> Any:
    return deployed(loopback_port=15432, parameters={"work_mem": "8MB", "search_path": r"it's \x"})


def files(node: Any, key: str, path: str, content: str) -> dict[str, str]:
    return {file[path]: file[content] for file in node.get(key)}


def test_the_server_speaks_only_tls(graph: Any) -> None:
    uploads = files(graph.container("postgres"), "uploads", "file", "content")
    conf = uploads["/etc/millrace/postgres/postgresql.conf"]
    assert "ssl = on" in conf
    assert "shared_buffers = 128MB" in conf
    assert conf.rstrip().endswith(r"search_path = 'it''s \\x'")
    rules = [
        line.split()
        for line in uploads["/etc/millrace/postgres/pg_hba.conf"].splitlines()
        if line[:1] not in "#"
    ]
    assert [(rule[0], rule[2], rule[-1]) for rule in rules] == [
        ("local", "postgres", "peer"),
        ("hostssl", "postgres", "map=superuser"),
        ("hostssl", "all", "scram-sha-256"),
        ("hostnossl", "all", "reject"),
    ]


def test_the_superuser_certificate_is_not_the_servers(graph: Any) -> None:
    names = {
        node.get("subject")["commonName"]: node.get("dnsNames")
        for node in graph.of("tls:index/certRequest:CertRequest")
    }
    assert names["postgres-superuser"] == []
    assert "postgres" in names["postgres"]
    ident_map = files(graph.container("postgres"), "uploads", "file", "content")[
        "/etc/millrace/postgres/pg_ident.conf"
    ]
    assert ["superuser", "postgres-superuser", "postgres"] in [
        line.split() for line in ident_map.splitlines()
    ]


def test_the_setup_gets_verifiers_and_no_password(graph: Any) -> None:
    (job,) = [node for node in graph.jobs if node.name == "postgres-setup"]
    sent = files(job, "files", "path", "content")
    verifiers = sent["/etc/millrace/postgres/passwords.sql"]
    for role in ("boss", "analyst", "reporter", "loader", "deputy", "app", "consumer"):
        assert f"('{role}', 'SCRAM-SHA-256$4096:" in verifiers
    assert not any(f"{PLANTED}-password" in text for text in sent.values())
    assert not any(PLANTED in text or "SCRAM" in text for text in plain_texts(job.inputs))
    assert graph.container("postgres").urn in graph.waits_for(job)


def test_passwords_reach_the_job_for_init_sql_only(tmp_path: Path) -> None:
    (tmp_path / "sales").mkdir()
    (tmp_path / "sales" / "1.sql").write_text("SELECT 1;")
    made = deployed(init_sql=str(tmp_path))
    (job,) = [node for node in made.jobs if node.name == "postgres-setup"]
    sent = files(job, "files", "path", "content")
    assert sent["/etc/millrace/postgres/pgpass"].startswith("*:*:*:boss:")
    assert sent["/etc/millrace/postgres/pgpass"].count("\n") == 1
    assert sent["/etc/millrace/postgres/init/sales/1.sql"] == "SELECT 1;"
    assert not any(PLANTED in text for text in plain_texts(job.inputs))


def test_outputs_offer_each_database_to_its_roles(graph: Any) -> None:
    offered = bare(graph.outputs["connections"])["postgres"]
    assert {name: sorted(roles) for name, roles in offered["databases"].items()} == {
        "sales": ["analyst", "boss", "deputy", "loader", "reporter"],
        "app": ["app"],
        "consumer": ["consumer"],
    }
    uri = offered["loopback"]["databases"]["app"]["app"]["uri"]
    assert re.fullmatch(r"postgresql://app:[^@]+@127\.0\.0\.1:15432/app\?sslmode=verify-full", uri)


def test_a_consumer_gets_its_own_database(graph: Any) -> None:
    (job,) = [node for node in graph.jobs if node.name == "consumer-use"]
    env = job.get("env")
    assert re.fullmatch(
        r"postgresql://consumer:[^@]+@postgres:5432/consumer\?sslmode=verify-full", env["URI"]
    )
    assert env["JDBC"] == "jdbc:postgresql://postgres:5432/consumer?sslmode=verify-full"
    assert any(node.name == "postgres-setup" and node.urn in graph.waits_for(job) for node in graph.jobs)
