"""The services' real clients, with certificates verified, through the loopback ports."""

from __future__ import annotations

from typing import Any

import psycopg
import urllib3
from minio import Minio

from tests.integration.stack import ANSWER_S, Stack


def ca_file(stack: Stack) -> str:
    """Path of the platform's CA."""
    path = stack.folder / "ca.crt"
    path.write_text(stack.outputs_once["ca_certificate"])
    return str(path)


def postgres(
    stack: Stack, database: str, role: str, *, password: str | None = None, **more: str
) -> psycopg.Connection[tuple[object, ...]]:
    """A connection over verified TLS that commits each statement."""
    return psycopg.connect(
        host="localhost",
        hostaddr="127.0.0.1",
        port=stack.config["postgres"]["loopback_port"],
        dbname=database,
        user=role,
        password=password or stack.outputs_once["credentials"]["postgres"][role],
        sslmode="verify-full",
        sslrootcert=ca_file(stack),
        autocommit=True,
        connect_timeout=ANSWER_S,
        **more,
    )


def object_store(stack: Stack, user: str, *, secret: str | None = None) -> Minio:
    """An S3 client with the keys of one user."""
    return Minio(
        f"localhost:{stack.config['object_store']['loopback_port']}",
        access_key=user,
        secret_key=secret or stack.outputs_once["credentials"]["object_store"][user],
        secure=True,
        region="us-east-1",
        http_client=urllib3.PoolManager(
            cert_reqs="CERT_REQUIRED",
            ca_certs=ca_file(stack),
            retries=False,
            timeout=urllib3.Timeout(ANSWER_S),
        ),
    )


def kafka(stack: Stack, user: str, *, password: str | None = None, **more: Any) -> dict[str, Any]:
    """Configuration of a Kafka client that logs in as one user; ``more`` with _ for the dots of names."""
    brokers = stack.outputs_once["connections"]["kafka"]["loopback"]
    return {
        "bootstrap.servers": brokers,
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": user,
        "sasl.password": password or stack.outputs_once["credentials"]["kafka"][user],
        "ssl.ca.location": ca_file(stack),
        # Names may resolve to ::1 first, where nothing listens.
        "broker.address.family": "v4",
        "reconnect.backoff.max.ms": 500,
        **{name.replace("_", "."): value for name, value in more.items()},
    }
