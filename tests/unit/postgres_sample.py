"""Settings of Postgres with everything that privileges can be."""

from __future__ import annotations

from typing import Any

from components.postgres_settings import PostgresSettings
from components.service import Demand

SETTINGS: dict[str, Any] = {
    "databases": [{"name": "sales", "owner": "boss", "schemas": ["raw", "marts"]}, {"name": "app"}],
    "roles": [
        {"name": "boss"},
        {"name": "analyst", "connection_limit": 5, "grants": [{"database": "sales"}]},
        {"name": "reporter", "grants": [{"database": "sales", "schemas": ["marts", "raw"]}]},
        {"name": "loader", "grants": [{"database": "sales", "privilege": "read-write"}]},
        {"name": "deputy", "grants": [{"database": "sales", "privilege": "owner"}]},
    ],
}


def settings(**values: Any) -> PostgresSettings:
    return PostgresSettings.model_validate({**SETTINGS, **values})


def demand(consumer: str, request: Any) -> Demand:
    return Demand(consumer=consumer, request=request)
