"""The platform's connections as Airflow's: what tasks find without anybody typing it in.

The keys are those of ``airflow.models.Connection``; a local secrets backend reads them from a JSON file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pulumi

from components.connection import Connection
from components.service import TLS_FOLDER

CA = f"{TLS_FOLDER}/ca.crt"

Entry = dict[str, Any]


def _base(connection: Connection, conn_type: str, **extra: object) -> Entry:
    return {
        "conn_type": conn_type,
        "host": connection.host,
        "port": connection.port,
        "login": connection.user,
        "password": connection.password,
        "extra": extra,
    }


def postgres(connection: Connection) -> Entry:
    """For ``PostgresHook``."""
    entry = _base(connection, "postgres", sslmode="verify-full", sslrootcert=CA)
    return entry | {"schema": connection.path}


def object_store(connection: Connection, region: str) -> Entry:
    """For ``S3Hook`` and the logs of tasks."""
    endpoint = pulumi.Output.all(connection.host, connection.port).apply(lambda a: f"https://{a[0]}:{a[1]}")
    return {
        "conn_type": "aws",
        "login": connection.user,
        "password": connection.password,
        "extra": {
            "endpoint_url": endpoint,
            "region_name": region,
            "verify": CA,
            "config_kwargs": {"s3": {"addressing_style": "path"}},
        },
    }


def document(entries: Mapping[str, Entry]) -> pulumi.Output[str]:
    """The file; secret."""

    def text(found: Mapping[str, Entry]) -> str:
        ready = {name: {**entry, "extra": json.dumps(entry["extra"])} for name, entry in found.items()}
        return json.dumps(ready, indent=1, sort_keys=True) + "\n"

    return pulumi.Output.secret(pulumi.Output.from_input(dict(entries)).apply(text))
