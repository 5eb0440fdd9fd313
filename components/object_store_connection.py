"""What a consumer of the object store is told, whoever runs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from components.connection import Connection
from components.service import TLS_FOLDER

_HTTPS = 443
_PUBLIC_CAS = "/etc/ssl/certs/ca-certificates.crt"
"""Where Debian and its like keep them, which the built images and the official ones of S3 clients are."""


def endpoint(host: str, port: int) -> str:
    """``https://host:port``; without HTTPS' own port, as not all clients sign that with the host's name."""
    return f"https://{host}" if port == _HTTPS else f"https://{host}:{port}"


@dataclass(frozen=True, kw_only=True)
class StoreConnection(Connection):
    """The object store as one user: ``user`` is the access key, ``path`` the bucket that was requested.

    A bucket's name there may be another than in the settings: ``path`` is the one there, and ``buckets`` has
    those of all of the user's buckets by the names in the settings. Addresses are path-style everywhere.
    ``own`` says that the platform runs the store itself and signed its certificate; ``public_endpoint`` is
    where clients outside reach it, None where they don't.
    """

    host: str
    port: int
    region: str
    public_endpoint: str | None
    buckets: Mapping[str, str]
    own: bool

    @property
    def endpoint(self) -> str:
        """Address of the store."""
        return endpoint(self.host, self.port)

    @property
    def ca_path(self) -> str:
        """The file in its containers that clients verify the store's certificate with."""
        return f"{TLS_FOLDER}/ca.crt" if self.own else _PUBLIC_CAS

    @property
    def client_config(self) -> dict[str, Any]:
        """What ``botocore.config.Config`` is made with."""
        config: dict[str, Any] = {"s3": {"addressing_style": "path"}}
        if not self.own:
            # boto3 1.36 and later add checksums of their own, which not every store takes (boto3#4392).
            config |= {
                "request_checksum_calculation": "when_required",
                "response_checksum_validation": "when_required",
            }
        return config

    @property
    def java_env(self) -> dict[str, str]:
        """For start scripts of Java programs: whether these need Java's own list of CAs as well."""
        return {} if self.own else {"TRUST_PUBLIC_CAS": "true"}
