"""Kafka: what gets deployed, where secrets are, both image sources, what consumers and outputs get."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache
from typing import Any

import pytest
from graph import PLANTED, Graph, Node, bare, plain_texts, platform

from components.kafka_settings import KafkaAccess
from components.service import Need, Service
from components.services.kafka import Kafka
from components.settings import ServiceSettings
from components.workload import Job, Limits

SETTINGS: dict[str, Any] = {
    "brokers": 3,
    "loopback_port": 19092,
    "topics": [{"name": "orders", "partitions": 3}, {"name": "visits", "replication": 1}],
    "users": [{"name": "seller", "write": ["orders"]}, {"name": "analyst", "read": ["*"]}],
}
REQUEST = KafkaAccess(read=("orders",), write=("visits",))


class Consumer(Service):
    """A service that reads one topic and writes another."""

    key = "big_consumer"
    settings_model = ServiceSettings

    @classmethod
    def needs(cls, settings: Any, platform: Any) -> Iterable[Need]:
        return [Need(service="kafka", request=REQUEST)]

    def build(self) -> None:
        connection = self.context.platform.connect(self.key, "kafka", REQUEST)
        self.run(
            Job(
                name="use",
                image="kafka",
                command=("true",),
                user=1000,
                limits=Limits(memory_mib=64),
                env={"JAAS": connection.jaas, "BOOTSTRAP": connection.bootstrap, "GROUP": connection.group},
            )
        )


@cache
def _made(text: str) -> Graph:
    return platform(json.loads(text), services={"kafka": Kafka, "big_consumer": Consumer})


def deployed(source: str = "build", **values: Any) -> Graph:
    return _made(json.dumps({"images": source, "kafka": {**SETTINGS, **values}, "big_consumer": {}}))


def setup(graph: Graph) -> Node:
    (job,) = [node for node in graph.jobs if node.name == "kafka-setup"]
    return job


def sent(node: Node) -> dict[str, str]:
    """Files of a container or job by their short names."""
    files = node.get("files") or [{"path": u["file"], "content": u["content"]} for u in node.get("uploads")]
    return {file["path"].rpartition("/")[2]: file["content"] for file in files}


def env(node: Node) -> dict[str, str]:
    return dict(pair.split("=", 1) for pair in node.get("envs"))


def networks(node: Node) -> set[str]:
    """Networks of a container by their short names."""
    return {joined["name"].removeprefix("millrace-test-") for joined in node.get("networksAdvanced")}


def properties(graph: Graph, node: int) -> dict[str, str]:
    lines = sent(graph.container(f"kafka-{node}"))["server.properties"].splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


# -- brokers


def test_each_broker_is_a_workload_of_its_own_with_its_own_volume() -> None:
    graph = deployed()
    one = deployed(brokers=1)
    for node in (1, 2, 3):
        (volume,) = graph.container(f"kafka-{node}").get("volumes")
        assert volume["volumeName"] == f"millrace-test-kafka-{node}-data"
        assert properties(graph, node)["node.id"] == str(node)
    # So that more brokers leave those there are, and their data, in place.
    assert one.container("kafka-1").get("volumes") == graph.container("kafka-1").get("volumes")
    assert [c.name for c in one.containers if c.name.startswith("kafka")] == ["kafka-1"]


@pytest.mark.parametrize(("brokers", "voters"), [(1, {1}), (2, {1}), (3, {1, 2, 3}), (5, {1, 2, 3})])
def test_one_controller_or_three(brokers: int, voters: set[int]) -> None:
    graph = deployed(brokers=brokers)
    for node in range(1, brokers + 1):
        own = properties(graph, node)
        votes = node in voters
        assert own["process.roles"] == ("broker,controller" if votes else "broker")
        assert ("CONTROLLER" in own["listeners"]) == votes
        assert own["controller.quorum.auto.join.enable"] == str(votes).lower()
        assert own["controller.quorum.bootstrap.servers"] == ",".join(
            f"kafka-{v}:9095" for v in sorted(voters)
        )
    copies = str(min(3, brokers))
    own = properties(graph, 1)
    assert own["offsets.topic.replication.factor"] == own["default.replication.factor"] == copies
    assert own["transaction.state.log.min.isr"] == ("2" if brokers >= 3 else "1")


def test_the_first_broker_asks_the_other_controllers_before_it_founds_a_cluster() -> None:
    graph = deployed(brokers=4)
    assert env(graph.container("kafka-1"))["PEERS"] == "kafka-2:9094 kafka-3:9094"
    assert env(deployed(brokers=1).container("kafka-1"))["PEERS"] == ""
    ids = {env(graph.container(f"kafka-{node}"))["CLUSTER_ID"] for node in (1, 2, 3, 4)}
    assert len(ids) == 1


def test_every_listener_is_tls_and_knows_who_comes() -> None:
    own = properties(deployed(), 1)
    protocols = dict(pair.split(":") for pair in own["listener.security.protocol.map"].split(","))
    for listener in own["listeners"].split(","):
        name = listener.partition("://")[0]
        if protocols[name] == "SASL_SSL":
            assert own[f"listener.name.{name.lower()}.sasl.enabled.mechanisms"] == "SCRAM-SHA-512"
        else:
            assert protocols[name] == "SSL"
            assert own[f"listener.name.{name.lower()}.ssl.client.auth"] == "required"
    assert own["authorizer.class.name"].endswith("StandardAuthorizer")
    assert own["allow.everyone.if.no.acl.found"] == "false"
    assert own["auto.create.topics.enable"] == "false"
    assert own["super.users"] == "User:CN=kafka-broker;User:CN=kafka-admin"


def test_certificates_name_the_broker_and_serve_both_ways() -> None:
    graph = deployed()
    request = graph.named("kafka-2-broker-request")
    assert request.get("dnsNames") == ["kafka-2", "localhost"]
    assert request.get("subject")["commonName"] == "kafka-broker"
    assert {"server_auth", "client_auth"} <= set(graph.named("kafka-2-broker-certificate").get("allowedUses"))
    admin = graph.named("kafka-admin-certificate").get("allowedUses")
    assert "client_auth" in admin
    assert "server_auth" not in admin
    # No other service's server certificate is good for logging in here.
    assert graph.named("kafka-admin-request").get("subject")["commonName"] == "kafka-admin"


def test_loopback_ports_follow_the_brokers() -> None:
    graph = deployed()
    for node in (1, 2, 3):
        (port,) = graph.container(f"kafka-{node}").get("ports")
        assert (port["ip"], port["external"], port["internal"]) == ("127.0.0.1", 19091 + node, 9093)
        assert f"LOOPBACK://localhost:{19091 + node}" in properties(graph, node)["advertised.listeners"]
    inside = deployed(loopback_port=None)
    assert inside.container("kafka-1").get("ports") is None
    assert "LOOPBACK" not in properties(inside, 1)["listeners"]


def test_the_heap_follows_the_limit() -> None:
    big = deployed(memory_mib=2048)
    assert env(big.container("kafka-1"))["HEAP_MIB"] == "1024"
    assert properties(big, 1)["log.cleaner.dedupe.buffer.size"] == str(64 * 2**20)
    assert properties(deployed(memory_mib=384), 1)["log.cleaner.dedupe.buffer.size"] == str(12 * 2**20)


# -- secrets


@pytest.mark.parametrize("console", [False, True])
def test_secrets_are_in_files_alone(console: bool) -> None:
    graph = deployed(console=console)
    for node in graph.nodes:
        assert not any(PLANTED in text for text in plain_texts(node.inputs)), node.name
    for node in [c for c in graph.containers if c.name.startswith("kafka")]:
        secret = {u["file"]: u for u in node.get("uploads") if PLANTED in u["content"]}
        assert {u["permissions"] for u in secret.values()} == {"0440"}
        assert not any(
            PLANTED in text for key in ("envs", "entrypoints") for text in plain_texts(node.get(key))
        )
        if node.name != "kafka-console":
            # The broker never gets a user's password, only its own key.
            assert set(secret) == {"/run/millrace/kafka/broker.pem"}
            assert "password" not in sent(node)["broker.pem"]
    job = setup(graph)
    assert {f["path"] for f in job.get("files") if f["secret"]} == {
        "/run/millrace/tls/client.key",
        "/run/millrace/kafka/passwords.json",
    }


def test_the_setup_gets_all_users_and_runs_for_each_new_container() -> None:
    graph = deployed(console=True)
    job = setup(graph)
    passwords = json.loads(sent(job)["passwords.json"])
    assert set(passwords) == {"seller", "analyst", "big_consumer", "console"}
    assert all(value.startswith(PLANTED) for value in passwords.values())
    plan = json.loads(sent(job)["plan.json"])
    assert plan["users"] == list(passwords)
    assert plan["bootstrap"] == ["kafka-1:9094", "kafka-2:9094", "kafka-3:9094"]
    assert job.get("triggers") == ["id-kafka-1", "id-kafka-2", "id-kafka-3"]
    assert {graph.named(f"kafka-{n}-ready").urn for n in (1, 2, 3)} <= job.depends_on


# -- images


def test_images_of_both_sources() -> None:
    def images(graph: Graph) -> dict[str, str]:
        nodes = [*graph.containers, *graph.jobs]
        return {n.name: n.get("image").removeprefix("sha256:") for n in nodes if n.name.startswith("kafka")}

    built = images(deployed(console=True))
    assert built == {
        **dict.fromkeys(["kafka-1", "kafka-2", "kafka-3"], "image-kafka"),
        "kafka-console": "image-redpanda-console-upstream",
        "kafka-setup": "image-kafka-setup",
    }
    pulled = deployed("upstream", console=True)
    assert images(pulled) == {
        **built,
        **dict.fromkeys(["kafka-1", "kafka-2", "kafka-3"], "image-kafka-upstream"),
    }
    assert pulled.named("image-kafka-upstream").get("reference").startswith("docker.io/apache/kafka:4.3.")
    own = images(deployed(console=True, image="registry.example.com/kafka:4.3.1"))
    assert own == {**built, **dict.fromkeys(["kafka-1", "kafka-2", "kafka-3"], "image-kafka-custom")}


def test_the_command_is_the_same_on_either_image() -> None:
    for source in ("build", "upstream"):
        container = deployed(source).container("kafka-1")
        assert container.get("entrypoints") == ["bash", "/run/millrace/kafka/start.sh"]
        assert container.get("user") == "1000"


# -- console


def test_the_console_is_behind_the_proxy_with_a_user_of_its_own() -> None:
    graph = deployed(console=True, console_access="admin")
    console = graph.container("kafka-console")
    config = sent(console)["config.yaml"]
    assert "username: console\n" in config
    assert f"password: {PLANTED}-password-credential-kafka-console" in config
    assert 'brokers: ["kafka-1:9092", "kafka-2:9092", "kafka-3:9092"]' in config
    assert setup(graph).urn in console.depends_on
    assert graph.outputs["urls"]["kafka"]["access"] == "admin"
    # Not where the consumer of the brokers is: the console itself asks nobody to log in.
    assert networks(console) == {"kafka", "proxy--kafka"}
    assert "big-consumer--kafka" in networks(graph.container("kafka-1"))
    off = deployed()
    assert "kafka" not in off.outputs["urls"]
    assert "kafka-console" not in [c.name for c in off.containers]
    assert "console" not in bare(off.outputs["credentials"])["kafka"]


# -- consumers and outputs


def test_a_consumer_gets_a_user_of_its_own() -> None:
    (job,) = [node for node in deployed().jobs if node.name == "big-consumer-use"]
    own = job.get("env")
    assert own["BOOTSTRAP"] == "kafka-1:9092,kafka-2:9092,kafka-3:9092"
    assert own["GROUP"] == "big_consumer"
    assert (
        f'username="big_consumer" password="{PLANTED}-password-credential-kafka-big-consumer' in own["JAAS"]
    )


def test_outputs() -> None:
    offered = bare(deployed().outputs["connections"])["kafka"]
    assert offered["bootstrap"] == "kafka-1:9092,kafka-2:9092,kafka-3:9092"
    assert offered["loopback"] == "localhost:19092,localhost:19093,localhost:19094"
    assert offered["users"]["analyst"]["read"] == ["*"]
    assert offered["users"]["big_consumer"] == {
        "password": bare(deployed().outputs["credentials"])["kafka"]["big_consumer"],
        "read": ["orders"],
        "write": ["visits"],
        "groups": ["big_consumer", "big_consumer-*", "big_consumer.*", "big_consumer_*"],
    }
    assert "loopback" not in bare(deployed(loopback_port=None).outputs["connections"])["kafka"]
