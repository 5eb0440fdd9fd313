"""Presto: what gets deployed for each engine, where secrets are, both image sources, catalogs on and off."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from graph import PLANTED, Graph, Node, bare, plain_texts, platform

from components.presto_settings import QueryAccess
from components.service import Need, Service
from components.services.kafka import Kafka
from components.services.object_store import ObjectStore
from components.services.postgres import Postgres
from components.services.presto import Presto
from components.settings import ServiceSettings
from components.workload import Job, Limits

FOLDER = "/etc/millrace/presto"
ENGINES = ("trino", "prestodb")
OTHERS: dict[str, Any] = {
    "postgres": {"databases": [{"name": "shop"}, {"name": "web-shop"}]},
    "kafka": {
        "topics": [
            {
                "name": "visits",
                "message": {"format": "json", "columns": [{"name": "page", "type": "VARCHAR"}]},
            }
        ]
    },
    "object_store": {},
}
USERS = [{"name": "ada", "role": "admin"}, {"name": "uma", "role": "user"}]


class Consumer(Service):
    """A service that queries, and writes to the lake."""

    key = "big_consumer"
    settings_model = ServiceSettings
    request = QueryAccess(write=True)

    @classmethod
    def needs(cls, settings: Any, platform: Any) -> Iterable[Need]:
        return [Need(service="presto", request=cls.request)]

    def build(self) -> None:
        connection = self.context.platform.connect(self.key, "presto", self.request)
        self.run(
            Job(
                name="use",
                image="nginx",
                command=("true",),
                user=1000,
                limits=Limits(memory_mib=64),
                env={"URI": connection.uri, "JDBC": connection.jdbc_url or ""},
            )
        )


SERVICES: dict[str, type[Service]] = {
    service.key: service for service in (Presto, Postgres, Kafka, ObjectStore, Consumer)
}


@cache
def _made(text: str) -> Graph:
    return platform(json.loads(text), services=SERVICES)


def deployed(engine: str = "trino", source: str = "build", off: Iterable[str] = (), **values: Any) -> Graph:
    others = {key: value for key, value in OTHERS.items() if key not in off}
    presto = {"engine": engine, **values}
    document = {"users": USERS, "images": source, **others, "presto": presto, "big_consumer": {}}
    return _made(json.dumps({**document, "proxy": {"https_port": 9443}}))


def sent_to(node: Node) -> dict[str, str]:
    """Contents of a container's files by path."""
    return {upload["file"]: upload["content"] for upload in node.get("uploads")}


def properties(text: str) -> dict[str, str]:
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    pairs = [tuple(line.split("=", 1)) for line in lines]
    assert len(dict(pairs)) == len(pairs), "a property stands twice"
    return dict(pairs)


def catalogs(graph: Graph, name: str = "presto") -> dict[str, dict[str, str]]:
    start = f"{FOLDER}/catalog/"
    return {
        path.removeprefix(start).removesuffix(".properties"): properties(text)
        for path, text in sent_to(graph.container(name)).items()
        if path.startswith(start)
    }


@pytest.mark.parametrize("engine", ENGINES)
def test_secrets_are_in_secret_files_alone(engine: str) -> None:
    graph = deployed(engine, workers=1)
    for name in ("presto", "presto-worker", "presto-lake"):
        node = graph.container(name)
        assert not any(PLANTED in text for text in plain_texts(node.inputs)), name
        for key in ("envs", "entrypoints", "labels"):
            assert not any(PLANTED in text for text in plain_texts(node.get(key))), (name, key)
        for upload in node.get("uploads"):
            if PLANTED in upload["content"]:
                assert upload["permissions"] == "0440", (name, upload["file"])
    secret = {path for path, text in sent_to(graph.container("presto")).items() if PLANTED in text}
    names = {
        "passwords",
        "config.properties",
        "probe.curl",
        "kafka-client.properties" if engine == "trino" else "catalog/kafka.properties",
        "catalog/lake.properties",
    }
    assert {f"{FOLDER}/{name}" for name in names} <= secret


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("source", ["build", "upstream"])
def test_the_same_on_either_image(engine: str, source: str) -> None:
    image = {"trino": "trino", "prestodb": "presto"}[engine]
    graph = deployed(engine, source)
    (found,) = [
        n for n in graph.nodes if n.type == "millrace:docker:Image" and n.name.startswith(f"image-{image}")
    ]
    assert found.name == (f"image-{image}" if source == "build" else f"image-{image}-upstream")
    built, other = (deployed(engine, s).container("presto") for s in ("build", source))
    for key in ("entrypoints", "envs", "user", "uploads", "memory", "healthcheck"):
        assert built.get(key) == other.get(key)


