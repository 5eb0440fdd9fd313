"""The DigitalOcean target with Pulumi's mocks: what each setting makes, what stays, what is gated."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pulumi
import pytest
import yaml
from fake_services import FAKES
from graph import PLANTED, Graph, Node, Secret, bare, plain_texts, platform

from components.fit import judged
from components.images import CATALOGUE
from components.settings import load
from components.targets import digitalocean

ROOT = Path(__file__).resolve().parents[2]

VALUES: dict[str, Any] = {
    "domain": "data.example.org",
    "tls": {"email": "ops@example.org"},
}
TARGET: dict[str, Any] = {"kind": "digitalocean", "region": "fra1", "ssh_networks": ["203.0.113.7"]}
CHANGES: list[dict[str, Any]] = [
    {},
    {"size": "m-4vcpu-32gb"},
    {"region": "nyc3"},
    {"image": "ubuntu-24-04-x64"},
    {"volume_gib": 500},
    {"revision": 2},
    {"protect": False},
    {"dns": "none"},
    {"dns": "records", "dns_zone": "example.org"},
    {"alerts": {"email": "ops@example.org", "cpu_percent": 70}},
    {"backups": "daily"},
    {"reboot_at": "04:30"},
    {"vpc_range": "10.120.0.0/20"},
]


@cache
def _made(target: str, values: str) -> Graph:
    return platform({**VALUES, **json.loads(values), "target": json.loads(target)}, services=FAKES)


def made(values: dict[str, Any] | None = None, **target: Any) -> Graph:
    return _made(json.dumps({**TARGET, **target}), json.dumps(values or {}))


def do(kind: str) -> str:
    """The type token of one of DigitalOcean's resources."""
    return f"digitalocean:index/{kind[0].lower()}{kind[1:]}:{kind}"


def one(graph: Graph, kind: str) -> Node:
    (node,) = graph.of(do(kind))
    return node


def config(graph: Graph) -> dict[str, Any]:
    """The cloud-config of the Droplet."""
    head, _, body = one(graph, "Droplet").get("userData").partition("\n")
    assert head == "#cloud-config"
    found: dict[str, Any] = json.loads(body)
    return found


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


# -- what stays


KEPT = ("Volume", "ReservedIp", "Domain")


@pytest.mark.parametrize("kind", KEPT)
def test_what_must_not_get_lost_is_protected(kind: str) -> None:
    assert one(made(), kind).protect
    assert not one(made(protect=False), kind).protect


@pytest.mark.parametrize("kind", ["Droplet", "VolumeAttachment", "Firewall", "Vpc"])
def test_what_can_be_made_again_is_not(kind: str) -> None:
    assert not one(made(), kind).protect


# Inputs whose change replaces the resource: those with ForceNew in terraform-provider-digitalocean.
FORCES_NEW = {
    "Droplet": {"image", "region", "sshKeys", "userData", "monitoring", "dropletAgent", "vpcUuid"},
    "Volume": {
        "region",
        "name",
        "description",
        "snapshotId",
        "initialFilesystemType",
        "initialFilesystemLabel",
    },
    "ReservedIp": {"region"},
    "Domain": {"name", "ipAddress"},
    "Vpc": {"region", "ipRange"},
    "SshKey": {"publicKey"},
}


def replaced(before: Graph, after: Graph) -> set[str]:
    """Kinds that a change replaces, by what their inputs become; ids that become others go on."""
    found: set[str] = set()
    for kind, forcing in FORCES_NEW.items():
        old, new = one(before, kind), one(after, kind)
        changed = {key for key in forcing if old.get(key) != new.get(key)} - set(new.ignored)
        if changed:
            found.add(kind)
    return found


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"size": "m-4vcpu-32gb"}, set()),
        ({"size": "s-2vcpu-4gb"}, set()),
        ({"volume_gib": 500}, set()),
        ({"alerts": {"email": "ops@example.org"}}, set()),
        ({"backups": "daily"}, set()),
        ({"ssh_networks": ["192.0.2.1"]}, set()),
        ({"dns": "records"}, None),
        ({"image": "ubuntu-24-04-x64"}, {"Droplet"}),
        # Both are protected: Pulumi refuses, and nothing is lost.
        ({"region": "nyc3"}, {"Droplet", "Volume", "ReservedIp", "Vpc"}),
    ],
)
def test_what_a_change_replaces(change: dict[str, Any], expected: set[str] | None) -> None:
    before, after = made(), made(**change)
    if expected is None:
        # The zone is no longer the program's: protected, it stays.
        assert one(before, "Domain").protect
        return
    assert replaced(before, after) == expected
    for kind in expected & set(KEPT):
        assert one(after, kind).protect, f"{kind} would be lost"


