"""What changed from version to version, as the commits of a table's log have it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from sharing_server.deltalog import Action, Log, records_changes
from sharing_server.errors import invalid


class Change(NamedTuple):
    """One action of a commit: a changed file (add, remove, cdc), or the table's metaData or protocol."""

    version: int
    place: int
    kind: str
    action: Action


def committed(log: Log, start: int, end: int, at: int) -> Iterator[Change]:
    """Files that commits added and removed, and what they changed of the table itself after ``start``.

    ``at`` is the version to begin with, later than ``start`` for a further page.
    """
    for version in range(at, end + 1):
        for change in _actions(log, version):
            if change.kind in ("add", "remove"):
                if change.action.get("dataChange"):
                    yield change
            elif change.kind in ("metaData", "protocol") and version > start:
                yield change


def recorded(log: Log, start: int, end: int, at: int) -> Iterator[Change]:
    """The same for the change data feed.

    Where a commit has files with the changed rows, it is these, else those that it added and removed.

    Raises:
        ApiError: when changes were not recorded in one of the versions.
    """
    for version in range(at, end + 1):
        changes = list(_actions(log, version))
        if any(c.kind == "metaData" and not records_changes(c.action) for c in changes):
            raise invalid(f"changes were not recorded in version {version}")
        whole_files = not _changed_nothing(changes) and all(change.kind != "cdc" for change in changes)
        files = ("add", "remove") if whole_files else ()
        for change in changes:
            if change.kind in ("metaData", "protocol"):
                if version > start:
                    yield change
            elif change.kind == "cdc" or (change.kind in files and change.action.get("dataChange")):
                yield change


def _actions(log: Log, version: int) -> Iterator[Change]:
    for index, line in enumerate(log.actions(version)):
        for kind, action in line.items():
            yield Change(version, index, kind, action)


def _changed_nothing(changes: Sequence[Change]) -> bool:
    """Whether a MERGE says that it changed no row: then its rewritten files are no changes."""
    for change in changes:
        if change.kind == "commitInfo" and change.action.get("operation") == "MERGE":
            metrics = change.action.get("operationMetrics") or {}
            counts = [f"numTargetRows{what}" for what in ("Inserted", "Updated", "Deleted")]
            return all(str(metrics.get(count)) == "0" for count in counts)
    return False
