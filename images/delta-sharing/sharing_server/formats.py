"""The lines of an answer, in the protocol's two formats: parquet and delta."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, Literal

from sharing_server.deltalog import Snapshot
from sharing_server.errors import unsupported

Format = Literal["parquet", "delta"]
Line = dict[str, Any]
Sign = Callable[[str], "tuple[str, int]"]
"""Makes an address of a file's path in the log: with its end, in ms since 1970."""

_UNNOTICED = frozenset({"v2checkpoint", "vacuumprotocolcheck", "catalogmanaged"})
"""Reader features that only concern who reads the log, not who reads the files."""
_SERVED = frozenset({"columnmapping", "timestampntz"})
"""Reader features that data is shared with, in delta format."""


@dataclass(frozen=True)
class Capabilities:
    """What a client says in ``delta-sharing-capabilities``."""

    formats: frozenset[str] = frozenset({"parquet"})
    reader_features: frozenset[str] = frozenset()
    end_stream: bool = False

    @classmethod
    def parse(cls, header: str | None) -> Capabilities:
        """From the header, whose keys and values have no case."""
        pairs = [part.partition("=") for part in (header or "").lower().replace(" ", "").split(";")]
        given = {key: value for key, _, value in pairs if value}
        formats = frozenset(given.get("responseformat", "parquet").split(",")) & {"parquet", "delta"}
        return cls(
            formats=formats or frozenset({"parquet"}),
            reader_features=frozenset(given.get("readerfeatures", "").split(",")) - {""},
            end_stream=given.get("includeendstreamaction") == "true",
        )


def choose(snapshot: Snapshot, client: Capabilities) -> Format:
    """The format to answer in: parquet where it will do and the client takes it.

    Raises:
        ApiError: when the table has features that this server doesn't share, or the client can't read.
    """
    features = snapshot.reader_features - _UNNOTICED
    if refused := sorted(features - _SERVED):
        raise unsupported(f"tables with {', '.join(refused)} are not shared")
    if "parquet" in client.formats and not features:
        return "parquet"
    if "delta" not in client.formats:
        raise unsupported(f"the table has {', '.join(sorted(features))}: ask for responseformat=delta")
    if unread := sorted(features - client.reader_features):
        raise unsupported(
            f"the table has {', '.join(unread)}, which is not among the client's readerfeatures"
        )
    return "delta"


@dataclass(frozen=True)
class Writer:
    """Writes the lines of one answer. ``history`` tells whether the table's history is shared."""

    format: Format
    snapshot: Snapshot
    sign: Sign
    history: bool

    def protocol(self, protocol: Mapping[str, Any], version: int | None = None) -> Line:
        """A protocol action; the version only shows in delta format."""
        if self.format == "parquet":
            return {"protocol": {"minReaderVersion": 1}}
        return {"protocol": _given(version=version, deltaProtocol=_present(protocol))}

    def metadata(self, metadata: Mapping[str, Any], version: int | None = None, **more: int | None) -> Line:
        """A metadata action; ``more`` are size and numFiles."""
        if self.format == "delta":
            return {"metaData": _given(version=version, **more, deltaMetadata=_present(metadata))}
        changes = (metadata.get("configuration") or {}).get("delta.enableChangeDataFeed", "")
        return {
            "metaData": _given(
                id=metadata["id"],
                name=metadata.get("name"),
                description=metadata.get("description"),
                format={"provider": "parquet"},
                schemaString=_plain_schema(metadata["schemaString"]),
                partitionColumns=list(metadata["partitionColumns"]),
                configuration={"enableChangeDataFeed": "true"} if self.history and changes == "true" else {},
                version=version,
                **more,
            )
        }

    def head(self) -> list[Line]:
        """The first two lines of an answer about one version."""
        size = {"size": self.snapshot.size, "numFiles": self.snapshot.files.num_rows}
        return [self.protocol(self.snapshot.protocol), self.metadata(self.snapshot.metadata, None, **size)]

    def file(self, row: Mapping[str, Any], version: int | None, time: int | None) -> Line:
        """A data file of a snapshot, from a row of it."""
        url, ends = self.sign(row["path"])
        values = partition_values(row.get("partition") or {})
        stats = statistics(row)
        if self.format == "parquet":
            about = _given(
                url=url,
                id=file_id(row["path"]),
                size=row["size_bytes"],
                stats=stats,
                version=version,
                timestamp=time,
                expirationTimestamp=ends,
            )
            return {"file": {**about, "partitionValues": values}}
        names = physical_names(self.snapshot)
        add = _given(
            path=url,
            size=row["size_bytes"],
            modificationTime=row["modification_time"],
            dataChange=True,
            stats=stats,
        )
        add["partitionValues"] = {names.get(name.lower(), name): value for name, value in values.items()}
        return self._wrapped("add", add, row["path"], ends, version, time)

    def change(self, kind: str, action: Mapping[str, Any], version: int, time: int) -> Line:
        """A data change file: ``kind`` is add, remove or cdc, ``action`` the one of the log."""
        if action.get("deletionVector"):
            raise unsupported("tables with deletion vectors are not shared")
        url, ends = self.sign(action["path"])
        if self.format == "delta":
            return self._wrapped(kind, {**_present(action), "path": url}, action["path"], ends, version, time)
        about = _given(
            url=url,
            id=file_id(action["path"]),
            size=action.get("size"),
            stats=action.get("stats") if kind == "add" else None,
            version=version,
            timestamp=time,
            expirationTimestamp=ends,
        )
        values = action.get("partitionValues") or {}
        return {"cdf" if kind == "cdc" else kind: {**about, "partitionValues": values}}

    def _wrapped(
        self, kind: str, action: Line, path: str, ends: int, version: int | None, time: int | None
    ) -> Line:
        about = _given(id=file_id(path), version=version, timestamp=time, expirationTimestamp=ends)
        return {"file": {**about, "deltaSingleAction": {kind: action}}}


