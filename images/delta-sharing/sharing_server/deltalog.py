"""What the log of a Delta table says: snapshots by way of deltalake, single commits as they stand there."""

from __future__ import annotations

import json
import re
import threading
from array import array
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from sharing_server.config import Table
from sharing_server.errors import invalid, not_found
from sharing_server.storage import Storage

Action = Mapping[str, Any]

_COMMIT = re.compile(r"(\d{20})\.json")
_ICT = "delta.enableInCommitTimestamps"


@dataclass(frozen=True)
class Snapshot:
    """A table at one version. ``files`` is an Arrow table of one batch, with a row for each data file."""

    version: int
    protocol: dict[str, Any]
    metadata: dict[str, Any]
    files: Any

    @property
    def configuration(self) -> dict[str, str]:
        """The table's properties."""
        return dict(self.metadata["configuration"])

    @cached_property
    def schema(self) -> list[dict[str, Any]]:
        """The fields of the table's schema."""
        return list(json.loads(self.metadata["schemaString"])["fields"])

    @property
    def reader_features(self) -> frozenset[str]:
        """What a reader must know of to read the data, in lower case."""
        features = {str(f).lower() for f in self.protocol.get("readerFeatures") or ()}
        if self.configuration.get("delta.columnMapping.mode", "none") != "none":
            features.add("columnmapping")
        return frozenset(features)

    @property
    def change_feed(self) -> bool:
        """Whether changes are recorded."""
        return records_changes(self.metadata)

    @cached_property
    def size(self) -> int:
        """Bytes of all data files."""
        return sum(row["size_bytes"] or 0 for row in self._columns("size_bytes"))

    def rows(self) -> Iterator[dict[str, Any]]:
        """Data files: path, size_bytes, modification_time, num_records, null_count, min, max, partition.

        They come by path: pages rely on places that stay the same for as long as the version exists. The log
        has no such order, as a checkpoint may be written anew at any time.
        """
        return self._columns(*self.files.schema.names, order=self._by_path)

    @cached_property
    def _by_path(self) -> Sequence[int]:
        paths = [row["path"] for row in self._columns("path")]
        return array("L", sorted(range(len(paths)), key=paths.__getitem__))

    def _columns(self, *names: str, order: Sequence[int] | None = None) -> Iterator[dict[str, Any]]:
        for batch in self.files.to_batches():
            columns = {name: batch.column(name) for name in names}
            for index in range(batch.num_rows) if order is None else order:
                yield {name: column[index].as_py() for name, column in columns.items()}


def records_changes(metadata: Action) -> bool:
    """Whether a table with this metadata records changes."""
    return str((metadata.get("configuration") or {}).get("delta.enableChangeDataFeed")).lower() == "true"


class Log:
    """The log of one table. Its newest snapshot is kept and brought up to date by what came since."""

    def __init__(self, storage: Storage, table: Table) -> None:
        self._storage, self._table = storage, table
        self._lock = threading.Lock()
        self._newest: DeltaTable | None = None
        self._snapshot: Snapshot | None = None
        self._seen: str | None = None

    def snapshot(self, version: int | None = None) -> Snapshot:
        """The table at ``version``, or as it is now.

        Raises:
            ApiError: 404 when there is no table yet, 400 when it has no such version (any more).
        """
        if version is None:
            with self._lock:
                return self._current()
        with self._lock:
            current = self._current()
        if version == current.version:
            return current
        if version > current.version:
            raise invalid(f"version {version} does not exist: the newest one is {current.version}")
        try:
            return _freeze(self._open(version))
        except DeltaError:
            raise invalid(f"version {version} can't be read any more: its log was cleaned up") from None

    def _current(self) -> Snapshot:
        if self._newest is not None and self._commit(self._newest.version()) == self._seen:
            self._newest.update_incremental()
        else:
            # The first time; or the table was deleted, and maybe made anew.
            self._newest = self._snapshot = None
            self._newest = self._open()
        if self._snapshot is None or self._snapshot.version != self._newest.version():
            self._seen = self._commit(self._newest.version())
            self._snapshot = _freeze(self._newest)
        return self._snapshot

    def _commit(self, version: int) -> str | None:
        return self._storage.changed(self._table.location, f"_delta_log/{version:020}.json")

    def _open(self, version: int | None = None) -> DeltaTable:
        uri = self._storage.uri(self._table.location)
        try:
            return DeltaTable(uri, version=version, storage_options=self._storage.options())
        except TableNotFoundError:
            raise not_found("the table has no data yet") from None

    # -- single commits

    def commits(self, snapshot: Snapshot) -> Commits:
        """The commits that are still there, up to that of ``snapshot``."""
        found = {}
        for name, changed in self._storage.listing(self._table.location, "_delta_log"):
            if (match := _COMMIT.fullmatch(name)) and int(match[1]) <= snapshot.version:
                found[int(match[1])] = changed
        in_commit = snapshot.configuration.get(_ICT, "").lower() == "true"
        since = int(snapshot.configuration.get("delta.inCommitTimestampEnablementVersion", 0))
        return Commits(self, found, since if in_commit else None)

    def actions(self, version: int) -> list[Action]:
        """The actions of one commit.

        Raises:
            ApiError: 400 when it is not there (any more).
        """
        try:
            text = self._storage.read(self._table.location, f"_delta_log/{version:020}.json")
        except FileNotFoundError:
            raise invalid(f"version {version} can't be read any more: its log was cleaned up") from None
        return [json.loads(line) for line in text.splitlines() if line.strip()]


