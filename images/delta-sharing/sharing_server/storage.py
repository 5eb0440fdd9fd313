"""The object store: reads the tables' logs and signs addresses of their files."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Literal, Protocol
from urllib.parse import unquote, urlsplit

import obstore
from obstore.store import S3Store

from sharing_server.config import Keys
from sharing_server.errors import unsupported


class Storage(Protocol):
    """What the tables need of a store; ``location`` is a table's, ``path`` is relative to it."""

    def options(self) -> dict[str, str]:
        """Options for deltalake."""

    def uri(self, location: str) -> str:
        """The table's address as deltalake takes it."""

    def read(self, location: str, path: str) -> bytes:
        """A whole object.

        Raises:
            FileNotFoundError: when there is none.
        """

    def changed(self, location: str, path: str) -> str | None:
        """Another text for another content of an object, None when there is none."""

    def listing(self, location: str, folder: str) -> Iterator[tuple[str, int]]:
        """Names in a folder, each with the time of its last change in ms since 1970."""

    def sign(
        self, location: str, path: str, urls: Literal["public", "internal"], until: datetime | None
    ) -> tuple[str, int]:
        """An address that anyone can read the file at for a while, and when it ends (ms since 1970).

        It ends no later than ``until``.
        """


class S3Storage:
    """Tables at ``s3a://bucket/path`` (or ``s3://``) in one S3-compatible store."""

    def __init__(self, keys: Keys, url_lifetime_s: int) -> None:
        self._keys, self._lifetime = keys, url_lifetime_s
        self._stores: dict[tuple[str, str], S3Store] = {}

    def options(self) -> dict[str, str]:
        """Options for deltalake."""
        return {
            "aws_endpoint": self._keys.endpoint,
            "aws_access_key_id": self._keys.access_key,
            "aws_secret_access_key": self._keys.secret_key,
            "aws_region": self._keys.region,
            "aws_virtual_hosted_style_request": "false",
        }

    def uri(self, location: str) -> str:
        """``s3://bucket/path``."""
        bucket, prefix = _place(location)
        return f"s3://{bucket}/{prefix}"

    def read(self, location: str, path: str) -> bytes:
        """A whole object."""
        bucket, prefix = _place(location)
        return bytes(obstore.get(self._store(bucket, self._keys.endpoint), f"{prefix}/{path}").bytes())

    def changed(self, location: str, path: str) -> str | None:
        """The object's entity tag."""
        bucket, prefix = _place(location)
        try:
            return obstore.head(self._store(bucket, self._keys.endpoint), f"{prefix}/{path}")["e_tag"]
        except FileNotFoundError:
            return None

    def listing(self, location: str, folder: str) -> Iterator[tuple[str, int]]:
        """Names in a folder, each with the time of its last change in ms since 1970."""
        bucket, prefix = _place(location)
        for chunk in obstore.list(self._store(bucket, self._keys.endpoint), f"{prefix}/{folder}"):
            for entry in chunk:
                yield entry["path"].rpartition("/")[2], int(entry["last_modified"].timestamp() * 1000)

    def sign(
        self, location: str, path: str, urls: Literal["public", "internal"], until: datetime | None
    ) -> tuple[str, int]:
        """A signed address at the endpoint that the recipient reaches."""
        bucket, prefix = _place(location)
        public = self._keys.public_endpoint
        if urls == "public" and public is None:
            raise unsupported("files are not offered outside the platform")
        store = self._store(bucket, public if urls == "public" and public else self._keys.endpoint)
        now = time.time()
        # S3 counts whole seconds, and at least one.
        left = self._lifetime if until is None else max(1, int(until.timestamp() - now))
        lifetime = min(self._lifetime, left)
        key = f"{prefix}/{object_path(path)}"
        return str(obstore.sign(store, "GET", key, timedelta(seconds=lifetime))), int((now + lifetime) * 1000)

    def reachable(self, location: str) -> None:
        """Raises whatever is in the way of listing the bucket; an empty one is fine."""
        bucket, prefix = _place(location)
        listing = obstore.list(self._store(bucket, self._keys.endpoint), f"{prefix}/_delta_log", chunk_size=1)
        next(iter(listing), None)

    def _store(self, bucket: str, endpoint: str) -> S3Store:
        store = self._stores.get((bucket, endpoint))
        if store is None:
            store = S3Store(
                bucket,
                endpoint=endpoint,
                access_key_id=self._keys.access_key,
                secret_access_key=self._keys.secret_key,
                region=self._keys.region,
                virtual_hosted_style_request=False,
            )
            self._stores[bucket, endpoint] = store
        return store


def object_path(path: str) -> str:
    """Where the object of a log's ``path`` is: logs hold paths as relative URIs, percent-encoded.

    Raises:
        ApiError: for an absolute one, which may be in a place that isn't shared.
    """
    if path.startswith("/") or urlsplit(path).scheme or ".." in unquote(path).split("/"):
        raise unsupported("tables with files outside their own folder are not shared")
    return unquote(path)


def _place(location: str) -> tuple[str, str]:
    parts = urlsplit(location)
    if parts.scheme not in ("s3", "s3a") or not parts.netloc or not parts.path.strip("/"):
        raise unsupported("tables are shared from an S3 object store only")
    return parts.netloc, parts.path.strip("/")