def end_stream(ends: int | None = None, **tokens: str | None) -> Line:
    """The last line, for clients that want one or when there is more."""
    return {"endStreamAction": _given(minUrlExpirationTimestamp=ends, **tokens)}


def encode(line: Line) -> bytes:
    """One line of the answer."""
    return json.dumps(line, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def file_id(path: str) -> str:
    """The same for a file in every answer, of any format."""
    return hashlib.sha256(path.encode()).hexdigest()[:32]


def physical_names(snapshot: Snapshot) -> dict[str, str]:
    """Names of the columns in files and statistics, by their lower-case names."""
    key = "delta.columnMapping.physicalName"
    return {field["name"].lower(): (field.get("metadata") or {}).get(key, field["name"])
            for field in snapshot.schema}  # fmt: skip


def partition_values(values: Mapping[str, Any]) -> dict[str, str | None]:
    """Partition values as the protocol writes them."""
    return {name: _partition_value(value) for name, value in values.items()}


def _partition_value(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, datetime):
        moment = value.astimezone(UTC) if value.tzinfo else value
        text = moment.strftime("%Y-%m-%d %H:%M:%S")
        return f"{text}.{moment.microsecond:06}" if moment.microsecond else text
    if isinstance(value, date):
        return value.isoformat()
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def statistics(row: Mapping[str, Any]) -> str | None:
    """A file's statistics as JSON text, or None when it has none."""
    if row.get("num_records") is None:
        return None
    stats: dict[str, Any] = {"numRecords": row["num_records"]}
    for name, key in (("minValues", "min"), ("maxValues", "max"), ("nullCount", "null_count")):
        values = _stat(row.get(key))
        stats[name] = {} if values is None else values
    return json.dumps(stats, separators=(",", ":"), ensure_ascii=False)


def _stat(value: Any) -> Any:
    """A statistic as JSON has it; None for what JSON can't tell exactly, which then has no statistic."""
    if isinstance(value, Mapping):
        inner = {name: _stat(part) for name, part in value.items()}
        return {name: part for name, part in inner.items() if part is not None}
    if isinstance(value, datetime):
        text = value.replace(tzinfo=None).isoformat(timespec="milliseconds")
        return f"{text}Z" if value.tzinfo else text
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Decimal):
        return float(value) if Decimal(repr(float(value))) == value else None
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return None if isinstance(value, bytes) else value


def _plain_schema(schema: str) -> str:
    """The schema without what is the table's own business: of a column's metadata only the comment stays."""
    document = json.loads(schema)
    for field in document["fields"]:
        metadata = field.get("metadata") or {}
        field["metadata"] = {"comment": metadata["comment"]} if "comment" in metadata else {}
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False)


def _given(**values: Any) -> Line:
    return {name: value for name, value in values.items() if value is not None}


def _present(action: Mapping[str, Any]) -> Line:
    """A log's action without keys of no value, except in partition values, where that is one."""
    return {name: value for name, value in action.items() if value is not None}
