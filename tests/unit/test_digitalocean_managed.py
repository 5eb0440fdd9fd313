"""Managed Postgres and Kafka in place of containers: the same databases, roles, topics and users."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import pytest
from graph import PLANTED, Graph, Node, Secret, bare, plain_texts, platform

from components import kafka_managed
from components.kafka_settings import KafkaSettings
from components.plan import plan
from components.problems import SettingsError
from components.settings import Settings, load

TARGET: dict[str, Any] = {"kind": "digitalocean", "region": "fra1", "ssh_networks": ["203.0.113.7"]}
VALUES: dict[str, Any] = {
    "domain": "data.example.org",
    "tls": {"email": "ops@example.org"},
    "users": [{"name": "ada", "role": "admin"}],
    "postgres": {
        "databases": [{"name": "warehouse", "owner": "owner"}],
        "roles": [
            {"name": "owner"},
            {"name": "reader", "grants": [{"database": "warehouse", "privilege": "read-only"}]},
        ],
    },
    "kafka": {
        "topics": [
            {
                "name": "orders",
                "partitions": 6,
                "retention_hours": 24,
                "config": {"cleanup.policy": "compact,delete"},
                "message": {"format": "json", "columns": [{"name": "id", "type": "BIGINT"}]},
            },
            {"name": "plain", "partitions": 3},
        ],
        "users": [
            {"name": "shop", "write": ["orders"]},
            {"name": "both", "read": ["orders", "plain"], "write": ["orders"]},
            {"name": "all", "read": ["*"]},
        ],
    },
    "presto": {},
    "bi": {"engine": "metabase", "memory_mib": 1536},
}
BOTH: dict[str, Any] = {"postgres": {}, "kafka": {}}


@cache
def _made(target: str, values: str) -> Graph:
    return platform({**VALUES, **json.loads(values), "target": {**TARGET, **json.loads(target)}})


def made(target: dict[str, Any] | None = None, **values: Any) -> Graph:
    return _made(json.dumps(BOTH if target is None else target), json.dumps(values))


def kinds(graph: Graph, kind: str) -> list[Node]:
    return graph.of(f"digitalocean:index/{kind[0].lower()}{kind[1:]}:{kind}")


def cluster(graph: Graph, name: str) -> Node:
    (found,) = [node for node in kinds(graph, "DatabaseCluster") if node.name == f"managed-{name}"]
    return found


def files(job: Node) -> dict[str, Any]:
    return {file["path"]: file["content"] for file in job.get("files")}


def texts(node: Node) -> str:
    return json.dumps(bare(dict(node.inputs)))


# -- clusters


def test_clusters_are_private_and_protected() -> None:
    graph = made()
    for name, engine, version, nodes in (("postgres", "pg", "15", 1), ("kafka", "kafka", "3.8", 3)):
        node = cluster(graph, name)
        assert (node.get("engine"), node.get("version"), node.get("nodeCount")) == (engine, version, nodes)
        assert node.get("name") == f"millrace-test-{name}"
        assert node.get("region") == "fra1"
        assert node.get("privateNetworkUuid") == "id-vpc"
        assert node.protect
        assert {"password", "uri", "privateUri"} <= set(node.additional_secrets)
    firewalls = kinds(graph, "DatabaseFirewall")
    assert [node.get("rules") for node in firewalls] == [[{"type": "droplet", "value": "4711"}]] * 2
    (project,) = kinds(graph, "Project")
    assert {"do:dbaas:managed-postgres", "do:dbaas:managed-kafka"} <= set(project.get("resources"))


def test_their_size_is_a_setting() -> None:
    graph = made(
        {
            "postgres": {"size": "db-s-2vcpu-4gb", "nodes": 2, "version": "16", "storage_gib": 100},
            "kafka": {"size": "gd-2vcpu-8gb", "nodes": 6, "version": "3.7"},
            "protect": False,
        }
    )
    postgres, kafka = cluster(graph, "postgres"), cluster(graph, "kafka")
    assert (postgres.get("size"), postgres.get("nodeCount")) == ("db-s-2vcpu-4gb", 2)
    assert (postgres.get("version"), postgres.get("storageSizeMib")) == ("16", "102400")
    assert (kafka.get("size"), kafka.get("nodeCount"), kafka.get("version")) == ("gd-2vcpu-8gb", 6, "3.7")
    assert not postgres.protect
    assert not kafka.protect


def test_without_the_settings_there_are_containers() -> None:
    graph = made({})
    assert not kinds(graph, "DatabaseCluster")
    assert {"postgres", "kafka-1"} <= {node.name for node in graph.containers}
    names = {node.name for node in made().containers}
    assert not {"postgres", "kafka-1"} & names
    assert {"presto", "bi"} <= names


# -- Postgres


def test_the_same_job_sets_up_the_cluster() -> None:
    graph = made()
    (job,) = [node for node in graph.jobs if node.name == "postgres-setup"]
    assert job.get("env")["PGHOST"] == "private-millrace-test-postgres.db.ondigitalocean.com"
    assert job.get("env")["PGPORT"] == "25060"
    assert job.get("env")["PGSSLMODE"] == "verify-full"
    found = files(job)
    assert found["/run/millrace/tls/ca.crt"] == "CA of id-managed-postgres\n"
    assert "-U doadmin -d defaultdb" in found["/etc/millrace/postgres/setup.sh"]
    sql = found["/etc/millrace/postgres/setup.sql"]
    assert "CREATE DATABASE %I OWNER %I" in sql
    assert "GRANT %I TO CURRENT_USER" in sql
    # What a superuser alone may do or see.
    for word in ("pg_authid a", "FROM pg_authid", "NOSUPERUSER", "template1"):
        assert word not in sql
    assert found["/etc/millrace/postgres/pgpass"] == f"*:*:*:doadmin:{PLANTED}-admin-managed-postgres\n"
    assert isinstance(job.inputs["files"], Secret)
    waited = graph.waits_for(job)
    assert cluster(graph, "postgres").urn in waited
    assert {node.urn for node in kinds(graph, "DatabaseFirewall")} & waited


def test_consumers_reach_the_cluster_and_know_its_ca() -> None:
    graph = made()
    presto = graph.container("presto")
    uploads = {upload["file"]: upload["content"] for upload in presto.get("uploads")}
    url = "".join(text for path, text in uploads.items() if "/catalog/" in path)
    assert "jdbc:postgresql://private-millrace-test-postgres.db.ondigitalocean.com:25060/warehouse" in url
    assert uploads["/run/millrace/tls/ca.crt"] == (
        "certificate ca-certificate\nCA of id-managed-kafka\nCA of id-managed-postgres\n"
    )
    bi = texts(graph.container("bi"))
    assert "jdbc:postgresql://private-millrace-test-postgres.db.ondigitalocean.com:25060/" in bi
    assert "CA of id-managed-postgres" in bi


def test_only_who_uses_them_has_a_way_out() -> None:
    graph = made()
    networks = {node.name: node for node in graph.of("millrace:docker:Network")}
    for name in ("net-presto--postgres", "net-bi--postgres", "net-presto--kafka", "net-postgres--egress"):
        assert (networks[name].get("internal"), networks[name].get("masquerade")) == (False, True), name
    for name in ("net-presto", "net-bi--presto", "net-proxy--bi", "net-portal"):
        assert networks[name].get("internal") is True, name
    here = {node.name for node in made({}).of("millrace:docker:Network") if not node.get("internal")}
    assert here == {"net-proxy--publish", "net-proxy-acme--egress"} or all("proxy" in name for name in here)


def test_connections_say_where() -> None:
    offered = bare(made().outputs["connections"])
    assert offered["postgres"]["host"] == "private-millrace-test-postgres.db.ondigitalocean.com"
    assert offered["postgres"]["port"] == 25060
    reader = offered["postgres"]["databases"]["warehouse"]["reader"]
    assert ":25060/warehouse?sslmode=verify-full" in reader["uri"]
    assert offered["kafka"]["bootstrap"] == "private-millrace-test-kafka.db.ondigitalocean.com:25060"
    assert offered["kafka"]["sasl_mechanism"] == "SCRAM-SHA-256"


# -- Kafka


def test_topics() -> None:
    graph = made()
    topics = {node.get("name"): node for node in kinds(graph, "DatabaseKafkaTopic")}
    orders, plain = topics["orders"], topics["plain"]
    assert (orders.get("partitionCount"), orders.get("replicationFactor")) == (6, 3)
    assert orders.get("configs") == [
        {"cleanupPolicy": "compact_delete", "minInsyncReplicas": 2, "retentionMs": "86400000"}
    ]
    assert (plain.get("partitionCount"), plain.get("replicationFactor")) == (3, 3)
    assert plain.get("configs") == [{"minInsyncReplicas": 2}]
    # Out of the settings is not out of the cluster, as with containers.
    assert orders.retain
    assert not orders.protect


def test_users() -> None:
    users = {node.get("name"): node for node in kinds(made(), "DatabaseUser")}

    def rights(name: str) -> dict[str, str]:
        (setting,) = users[name].get("settings")
        return {acl["topic"]: acl["permission"] for acl in setting["acls"]}

    assert rights("shop") == {"orders": "produce"}
    assert rights("both") == {"orders": "produceconsume", "plain": "consume"}
    assert rights("all") == {"*": "consume"}
    assert rights("presto") == {"*": "consume"} or "orders" in rights("presto")


def test_passwords_are_the_providers() -> None:
    graph = made()
    credentials = bare(graph.outputs["credentials"])
    assert credentials["kafka"]["shop"] == f"{PLANTED}-user-managed-kafka-user-shop"
    passwords = graph.of("random:index/randomPassword:RandomPassword")
    assert not [node for node in passwords if node.name.startswith("kafka")]
    uploads = {u["file"]: u["content"] for u in graph.container("presto").get("uploads")}
    client = uploads["/etc/millrace/presto/kafka-client.properties"]
    assert f'password="{PLANTED}-user-managed-kafka-user-presto"' in client
    assert "sasl.mechanism=SCRAM-SHA-256" in client
    catalog = uploads["/etc/millrace/presto/catalog/kafka.properties"]
    assert "kafka.nodes=private-millrace-test-kafka.db.ondigitalocean.com:25060" in catalog


# -- secrecy, plans


def test_no_secret_in_plain() -> None:
    graph = made()
    for node in graph.nodes:
        assert not [text for text in plain_texts(node.inputs) if PLANTED in text], node
    assert not [text for text in plain_texts(graph.outputs) if PLANTED in text]


def settings(target: dict[str, Any], **values: Any) -> Settings:
    return load({**VALUES, **values, "target": {**TARGET, **target}}, "Pulumi.prod.yaml")


def test_a_plan_needs_no_cluster() -> None:
    planned = plan(settings(BOTH))
    assert not {"postgres", "kafka"} & {work.service for work in planned.workloads}
    assert [job.job.name for job in planned.jobs if job.service == "postgres"] == ["setup"]


# -- what can't be had


KAFKA, POSTGRES = VALUES["kafka"], VALUES["postgres"]


def configured(name: str, value: object) -> dict[str, Any]:
    return {"topics": [{"name": "a", "partitions": 3, "config": {name: value}}]}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (
            {"postgres": {**POSTGRES, "parameters": {"work_mem": "8MB"}}},
            "postgres.parameters: a managed cluster does not have it (target.postgres) - remove it",
        ),
        ({"postgres": {**POSTGRES, "memory_mib": 1024}}, "postgres.memory_mib: a managed cluster does not"),
        ({"postgres": {**POSTGRES, "max_connections": 50}}, "postgres.max_connections: a managed"),
        ({"postgres": {**POSTGRES, "loopback_port": 15432}}, "postgres.loopback_port: a managed"),
        ({"kafka": {**KAFKA, "brokers": 3}}, "kafka.brokers: a managed cluster does not have it"),
        ({"kafka": {**KAFKA, "memory_mib": 1024}}, "kafka.memory_mib: a managed"),
        ({"kafka": {**KAFKA, "console": True}}, "kafka.console: has no user with the rights it needs"),
        ({"kafka": {**KAFKA, "deleted_topics": ["old"]}}, "kafka.deleted_topics: topics of a managed"),
        (
            {"kafka": {**KAFKA, "users": [{"name": "u", "read": ["orders"], "groups": ["g"]}]}},
            "kafka.users[0].groups: a managed cluster lets every user read with any consumer group",
        ),
        (
            {"kafka": {**KAFKA, "topics": [{"name": "orders", "partitions": 1}, {"name": "plain"}]}},
            "kafka.topics[0].partitions: a managed cluster has 3 or more in a topic - write `partitions: 3`",
        ),
        (
            {"kafka": {"topics": [{"name": "a", "partitions": 3, "replication": 1}]}},
            "kafka.topics[0].replication: a managed cluster keeps 2 to 3 copies - change it",
        ),
        (
            {"kafka": {"topics": [{"name": "a", "partitions": 3, "config": {"retention.m": "1"}}]}},
            'kafka.topics[0].config["retention.m"]: not among the configuration',
        ),
        (
            {"kafka": configured("min.cleanable.dirty.ratio", "50%")},
            'kafka.topics[0].config["min.cleanable.dirty.ratio"]: expected a number from 0 to 1 -',
        ),
        (
            {"kafka": configured("min.cleanable.dirty.ratio", "nan")},
            'kafka.topics[0].config["min.cleanable.dirty.ratio"]: expected a number',
        ),
        (
            {"kafka": configured("min.cleanable.dirty.ratio", 50)},
            'kafka.topics[0].config["min.cleanable.dirty.ratio"]: expected a number',
        ),
        (
            {"kafka": configured("preallocate", "yes")},
            "kafka.topics[0].config.preallocate: expected true or false",
        ),
        (
            {"rotation": {"kafka/shop": "2"}},
            'rotation["kafka/shop"]: passwords of a managed Kafka cluster are its provider\'s',
        ),
    ],
)
def test_what_a_managed_cluster_can_not_do_is_said(values: dict[str, Any], expected: str) -> None:
    with pytest.raises(SettingsError) as error:
        settings(BOTH, **values)
    lines = [line.partition("millrace:")[2] for line in error.value.lines]
    normal = [line.replace("config.retention.m", 'config["retention.m"]') for line in lines]
    normal = [line.replace("rotation.kafka/shop", 'rotation["kafka/shop"]') for line in normal]
    assert any(line.startswith(expected) for line in normal), lines


def test_configuration_of_topics_has_the_kind_that_the_provider_takes() -> None:
    def handed(name: str, value: object) -> Any:
        kafka = settings(BOTH, kafka=configured(name, value)).services["kafka"]
        assert isinstance(kafka, KafkaSettings)
        (topic,) = kafka_managed.topics(kafka, nodes=2)
        return topic.config[name]

    assert handed("min.cleanable.dirty.ratio", 0.25) == 0.25
    assert handed("min.cleanable.dirty.ratio", "1") == 1.0
    assert handed("min.cleanable.dirty.ratio", 0.00001) == 0.00001
    assert handed("preallocate", True) is True
    assert handed("preallocate", "false") is False
    assert handed("segment.ms", 5000) == "5000"


def test_the_same_settings_are_fine_with_containers() -> None:
    settings({}, kafka={**KAFKA, "memory_mib": 1024}, postgres={**POSTGRES, "max_connections": 50})
