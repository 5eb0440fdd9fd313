"""Stacks on a real Docker engine. The platform most tests look at comes up once for all of them."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.integration.stack import Stack, free_port

USERS = [
    {"name": "ada", "role": "admin"},
    {"name": "erin", "role": "engineer"},
    {"name": "uma", "role": "user"},
]

POSTGRES = {
    "memory_mib": 256,
    "databases": [{"name": "shop", "owner": "shop_owner", "schemas": ["audit"]}],
    "roles": [
        {"name": "shop_owner"},
        {"name": "writer", "grants": [{"database": "shop", "privilege": "read-write"}]},
        {"name": "reader", "grants": [{"database": "shop", "privilege": "read-only"}]},
        {
            "name": "auditor",
            "grants": [{"database": "shop", "privilege": "read-only", "schemas": ["audit"]}],
        },
    ],
}

OBJECT_STORE = {
    "buckets": [{"name": "raw"}, {"name": "lake", "versioning": True}],
    "users": [
        {"name": "loader", "buckets": [{"bucket": "raw", "privilege": "read-write"}]},
        {"name": "viewer", "buckets": [{"bucket": "lake", "privilege": "read-only"}]},
    ],
}


def full_config(**changes: Any) -> dict[str, Any]:
    """Every service of the platform on ports of its own, with loopback ports for the tests' clients."""
    config: dict[str, Any] = {
        "proxy": {"http_port": free_port(), "https_port": free_port()},
        "users": USERS,
        "postgres": {**POSTGRES, "loopback_port": free_port()},
        "object_store": {**OBJECT_STORE, "loopback_port": free_port()},
    }
    return copy.deepcopy({**config, **changes})


_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def new_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Stack]]:
    """Makes stacks; all of them are destroyed at the end, whatever happened."""
    made: list[Stack] = []

    def make(config: Mapping[str, Any], name: str | None = None, **more: Any) -> Stack:
        name = name or f"s{next(_numbers)}"
        folder: Path = tmp_path_factory.mktemp(name) / "project"
        stack = Stack(folder, name, config, **more)
        made.append(stack)
        return stack

    yield make
    for stack in made:
        if stack.file.exists():
            stack.destroy()


@pytest.fixture(scope="session")
def platform(new_stack: Callable[..., Stack]) -> Stack:
    """The platform with all its services, up. Tests that change its settings put them back and `up` again."""
    stack = new_stack(full_config(), name="shared")
    stack.up()
    return stack
