"""Spaces in place of the object store's container: buckets, keys, and what each consumer is told of them."""

from __future__ import annotations

import configparser
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pulumi
import pytest
from graph import PLANTED, Graph, Node, Secret, bare, plain_texts, platform, run

from components import object_store_managed
from components.digitalocean_prices import monthly_cost
from components.digitalocean_settings import REGIONS, SPACES_REGIONS
from components.estimates import estimate
from components.managed import ManagedStoreUser
from components.plan import plan
from components.problems import SettingsError
from components.settings import Settings, load
from components.targets.digitalocean_spaces import spaces

TARGET: dict[str, Any] = {"kind": "digitalocean", "region": "fra1", "ssh_networks": ["203.0.113.7"]}
STORE: dict[str, Any] = {
    "buckets": [
        {"name": "raw", "expire_days": 90},
        {"name": "lake", "versioning": True, "noncurrent_expire_days": 30},
        {"name": "plain", "versioning": False},
    ],
    "users": [
        {
            "name": "loader",
            "buckets": [{"bucket": "raw", "privilege": "read-write"}, {"bucket": "lake"}],
        },
        {"name": "nobody"},
    ],
}
TABLES = [{"name": "orders"}, {"name": "raw-orders", "bucket": "raw", "path": "shop/orders"}]
VALUES: dict[str, Any] = {
    "domain": "data.example.org",
    "tls": {"email": "ops@example.org"},
    "users": [{"name": "ada", "role": "admin"}],
    "object_store": STORE,
    "postgres": {},
    "kafka": {},
    "spark": {},
    "presto": {},
    "airflow": {},
    "jupyter": {},
    "delta_sharing": {
        "shares": [{"name": "sales", "schemas": [{"name": "shop", "tables": TABLES}]}],
        "recipients": [{"name": "partner"}],
    },
    "demo": {},
}
ENDPOINT = "https://fra1.digitaloceanspaces.com"
PUBLIC_CAS = "/etc/ssl/certs/ca-certificates.crt"
ACME = {"object_store": {"prefix": "acme"}}
# What the demo adds, and what services ask for.
ALL = {"raw", "lake", "plain", "bronze", "silver", "jobs", "airflow-logs", "spark-events", "presto-metastore"}


@cache
def made() -> Graph:
    """Everything, on Spaces."""
    return platform({**VALUES, "target": {**TARGET, **ACME}})


@cache
def other() -> Graph:
    """The other engine and the other server."""
    sharing = {"images": "upstream", "shares": VALUES["delta_sharing"]["shares"]}
    return small(presto={"engine": "prestodb"}, delta_sharing=sharing)


def small(target: dict[str, Any] | None = None, **values: Any) -> Graph:
    """The object store and what is given."""
    few = {key: VALUES[key] for key in ("domain", "tls", "users", "object_store")}
    return platform({**few, **values, "target": {**TARGET, **(ACME if target is None else target)}})


def buckets(graph: Graph) -> dict[str, Node]:
    found = graph.of("digitalocean:index/spacesBucket:SpacesBucket")
    return {node.name.removeprefix("bucket-"): node for node in found}


def keys(graph: Graph) -> dict[str, Node]:
    found = graph.of("digitalocean:index/spacesKey:SpacesKey")
    return {node.name.removeprefix("credential-object-store-").removesuffix("-key"): node for node in found}


def files(node: Node) -> dict[str, str]:
    if node.type == "millrace:docker:Job":
        return {file["path"]: file["content"] for file in node.get("files")}
    return {upload["file"]: upload["content"] for upload in node.get("uploads")}


def job(graph: Graph, name: str) -> Node:
    (found,) = [node for node in graph.jobs if node.name == name]
    return found


def env(node: Node) -> dict[str, str]:
    return dict(pair.split("=", 1) for pair in node.get("envs"))


def secret(user: str, graph: Graph | None = None) -> str:
    """The secret key that the provider makes up for a user."""
    return f"{PLANTED}+/{keys(graph or made())[user].get('name')}"


def properties(text: str) -> dict[str, str]:
    """``spark-defaults.conf``."""
    return dict(line.split(" ", 1) for line in text.splitlines())


# -- buckets


