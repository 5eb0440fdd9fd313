"""Settings of every service for the stack that has them all, and which services a run brings up.

Limits are as small as the services work with: the whole stack comes up on two cores. A service without an
entry gets its defaults.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from components.checks import needs_of
from components.services import registry
from components.settings import settings_model
from tests.integration.stack import ROOT, free_port

FREE_PORT = "a free port"
"""Stands for a port of the host's loopback; each stack gets one of its own."""

SETTINGS: dict[str, dict[str, Any]] = {
    "kafka": {
        "memory_mib": 512,
        "loopback_port": FREE_PORT,
        "topics": [
            {"name": "orders", "partitions": 3, "retention_hours": 48},
            {
                "name": "visits",
                "message": {
                    "format": "json",
                    "columns": [
                        {"name": "id", "type": "BIGINT"},
                        {"name": "page", "type": "VARCHAR"},
                        {"name": "customer", "type": "BIGINT", "mapping": "who/id"},
                    ],
                },
            },
        ],
        "users": [
            {"name": "seller", "write": ["orders", "visits"]},
            {"name": "analyst", "read": ["orders", "visits"]},
            {"name": "stranger"},
        ],
    },
    "postgres": {
        "memory_mib": 256,
        "loopback_port": FREE_PORT,
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
    },
    "bi": {"memory_mib": 640, "dashboards_folders": [str(ROOT / "tests/integration/dashboards")]},
    "object_store": {
        "loopback_port": FREE_PORT,
        "buckets": [{"name": "raw"}, {"name": "lake", "versioning": True}],
        "users": [
            {"name": "loader", "buckets": [{"bucket": "raw", "privilege": "read-write"}]},
            {"name": "viewer", "buckets": [{"bucket": "lake", "privilege": "read-only"}]},
        ],
    },
    "delta_sharing": {
        "memory_mib": 256,
        "shares": [
            {
                "name": "sales",
                "schemas": [
                    {
                        "name": "shop",
                        "tables": [
                            {"name": "orders", "history": True},
                            {"name": "newest", "path": "shop/orders"},
                            {"name": "mapped"},
                        ],
                    }
                ],
            },
            {"name": "internal", "schemas": [{"name": "shop", "tables": [{"name": "orders"}]}]},
        ],
        "recipients": [
            {"name": "partner", "shares": ["sales"]},
            {"name": "everyone", "expires": "2099-01-01T00:00:00Z"},
            {"name": "former", "expires": "2020-01-01T00:00:00+01:00"},
        ],
    },
    "spark": {"memory_mib": 384, "worker_memory_mib": 1792, "worker_cores": 2},
    "presto": {
        "memory_mib": 1280,
        "lake_refresh_s": 5,
        "lake_tables": [{"name": "sales.archive", "folder": "old/orders"}],
    },
    "jupyter": {"memory_mib": 1400},
    "demo": {"pipelines": False, "database": "retail"},
}

_APART = ("demo",)
"""Services that have a stack of their own: what they add to others would be in the way of these' tests."""

_ONLY_WITH = {("presto", "lake_tables"): "object_store"}
"""Settings that mean something with another service only."""

ONLY = "MILLRACE_TEST_SERVICES"
"""Variable with the services to bring up, separated by commas; what they need comes along."""


def selected(platform: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Settings of all services, or of those that the variable :data:`ONLY` asks for and what they need.

    ``platform`` holds the other settings of the stack.

    Raises:
        ValueError: when there is no such service.
    """
    chosen = list(dict.fromkeys(name.strip() for name in os.environ.get(ONLY, "").split(",") if name.strip()))
    if unknown := set(chosen) - set(registry()):
        raise ValueError(f"{ONLY}: no such service: {', '.join(sorted(unknown))}")
    return resolved(with_needs(chosen, platform) if chosen else [k for k in registry() if k not in _APART])


def resolved(keys: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Settings of these services, with ports of their own."""
    found = {key: _resolved(SETTINGS.get(key, {})) for key in keys}
    for (key, setting), other in _ONLY_WITH.items():
        if key in found and other not in found:
            del found[key][setting]
    return found


def with_needs(chosen: Iterable[str], platform: Mapping[str, Any]) -> list[str]:
    """These services and all that they cannot do without, in the registry's order."""
    keys = set(chosen)
    while True:
        settings = settings_model().model_validate({**platform, **resolved(keys)})
        needed = {need.service for key in keys for need in needs_of(settings, key)}
        if needed <= keys:
            return [key for key in registry() if key in keys]
        keys |= needed


def _resolved(value: Any) -> Any:
    """A copy with a port in place of each :data:`FREE_PORT`."""
    if value == FREE_PORT:
        return free_port()
    if isinstance(value, dict):
        return {key: _resolved(child) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [_resolved(child) for child in value]
    return value
