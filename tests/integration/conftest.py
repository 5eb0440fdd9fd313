"""Settings of the stacks that several modules share; :mod:`tests.integration.fixtures` brings them up."""

from __future__ import annotations

import copy
from typing import Any

from tests.integration.services import SETTINGS, selected
from tests.integration.stack import free_port

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
        "proxy": {"http_port": free_port(), "https_port": free_port()},
        "users": USERS,
        "postgres": {**POSTGRES, "loopback_port": free_port()},
        "object_store": {**OBJECT_STORE, "loopback_port": free_port()},
    }
    return copy.deepcopy({**config, **changes})


def everything_config(**changes: Any) -> dict[str, Any]:
    """All services, small and on ports of their own; see :mod:`tests.integration.services` for fewer."""
    platform: dict[str, Any] = {
        "proxy": {"http_port": free_port(), "https_port": free_port()},
        "users": USERS,
    }
    return copy.deepcopy({**platform, **selected(platform), **changes})