def test_a_bucket_for_each_that_is_declared_or_asked_for() -> None:
    graph = made()
    found = buckets(graph)
    assert {name: node.get("name") for name, node in found.items()} == {name: f"acme-{name}" for name in ALL}
    for node in found.values():
        assert (node.get("region"), node.get("acl")) == ("fra1", "private")
        assert node.protect and node.get("forceDestroy") is False
    (project,) = graph.of("digitalocean:index/project:Project")
    assert {f"do:space:acme-{name}" for name in ALL} <= set(project.get("resources"))


def test_versioning_is_left_alone_where_the_settings_say_nothing() -> None:
    found = buckets(made())
    assert found["lake"].get("versioning") == {"enabled": True}
    assert found["plain"].get("versioning") == {"enabled": False}
    assert found["raw"].get("versioning") is None
    assert found["spark-events"].get("versioning") is None


def test_lifecycle_rules_are_those_of_the_container() -> None:
    found = buckets(made())
    assert found["raw"].get("lifecycleRules") == [
        {"id": "millrace-expire", "enabled": True, "expiration": {"days": 90}}
    ]
    assert found["lake"].get("lifecycleRules") == [
        {
            "id": "millrace-expire-noncurrent",
            "enabled": True,
            "noncurrentVersionExpiration": {"days": 30},
        },
        {
            "id": "millrace-delete-markers",
            "enabled": True,
            "expiration": {"expiredObjectDeleteMarker": True},
        },
    ]
    assert found["plain"].get("lifecycleRules") is None


def test_without_protection_a_bucket_goes_with_all_that_is_in_it() -> None:
    for node in buckets(small({**ACME, "protect": False})).values():
        assert not node.protect and node.get("forceDestroy") is True


def test_another_name_or_region_is_another_bucket() -> None:
    """The provider itself would take a new name for an update, and rename nothing."""
    first = buckets(small())["lake"]
    assert first.replace_on == ("name",) and first.delete_before_replace
    for target, place in (
        ({"object_store": {"prefix": "other"}}, ("other-lake", "fra1")),
        ({"object_store": {"prefix": "acme", "region": "ams3"}}, ("acme-lake", "ams3")),
    ):
        second = buckets(small(target))["lake"]
        assert second.urn == first.urn
        assert (second.get("name"), second.get("region")) == place


def test_names_nobody_else_has_without_a_prefix() -> None:
    def name(stack: str = "prod", domain: str = "data.example.org", project: str = "millrace") -> str:
        values = {**{key: VALUES[key] for key in ("tls", "users")}, "domain": domain}
        target = {**TARGET, "object_store": {}}
        given = {**values, "object_store": {"buckets": [{"name": "lake"}]}, "target": target}
        (node,) = buckets(platform(given, stack=stack, project=project)).values()
        return str(node.get("name"))

    assert re.fullmatch(r"millrace-prod-[0-9a-f]{8}-lake", name())
    assert len({name(), name("staging"), name(domain="data.example.com")}) == 3
    long = name("a-stack-with-a-name-that-goes-on-and-on", project="Project of Ours")
    assert re.fullmatch(r"[a-z0-9-]{1,32}-lake", long) and "--" not in long


# -- keys


def test_a_key_for_each_user_with_its_buckets_alone() -> None:
    found = keys(made())

    def grants(user: str) -> dict[str, str]:
        return {grant["bucket"]: grant["permission"] for grant in found[user].get("grants")}

    assert grants("loader") == {"acme-raw": "readwrite", "acme-lake": "read"}
    assert grants("nobody") == {}
    assert grants("spark") == {"acme-spark-events": "readwrite"}
    assert grants("delta-sharing") == {"acme-lake": "read", "acme-raw": "read"}
    assert grants("presto") == {"acme-lake": "readwrite", "acme-presto-metastore": "readwrite"}
    # What the container would limit to writing.
    assert grants("demo-export") == {"acme-raw": "readwrite"}
    assert grants("demo-silver") == {"acme-jobs": "read", "acme-bronze": "read", "acme-silver": "readwrite"}
    assert "root" not in found
    assert not [node for node in made().nodes if "fullaccess" in plain_texts(bare(dict(node.inputs)))]


def test_a_key_waits_for_its_buckets() -> None:
    graph = made()
    assert buckets(graph)["lake"].urn in graph.waits_for(keys(graph)["loader"])