def test_the_volume_and_the_address_of_another_image_are_the_same() -> None:
    before, after = made(), made(image="debian-13-x64")
    for kind in ("Volume", "ReservedIp", "Domain", "Vpc", "Firewall"):
        assert one(before, kind).inputs == one(after, kind).inputs


def test_the_droplet_is_gone_before_the_next_one_gets_the_volume() -> None:
    graph = made()
    assert one(graph, "Droplet").delete_before_replace
    assert one(graph, "VolumeAttachment").delete_before_replace
    # Assigned in place: as a resource of its own, the assignment's removal would free the address.
    assert one(graph, "ReservedIp").get("dropletId") == 4711
    assert not graph.of(do("ReservedIpAssignment"))


def test_before_another_size_the_containers_are_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    assert one(made(), "Droplet").hooks == {"stop-before-resize"}
    hooks: dict[str, Any] = {}
    stopped: list[tuple[str, dict[str, Any]]] = []

    class Hook(pulumi.ResourceHook):
        def __init__(self, name: str, callback: Any, opts: Any = None) -> None:
            hooks[name] = callback
            super().__init__(name, callback, opts)

    monkeypatch.setattr(pulumi, "ResourceHook", Hook)
    monkeypatch.setattr(digitalocean, "stop_host", lambda address, **more: stopped.append((address, more)))
    _made.cache_clear()
    made()

    def update(old: dict[str, Any], new: dict[str, Any]) -> None:
        hooks["stop-before-resize"](
            pulumi.ResourceHookArgs(
                urn="u",
                id="4711",
                name="droplet",
                type="t",
                old_inputs=old,
                new_inputs=new,
                old_outputs={"ipv4Address": "198.51.100.9"},
            )
        )

    update({"size": "a", "backups": False}, {"size": "a", "backups": True})
    assert stopped == []
    update({"size": "a"}, {"size": "b"})
    ((address, more),) = stopped
    assert address == "ssh://millrace@198.51.100.9"
    assert more["private_key"] == f"{PLANTED}-ssh-ssh-login-key"
    assert more["host_key"].startswith("ssh-ed25519 AAAAssh-host-key")


@pytest.mark.parametrize(
    ("change", "another"),
    [
        ({"reboot_at": "04:30"}, False),
        ({"size": "m-4vcpu-32gb"}, False),
        ({"image": "debian-13-x64"}, True),
        ({"region": "nyc3"}, True),
        ({"revision": 2}, True),
    ],
)
def test_only_a_new_droplet_gets_new_user_data(change: dict[str, Any], another: bool) -> None:
    before, after = (graph.one("millrace:core:Kept", "user-data") for graph in (made(), made(**change)))
    assert (before.get("until") != after.get("until")) is another


def test_user_data_is_what_is_kept() -> None:
    graph = made()
    kept = graph.one("millrace:core:Kept", "user-data")
    assert kept.urn in one(graph, "Droplet").depends_on
    assert one(graph, "Droplet").get("userData") == kept.get("value")


# -- who waits for whom


