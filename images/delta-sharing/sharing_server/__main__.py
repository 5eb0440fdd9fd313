"""``python -m sharing_server`` runs the server."""

from __future__ import annotations

import argparse
from pathlib import Path

import uvicorn

from sharing_server.access import Gate
from sharing_server.app import create_app
from sharing_server.config import Settings, load, load_keys, load_recipients, single_recipient
from sharing_server.storage import S3Storage

_DRAIN_S = 20
"""How long open answers may go on once the server is told to stop, in seconds."""


def main() -> None:
    """Serve."""
    parser = argparse.ArgumentParser(prog="sharing_server", description="Delta Sharing server.")
    parser.add_argument("--config", type=Path, required=True, help="the reference server's YAML")
    parser.add_argument("--keys", type=Path, required=True,
                        help="JSON with the object store's endpoint and keys")  # fmt: skip
    parser.add_argument("--recipients", type=Path, help="JSON with the recipients; else the YAML's own token")
    arguments = parser.parse_args()
    serve(load(arguments.config), arguments.keys, arguments.recipients)


def serve(settings: Settings, keys: Path, recipients: Path | None) -> None:
    """Run until told to stop."""
    storage = S3Storage(load_keys(keys), settings.url_lifetime_s)
    gate = Gate(load_recipients(recipients) if recipients else single_recipient(settings))
    # One table of each bucket: leave to list is given by the bucket.
    locations = {
        table.location.split("/")[2]: table.location
        for share in settings.shares
        for schema in share.schemas
        for table in schema.tables
    }

    def healthy() -> None:
        for location in locations.values():
            storage.reachable(location)

    uvicorn.run(
        create_app(settings, gate, storage, healthy),
        host="0.0.0.0",
        port=settings.port,
        ssl_certfile=settings.certificate,
        ssl_keyfile=settings.key,
        # The proxy keeps the access log; it is the proxy's address that would stand here.
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=_DRAIN_S,
    )


if __name__ == "__main__":
    main()