def test_rotation_makes_another_key_and_restarts_who_uses_it() -> None:
    before, after = small(spark={}), small(spark={}, rotation={"object_store/spark": "2"})
    old, new = keys(before), keys(after)
    assert all(node.replace_on == ("name",) for node in old.values())
    # The new one is there before the old one goes.
    assert not any(node.delete_before_replace for node in old.values())
    assert {user for user in old if old[user].get("name") != new[user].get("name")} == {"spark"}
    changed = {
        node.name
        for node in after.containers
        if files(node) != files(before.container(node.name)) or env(node) != env(before.container(node.name))
    }
    # The master writes no logs.
    assert changed == {"spark-worker-1", "spark-history"}
    everything = keys(small(spark={}, rotation={"all": "2"}))
    assert all(old[user].get("name") != everything[user].get("name") for user in old)


# -- what there is no more


def test_no_container_no_pages_no_passwords_of_its_own() -> None:
    graph = made()
    assert not [n for n in graph.containers if n.name.startswith("object-store")]
    assert not [n for n in graph.jobs if n.name.startswith("object-store")]
    assert not [n for n in graph.nodes if n.name.startswith("image-minio")]
    assert not {"s3", "object-store"} & set(graph.outputs["urls"])
    passwords = graph.of("random:index/randomPassword:RandomPassword")
    assert not [n for n in passwords if n.name.startswith("credential-object-store")]
    there = small({})
    assert "object-store" in {node.name for node in there.containers} and not buckets(there)
    assert {"s3", "object-store"} <= set(there.outputs["urls"])


def test_who_uses_it_has_a_way_out_and_nobody_else() -> None:
    networks = {node.name: node for node in made().of("millrace:docker:Network")}
    out = {name for name, node in networks.items() if node.get("masquerade") and "proxy" not in name}
    users = ("airflow", "delta-sharing", "demo", "jupyter", "presto", "spark")
    assert out == {f"net-{user}--object-store" for user in users}
    # The demo's simulator writes to Postgres and Kafka alone.
    (simulator,) = [n for n in made().containers if n.name == "demo-shop-simulator"]
    assert not [n for n in simulator.get("networksAdvanced") if "object-store" in n["name"]]


def test_less_memory_and_a_line_of_the_bill() -> None:
    here, spaces = settings({}), settings(ACME)
    assert {s.service for s in estimate(here).services} - {s.service for s in estimate(spaces).services} == {
        "object_store"
    }
    more = [line for line in monthly_cost(spaces) if line not in monthly_cost(here)]
    assert [(line.what, line.monthly_usd) for line in more] == [("Spaces, all buckets", 5.0)]
    assert "250 GiB" in more[0].note


def test_a_plan_needs_no_account() -> None:
    planned = plan(settings({"object_store": {}}))
    assert "object_store" not in {work.service for work in planned.workloads}
    assert "presto" in {work.service for work in planned.workloads}


# -- what consumers are told


def test_spark() -> None:
    found = properties(files(made().container("spark-worker-1"))["/run/millrace/spark/spark-defaults.conf"])
    assert found["spark.hadoop.fs.s3a.endpoint"] == ENDPOINT
    assert found["spark.hadoop.fs.s3a.endpoint.region"] == "fra1"
    assert found["spark.hadoop.fs.s3a.path.style.access"] == "true"
    assert found["spark.eventLog.dir"] == "s3a://acme-spark-events/"
    assert found["spark.hadoop.fs.s3a.bucket.acme-spark-events.access.key"] == (
        "DO00credential-object-store-spark-key"
    )
    assert found["spark.hadoop.fs.s3a.bucket.acme-spark-events.secret.key"] == secret("spark")
    history = properties(files(made().container("spark-history"))["/run/millrace/spark/spark-defaults.conf"])
    assert history["spark.history.fs.logDirectory"] == "s3a://acme-spark-events/"
    assert bare(made().outputs["connections"])["spark"]["event_logs"] == "s3a://acme-spark-events/"


@pytest.mark.parametrize("engine", ["trino", "prestodb"])
def test_presto(engine: str) -> None:
    graph = made() if engine == "trino" else other()
    server = graph.container("presto")
    text = files(server)["/etc/millrace/presto/catalog/lake.properties"]
    found = dict(line.split("=", 1) for line in text.splitlines() if not line.startswith("#"))
    old = "hive." if engine == "prestodb" else ""
    assert found[f"{old}s3.endpoint"] == ENDPOINT
    assert found[f"{old}s3.aws-access-key"] == "DO00credential-object-store-presto-key"
    assert found[f"{old}s3.aws-secret-key"] == secret("presto", graph)
    assert found["hive.metastore.catalog.dir"] == f"s3://acme-presto-metastore/{engine}"
    assert engine == "prestodb" or found["s3.region"] == "fra1"
    assert env(server)["TRUST_PUBLIC_CAS"] == "true"
    keeper = json.loads(files(graph.container("presto-lake"))["/etc/millrace/presto-lake/settings.json"])
    assert (keeper["bucket"], keeper["metastore"]) == ("acme-lake", "acme-presto-metastore")
    assert (keeper["endpoint"], keeper["region"], keeper["store_ca"]) == (ENDPOINT, "fra1", PUBLIC_CAS)
    assert keeper["store_user"] == "DO00credential-object-store-presto-key"
    assert keeper["store_password"] == secret("presto", graph)


