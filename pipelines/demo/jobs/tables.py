"""Delta tables: appends that happen once, upserts, and the way from bronze to silver by bookmark."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from common import Job
from delta.tables import DeltaTable
from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F  # noqa: N812 - what everybody calls it
from pyspark.sql.streaming import DataStreamWriter

Parse = Callable[[DataFrame], DataFrame]
"""Turns rows of bronze into typed rows with :data:`REASON`, :data:`RAW` and :data:`SOURCE`."""

REASON, RAW, SOURCE = "_reason", "_raw", "_source"
"""Why a row is refused, or null; its text as it came; where it came from."""


def exists(job: Job, uri: str) -> bool:
    """Whether there is a table."""
    return DeltaTable.isDeltaTable(job.spark, uri)


def read(job: Job, layer: str, *parts: str) -> DataFrame:
    """A table as it is now."""
    return job.spark.read.format("delta").load(job.uri(layer, *parts))


def append(rows: DataFrame, uri: str, once: tuple[str, int] | None = None) -> None:
    """Add rows. With ``once``, a writer's id and a rising number, a repeated call adds nothing."""
    writer = rows.write.format("delta").mode("append")
    if once:
        writer = writer.option("txnAppId", once[0]).option("txnVersion", once[1])
    writer.save(uri)


def replace(rows: DataFrame, uri: str) -> None:
    """Make these all the rows of a table, and its columns."""
    rows.write.format("delta").mode("overwrite").option("overwriteSchema", "true").save(uri)


def replace_if_changed(job: Job, rows: DataFrame, uri: str) -> bool:
    """Make these all the rows of a small table, unless they are already."""
    if exists(job, uri):
        known = job.spark.read.format("delta").load(uri)
        if known.columns == rows.columns and fingerprint(known) == fingerprint(rows):
            return False
    replace(rows, uri)
    return True


def fingerprint(rows: DataFrame) -> tuple[int, int]:
    """Number and hash of rows, in whatever order they come."""
    hashed = F.xxhash64(*[F.col(name) for name in rows.columns if name != "_run"]).cast("decimal(38,0)")
    found = rows.agg(F.count(F.lit(1)), F.coalesce(F.sum(hashed), F.lit(0))).first()
    assert found is not None
    return int(found[0]), int(found[1])


def upsert(
    job: Job, rows: DataFrame, uri: str, key: Sequence[str], order: Sequence[str], *, newer_wins: bool = True
) -> None:
    """Put rows into a table with one row for each ``key``, that with the highest ``order``.

    Without ``newer_wins`` the row that is there stays, and ``order``, which only chooses among new ones, is
    not kept. The same rows again change nothing.
    """
    ranking = Window.partitionBy(*key).orderBy(*(F.desc(name) for name in order))
    best = rows.withColumn("_rank", F.row_number().over(ranking)).where("_rank = 1").drop("_rank")
    if not newer_wins:
        best = best.drop(*order)
    if not exists(job, uri):
        append(best, uri)
        return
    same = " AND ".join(f"kept.{name} = new.{name}" for name in key)
    merge = DeltaTable.forPath(job.spark, uri).alias("kept").merge(best.alias("new"), same)
    if newer_wins:
        kept, new = (", ".join(f"{side}.{name}" for name in order) for side in ("kept", "new"))
        merge = merge.whenMatchedUpdateAll(f"struct({new}) > struct({kept})")
    merge.whenNotMatchedInsertAll().execute()


def each_new(
    job: Job, stream: DataFrame, checkpoint: str, handle: Callable[[DataFrame, str, int], None]
) -> None:
    """Call ``handle`` with all that came since the last time: rows, the bookmark's id, a rising number.

    ``checkpoint`` names the bookmark. It moves when ``handle`` is done: after a crash the same rows come
    again under the same number. A bookmark that somebody removed begins anew, under another id.
    """

    def call(rows: DataFrame, number: int) -> None:
        bookmark = job.spark.sparkContext.getLocalProperty("sql.streaming.queryId")
        handle(rows, str(bookmark), number)

    finish(job, stream.writeStream.foreachBatch(call), checkpoint)


def finish(job: Job, writer: DataStreamWriter, checkpoint: str) -> None:
    """Run a stream until it has seen all that is there."""
    location = job.uri(job.layer, "_checkpoints", checkpoint)
    writer.queryName(checkpoint).option("checkpointLocation", location).trigger(
        availableNow=True
    ).start().awaitTermination()


def refine(
    job: Job,
    source: str,
    target: str,
    parse: Parse,
    key: Sequence[str],
    order: Sequence[str],
    *,
    newer_wins: bool = True,
) -> None:
    """Take the rows that are new in bronze to silver: refused ones to quarantine, others by upsert.

    ``source`` and ``target`` are tables, ``<schema>/<table>``. The quarantine is written first, and once for
    each batch; the upsert gives the same however often it runs. So a crash between the two loses and
    doubles nothing.
    """
    if not exists(job, job.uri("bronze", source)):
        job.say(f"{source}: nothing in bronze yet")
        return
    name = target.rpartition("/")[2]
    quarantine, to = job.uri("silver", "quarantine", name), job.uri("silver", target)

    def handle(rows: DataFrame, bookmark: str, number: int) -> None:
        parsed = parse(rows)
        refused = parsed.where(F.col(REASON).isNotNull()).select(
            F.col(REASON).alias("reason"),
            F.col(SOURCE).alias("source"),
            F.col(RAW).alias("raw"),
            F.lit(job.run).alias("run"),
            F.current_timestamp().alias("refused_at"),
        )
        append(refused, quarantine, (bookmark, number))
        good = parsed.where(F.col(REASON).isNull()).drop(REASON, RAW, SOURCE)
        upsert(job, good.withColumn("_run", F.lit(job.run)), to, key, order, newer_wins=newer_wins)
        job.count(target, read=rows.count())

    each_new(job, job.spark.readStream.format("delta").load(job.uri("bronze", source)), target, handle)
    if target in job.counts:
        job.count(target, written=written(job, to), quarantined=written(job, quarantine))


def written(job: Job, uri: str) -> int:
    """Rows that this run put into a table, by the table's own log: those of former tries count as well."""
    if not exists(job, uri):
        return 0
    commits = DeltaTable.forPath(job.spark, uri).history(30).where(F.col("userMetadata") == job.run)
    total = 0
    for commit in commits.select("operation", "operationMetrics").collect():
        metrics: Mapping[str, str] = commit["operationMetrics"]
        if commit["operation"] == "MERGE":
            names = ("numTargetRowsInserted", "numTargetRowsUpdated")
        elif commit["operation"] in ("WRITE", "STREAMING UPDATE"):
            names = ("numOutputRows", "")
        else:
            continue
        total += sum(int(metrics.get(name, 0)) for name in names)
    return total


# -- expressions that parse text


def text(name: str) -> Column:
    """A column of text without blanks around it; null where it is empty or says NA."""
    trimmed = F.trim(F.col(name))
    return F.when(trimmed.isin("", "NA"), None).otherwise(trimmed)


def typed(name: str, kind: str) -> Column:
    """Text as a value of a type of Spark's; null where it is none."""
    return text(name) if kind == "string" else text(name).try_cast(kind)


def unless(condition: Column, reason: str) -> Column:
    """The reason, where the condition is false; null where it is true or cannot be told."""
    return F.when(~condition, F.lit(reason))


def reasons(found: Sequence[Column]) -> Column:
    """All reasons of a row in one text, or null when there is none."""
    return F.nullif(F.concat_ws("; ", *found), F.lit(""))
