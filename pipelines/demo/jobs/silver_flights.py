"""Silver of the flights: typed, checked, one row for each key, and joined with what is known of the flight.

Of rows with the same key the one of the newest file stands. Airlines, airports, planes and weather are taken
before the flights, which get the aircraft and the weather at departure of what is there by then.
"""

from __future__ import annotations

from collections.abc import Sequence

from common import Job, run
from flights import REFUSED, SCHEMA, TABLES, Table
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F  # noqa: N812
from reports import forward
from tables import (
    RAW,
    REASON,
    SOURCE,
    append,
    each_new,
    exists,
    read,
    reasons,
    refine,
    text,
    typed,
    unless,
    written,
)

NAME = "silver_flights"


def main(argv: Sequence[str] | None = None) -> dict[str, object]:
    """Refine what is new in bronze."""
    return run(NAME, "silver", refine_all, argv)


def refine_all(job: Job) -> None:
    """See the module's description."""
    for name, table in TABLES.items():
        refine(
            job,
            f"{SCHEMA}/{name}",
            f"{SCHEMA}/{name}",
            lambda rows, name=name, table=table: _parse(job, name, table, rows),
            table.key,
            ("_modified", "_file"),
        )
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


def _parse(job: Job, name: str, table: Table, rows: DataFrame) -> DataFrame:
    """Typed rows, with the reasons of those that are refused."""
    if table.json:
        rows = _from_json(rows, table)
    whole = F.col("_malformed").isNull()
    kinds = {name: kind for name, kind in table.columns.items() if kind != "string"}
    wrong = [
        F.when(text(name).isNotNull() & typed(name, kind).isNull(), F.lit(f"{name} is no {_words(kind)}"))
        for name, kind in kinds.items()
    ]
    missing = [unless(text(name).isNotNull(), f"no {name}") for name in table.required]
    what = "JSON" if table.json else f"CSV with {len(table.columns)} columns"
    first = F.when(~whole, F.lit(f"not {what}")).otherwise(reasons([*missing, *wrong]))
    found = rows.select(
        *(typed(name, kind).alias(name) for name, kind in table.columns.items()),
        first.alias("_first"),
        _raw(table).alias(RAW),
        F.col("_file").alias(SOURCE),
        "_file",
        "_modified",
    )
    if name == "flights":
        date = "try_cast(concat_ws('-', year, lpad(month, 2, '0'), lpad(day, 2, '0')) AS date)"
        found = found.withColumn("flight_date", F.expr(date))
    broken = reasons([unless(F.expr(rule), reason) for rule, reason in table.rules.items()])
    found = found.withColumn(REASON, F.coalesce("_first", broken)).drop("_first")
    return _joined(job, found) if name == "flights" else found


def _from_json(rows: DataFrame, table: Table) -> DataFrame:
    values = F.from_json("value", "MAP<STRING,STRING>")
    return rows.withColumn("_values", values).select(
        *(F.try_element_at("_values", F.lit(name)).alias(name) for name in table.columns),
        F.when(F.col("_values").isNull(), F.col("value")).alias("_malformed"),
        "value",
        "_file",
        "_modified",
    )


def _raw(table: Table) -> Column:
    if table.json:
        return F.col("value")
    return F.coalesce(
        "_malformed", F.concat_ws(",", *(F.coalesce(F.col(n), F.lit("")) for n in table.columns))
    )


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
    source, target = job.uri("bronze", SCHEMA, REFUSED), job.uri("silver", "quarantine", "files")
    if not exists(job, source):
        return

    def handle(rows: DataFrame, bookmark: str, number: int) -> None:
        refused = rows.select(
            "reason",
            F.col("file").alias("source"),
            F.col("header").alias("raw"),
            F.col("_run").alias("run"),
            F.current_timestamp().alias("refused_at"),
        )
        append(refused, target, (bookmark, number))

    each_new(job, job.spark.readStream.format("delta").load(source), f"{SCHEMA}/{REFUSED}", handle)
    if found := written(job, target):
        job.count("files", quarantined=found)


if __name__ == "__main__":
    main()