def test_a_custom_image_replaces_the_server_alone() -> None:
    graph = deployed(image="registry.example/trino:476")
    lake, server = graph.container("presto-lake"), graph.container("presto")
    assert lake.get("image") == deployed().container("presto-lake").get("image")
    assert server.get("image") != deployed().container("presto").get("image")


@pytest.mark.parametrize("engine", ENGINES)
def test_nothing_is_served_without_tls_and_a_login(engine: str) -> None:
    graph = deployed(engine, workers=2)
    for name in ("presto", "presto-worker-1", "presto-worker-2"):
        found = properties(sent_to(graph.container(name))[f"{FOLDER}/config.properties"])
        assert found["http-server.http.enabled"] == "false"
        assert found["http-server.https.enabled"] == "true"
        types = "PASSWORD" if engine == "trino" else "CERTIFICATE,PASSWORD"
        assert found["http-server.authentication.type"] == types
        assert found["internal-communication.https.required"] == "true"
        assert PLANTED in found["internal-communication.shared-secret"]
        assert found["discovery.uri"] == "https://presto:8443"
        assert found["coordinator"] == str(name == "presto").lower()
        assert (
            "access-control.name=file"
            in sent_to(graph.container(name))[f"{FOLDER}/access-control.properties"]
        )


@pytest.mark.parametrize("engine", ENGINES)
def test_every_user_has_a_hash_and_no_password(engine: str) -> None:
    lines = sent_to(deployed(engine).container("presto"))[f"{FOLDER}/passwords"].splitlines()
    users = dict(line.split(":", 1) for line in lines)
    assert set(users) == {"ada", "uma", "big_consumer", "millrace.probe", "millrace.lake"}
    assert all(f"{PLANTED}-hash-" in value for value in users.values())


@pytest.mark.parametrize("engine", ENGINES)
def test_catalogs(engine: str) -> None:
    found = catalogs(deployed(engine))
    shown = {"postgres", "postgres_web_shop", "kafka", "lake", "tpch"}
    assert set(found) == shown
    url = found["postgres"]["connection-url"]
    assert (
        url == "jdbc:postgresql://postgres:5432/shop?sslmode=verify-full&sslrootcert=/run/millrace/tls/ca.crt"
    )
    assert found["postgres"]["connection-user"] == "presto"
    assert "/web-shop?" in found["postgres_web_shop"]["connection-url"]
    assert found["kafka"]["kafka.table-names"] == "visits"
    endpoint = found["lake"]["s3.endpoint" if engine == "trino" else "hive.s3.endpoint"]
    assert endpoint == "https://object-store:9000"
    offered = bare(deployed(engine).outputs["connections"])["presto"]
    assert set(offered["catalogs"]) == shown


def test_how_each_engine_logs_in_to_kafka() -> None:
    trino = sent_to(deployed("trino").container("presto"))
    client = properties(trino[f"{FOLDER}/kafka-client.properties"])
    assert (
        catalogs(deployed("trino"))["kafka"]["kafka.config.resources"] == f"{FOLDER}/kafka-client.properties"
    )
    assert client["security.protocol"] == "SASL_SSL" and client["sasl.mechanism"] == "SCRAM-SHA-512"
    other = catalogs(deployed("prestodb"))["kafka"]
    assert other["kafka.security-protocol"] == "SASL_SSL"
    assert other["kafka.sasl.jaas.config"] == client["sasl.jaas.config"]
    # The names are those that the classes of images/presto know.
    source = Path("images/presto/kafka/KafkaConnectorConfig.java").read_text()
    supplier = {"kafka.nodes", "kafka.table-names", "kafka.table-description-dir"}
    for name in other.keys() - supplier - {"connector.name"}:
        assert f'@Config("{name}")' in source


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("off", "gone"), [("postgres", "postgres"), ("kafka", "kafka"), ("object_store", "lake")]
)
def test_no_catalog_of_a_service_that_is_off(engine: str, off: str, gone: str) -> None:
    graph = deployed(engine, off=(off,))
    assert not [name for name in catalogs(graph) if name.startswith(gone)]
    assert not [node for node in graph.nodes if off.replace("_", "-") in node.name and "presto" in node.name]
    assert ("presto-lake" in {node.name for node in graph.containers}) == (off != "object_store")


