"""What a change leaves alone at DigitalOcean, what it replaces, and who waits for whom."""

from __future__ import annotations

import json
from typing import Any

import pulumi
import pytest
from digitalocean_sample import do, made, made_of, one
from graph import PLANTED, Graph, Node, Secret

from components.targets import digitalocean

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
    made_of.cache_clear()
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
