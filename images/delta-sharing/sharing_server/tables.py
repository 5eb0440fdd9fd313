"""Reading one table for one recipient: version, metadata, files, changes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from sharing_server.access import Caller, seal, unseal
from sharing_server.changes import Change, committed, recorded
from sharing_server.config import Settings, Table
from sharing_server.deltalog import Commits, Log, Logs, Snapshot
from sharing_server.errors import invalid
from sharing_server.formats import Capabilities, Format, Line, Writer, choose, end_stream, physical_names
from sharing_server.predicates import UNKNOWN, file_bounds, outcomes, parse_json, parse_sql
from sharing_server.requests import Changes, Query, check_page, not_negative
from sharing_server.storage import Storage


@dataclass(frozen=True)
class Answer:
    """Table version, format and lines; the lines may fail while they are read."""

    version: int
    format: Format
    lines: Iterator[Line]


class Reader:
    """One table as one recipient reads it."""

    def __init__(
        self, storage: Storage, logs: Logs, settings: Settings, table: Table, name: str, caller: Caller
    ) -> None:
        self._storage, self._settings, self._table, self._name = storage, settings, table, name
        self._caller = caller
        self._log: Log = logs.of(table)

    def version(self, starting_timestamp: str | None) -> int:
        """The newest version, or the first one since a time."""
        if starting_timestamp is None:
            return self._log.snapshot().version
        self._needs_history()
        commits = self._log.commits(self._log.snapshot())
        return self._allowed(commits.since("startingTimestamp", starting_timestamp))

    def metadata(self, version: int | None, timestamp: str | None, client: Capabilities) -> Answer:
        """Protocol and metadata."""
        if version is not None and timestamp is not None:
            raise invalid("version and timestamp exclude each other")
        if version is not None or timestamp is not None:
            self._needs_history()
        snapshot, _ = self._at(version, timestamp)
        writer = self._writer(snapshot, client)
        return Answer(snapshot.version, writer.format, iter(writer.head()))

    def files(self, query: Query, client: Capabilities) -> Answer:
        """The files of a version, or the files that changed since one."""
        asked = [query.version, query.timestamp, query.starting_version]
        given = sum(value is not None for value in asked)
        if given > 1:
            raise invalid("version, timestamp and startingVersion exclude each other")
        not_negative(version=query.version, startingVersion=query.starting_version,
                      endingVersion=query.ending_version, limitHint=query.limit_hint)  # fmt: skip
        check_page(query.max_files)
        if given:
            self._needs_history()
            if query.include_refresh_token or query.refresh_token:
                raise invalid("refresh tokens are for the newest version only")
        elif query.page_token and (query.include_refresh_token or query.refresh_token):
            raise invalid("refresh tokens belong to the first page")
        if query.starting_version is not None:
            return self._since(query, client)
        return self._snapshot_files(query, client)

    def changes(self, asked: Changes, client: Capabilities) -> Answer:
        """The change data feed."""
        for name, one, other in (
            ("starting", asked.starting_version, asked.starting_timestamp),
            ("ending", asked.ending_version, asked.ending_timestamp),
        ):
            if one is not None and other is not None:
                raise invalid(f"{name}Version and {name}Timestamp exclude each other")
        if asked.starting_version is None and asked.starting_timestamp is None:
            raise invalid("startingVersion or startingTimestamp is required")
        not_negative(startingVersion=asked.starting_version, endingVersion=asked.ending_version)
        check_page(asked.max_files)
        self._needs_history()
        newest = self._log.snapshot()
        commits = self._log.commits(newest)
        start, end = asked.starting_version, asked.ending_version
        if start is None:
            start = commits.since("startingTimestamp", str(asked.starting_timestamp))
        if asked.ending_timestamp is not None:
            end = commits.until("endingTimestamp", asked.ending_timestamp)
        start, end = self._range(start, end, newest)
        of = self._checksum(asdict(asked))
        page = self._page(asked.page_token, of)
        end = page.get("end", end)
        if not self._log.snapshot(start).change_feed:
            raise invalid(f"changes were not recorded in version {start}")
        snapshot = self._log.snapshot(start) if asked.historical_metadata else newest
        writer = self._writer(snapshot, client)
        actions = recorded(self._log, start, end, page.get("at", start))
        if not asked.historical_metadata:
            actions = (change for change in actions if change.kind != "metaData")
        protocols = asked.historical_protocol and writer.format == "delta"
        first = {"start": start, "end": end, "of": of, "metadata": snapshot.version, "protocols": protocols}
        lines = self._changed(writer, commits, actions, page, asked.max_files, first, client)
        return Answer(start, writer.format, lines)

    # -- files of one version

    def _snapshot_files(self, query: Query, client: Capabilities) -> Answer:
        of = self._checksum(asdict(query))
        page = self._page(query.page_token, of)
        refreshed = (
            unseal(self._caller.key, query.refresh_token, of=self._name) if query.refresh_token else {}
        )
        version = page.get("version", refreshed.get("version", query.version))
        snapshot, commits = self._at(version, None if page else query.timestamp)
        writer = self._writer(snapshot, client)
        travel = query.version is not None or query.timestamp is not None
        commits = commits or (self._log.commits(snapshot) if travel else None)
        time = commits.time(snapshot.version) if travel and commits else None
        lines = self._listed(query, client, snapshot, writer, time, page.get("skip", 0), of)
        return Answer(snapshot.version, writer.format, lines)

    def _listed(
        self, query: Query, client: Capabilities, snapshot: Snapshot, writer: Writer, time: int | None,
        skip: int, of: str,
    ) -> Iterator[Line]:  # fmt: skip
        version = snapshot.version if time is not None else None
        yield from writer.head()
        most = None if query.max_files is None else min(query.max_files, self._settings.page_limit)
        sent, soonest, more = 0, None, None
        for index, row in self._selected(query, snapshot):
            if index < skip:
                continue
            if most is not None and sent == most:
                more = seal(self._caller.key, {"of": of, "version": snapshot.version, "skip": index},
                            self._settings.page_token_lifetime_s)  # fmt: skip
                break
            line = writer.file(row, version, time)
            soonest = _sooner(soonest, line)
            sent += 1
            yield line
        refresh = None
        if query.include_refresh_token:
            refresh = seal(self._caller.key, {"of": self._name, "version": snapshot.version},
                           self._settings.refresh_token_lifetime_s)  # fmt: skip
        if client.end_stream or most is not None or refresh:
            yield end_stream(soonest, nextPageToken=more, refreshToken=refresh)

    def _selected(self, query: Query, snapshot: Snapshot) -> Iterator[tuple[int, dict[str, Any]]]:
        """The files that the hints leave, with their places in the snapshot."""
        predicate = self._predicate(query, snapshot)
        physical, partitions = physical_names(snapshot), snapshot.metadata["partitionColumns"]
        rows = 0
        for index, row in enumerate(snapshot.rows()):
            certain = predicate is None
            if predicate is not None:
                found = outcomes(predicate, file_bounds(row, partitions, physical))
                if "T" not in found:
                    continue
                certain = found == frozenset("T")
            if query.limit_hint is not None and rows >= query.limit_hint:
                return
            # Only rows that surely satisfy the predicate count: the client drops the others.
            rows += (row.get("num_records") or 0) if certain else 0
            yield index, row

    def _predicate(self, query: Query, snapshot: Snapshot) -> Any:
        """All hints together. Those that aren't evaluated may come to anything: no limit counts on them."""
        trees: list[Any] = []
        if tree := parse_json(query.json_predicate_hints):
            trees.append(tree if self._settings.json_predicate_hints else UNKNOWN)
        types = {f["name"].lower(): f["type"] for f in snapshot.schema if isinstance(f["type"], str)}
        for hint in query.predicate_hints:
            trees.append(parse_sql(hint, types) if self._settings.predicate_hints else UNKNOWN)
        return {"op": "and", "children": trees} if len(trees) > 1 else trees[0] if trees else None

    # -- changes

    def _since(self, query: Query, client: Capabilities) -> Answer:
        newest = self._log.snapshot()
        start, end = self._range(int(query.starting_version or 0), query.ending_version, newest)
        of = self._checksum(asdict(query))
        page = self._page(query.page_token, of)
        end = page.get("end", end)
        snapshot = self._log.snapshot(start)
        writer = self._writer(snapshot, client)
        commits = self._log.commits(newest)
        protocols = query.include_historical_protocol and writer.format == "delta"
        first = {"start": start, "end": end, "of": of, "metadata": start, "protocols": protocols}
        actions = committed(self._log, start, end, page.get("at", start))
        lines = self._changed(writer, commits, actions, page, query.max_files, first, client)
        return Answer(start, writer.format, lines)

    def _changed(
        self, writer: Writer, commits: Commits, actions: Iterator[Change],
        page: Mapping[str, Any], max_files: int | None, first: Mapping[str, Any], client: Capabilities,
    ) -> Iterator[Line]:  # fmt: skip
        protocols = first["protocols"]
        yield writer.protocol(writer.snapshot.protocol, first["metadata"] if protocols else None)
        yield writer.metadata(writer.snapshot.metadata, first["metadata"])
        most = None if max_files is None else min(max_files, self._settings.page_limit)
        sent, soonest, more = 0, None, None
        for version, place, kind, content in actions:
            if version == page.get("at") and place < page.get("skip", 0):
                continue
            if kind == "metaData":
                yield writer.metadata(content, version)
                continue
            if kind == "protocol":
                if protocols:
                    yield writer.protocol(content, version)
                continue
            if most is not None and sent == most:
                more = seal(self._caller.key,
                            {"of": first["of"], "end": first["end"], "at": version, "skip": place},
                            self._settings.page_token_lifetime_s)  # fmt: skip
                break
            line = writer.change(kind, content, version, commits.time(version))
            soonest = _sooner(soonest, line)
            sent += 1
            yield line
        if client.end_stream or most is not None:
            yield end_stream(soonest, nextPageToken=more)

    # -- what all share

    def _at(self, version: int | None, timestamp: str | None) -> tuple[Snapshot, Commits | None]:
        commits = None
        if timestamp is not None:
            newest = self._log.snapshot()
            commits = self._log.commits(newest)
            version = commits.at("timestamp", timestamp)
        if version is not None:
            not_negative(version=version)
        snapshot = self._log.snapshot(version)
        self._allowed(snapshot.version)
        return snapshot, commits

    def _range(self, start: int, end: int | None, newest: Snapshot) -> tuple[int, int]:
        self._allowed(start)
        if start > newest.version:
            raise invalid(f"startingVersion {start} is after the newest version {newest.version}")
        if end is not None and end < start:
            raise invalid(f"endingVersion {end} is before startingVersion {start}")
        if end is not None and end > newest.version:
            raise invalid(f"endingVersion {end} is after the newest version {newest.version}")
        return start, newest.version if end is None else end

    def _needs_history(self) -> None:
        if not self._table.history:
            raise invalid(f"the history of {self._name} is not shared: only its newest version can be read")

    def _allowed(self, version: int) -> int:
        if version < self._table.start_version:
            raise invalid(f"{self._name} is shared since version {self._table.start_version}")
        return version

    def _writer(self, snapshot: Snapshot, client: Capabilities) -> Writer:
        recipient = self._caller.recipient
        urls: Literal["public", "internal"] = recipient.urls
        return Writer(
            format=choose(snapshot, client),
            snapshot=snapshot,
            sign=lambda path: self._storage.sign(self._table.location, path, urls, recipient.expires),
            history=self._table.history,
        )

    def _checksum(self, request: Mapping[str, Any]) -> str:
        """Of a request without what may differ from page to page."""
        same = {k: v for k, v in request.items() if k not in ("page_token", "max_files")}
        return hashlib.sha256(json.dumps([self._name, same], sort_keys=True).encode()).hexdigest()

    def _page(self, token: str | None, of: str) -> dict[str, Any]:
        return unseal(self._caller.key, token, of=of) if token else {}


def _sooner(soonest: int | None, line: Line) -> int:
    (about,) = line.values()
    ends = int(about["expirationTimestamp"])
    return ends if soonest is None else min(soonest, ends)