def test_strangers_certificates_are_no_login() -> None:
    """PrestoDB takes client certificates of the CAs in this file: public ones must stay out."""
    server = other().container("presto")
    assert files(server)["/run/millrace/tls/ca.crt"] == "certificate ca-certificate"


def test_airflow() -> None:
    container = made().container("airflow-scheduler")
    found = json.loads(files(container)["/run/millrace/airflow/connections.json"])
    entry, extra = found["object_store"], json.loads(found["object_store"]["extra"])
    assert (entry["login"], entry["password"]) == (
        "DO00credential-object-store-airflow-key",
        secret("airflow"),
    )
    assert (extra["endpoint_url"], extra["region_name"], extra["verify"]) == (ENDPOINT, "fra1", PUBLIC_CAS)
    assert extra["config_kwargs"] == {
        "s3": {"addressing_style": "path"},
        "request_checksum_calculation": "when_required",
        "response_checksum_validation": "when_required",
    }
    assert found["demo_bronze"]["login"] == "DO00credential-object-store-demo-bronze-key"
    config = configparser.ConfigParser(interpolation=None)
    config.read_string(files(container)["/run/millrace/airflow/airflow.cfg"])
    assert config["logging"]["remote_base_log_folder"] == "s3://acme-airflow-logs"
    dags = json.loads(files(job(made(), "airflow-dags"))["/etc/millrace/airflow/dags.json"])
    assert json.loads(dags["platform/platform_cleanup.json"])["bucket"] == "acme-airflow-logs"
    variables = json.loads(files(container)["/etc/millrace/airflow/variables.json"])
    names = json.loads(variables["object_store_buckets"])
    used = ("airflow-logs", "bronze", "jobs", "lake", "raw", "silver")
    assert names == {name: f"acme-{name}" for name in used}


def test_jupyter() -> None:
    sent = files(made().container("jupyter"))
    about = json.loads(sent["/run/millrace/jupyter/connections.json"])["object_store"]
    assert about == {
        "endpoint": ENDPOINT,
        "region": "fra1",
        "bucket": "acme-lake",
        "access_key": "DO00credential-object-store-jupyter-key",
        "secret_key": secret("jupyter"),
        "ca": PUBLIC_CAS,
        "client_config": {
            "s3": {"addressing_style": "path"},
            "request_checksum_calculation": "when_required",
            "response_checksum_validation": "when_required",
        },
    }
    spark = properties(sent["/run/millrace/spark/conf/spark-defaults.conf"])
    assert spark["spark.sql.warehouse.dir"] == "s3a://acme-lake/warehouse"
    assert spark["spark.hadoop.fs.s3a.access.key"] == "DO00credential-object-store-jupyter-key"


def test_delta_sharing() -> None:
    container = made().container("delta-sharing")
    sent = files(container)
    found = json.loads(sent["/run/millrace/delta-sharing/keys.json"])
    # Recipients outside read from Spaces itself.
    assert found["endpoint"] == found["public_endpoint"] == ENDPOINT
    assert (found["access_key"], found["secret_key"]) == (
        "DO00credential-object-store-delta-sharing-key",
        secret("delta-sharing"),
    )
    assert found["region"] == "fra1"
    assert env(container)["STORE_CA"] == PUBLIC_CAS
    tables = json.loads(sent["/run/millrace/delta-sharing/server.yaml"])["shares"][0]["schemas"][0]["tables"]
    assert [table["location"] for table in tables] == [
        "s3a://acme-lake/shop/orders",
        "s3a://acme-raw/shop/orders",
    ]


