"""The DigitalOcean target with Pulumi's mocks: what each setting makes, and what of it is secret."""

from __future__ import annotations

from typing import Any

import pytest
from digitalocean_sample import CHANGES, TARGET, VALUES, do, made, one
from fake_services import FAKES
from graph import PLANTED, Secret, bare, plain_texts, platform

# -- what there is


def test_everything_of_a_host() -> None:
    found = sorted(node.type.split(":")[-1] for node in made().nodes if node.type.startswith("digitalocean:"))
    assert found == [
        "DnsRecord", "DnsRecord", "Domain", "Droplet", "Firewall", "Project", "ReservedIp", "SshKey", "Tag",
        "Volume", "VolumeAttachment", "Vpc",
    ]  # fmt: skip


def test_the_droplet() -> None:
    graph = made()
    droplet = one(graph, "Droplet")
    assert droplet.get("region") == "fra1"
    assert droplet.get("size") == "s-4vcpu-8gb"
    assert droplet.get("image") == "debian-12-x64"
    assert droplet.get("vpcUuid") == "id-vpc"
    assert droplet.get("sshKeys") == ["id-ssh-key"]
    assert droplet.get("tags") == ["millrace-test"]
    assert droplet.get("monitoring") is True
    # Its own disk keeps its size: sizes may go down again.
    assert droplet.get("resizeDisk") is False
    assert droplet.get("gracefulShutdown") is True
    assert droplet.get("backups") is False
    assert droplet.get("ipv6") is False
    assert one(graph, "SshKey").get("publicKey") == "ssh-ed25519 AAAAssh-login-key"


def test_the_web_is_open_to_the_world_and_ssh_to_the_named_networks() -> None:
    graph = made(ssh_networks=["203.0.113.7", "198.51.100.0/24", "2001:db8::/32"])
    firewall = one(graph, "Firewall")
    rules = {rule["portRange"]: rule["sourceAddresses"] for rule in firewall.get("inboundRules")}
    assert rules == {
        "80": ["0.0.0.0/0", "::/0"],
        "443": ["0.0.0.0/0", "::/0"],
        "22": ["203.0.113.7/32", "198.51.100.0/24", "2001:db8::/32"],
    }
    assert {rule["protocol"] for rule in firewall.get("inboundRules")} == {"tcp"}
    assert {rule["protocol"] for rule in firewall.get("outboundRules")} == {"tcp", "udp", "icmp"}


def test_the_firewall_follows_the_proxys_ports() -> None:
    graph = made({"proxy": {"http_port": 8080, "https_port": 8443}})
    ports = [rule["portRange"] for rule in one(graph, "Firewall").get("inboundRules")]
    assert ports == ["8080", "8443", "22"]


def test_the_droplet_is_never_without_its_firewall() -> None:
    graph = made()
    droplet, firewall = one(graph, "Droplet"), one(graph, "Firewall")
    assert firewall.urn in droplet.depends_on
    # By tag, so that it counts from the first moment, also for the one that replaces it.
    assert firewall.get("tags") == droplet.get("tags")
    assert not firewall.get("dropletIds")


def test_the_zone_and_its_records() -> None:
    graph = made()
    assert one(graph, "Domain").get("name") == "data.example.org"
    records = {node.get("name"): node for node in graph.of(do("DnsRecord"))}
    assert records.keys() == {"@", "*"}
    for record in records.values():
        assert record.get("domain") == "data.example.org"
        assert (record.get("type"), record.get("value")) == ("A", "203.0.113.80")


@pytest.mark.parametrize(
    ("target", "zone", "names"),
    [
        ({"dns_zone": "example.org"}, "example.org", {"data", "*.data"}),
        ({"dns": "records", "dns_zone": "example.org"}, None, {"data", "*.data"}),
        ({"dns": "records"}, None, {"@", "*"}),
        ({"dns": "none"}, None, set()),
    ],
)
def test_other_zones(target: dict[str, Any], zone: str | None, names: set[str]) -> None:
    graph = made(**target)
    assert [node.get("name") for node in graph.of(do("Domain"))] == ([zone] if zone else [])
    assert {node.get("name") for node in graph.of(do("DnsRecord"))} == names


