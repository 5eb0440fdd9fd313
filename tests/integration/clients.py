"""The services' real clients, with certificates verified, through the loopback ports."""

from __future__ import annotations

import psycopg
import urllib3
from minio import Minio

from tests.integration.stack import Stack


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
        connect_timeout=5,
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
            cert_reqs="CERT_REQUIRED", ca_certs=ca_file(stack), retries=False, timeout=urllib3.Timeout(10)
        ),
    )
