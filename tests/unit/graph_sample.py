"""Platforms of fake services and of the development stack, each made once for all tests of graphs."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from fake_services import FAKES
from graph import Graph, Node, platform

FAKE: dict[str, Any] = {
    "database": {"roles": [{"name": "reader"}], "loopback_port": 15432},
    "big_store": {"memory_mib": 256, "cpus": 0.5},
    "app": {"replicas": 2},
}
STACK_FILE = Path(__file__).resolve().parents[2] / "Pulumi.dev.yaml"


@cache
def made(text: str, real: bool, stack: str) -> Graph:
    return platform(json.loads(text), services=None if real else FAKES, stack=stack)


def fake(stack: str = "test", **values: Any) -> Graph:
    """The fake platform with some settings changed; the same one is built once."""
    return made(json.dumps({**FAKE, **values}), False, stack)


def real(**values: Any) -> Graph:
    """The platform of the development stack with some settings changed."""
    config = yaml.safe_load(STACK_FILE.read_text())["config"]
    own = {key.removeprefix("millrace:"): value for key, value in config.items()}
    return made(json.dumps({**own, **values}), True, "test")


# Settings that do not concern each other share one platform: each takes a while to build.
OTHERS: dict[str, Any] = {
    "time_zone": "Europe/Berlin",
    "network": {"pool": "172.30.0.0/16"},
    "protect_data": True,
    # Its certificates are kept in a volume that is never protected.
    "tls": {"mode": "letsencrypt", "email": "ops@example.org", "server": "https://acme.example.org/d"},
    "target": {"host": "ssh://u@h:22", "ssh_options": ["-i", "~/.ssh/deploy"]},
}
ALONE = json.dumps({"database": {}, "app": {}})
LETSENCRYPT = OTHERS["tls"]


def label(node: Node, name: str) -> str:
    labels = node.get("labels")
    if isinstance(labels, list):
        labels = {entry["label"]: entry["value"] for entry in labels}
    return str(labels[f"dev.millrace.{name}"])
