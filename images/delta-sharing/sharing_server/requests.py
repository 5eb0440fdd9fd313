"""What clients may ask of a table."""

from __future__ import annotations

from dataclasses import dataclass

from sharing_server.errors import invalid


@dataclass(frozen=True)
class Query:
    """What a client asks of the data; see the protocol's request body."""

    predicate_hints: tuple[str, ...] = ()
    json_predicate_hints: str | None = None
    limit_hint: int | None = None
    version: int | None = None
    timestamp: str | None = None
    starting_version: int | None = None
    ending_version: int | None = None
    max_files: int | None = None
    page_token: str | None = None
    include_refresh_token: bool = False
    refresh_token: str | None = None
    include_historical_protocol: bool = False


@dataclass(frozen=True)
class Changes:
    """Which changes a client asks for."""

    starting_version: int | None = None
    starting_timestamp: str | None = None
    ending_version: int | None = None
    ending_timestamp: str | None = None
    max_files: int | None = None
    page_token: str | None = None
    historical_metadata: bool = False
    historical_protocol: bool = False


def not_negative(**values: int | None) -> None:
    """Refuses numbers below 0; the keywords are the names that clients know.

    Raises:
        ApiError: 400.
    """
    for name, value in values.items():
        if value is not None and value < 0:
            raise invalid(f"{name} must not be negative")


def check_page(max_files: int | None) -> None:
    """Refuses pages of no files.

    Raises:
        ApiError: 400.
    """
    if max_files is not None and max_files <= 0:
        raise invalid("maxFiles must be positive")