def test_delta_sharings_official_server() -> None:
    container = other().container("delta-sharing")
    site = files(container)["/opt/docker/conf/core-site.xml"]
    assert f"<name>fs.s3a.endpoint</name><value>{ENDPOINT}</value>" in site
    assert "<name>fs.s3a.endpoint.region</name><value>fra1</value>" in site
    assert "<value>DO00credential-object-store-delta-sharing-key</value>" in site
    assert env(container)["TRUST_PUBLIC_CAS"] == "true"


def test_the_demo() -> None:
    seed = files(job(made(), "demo-seed"))
    assert json.loads(seed["/run/millrace/demo/object-store.json"]) == {
        "endpoint": "fra1.digitaloceanspaces.com",
        "region": "fra1",
        "ca": PUBLIC_CAS,
        "raw": "acme-raw",
        "access_key": "DO00credential-object-store-demo-seed-key",
        "secret_key": secret("demo-seed"),
    }
    assert set(json.loads(seed["/etc/millrace/demo/seed.json"])) == {"acme-jobs/demo"}
    assert bare(made().outputs["connections"])["demo"]["files"] == "s3://acme-raw/flights/"


def test_who_uses_it_waits_for_buckets_and_keys() -> None:
    graph = made()
    waited = graph.waits_for(graph.container("spark"))
    assert {node.urn for node in (*buckets(graph).values(), *keys(graph).values())} <= waited


def test_no_bucket_is_called_by_its_name_in_the_settings() -> None:
    """Whatever a container is told of S3 addresses has the name that a bucket has in Spaces."""
    names = "|".join(sorted(ALL))
    graph = made()
    ours = {file.read_text() for folder in ("configs", "pipelines") for file in Path(folder).rglob("*.py")}
    for node in (*graph.containers, *graph.jobs):
        for path, content in files(node).items():
            if content in ours or path.endswith(("dags.json", "seed.json")) or "/examples/" in path:
                continue  # programs, which are given the names
            assert not re.findall(rf"s3a?://(?:{names})\b", content), (node.name, path)


# -- outputs, secrecy


def test_outputs() -> None:
    offered = bare(made().outputs["connections"])["object_store"]
    assert offered["endpoint"] == offered["public_endpoint"] == ENDPOINT
    assert offered["region"] == "fra1"
    assert offered["users"]["loader"] == {
        "access_key": "DO00credential-object-store-loader-key",
        "secret_key": secret("loader"),
        "buckets": {"acme-raw": "read-write", "acme-lake": "read-only"},
    }
    assert bare(made().outputs["credentials"])["object_store"] == {
        user: secret(user) for user in keys(made())
    }


def test_no_secret_in_plain() -> None:
    graph = made()
    assert all("secretKey" in node.additional_secrets for node in keys(graph).values())
    for node in graph.nodes:
        assert not [text for text in plain_texts(node.inputs) if PLANTED in text], node
    assert not [text for text in plain_texts(graph.outputs) if PLANTED in text]
    for node in graph.containers:
        for upload in node.get("uploads"):
            assert PLANTED not in upload["content"] or upload["permissions"] in ("0440", "0550"), node


def test_a_secret_key_is_secret_by_itself() -> None:
    """Not only where it ends up in something that is: services of one's own get it, too."""
    user = ManagedStoreUser(name="u", rotation="", permissions={})

    def program() -> None:
        store, _ = spaces(pulumi.ComponentResource("t:t:T", "t"), settings(ACME).target, [], [user])  # type: ignore[arg-type]
        pulumi.export("secret", store.keys["u"].secret)

    assert isinstance(run(program).outputs["secret"], Secret)


# -- settings


def settings(target: dict[str, Any], **values: Any) -> Settings:
    return load({**VALUES, **values, "target": {**TARGET, **target}}, "Pulumi.prod.yaml")


def mistakes(target: dict[str, Any], **values: Any) -> list[str]:
    with pytest.raises(SettingsError) as error:
        settings(target, **values)
    return [line.removeprefix("Pulumi.prod.yaml: millrace:") for line in error.value.lines]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("api_route", True),
        ("console_access", "admin"),
        ("cpus", 2),
        ("engine", "minio"),
        ("image", "registry.acme.org/s3:1"),
        ("images", "upstream"),
        ("loopback_port", 9000),
        ("memory_mib", 1024),
    ],
)
def test_settings_of_the_container_are_refused(key: str, value: Any) -> None:
    assert mistakes(ACME, object_store={**STORE, key: value}) == [
        f"object_store.{key}: Spaces does not have it (target.object_store) - remove it"
    ]
    settings({}, object_store={**STORE, key: value})