class Commits:
    """When each commit was: the time its file was written, or the one in it where the table says so.

    Times of files are made to rise with the versions, by 1 ms where they don't, as all Delta readers do.
    """

    def __init__(self, log: Log, written: Mapping[int, int], in_commit_since: int | None) -> None:
        self._log, self._in_commit_since = log, in_commit_since
        self.versions = sorted(written)
        self._times: dict[int, int] = {}
        last = -1
        for version in self.versions:
            last = max(written[version], last + 1)
            self._times[version] = last

    def time(self, version: int) -> int:
        """When it was committed, in ms since 1970."""
        if self._in_commit_since is not None and version >= self._in_commit_since:
            for action in self._log.actions(version):
                if "inCommitTimestamp" in action.get("commitInfo", {}):
                    return int(action["commitInfo"]["inCommitTimestamp"])
        return self._times[version]

    def at(self, name: str, text: str) -> int:
        """The version that was the newest one at a time.

        Raises:
            ApiError: when the text is no time, or one before the first or after the last commit.
        """
        moment = timestamp(name, text)
        index = bisect_right(self.versions, moment, key=self.time) - 1
        if index < 0:
            raise invalid(f"{name} {text} is before the first version that can be read")
        if moment > self.time(self.versions[-1]):
            raise invalid(f"{name} {text} is after the newest version")
        return self.versions[index]

    def until(self, name: str, text: str) -> int:
        """The last version committed no later than a time, which may be in the future.

        Raises:
            ApiError: when the text is no time, or one before the first commit.
        """
        index = bisect_right(self.versions, timestamp(name, text), key=self.time) - 1
        if index < 0:
            raise invalid(f"{name} {text} is before the first version that can be read")
        return self.versions[index]

    def since(self, name: str, text: str) -> int:
        """The first version committed no earlier than a time.

        Raises:
            ApiError: when the text is no time, or one after the last commit.
        """
        index = bisect_left(self.versions, timestamp(name, text), key=self.time)
        if index == len(self.versions):
            raise invalid(f"{name} {text} is after the newest version")
        return self.versions[index]


def timestamp(name: str, text: str) -> int:
    """An ISO 8601 time with its zone, in ms since 1970.

    Raises:
        ApiError: when it is none.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise invalid(f"{name} must be an ISO 8601 time in UTC such as 2022-01-01T00:00:00Z")
    return int(moment.timestamp() * 1000)


def _freeze(table: DeltaTable) -> Snapshot:
    versions, metadata = table.protocol(), table.metadata()
    protocol: dict[str, Any] = {
        "minReaderVersion": versions.min_reader_version,
        "minWriterVersion": versions.min_writer_version,
    }
    if versions.reader_features is not None:
        protocol["readerFeatures"] = sorted(versions.reader_features)
    if versions.writer_features is not None:
        protocol["writerFeatures"] = sorted(versions.writer_features)
    described: dict[str, Any] = {
        "id": str(metadata.id),
        "name": metadata.name,
        "description": metadata.description,
        "format": {"provider": "parquet", "options": {}},
        "schemaString": table.schema().to_json(),
        "partitionColumns": list(metadata.partition_columns),
        "configuration": dict(metadata.configuration),
        "createdTime": metadata.created_time,
    }
    return Snapshot(
        version=table.version(),
        protocol=protocol,
        metadata={name: value for name, value in described.items() if value is not None},
        files=table.get_add_actions(flatten=False).combine_chunks(),
    )


class Logs:
    """The logs in use; those used longest ago are forgotten."""

    def __init__(self, storage: Storage, most: int) -> None:
        self._storage, self._most = storage, max(1, most)
        self._lock = threading.Lock()
        self._logs: OrderedDict[str, Log] = OrderedDict()

    def of(self, table: Table) -> Log:
        """The log of a table."""
        with self._lock:
            log = self._logs.setdefault(table.location, Log(self._storage, table))
            self._logs.move_to_end(table.location)
            while len(self._logs) > self._most:
                self._logs.popitem(last=False)
            return log
