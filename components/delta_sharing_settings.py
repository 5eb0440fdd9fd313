"""Settings of Delta Sharing, what services may request of it, and mistakes a single value doesn't show."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from components.object_store_settings import BucketName, ObjectStoreSettings
from components.problems import PathPart, Problem, nearest
from components.service import Demand
from components.settings import ImageSource, ServiceSettings
from components.settings_types import Form, Int, MiB, Model, Name

if TYPE_CHECKING:
    from components.settings import Settings


REFERENCE = "reference"
"""Credential of the official image, which knows one token: the services inside share it."""


@dataclass(frozen=True, kw_only=True)
class ShareAccess:
    """Request of a service: a recipient of its own that reads all shares.

    The addresses it gets for the tables' files are those inside the platform: it needs the object store, too.
    """


# The protocol allows more; clients write a table's name as <profile>#<share>.<schema>.<table>.
ShareName = Annotated[
    str,
    Form(
        r"[A-Za-z0-9_][A-Za-z0-9_-]{0,254}",
        "start with a letter, digit or _, then letters, digits, _ and -, 255 at most",
    ),
]
ObjectPath = Annotated[
    str,
    Form(
        r"[^/\s?#%\\]+(/[^/\s?#%\\]+)*",
        "write folders joined by /, such as sales/orders, without one in front or at the end",
    ),
]


def _moment(value: str) -> str:
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise ValueError("not a date and time with its zone - write one such as 2027-01-31T18:00:00Z")
    return value


def _unquoted(value: object) -> object:
    # YAML reads a date and time without quotes as such.
    return value.isoformat() if isinstance(value, datetime) else value


Moment = Annotated[
    str,
    BeforeValidator(_unquoted, json_schema_input_type=str),
    AfterValidator(_moment),
]


class SharedTable(Model):
    """A Delta table to share."""

    name: ShareName
    """Name that recipients know it by."""
    bucket: BucketName | None = None
    """Bucket of the object store; `lake_bucket` without it."""
    path: ObjectPath | None = None
    """Folder of the table in the bucket; `<schema>/<table>` without it."""
    history: bool = False
    """Share earlier versions and the change data feed as well, deleted rows with them."""
    start_version: Annotated[Int, Field(ge=0)] = 0
    """Earliest version to share (with history)."""


class SharedSchema(Model):
    """Tables under one name."""

    name: ShareName
    """Name that recipients know it by."""
    tables: tuple[SharedTable, ...] = ()
    """Its tables; they need not exist yet."""


class SharedShare(Model):
    """Schemas under one name: what a recipient is given as a whole."""

    name: ShareName
    """Name that recipients know it by."""
    schemas: tuple[SharedSchema, ...] = ()
    """Its schemas."""


class RecipientSettings(Model):
    """Somebody who reads shares, with a generated token (stack output `credentials`) and a profile file."""

    name: Name
    """Name of the recipient."""
    shares: Annotated[tuple[ShareName, ...], Field(min_length=1)] | None = None
    """Shares to read; without it all, those added later included."""
    expires: Moment | None = None
    """When the token stops being valid, such as 2027-01-31T18:00:00Z; without it never."""

    @property
    def expires_at(self) -> datetime | None:
        """The same as a time."""
        return None if self.expires is None else datetime.fromisoformat(self.expires)


class DeltaSharingSettings(ServiceSettings):
    """Delta Sharing: shares of Delta tables, and recipients with a token each."""

    memory_mib: Annotated[MiB, Field(ge=192)] = 384
    """Memory limit, in MiB."""
    lake_bucket: BucketName = "lake"
    """Bucket of tables that name none."""
    shares: tuple[SharedShare, ...] = ()
    """Shares to offer."""
    recipients: tuple[RecipientSettings, ...] = ()
    """Who may read them from outside the platform."""
    url_minutes: Annotated[Int, Field(ge=1, le=10080)] = 60
    """How long the address of a file is good for, in minutes."""

    def place(self, schema: SharedSchema, table: SharedTable) -> tuple[str, str]:
        """Bucket and folder of a table."""
        return table.bucket or self.lake_bucket, table.path or f"{schema.name}/{table.name}"

    @property
    def buckets(self) -> tuple[str, ...]:
        """The buckets that hold shared tables."""
        places = (self.place(c, t) for share in self.shares for c in share.schemas for t in c.tables)
        return tuple(dict.fromkeys(bucket for bucket, _ in places)) or (self.lake_bucket,)


def is_upstream(settings: DeltaSharingSettings, platform: Settings) -> bool:
    """Whether the official image runs: the reference server, which can do less."""
    return bool(settings.image) or (settings.images or platform.images) is ImageSource.UPSTREAM


def problems(
    settings: DeltaSharingSettings, demands: Sequence[Demand], platform: Settings
) -> Iterator[Problem]:
    """Duplicate, unknown and clashing names, and what the object store or the official image can't do."""
    yield from _twice([share.name for share in settings.shares], ("shares",), "share")
    for i, share in enumerate(settings.shares):
        path: tuple[PathPart, ...] = ("shares", i, "schemas")
        yield from _twice([schema.name for schema in share.schemas], path, "schema")
        for j, schema in enumerate(share.schemas):
            yield from _twice([table.name for table in schema.tables], (*path, j, "tables"), "table")
            for k, table in enumerate(schema.tables):
                if table.start_version and not table.history:
                    yield Problem(
                        (*path, j, "tables", k, "start_version"),
                        "has no meaning without history - add `history: true` or remove it",
                    )
    yield from _recipients(settings, demands)
    if settings.recipients:
        yield from _outside(settings, platform)


def _twice(names: Sequence[str], path: Sequence[PathPart], what: str) -> Iterator[Problem]:
    """The protocol compares names without regard to case."""
    seen: dict[str, str] = {}
    for index, name in enumerate(names):
        other = seen.setdefault(name.lower(), name)
        if other is not name or name in names[:index]:
            alike = f', which differs from "{other}" only by case,' if other != name else ""
            yield Problem(
                (*path, index, "name"),
                f'{what} "{name}"{alike} stands here a second time - remove or rename it',
            )


def _recipients(settings: DeltaSharingSettings, demands: Sequence[Demand]) -> Iterator[Problem]:
    yield from _twice([recipient.name for recipient in settings.recipients], ("recipients",), "recipient")
    taken = {demand.consumer: f"the recipient of service {demand.consumer}" for demand in demands}
    taken[REFERENCE] = "the official image's recipient"
    shares = {share.name.lower(): share.name for share in settings.shares}
    for index, recipient in enumerate(settings.recipients):
        if recipient.name in taken:
            yield Problem(
                ("recipients", index, "name"),
                f'"{recipient.name}" is {taken[recipient.name]} - choose another name',
            )
        for place, share in enumerate(recipient.shares or ()):
            if share.lower() not in shares:
                yield Problem(
                    ("recipients", index, "shares", place),
                    f'no share "{share}" among shares{nearest(share, shares.values())}',
                )


def _outside(settings: DeltaSharingSettings, platform: Settings) -> Iterator[Problem]:
    """Recipients outside read the files from the object store's public address."""
    store = platform.services.get("object_store")
    if isinstance(store, ObjectStoreSettings) and not store.api_route:
        yield Problem(
            ("recipients",),
            "nobody outside reaches the tables' files: object_store.api_route is off - switch it on",
        )
    if is_upstream(settings, platform):
        yield Problem(
            ("recipients",),
            "the official image knows one token for all, no expiry, and only signs addresses inside the "
            "platform - write `images: build` in delta_sharing, or remove the recipients",
        )
