"""Bronze of the flights: each raw file once, as text, with the file it came from.

The files' names come by a stream with a checkpoint, so a run sees those that are new. A file whose header is
not what its table wants is put on the list ``refused_files`` with the reason, and no line of it is read.
Lines that do not fit the header are kept as they are for silver to refuse.

A file is known by its name: one that was changed and put in the same place is not read again.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from common import Job, run
from flights import REFUSED, SCHEMA, TABLES, Table
from headers import LIMIT, header_problem
from pyspark.sql import DataFrame
from pyspark.sql import functions as F  # noqa: N812
from tables import append, each_new, written

NAME = "bronze_flights"

_NAMES = "path STRING, modificationTime TIMESTAMP, length LONG, content BINARY"
_REFUSED = "file STRING, reason STRING, header STRING, _run STRING"


@dataclass(frozen=True)
class File:
    """A new file and, where it is refused, why."""

    uri: str
    table: str
    reason: str | None
    header: str


def main(argv: Sequence[str] | None = None) -> dict[str, object]:
    """Read what is new."""
    return run(NAME, "bronze", ingest, argv)


def ingest(job: Job) -> None:
    """See the module's description."""
    folder = job.uri("raw", SCHEMA)
    if not job.files.exists(folder):
        job.say(f"{folder} is not there: nothing to read")
        return
    # Of a binary file's columns only those are read that are asked for: names, no contents.
    stream = job.spark.readStream.format("binaryFile").schema(_NAMES).option("recursiveFileLookup", "true")
    # A file is old when it was seen, however long ago the others came.
    names = stream.option("maxFileAge", "36500d").load(folder).select("path")
    each_new(job, names, SCHEMA, lambda rows, bookmark, number: _take(job, rows, bookmark, number))
    for name in (*TABLES, REFUSED):
        if name in job.counts:
            new = written(job, job.uri("bronze", SCHEMA, name))
            job.count(name, read=new, written=new)


def _take(job: Job, rows: DataFrame, bookmark: str, number: int) -> None:
    """The files of one batch. Every table takes a batch once, so that it may come again after a crash."""
    found = [_look(job, str(row["path"])) for row in rows.collect()]
    once = (bookmark, number)
    for name, table in TABLES.items():
        good = sorted(file.uri for file in found if file.table == name and file.reason is None)
        if good:
            lines = _json(job, good) if table.json else _csv(job, good, table)
            append(lines.withColumn("_run", F.lit(job.run)), job.uri("bronze", SCHEMA, name), once)
            job.count(name, files=len(good))
    refused = [file for file in found if file.reason is not None]
    if refused:
        listed = [(file.uri, file.reason, file.header, job.run) for file in refused]
        lines = job.spark.createDataFrame(listed, _REFUSED)
        append(lines.coalesce(1), job.uri("bronze", SCHEMA, REFUSED), once)
        job.count(REFUSED, files=len(refused))
        for file in refused:
            job.say(f"refused {file.uri}: {file.reason}")


def _csv(job: Job, files: list[str], table: Table) -> DataFrame:
    schema = ", ".join(f"{name} STRING" for name in (*table.columns, "_malformed"))
    reader = job.spark.read.schema(schema).option("header", "true").option("mode", "PERMISSIVE")
    # A quotation mark in quotes is written twice, as in RFC 4180; Spark's own choice is a backslash.
    reader = reader.option("escape", '"').option("columnNameOfCorruptRecord", "_malformed")
    return _with_file(reader.csv(files))


def _json(job: Job, files: list[str]) -> DataFrame:
    return _with_file(job.spark.read.text(files).where("trim(value) <> ''"))


def _with_file(rows: DataFrame) -> DataFrame:
    meta = F.col("_metadata")
    return rows.select(
        "*", meta["file_path"].alias("_file"), meta["file_modification_time"].alias("_modified")
    )


def _path(uri: str) -> str:
    """An address without its scheme: Hadoop writes ``file:///x`` as ``file:/x``, too."""
    return re.sub(r"^\w+:/+", "", uri)


def _look(job: Job, uri: str) -> File:
    """Which table takes a file, or why none does, by its place and its first line."""
    below = PurePosixPath(_path(uri)).relative_to(_path(job.uri("raw", SCHEMA)))
    name = below.parts[0] if len(below.parts) > 1 else below.stem
    table = TABLES.get(name)
    if table is None:
        return File(uri, name, f"no table takes it - known are {', '.join(TABLES)}", "")
    if below.suffix not in table.suffixes:
        return File(uri, name, f"{name} comes in files that end in {', '.join(table.suffixes)}", "")
    start = job.files.read(uri, LIMIT)
    if start is None:
        return File(uri, name, "gone before it was read", "")
    reason, header = header_problem(start, () if table.json else tuple(table.columns))
    return File(uri, name, reason, header)


if __name__ == "__main__":
    main()
