"""Platforms at DigitalOcean, each made once for all tests of the target."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from fake_services import FAKES
from graph import Graph, Node, platform

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
def made_of(target: str, values: str) -> Graph:
    return platform({**VALUES, **json.loads(values), "target": json.loads(target)}, services=FAKES)


def made(values: dict[str, Any] | None = None, **target: Any) -> Graph:
    return made_of(json.dumps({**TARGET, **target}), json.dumps(values or {}))


def do(kind: str) -> str:
    """The type token of one of DigitalOcean's resources."""
    return f"digitalocean:index/{kind[0].lower()}{kind[1:]}:{kind}"


def one(graph: Graph, kind: str) -> Node:
    (node,) = graph.of(do(kind))
    return node
