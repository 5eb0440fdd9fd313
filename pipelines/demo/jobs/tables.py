"""Delta tables: appends that happen once, upserts, and the way from bronze to silver by bookmark."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from common import Job
from delta.tables import DeltaTable
from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F  # noqa: N812 - what everybody calls it
from pyspark.sql.streaming import DataStreamWriter

Parse = Callable[[DataFrame], DataFrame]
"""Turns rows of bronze into typed rows with :data:`REASON`, :data:`RAW` and :data:`SOURCE`."""

_UPKEEP = ("OPTIMIZE", "VACUUM START", "VACUUM END")
"""Operations in a table's log that make versions with the same rows."""

REASON, RAW, SOURCE = "_reason", "_raw", "_source"
"""Why a row is refused, or null; its text as it came; where it came from."""


def exists(job: Job, uri: str) -> bool:
    """Whether there is a table: its first commit, or a checkpoint once old commits are cleared away."""
    return job.files.exists(_commit(uri, 0)) or job.files.exists(f"{uri}/_delta_log/_last_checkpoint")


def version(job: Job, uri: str) -> int | None:
    """A table's latest version, or None where there is no table.

    By the files of its log, as Delta's protocol describes them: Spark would start jobs to tell.
    """
    checkpoint = job.files.read(f"{uri}/_delta_log/_last_checkpoint")
    found = int(json.loads(checkpoint)["version"]) if checkpoint else -1
    while job.files.exists(_commit(uri, found + 1)):
        found += 1
    return None if found < 0 else found


def _commit(uri: str, number: int) -> str:
    return f"{uri}/_delta_log/{number:020}.json"


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


def renew(job: Job, rows: DataFrame, layer: str, table: str) -> None:
    """Make these all the rows of a small table, ``<schema>/<table>``, and count them if they were not yet."""
    uri = job.uri(layer, table)
    replace_if_changed(job, rows, uri)
    if new := written(job, uri):
        job.count(table, read=new, written=new)


def fingerprint(rows: DataFrame) -> tuple[int, int]:
    """Number and hash of rows, in whatever order they come."""
    hashed = F.xxhash64(*[F.col(name) for name in rows.columns if name != "_run"]).cast("decimal(38,0)")
    found = rows.agg(F.count(F.lit(1)), F.coalesce(F.sum(hashed), F.lit(0))).first()
    assert found is not None
    return int(found[0]), int(found[1])


def best(rows: DataFrame, key: Sequence[str], order: Sequence[str]) -> DataFrame:
    """One row for each ``key``, that with the highest ``order``."""
    ranking = Window.partitionBy(*key).orderBy(*(F.desc(name) for name in order))
    return rows.withColumn("_rank", F.row_number().over(ranking)).where("_rank = 1").drop("_rank")


def upsert(
    job: Job, rows: DataFrame, uri: str, key: Sequence[str], order: Sequence[str], *, newer_wins: bool = True
) -> None:
    """Put rows into a table with one row for each ``key``, that with the highest ``order``.

    Without ``newer_wins`` the row that is there stays, and ``order``, which only chooses among new ones, is
    not kept. The same rows again change nothing.
    """
    rows = best(rows, key, order)
    if not newer_wins:
        rows = rows.drop(*order)
    if not exists(job, uri):
        append(rows, uri)
        return
    same = " AND ".join(f"kept.{name} = new.{name}" for name in key)
    merge = DeltaTable.forPath(job.spark, uri).alias("kept").merge(rows.alias("new"), same)
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
        if not bookmark:
            raise RuntimeError("Spark does not say which query this is: repeated batches could not be told")
        handle(rows, bookmark, number)

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
    enrich: Callable[[DataFrame], DataFrame] | None = None,
) -> None:
    """Take the rows that are new in bronze to silver: refused ones to quarantine, others by upsert.

    ``source`` and ``target`` are tables, ``<schema>/<table>``; ``enrich`` adds columns to rows that are not
    refused. The quarantine is written first, and once for each batch; the upsert gives the same however
    often it runs. So a crash between the two loses and doubles nothing.
    """
    if not exists(job, job.uri("bronze", source)):
        job.say(f"{source}: nothing in bronze yet")
        return
    quarantine, to = _places(job, target)

    def handle(rows: DataFrame, bookmark: str, number: int) -> None:
        parsed = _kept(parse(rows))
        count, refused = _counted(parsed)
        if not count:
            # What maintenance did to bronze: other files with the same rows.
            parsed.unpersist()
            return
        if refused or not exists(job, quarantine):
            append(_refused(parsed, F.lit(job.run)), quarantine, (bookmark, number))
        if count > refused:
            good = _good(parsed, F.lit(job.run))
            upsert(job, enrich(good) if enrich else good, to, key, order, newer_wins=newer_wins)
        parsed.unpersist()
        job.count(target, read=count)

    each_new(job, job.spark.readStream.format("delta").load(job.uri("bronze", source)), target, handle)
    if target in job.counts:
        job.count(target, written=written(job, to), quarantined=written(job, quarantine))


