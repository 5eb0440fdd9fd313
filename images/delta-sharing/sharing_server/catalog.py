"""Shares, schemas and tables as one recipient sees them. Names are compared without regard to case."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sharing_server.access import Caller, seal, unseal
from sharing_server.config import Recipient, Schema, Share, Table
from sharing_server.errors import invalid, not_found

_MOST = 500
"""Longest page, and its length when the client names none; the reference server's."""
_LIFETIME_S = 3 * 24 * 3600


class Catalog:
    """Everything shared."""

    def __init__(self, shares: Sequence[Share]) -> None:
        self._shares = shares

    def shares(self, recipient: Recipient) -> list[Share]:
        """The recipient's shares."""
        return [s for s in self._shares if recipient.shares is None or s.name.lower() in recipient.shares]

    def share(self, recipient: Recipient, name: str) -> Share:
        """One share; what the recipient may not see is as if it weren't there.

        Raises:
            ApiError: 404.
        """
        found: Share = _find(self.shares(recipient), name, f"share '{name}' not found")
        return found

    def schema(self, recipient: Recipient, share: str, name: str) -> tuple[Share, Schema]:
        """One schema with its share.

        Raises:
            ApiError: 404.
        """
        found = self.share(recipient, share)
        return found, _find(found.schemas, name, f"schema '{name}' not found")

    def table(self, recipient: Recipient, share: str, schema: str, name: str) -> Table:
        """One table.

        Raises:
            ApiError: 404, with the same words whichever part is missing.
        """
        message = f"table '{share}.{schema}.{name}' does not exist: ask who shares it"
        parent = _find(self.shares(recipient), share, message)
        found: Table = _find(_find(parent.schemas, schema, message).tables, name, message)
        return found


def _find(entries: Iterable[Any], name: str, message: str) -> Any:
    for entry in entries:
        if entry.name.lower() == name.lower():
            return entry
    raise not_found(message)


def share_json(share: Share) -> dict[str, Any]:
    """A share as listed."""
    return {"name": share.name}


def schema_json(share: Share, schema: Schema) -> dict[str, Any]:
    """A schema as listed."""
    return {"name": schema.name, "share": share.name}


def table_json(share: Share, schema: Schema, table: Table) -> dict[str, Any]:
    """A table as listed."""
    out = {"name": table.name, "schema": schema.name, "share": share.name}
    return {**out, "id": table.id} if table.id else out


def page(
    items: Sequence[dict[str, Any]], of: str, caller: Caller, max_results: int | None, token: str | None
) -> dict[str, Any]:
    """One page of a listing. ``of`` names the listing: a token of another one is refused.

    Raises:
        ApiError: 400 for a length out of range or a token that isn't of this listing.
    """
    length = _MOST if max_results is None else max_results
    if not 0 <= length <= _MOST:
        raise invalid(f"maxResults must be between 0 and {_MOST}")
    start = int(unseal(caller.key, token, of=of)["start"]) if token else 0
    end = start + length
    out: dict[str, Any] = {"items": list(items[start:end])}
    if end < len(items):
        out["nextPageToken"] = seal(caller.key, {"of": of, "start": end}, _LIFETIME_S)
    return out
