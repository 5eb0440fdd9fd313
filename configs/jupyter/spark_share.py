"""Shared tables as data frames of Spark: a Delta Sharing client on Spark's API for data sources in Python.

    spark.dataSource.register(SharedTable)
    spark.read.format("deltaSharing").load("partner.share#sales.shop.orders")

The option ``limit`` is a hint, by which the server may name fewer files; ``.limit()`` is what limits.
The address is that of the Python client. The driver asks the server for the table's files; executors read
them from their signed addresses, so the token stays with the driver. The executors' Python needs pyarrow.
"""

from __future__ import annotations

import io
import json
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pyspark.sql.datasource import DataSource, DataSourceReader, InputPartition
from pyspark.sql.types import StructType

# Where the platform's services have its CA; elsewhere the system's CAs alone count.
_CA = Path("/run/millrace/tls/ca.crt")
_SECONDS = 120


def _open(url: str, token: str | None = None, body: dict[str, Any] | None = None) -> Any:
    if not url.startswith("https://"):
        raise ValueError(f"not an https:// address: {url.partition('?')[0]}")
    context = ssl.create_default_context()
    if _CA.exists():
        context.load_verify_locations(_CA)
    request = urllib.request.Request(url, None if body is None else json.dumps(body).encode())  # noqa: S310
    if token is not None:
        request.add_header("Authorization", f"Bearer {token}")
        request.add_header("Content-Type", "application/json; charset=utf-8")
    try:
        return urllib.request.urlopen(request, timeout=_SECONDS, context=context)  # noqa: S310
    except urllib.error.HTTPError as error:
        said = error.read().decode(errors="replace")[:500]
        raise RuntimeError(f"{url.partition('?')[0]} answers {error.code}: {said}") from None


class _File(InputPartition):
    """A file of the table: what an executor is given."""

    def __init__(self, url: str, values: dict[str, str | None]) -> None:
        self.url, self.values = url, values


class SharedTable(DataSource):
    """The data source ``deltaSharing``."""

    @classmethod
    def name(cls) -> str:
        """What readers call it."""
        return "deltaSharing"

    def _ask(self, what: str, body: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        """Lines of the server's answer about the table."""
        path = self.options.get("path", "")
        profile, _, table = path.rpartition("#")
        names = table.split(".")
        if not profile or len(names) != 3 or not all(names):
            raise ValueError(f"write <profile file>#<share>.<schema>.<table>, not {path!r}")
        access = json.loads(Path(profile).read_text())
        share, schema, name = (urllib.parse.quote(part, safe="") for part in names)
        url = f"{access['endpoint'].rstrip('/')}/shares/{share}/schemas/{schema}/tables/{name}/{what}"
        with _open(url, access["bearerToken"], body) as answer:
            return [json.loads(line) for line in answer if line.strip()]

    def schema(self) -> StructType:
        """The table's columns, from its metadata."""
        (about,) = (line["metaData"] for line in self._ask("metadata") if "metaData" in line)
        return StructType.fromJson(json.loads(about["schemaString"]))

    def reader(self, schema: StructType) -> SharedReader:
        """Reads the table as it is now."""
        limit = self.options.get("limit")
        lines = self._ask("query", {"limitHint": int(limit)} if limit else {})
        files = [line["file"] for line in lines if "file" in line]
        return SharedReader(schema, [_File(file["url"], file.get("partitionValues") or {}) for file in files])


class SharedReader(DataSourceReader):
    """Reads the files, each where Spark has room for it."""

    def __init__(self, schema: StructType, files: list[_File]) -> None:
        self.columns, self.files = schema, files

    def partitions(self) -> list[_File]:
        """One for each file."""
        return list(self.files)

    def read(self, partition: _File) -> Iterator[Any]:
        """A file's rows, with the columns that Delta keeps in its log instead."""
        import pyarrow as pa
        import pyarrow.parquet as pq
        from pyspark.sql.pandas.types import to_arrow_schema

        wanted = to_arrow_schema(self.columns)
        with _open(partition.url) as answer:
            table = pq.read_table(io.BytesIO(answer.read()), partitioning=None)
        columns = []
        for field in wanted:
            if field.name in partition.values:
                value = pa.scalar(partition.values[field.name], pa.string())
                columns.append(pa.repeat(value, table.num_rows).cast(field.type))
            elif field.name in table.column_names:
                columns.append(table[field.name].cast(field.type))
            else:  # added to the table since
                columns.append(pa.nulls(table.num_rows, field.type))
        yield from pa.table(columns, schema=wanted).to_batches()
