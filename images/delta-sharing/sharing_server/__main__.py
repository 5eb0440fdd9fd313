"""``python -m sharing_server serve|probe`` runs the server, or asks the running one how it is."""

from __future__ import annotations

import argparse
import ssl
import urllib.request
from pathlib import Path

import uvicorn

from sharing_server.access import Gate
from sharing_server.app import create_app
from sharing_server.config import Settings, load, load_keys, load_recipients, single_recipient
from sharing_server.storage import S3Storage

_DRAIN_S = 20
"""How long open answers may go on once the server is told to stop, in seconds."""


def main() -> None:
    """Serve, or probe."""
    parser = argparse.ArgumentParser(prog="sharing_server", description="Delta Sharing server.")
    parser.add_argument("command", choices=("serve", "probe"))
    parser.add_argument("--config", type=Path, required=True, help="the reference server's YAML")
    parser.add_argument("--keys", type=Path, help="JSON with the object store's endpoint and keys")
    parser.add_argument("--recipients", type=Path, help="JSON with the recipients; else the YAML's own token")
    parser.add_argument("--ca", help="PEM with the CA of the server's certificate, for the probe")
    arguments = parser.parse_args()
    settings = load(arguments.config)
    if arguments.command == "probe":
        probe(settings, arguments.ca)
    elif arguments.keys is None:
        parser.error("serve needs --keys")
    else:
        serve(settings, arguments.keys, arguments.recipients)


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


def probe(settings: Settings, ca: str | None) -> None:
    """Ask for the server's health; raises when it isn't well."""
    context = ssl.create_default_context(cafile=ca) if settings.certificate else None
    scheme = "https" if context else "http"
    url = f"{scheme}://localhost:{settings.port}/healthz"
    urllib.request.urlopen(url, timeout=4, context=context).read()  # noqa: S310 - the scheme is fixed


if __name__ == "__main__":
    main()
