"""Silver of the flights: typed, checked, one row for each key, and joined with what is known of the flight.

Of rows with the same key the one of the newest file stands. Airlines, airports, planes and weather are taken
before the flights, which get the aircraft and the weather at departure of what is there by then.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from common import Job, run
from flights import REFUSED, SCHEMA, TABLES, Table
from pyspark.sql import DataFrame
from pyspark.sql import functions as F  # noqa: N812
from reports import forward
from tables import (
    RAW,
    REASON,
    SOURCE,
    exists,
    read,
    reasons,
    refine,
    refine_list,
    replace,
    seen,
    text,
    unless,
    unseen,
)

NAME = "silver_flights"


def main(argv: Sequence[str] | None = None) -> dict[str, object]:
    """Refine what is new in bronze."""
    return run(NAME, "silver", refine_all, argv)


def refine_all(job: Job) -> None:
    """See the module's description."""
    order = ("_modified", "_file")
    for name, table in TABLES.items():
        at = f"{SCHEMA}/{name}"
        if name == "flights":
            refine(job, at, at, partial(_parse, name, table), table.key, order, enrich=partial(_joined, job))
        else:
            refine_list(job, at, at, partial(_parse, name, table), table.key, order)
    _refused_files(job)
    if exists(job, job.uri("silver", SCHEMA, "flights")):
        flights = read(job, "silver", SCHEMA, "flights").count()
        quarantine = read(job, "silver", "quarantine", "flights").count()
        came = read(job, "bronze", SCHEMA, "flights").count()
        # Rows of a later file with the same key are the difference.
        job.check(
            "flights: more rows in silver than came", expected=0, found=max(0, flights + quarantine - came)
        )
    forward(job)


def _parse(name: str, table: Table, rows: DataFrame) -> DataFrame:
    """Typed rows, with the reasons of those that are refused.

    In steps, of which each uses the columns of the one before. Spark computes those once; one expression
    for each column would read the text of a number again for every rule about it.
    """
    came = _from_json(table, rows) if table.json else _from_csv(table, rows)
    numbers = {n: kind for n, kind in table.columns.items() if kind != "string"}
    texts = came.withColumns({n: text(n) for n in table.columns})
    typed = texts.withColumnsRenamed({n: _as_text(n) for n in numbers}).withColumns(
        {n: F.col(_as_text(n)).try_cast(kind) for n, kind in numbers.items()}
    )
    if name == "flights":
        typed = typed.withColumn("flight_date", F.expr("try_cast(concat_ws('-', year, month, day) AS date)"))
    missing = [
        unless(F.col(n if n not in numbers else _as_text(n)).isNotNull(), f"no {n}") for n in table.required
    ]
    wrong = [
        F.when(F.col(n).isNull() & F.col(_as_text(n)).isNotNull(), F.lit(f"{n} is no {_words(kind)}"))
        for n, kind in numbers.items()
    ]
    broken = [unless(F.expr(rule), reason) for rule, reason in table.rules.items()]
    what = "JSON" if table.json else f"CSV with {len(table.columns)} columns"
    reason = F.when(F.col("_malformed").isNotNull(), F.lit(f"not {what}")).otherwise(
        reasons([*missing, *wrong, *broken])
    )
    extra = ("flight_date",) if name == "flights" else ()
    return typed.withColumn(REASON, reason).select(
        *table.columns, *extra, REASON, RAW, F.col("_file").alias(SOURCE), "_file", "_modified", "_run"
    )


def _from_csv(table: Table, rows: DataFrame) -> DataFrame:
    line = F.concat_ws(",", *(F.coalesce(F.col(name), F.lit("")) for name in table.columns))
    return rows.withColumn(RAW, F.coalesce("_malformed", line))


def _from_json(table: Table, rows: DataFrame) -> DataFrame:
    values = F.from_json("value", "MAP<STRING,STRING>")
    return rows.withColumn("_values", values).select(
        *(F.try_element_at("_values", F.lit(name)).alias(name) for name in table.columns),
        F.when(F.col("_values").isNull(), F.col("value")).alias("_malformed"),
        F.col("value").alias(RAW),
        "_file",
        "_modified",
        "_run",
    )


def _as_text(name: str) -> str:
    return f"_{name}_text"


def _words(kind: str) -> str:
    return {"int": "whole number", "double": "number", "timestamp": "time"}[kind]


def _joined(job: Job, flights: DataFrame) -> DataFrame:
    """With names of airline and airports, the aircraft, and the weather at departure."""
    tables = {
        "airlines": ("carrier", {"name": "airline"}),
        "airports": ("faa", {"name": "{}_name"}),
        "planes": ("tailnum", {"manufacturer": "manufacturer", "model": "model", "year": "plane_year"}),
    }
    known = {name: exists(job, job.uri("silver", SCHEMA, name)) for name in (*tables, "weather")}

    def look_up(rows: DataFrame, table: str, by: str) -> DataFrame:
        key, wanted = tables[table]
        names = {column: alias.format(by) for column, alias in wanted.items()}
        if not known[table]:
            kinds = TABLES[table].columns
            return rows.select("*", *(F.lit(None).cast(kinds[c]).alias(a) for c, a in names.items()))
        columns = (F.col(column).alias(alias) for column, alias in names.items())
        side = read(job, "silver", SCHEMA, table).select(F.col(key).alias(by), *columns)
        return rows.join(F.broadcast(side), by, "left")

    for table, by in (
        ("airlines", "carrier"),
        ("airports", "origin"),
        ("airports", "dest"),
        ("planes", "tailnum"),
    ):
        flights = look_up(flights, table, by)
    measured = ("temp", "wind_speed", "precip", "visib")
    if not known["weather"]:
        return flights.select("*", *(F.lit(None).cast("double").alias(name) for name in measured))
    weather = read(job, "silver", SCHEMA, "weather").select("origin", "time_hour", *measured)
    return flights.join(F.broadcast(weather), ["origin", "time_hour"], "left")


def _refused_files(job: Job) -> None:
    """Whole files that bronze refused stand in quarantine too."""
    latest = unseen(job, f"{SCHEMA}/{REFUSED}", "quarantine/files")
    if latest is None:
        return
    target = job.uri("silver", "quarantine", "files")
    files = read(job, "bronze", SCHEMA, REFUSED).select(
        "reason",
        F.col("file").alias("source"),
        F.col("header").alias("raw"),
        F.col("_run").alias("run"),
        F.current_timestamp().alias("refused_at"),
    )
    replace(files.coalesce(1), target)
    job.count("files", quarantined=files.where(F.col("run") == job.run).count())
    seen(job, "quarantine/files", latest)


if __name__ == "__main__":
    main()