def test_alerts() -> None:
    assert not made().of(do("MonitorAlert"))
    graph = made(alerts={"email": "ops@example.org", "cpu_percent": 70, "disk_percent": 60, "window": "5m"})
    alerts = {node.get("type").rpartition("/")[2]: node for node in graph.of(do("MonitorAlert"))}
    assert {kind: node.get("value") for kind, node in alerts.items()} == {
        "cpu": 70,
        "memory_utilization_percent": 90,
        "disk_utilization_percent": 60,
    }
    for node in alerts.values():
        assert node.get("entities") == ["4711"]
        assert node.get("alerts") == {"emails": ["ops@example.org"]}
        assert (node.get("window"), node.get("compare"), node.get("enabled")) == ("5m", "GreaterThan", True)


@pytest.mark.parametrize("plan", ["daily", "weekly"])
def test_backups(plan: str) -> None:
    droplet = one(made(backups=plan), "Droplet")
    assert droplet.get("backups") is True
    assert droplet.get("backupPolicy")["plan"] == plan


def test_the_project_holds_all_that_costs() -> None:
    assert one(made(), "Project").get("resources") == [
        "do:droplet:4711",
        "do:volume:data",
        "do:reservedip:203.0.113.80",
        "do:domain:data.example.org",
    ]


def test_a_private_network_of_ones_own() -> None:
    assert one(made(), "Vpc").get("ipRange") is None
    assert one(made(vpc_range="10.120.0.0/20"), "Vpc").get("ipRange") == "10.120.0.0/20"


def test_lets_encrypt_is_the_default_here() -> None:
    graph = made()
    assert any(node.name == "proxy-acme" for node in graph.containers)
    own = made({"tls": {"mode": "self-signed"}})
    assert not any(node.name == "proxy-acme" for node in own.containers)


# -- secrecy


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: ",".join(change) or "defaults")
def test_no_secret_in_plain(change: dict[str, Any]) -> None:
    graph = made(**change)
    for node in graph.nodes:
        assert not [text for text in plain_texts(node.inputs) if PLANTED in text], node
    assert not [text for text in plain_texts(graph.outputs) if PLANTED in text]


def test_user_data_is_secret() -> None:
    graph = made()
    assert isinstance(one(graph, "Droplet").inputs["userData"], Secret)
    kept = graph.one("millrace:core:Kept", "user-data")
    assert isinstance(kept.inputs["value"], Secret)
    assert set(kept.additional_secrets) == {"value", "kept"}
    for name in ("ssh-login-key", "ssh-host-key"):
        key = graph.one("tls:index/privateKey:PrivateKey", name)
        assert key.get("algorithm") == "ED25519"
        assert "privateKeyOpenssh" in key.additional_secrets


def test_outputs_tell_how_to_log_in() -> None:
    host = made().outputs["host"]
    assert host["address"] == "203.0.113.80"
    assert host["user"] == "millrace"
    assert host["host_key"] == "ssh-ed25519 AAAAssh-host-key"
    assert isinstance(host["private_key"], Secret)
    assert bare(host["private_key"]) == f"{PLANTED}-ssh-ssh-login-key"


# -- everything else


def test_the_platform_is_the_same_as_on_any_engine() -> None:
    services: dict[str, Any] = {"database": {}, "app": {}, "tls": {"mode": "self-signed"}}
    here = {node.name for node in made(services).containers}
    engine = {"host": "ssh://deploy@engine.example.org"}
    there = {
        node.name for node in platform({**VALUES, **services, "target": engine}, services=FAKES).containers
    }
    assert here == there


def test_names_of_stacks_do_not_clash() -> None:
    other = platform({**VALUES, "target": TARGET}, services=FAKES, stack="prod")
    for kind in ("Vpc", "Tag", "SshKey", "Firewall", "Volume", "Droplet", "Project"):
        assert one(other, kind).get("name") == "millrace-prod"
        assert one(made(), kind).get("name") == "millrace-test"
