"""The server's settings: the reference server's YAML, and what that has no place for in two more files.

The YAML (version 1) is that of ``deltaio/delta-sharing-server``; keys this server has no use for are ignored,
as the reference server ignores those it doesn't know. Recipients and the object store's keys are JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import yaml

_VERSION = 1


class ConfigError(Exception):
    """The settings can't be used; the message says why."""


@dataclass(frozen=True)
class Table:
    """A shared table. Without ``history`` only the newest version is served, as with the reference server."""

    name: str
    location: str
    id: str = ""
    history: bool = False
    start_version: int = 0


@dataclass(frozen=True)
class Schema:
    """Tables under one name."""

    name: str
    tables: tuple[Table, ...] = ()


@dataclass(frozen=True)
class Share:
    """Schemas under one name, granted as a whole."""

    name: str
    schemas: tuple[Schema, ...] = ()


@dataclass(frozen=True)
class Settings:
    """What the YAML says. Times are in seconds."""

    shares: tuple[Share, ...]
    endpoint: str = "/delta-sharing"
    port: int = 80
    url_lifetime_s: int = 3600
    table_cache: int = 10
    predicate_hints: bool = False
    json_predicate_hints: bool = True
    page_limit: int = 10000
    page_token_lifetime_s: int = 259200
    refresh_token_lifetime_s: int = 3600
    certificate: str | None = None
    key: str | None = None
    bearer_token: str | None = None


@dataclass(frozen=True)
class Recipient:
    """Who has a token: its SHA-256 alone is known here.

    ``shares`` None means all. ``urls`` says which address of the object store the recipient reaches.
    """

    name: str
    token_sha256: str
    shares: frozenset[str] | None = None
    expires: datetime | None = None
    urls: Literal["public", "internal"] = "public"


@dataclass(frozen=True)
class Keys:
    """The object store and the keys for it. ``public_endpoint`` is where recipients outside reach it."""

    endpoint: str
    access_key: str
    secret_key: str = field(repr=False)
    public_endpoint: str | None = None
    region: str = "us-east-1"


def load(path: Path) -> Settings:
    """The YAML file.

    Raises:
        ConfigError: when it is not of version 1 or lacks a name or location.
    """
    document = yaml.safe_load(path.read_text())
    if not isinstance(document, Mapping) or document.get("version") != _VERSION:
        raise ConfigError(f"{path}: 'version' must be {_VERSION}")
    tls = document.get("ssl") or {}
    if tls.get("selfSigned"):
        raise ConfigError(
            f"{path}: ssl.selfSigned is not supported: give certificateFile and certificateKeyFile"
        )
    authorization = document.get("authorization") or {}
    known: dict[str, Any] = {
        "endpoint": document.get("endpoint"),
        "port": document.get("port"),
        "url_lifetime_s": document.get("preSignedUrlTimeoutSeconds"),
        "table_cache": document.get("deltaTableCacheSize"),
        "predicate_hints": document.get("evaluatePredicateHints"),
        "json_predicate_hints": document.get("evaluateJsonPredicateHints"),
        "page_limit": document.get("queryTablePageSizeLimit"),
        "page_token_lifetime_s": _seconds(document.get("queryTablePageTokenTtlMs")),
        "refresh_token_lifetime_s": _seconds(document.get("refreshTokenTtlMs")),
        "certificate": tls.get("certificateFile"),
        "key": tls.get("certificateKeyFile"),
        "bearer_token": authorization.get("bearerToken"),
    }
    shares = tuple(
        Share(_named(share, "share"), tuple(_schema(schema) for schema in share.get("schemas") or ()))
        for share in document.get("shares") or ()
    )
    return Settings(shares=shares, **{name: value for name, value in known.items() if value is not None})


def _seconds(milliseconds: int | None) -> int | None:
    return None if milliseconds is None else milliseconds // 1000


def _named(entry: Any, what: str) -> str:
    name = entry.get("name") if isinstance(entry, Mapping) else None
    if not name:
        raise ConfigError(f"'name' in a {what} must be provided")
    return str(name)


def _schema(entry: Any) -> Schema:
    name = _named(entry, "schema")
    tables = []
    for table in entry.get("tables") or ():
        if not _named(table, "table") or not table.get("location"):
            raise ConfigError(f"'location' of table {table.get('name')} must be provided")
        tables.append(
            Table(
                name=str(table["name"]),
                location=str(table["location"]).rstrip("/"),
                id=str(table.get("id") or ""),
                history=bool(table.get("historyShared")),
                start_version=int(table.get("startVersion") or 0),
            )
        )
    return Schema(name, tuple(tables))


def load_recipients(path: Path) -> tuple[Recipient, ...]:
    """The recipients' file: a JSON list of objects with the fields of :class:`Recipient`."""
    return tuple(
        Recipient(
            name=entry["name"],
            token_sha256=entry["token_sha256"],
            shares=None if entry.get("shares") is None else frozenset(s.lower() for s in entry["shares"]),
            expires=datetime.fromisoformat(entry["expires"]) if entry.get("expires") else None,
            urls=entry.get("urls", "public"),
        )
        for entry in json.loads(path.read_text())
    )


def single_recipient(settings: Settings) -> Sequence[Recipient]:
    """Who has the YAML's own token, as with the reference server: one for everything.

    Raises:
        ConfigError: when there is none: without a token everyone would read everything.
    """
    if not settings.bearer_token:
        raise ConfigError("neither recipients nor authorization.bearerToken: nobody could read anything")
    return [Recipient("bearerToken", sha256(settings.bearer_token.encode()).hexdigest())]


def load_keys(path: Path) -> Keys:
    """The object store's file: a JSON object with the fields of :class:`Keys`."""
    return Keys(**json.loads(path.read_text()))