@pytest.mark.parametrize("engine", ENGINES)
def test_workers(engine: str) -> None:
    graph = deployed(engine, workers=2)
    assert {node.name for node in graph.containers} >= {"presto", "presto-worker-1", "presto-worker-2"}
    assert catalogs(graph) == catalogs(graph, "presto-worker-1")
    config = properties(sent_to(graph.container("presto"))[f"{FOLDER}/config.properties"])
    assert config["node-scheduler.include-coordinator"] == "false"
    alone = properties(sent_to(deployed(engine).container("presto"))[f"{FOLDER}/config.properties"])
    assert alone["node-scheduler.include-coordinator"] == "true"
    assert int(config["query.max-memory"][:-2]) == 2 * int(config["query.max-memory-per-node"][:-2])
    (request,) = [
        n for n in graph.of("tls:index/certRequest:CertRequest") if n.name.startswith("presto-worker")
    ]
    assert set(request.get("dnsNames")) >= {"presto-worker-1", "presto-worker-2", "localhost"}


def test_java_gets_what_it_takes() -> None:
    trino, presto = (sent_to(deployed(e).container("presto"))[f"{FOLDER}/jvm.config"] for e in ENGINES)
    assert "jdk.incubator" not in trino
    assert trino.splitlines()[-1] == "io.trino.server.TrinoServer"
    assert presto.splitlines()[-1] == "com.facebook.presto.server.PrestoServer"
    assert "-Xmx1056M" in trino
    # Java 11 knows none of these.
    newer = ("EnableDynamicAgentLoading", "G1PeriodicGCInterval", "native-access", "unsafe-memory")
    assert not any(flag in presto for flag in newer)


@pytest.mark.parametrize("engine", ENGINES)
def test_outputs_and_what_a_consumer_gets(engine: str) -> None:
    graph = deployed(engine)
    name = {"trino": "trino", "prestodb": "presto"}[engine]
    offered = bare(graph.outputs["connections"])["presto"]
    assert (offered["host"], offered["port"]) == ("presto", 8443)
    assert offered["public_url"] == "https://presto.data.localhost:9443"
    assert offered["jdbc_url"] == f"jdbc:{name}://presto:8443?SSL=true"
    assert graph.outputs["urls"]["presto"]["url"] == "https://presto.data.localhost:9443/"
    (job,) = [node for node in graph.jobs if node.name == "big-consumer-use"]
    env = job.get("env")
    assert env["URI"].startswith(f"{name}://big_consumer:{PLANTED}-password-credential-presto-big-consumer-")
    assert env["JDBC"] == f"jdbc:{name}://presto:8443?SSL=true"
    assert offered["users"]["big_consumer"]["uri"] == env["URI"]


def test_the_keeper_is_told_what_to_look_at() -> None:
    graph = deployed(lake_tables=[{"name": "sales.old", "folder": "archive/sales"}], lake_refresh_s=15)
    settings = json.loads(sent_to(graph.container("presto-lake"))["/etc/millrace/presto-lake/settings.json"])
    assert settings["tables"] == {"sales.old": "archive/sales"}
    assert (settings["bucket"], settings["refresh_s"], settings["engine"]) == ("lake", 15, "trino")
    # Its program is sent as it stands.
    for name in ("lake.py", "lake_clients.py"):
        sent = sent_to(graph.container("presto-lake"))[f"/etc/millrace/presto-lake/{name}"]
        assert sent == Path(f"configs/presto/{name}").read_text()


@pytest.mark.parametrize("image", ["trino", "presto"])
def test_downloads_are_locked(image: str) -> None:
    for line in Path(f"images/{image}/maven.lock").read_text().splitlines():
        digest, coordinate = line.split()
        assert len(digest) == 64 and coordinate.count(":") >= 2
    assert "--hash=sha256:" in Path(f"images/{image}/requirements.txt").read_text()
