"""Spaces in place of the object store's container: buckets, keys, outputs."""

from __future__ import annotations

import re

import pulumi
from graph import PLANTED, Secret, bare, plain_texts, platform, run
from spaces_sample import (
    ACME,
    ALL,
    ENDPOINT,
    TARGET,
    VALUES,
    buckets,
    env,
    files,
    keys,
    made,
    secret,
    settings,
    small,
)

from components.digitalocean_prices import monthly_cost
from components.estimates import estimate
from components.managed import ManagedStoreUser
from components.plan import plan
from components.targets.digitalocean_spaces import spaces

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