def test_the_docker_providers_wait_until_the_host_is_set_up() -> None:
    graph = made()
    ready = graph.one("millrace:host:Ready", "host-ready")
    for type_, name in (
        ("pulumi:providers:docker", "docker-engine"),
        ("pulumi:providers:millrace", "docker-engine-extras"),
    ):
        provider = graph.one(type_, name)
        assert ready.urn in provider.depends_on
        assert provider.get("host") == "ssh://millrace@203.0.113.80:22"
    waited = graph.waits_for(ready)
    for kind in ("Droplet", "VolumeAttachment", "ReservedIp", "Volume", "Firewall"):
        assert one(graph, kind).urn in waited
    # What asks has a provider of its own, which waits for nothing.
    assert ready.provider == "digitalocean-host"
    assert ready.urn not in graph.waits_for(graph.one("pulumi:providers:millrace", "digitalocean-host"))


def test_every_container_uses_the_gated_provider() -> None:
    graph = made({"database": {}, "app": {}})
    assert {"database", "app"} <= {node.name for node in graph.containers}
    assert {node.provider for node in graph.containers} == {"docker-engine"}


def test_the_host_is_asked_again_when_it_or_its_volume_changes() -> None:
    def ready(**target: Any) -> Node:
        return made(**target).one("millrace:host:Ready", "host-ready")

    assert ready().get("hostId") == "4711"
    assert ready().get("device") == "scsi-0DO_Volume_millrace-test"
    assert ready(volume_gib=500).get("volumeGib") != ready().get("volumeGib")
    assert ready(size="m-4vcpu-32gb").get("size") != ready().get("size")


def test_ssh_accepts_the_generated_host_key_alone() -> None:
    graph = made()
    for name in ("docker-engine-extras", "digitalocean-host"):
        provider = graph.one("pulumi:providers:millrace", name)
        options = " ".join(json.loads(provider.get("sshOptions")))
        assert "StrictHostKeyChecking=yes" in options
        assert "ssh-ed25519 AAAAssh-host-key" in options
        assert isinstance(provider.inputs["sshKey"], Secret)
    assert "ssh-ed25519 AAAAssh-host-key" in " ".join(
        json.loads(graph.one("pulumi:providers:docker", "docker-engine").get("sshOpts"))
    )


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


# -- the stack that ships


@cache
def _prod() -> Graph:
    config = yaml.safe_load((ROOT / "Pulumi.prod.yaml").read_text())["config"]
    return platform({key.removeprefix("millrace:"): value for key, value in config.items()}, stack="prod")


def test_stack_prod_is_whole() -> None:
    graph = _prod()
    assert one(graph, "Droplet").get("name") == "millrace-prod"
    names = {node.name for node in graph.containers}
    assert {"postgres", "object-store", "presto", "airflow", "bi", "proxy"} <= names
    assert "bi" in graph.outputs["urls"]
    assert any("metabase" in str(node.get("reference", "")) for node in graph.of("millrace:docker:Image"))


def test_stack_prod_loses_no_data() -> None:
    volumes = _prod().of("docker:index/volume:Volume")
    data = [node for node in volumes if node.protect]
    assert {"postgres-data", "object-store-data", "kafka-1-data"} <= {node.name for node in data}
    assert all(node.retain for node in data)
    assert one(_prod(), "Volume").protect


def test_stack_prod_runs_official_images_where_there_are_any() -> None:
    built = {n.name for n in _prod().of("millrace:docker:Image") if n.get("dockerfile")}
    official = {name for name, entry in CATALOGUE.items() if entry.upstream}
    # Parts of our own, and what they are built on.
    assert {name.removeprefix("image-") for name in built} - official == {
        "base", "fetch", "kafka-setup",
    }  # fmt: skip


def test_stack_prod_fits_its_droplet() -> None:
    config = yaml.safe_load((ROOT / "Pulumi.prod.yaml").read_text())["config"]
    settings = load({k.removeprefix("millrace:"): v for k, v in config.items()}, "Pulumi.prod.yaml")
    assert not judged(settings, "millrace", "prod").problems


def test_stack_prod_keeps_its_secrets() -> None:
    for node in _prod().nodes:
        assert not [text for text in plain_texts(node.inputs) if PLANTED in text], node