USER = {"name": "writer", "buckets": [{"bucket": "raw", "privilege": "write-only"}]}


@pytest.mark.parametrize(
    ("target", "values", "expected"),
    [
        (
            {},
            {"object_store": {**STORE, "users": [USER]}},
            "object_store.users[0].buckets[0].privilege: keys of Spaces cannot be limited to writing - "
            "write read-write, or leave the bucket out",
        ),
        (
            {},
            {"jupyter": {"lake_privilege": "write-only"}},
            'jupyter: asks to only write bucket "lake", to which keys of Spaces cannot be limited - let it '
            "read, too",
        ),
        (
            {"region": "nyc1"},
            {},
            "target.object_store.region: missing - there are no Spaces in nyc1: name another region",
        ),
        (
            {},
            {"object_store": {"buckets": [{"name": "b" * 59}]}},
            "target.object_store.prefix: leaves 58 of the 63 characters of a name in Spaces, bucket "
            f'"{"b" * 59}" has 59 - give a shorter one',
        ),
        (
            {"object_store": {}},
            {"object_store": {"buckets": [{"name": "b" * 31}]}},
            "target.object_store.prefix: leaves 30 of the 63 characters of a name in Spaces, bucket "
            f'"{"b" * 31}" has 31 - give a shorter one',
        ),
        (
            {},
            {"rotation": {"object_store/root": "2"}},
            "rotation.object_store/root: Spaces has no administrator's key here - remove it",
        ),
        (
            {},
            {"airflow": {"variables": {"object_store_buckets": "x"}}},
            "airflow.variables.object_store_buckets: is a variable of the platform itself - rename it",
        ),
    ],
)
def test_what_spaces_can_not_do_is_said(
    target: dict[str, Any], values: dict[str, Any], expected: str
) -> None:
    assert mistakes({**ACME, **target}, **values) == [expected]


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        (
            {"region": "fra2"},
            'target.object_store.region: not a region of Spaces that is known here, got "fra2" - did you',
        ),
        ({"prefix": "Acme"}, "target.object_store.prefix: "),
        ({"prefix": "acme-"}, "target.object_store.prefix: "),
        ({"prefix": "a" * 33}, "target.object_store.prefix: "),
        ({"buckets": 3}, "target.object_store.buckets: "),
    ],
)
def test_values_that_are_none(wrong: dict[str, Any], expected: str) -> None:
    (line,) = mistakes({"object_store": wrong})
    assert line.startswith(expected)


def test_it_needs_the_service() -> None:
    values = {key: VALUES[key] for key in ("domain", "tls", "users")}
    with pytest.raises(SettingsError) as error:
        load({**values, "target": {**TARGET, **ACME}}, "f")
    assert error.value.lines == [
        "f: millrace:target.object_store: service object_store is off - add the key object_store, or remove "
        "this"
    ]


def test_the_droplets_region_has_spaces_but_for_one() -> None:
    assert set(REGIONS) - set(SPACES_REGIONS) == {"nyc1"}
    assert settings({"region": "nyc1", "object_store": {"region": "nyc3"}})
    (node, *_) = buckets(small({"region": "nyc1", "object_store": {"region": "nyc3"}})).values()
    assert node.get("region") == "nyc3"


# -- the account's own keys


def test_missing_keys_of_the_account_are_said_before_anything_is_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = ("SPACES_ACCESS_KEY_ID", "SPACES_SECRET_ACCESS_KEY")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    with_spaces: Any = settings(ACME).target
    without: Any = settings({}).target

    def missing(target: Any = with_spaces, **config: str) -> str | None:
        problem = object_store_managed.missing_keys(
            target, {f"digitalocean:{key}": value for key, value in config.items()}
        )
        return problem and problem.line("Pulumi.prod.yaml", "millrace")

    assert missing(without) is None
    assert missing() == (
        "Pulumi.prod.yaml: millrace:target.object_store: Spaces needs an access key of the account, and "
        "there is no SPACES_ACCESS_KEY_ID and no SPACES_SECRET_ACCESS_KEY - set both as docs/digitalocean.md "
        "says"
    )
    assert missing(spacesAccessId="a", spacesSecretKey="b") is None
    text = missing(spacesAccessId="a")
    assert text and "SPACES_SECRET_ACCESS_KEY" in text and "SPACES_ACCESS_KEY_ID" not in text
    monkeypatch.setenv(names[1], "b")
    assert missing(spacesAccessId="a") is None
