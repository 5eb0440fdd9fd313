"""Stacks on a real Docker engine. The platform most tests look at comes up once for all of them."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.integration.services import SETTINGS, selected
from tests.integration.stack import Stack, free_port, proxy_ports

USERS = [
    {"name": "ada", "role": "admin"},
    {"name": "erin", "role": "engineer"},
    {"name": "uma", "role": "user"},
]

POSTGRES = {k: v for k, v in SETTINGS["postgres"].items() if k != "loopback_port"}
OBJECT_STORE = {k: v for k, v in SETTINGS["object_store"].items() if k != "loopback_port"}


def full_config(**changes: Any) -> dict[str, Any]:
    """Postgres and the object store on ports of their own, with loopback ports for the tests' clients."""
    config: dict[str, Any] = {
        "proxy": proxy_ports(),
        "users": USERS,
        "postgres": {**POSTGRES, "loopback_port": free_port()},
        "object_store": {**OBJECT_STORE, "loopback_port": free_port()},
    }
    return copy.deepcopy({**config, **changes})


def everything_config(**changes: Any) -> dict[str, Any]:
    """All services, small and on ports of their own; see :mod:`tests.integration.services` for fewer."""
    platform: dict[str, Any] = {
        "proxy": proxy_ports(),
        "users": USERS,
    }
    return copy.deepcopy({**platform, **selected(platform), **changes})


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
    """Postgres and the object store, up. Tests that change the settings put them back and `up` again."""
    stack = new_stack(full_config(), name="shared")
    stack.up()
    return stack


@pytest.fixture(scope="session")
def everything(new_stack: Callable[..., Stack]) -> Stack:
    """All services of the platform, up; with ``MILLRACE_TEST_SERVICES=a,b`` these and what they need.

    Tests that change settings put them back and `up` again:
    ``with everything.changed(kafka={...}): everything.up()``.
    """
    stack = new_stack(everything_config(), name="all")
    stack.first_up = stack.up().output
    return stack
