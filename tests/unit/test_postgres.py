"""Postgres as it gets deployed."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from graph import PLANTED, bare, plain_texts, platform
from postgres_sample import SETTINGS

from components.postgres_settings import Database
from components.service import Need, Service
from components.services.postgres import Postgres
from components.settings import ServiceSettings
from components.workload import Job, Limits


class Consumer(Service):
    """A service with a database of its own."""

    key = "consumer"
    settings_model = ServiceSettings
    request = Database(name="consumer", role="consumer")

    @classmethod
    def needs(cls, settings: Any, platform: Any) -> Iterable[Need]:
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