def refine_list(
    job: Job, source: str, target: str, parse: Parse, key: Sequence[str], order: Sequence[str]
) -> None:
    """Make a table of silver anew of all rows of bronze, if there are new ones: for what is small.

    Its bookmark is the version of bronze's table that it was made of.
    """
    latest = unseen(job, source, target)
    if latest is None:
        return
    quarantine, to = _places(job, target)
    parsed = _kept(parse(job.spark.read.format("delta").load(job.uri("bronze", source))))
    count, refused = _counted(parsed)
    replace(_refused(parsed, F.col("_run")).coalesce(1), quarantine)
    replace(best(_good(parsed, F.lit(job.run)), key, order).coalesce(1), to)
    parsed.unpersist()
    job.count(target, read=count, written=written(job, to), quarantined=refused)
    seen(job, target, latest)


def unseen(job: Job, source: str, target: str) -> int | None:
    """Version of a table of bronze, if it has rows that ``target`` was not made of yet."""
    uri = job.uri("bronze", source)
    latest = version(job, uri)
    if latest is None:
        job.say(f"{source}: nothing in bronze yet")
        return None
    known = int(job.files.read(_bookmark(job, target)) or -1)
    commits = (_commit_info(job, uri, number) for number in range(known + 1, latest + 1))
    if 0 <= known <= latest and all(c and c["operation"] in _UPKEEP for c in commits):
        return None
    return latest


def seen(job: Job, target: str, latest: int) -> None:
    """Remember what ``target`` was made of."""
    job.files.write(_bookmark(job, target), str(latest))


def _bookmark(job: Job, target: str) -> str:
    return job.uri(job.layer, "_checkpoints", f"{target}.version")


def _places(job: Job, target: str) -> tuple[str, str]:
    return job.uri("silver", "quarantine", target.rpartition("/")[2]), job.uri("silver", target)


def _kept(parsed: DataFrame) -> DataFrame:
    """The rows, parsed once for all that is done with them.

    It also keeps Spark from moving the conditions on them below the parsing: it would put the whole of that
    into each condition, in as many copies as the rules have references, and plan for minutes.
    """
    return parsed.persist()


def _counted(parsed: DataFrame) -> tuple[int, int]:
    """How many rows, and how many of them are refused."""
    found = parsed.agg(F.count(F.lit(1)), F.count(REASON)).first()
    assert found is not None
    return int(found[0]), int(found[1])


def _refused(parsed: DataFrame, run: Column) -> DataFrame:
    return parsed.where(F.col(REASON).isNotNull()).select(
        F.col(REASON).alias("reason"),
        F.col(SOURCE).alias("source"),
        F.col(RAW).alias("raw"),
        run.alias("run"),
        F.current_timestamp().alias("refused_at"),
    )


def _good(parsed: DataFrame, run: Column) -> DataFrame:
    return parsed.where(F.col(REASON).isNull()).drop(REASON, RAW, SOURCE).withColumn("_run", run)


def written(job: Job, uri: str) -> int:
    """Rows that this run put into a table, by the table's own log: those of former tries count as well."""
    total, number = 0, version(job, uri)
    while number is not None and number >= 0:
        found = _commit_info(job, uri, number)
        if found is None or found.get("userMetadata") != job.run:
            break
        metrics: Mapping[str, str] = found.get("operationMetrics", {})
        if found["operation"] == "MERGE":
            total += sum(int(metrics.get(f"numTargetRows{what}", 0)) for what in ("Inserted", "Updated"))
        elif found["operation"] in ("WRITE", "STREAMING UPDATE"):
            total += int(metrics.get("numOutputRows", 0))
            if found["operationParameters"].get("mode") == "Overwrite":
                # All that was there before is gone.
                break
        number -= 1
    return total


def _commit_info(job: Job, uri: str, number: int) -> dict[str, Any] | None:
    for line in (job.files.read(_commit(uri, number)) or b"").splitlines():
        if (action := json.loads(line)).get("commitInfo"):
            return dict(action["commitInfo"])
    return None


# -- expressions that parse text


def text(name: str) -> Column:
    """A column of text without blanks around it; null where it is empty or says NA."""
    trimmed = F.trim(F.col(name))
    return F.when(~trimmed.isin("", "NA"), trimmed)


def unless(condition: Column, reason: str) -> Column:
    """The reason, where the condition is false; null where it is true or cannot be told."""
    return F.when(~condition, F.lit(reason))


def reasons(found: Sequence[Column]) -> Column:
    """All reasons of a row in one text, or null when there is none."""
    return F.nullif(F.concat_ws("; ", *found), F.lit(""))
