"""Gold of the flights: punctuality by airline and by airport.

===================================  ============================================================
``airline_punctuality``              a row for each airline
``airport_punctuality``              a row for each airport and ``direction``: ``origin`` counts the
                                     flights that leave it, ``destination`` those that go there
``flights``                          all flights that were planned
``cancelled``                        those without a departure time
``on_time``                          those that arrived at most 15 minutes late
``on_time_percent``                  on time of all that were planned
``average_departure_delay_minutes``  over flights that have one; early ones count below zero
``average_arrival_delay_minutes``    likewise
===================================  ============================================================

Rounded to 2 digits. The tables are made anew from silver each time.
"""

from __future__ import annotations

from collections.abc import Sequence

from common import Job, run
from gold import average, make
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F  # noqa: N812
from tables import exists, read, replace

NAME = "gold_flights"

ON_TIME_MINUTES = 15


def main(argv: Sequence[str] | None = None) -> dict[str, object]:
    """Make the tables."""
    return run(NAME, "lake", lambda job: make(job, tables), argv)


def tables(job: Job) -> None:
    """See the module's description."""
    if not exists(job, job.uri("silver", "flights", "flights")):
        job.say("no flights in silver yet")
        return
    flights = read(job, "silver", "flights", "flights").select(
        "carrier", "origin", "dest", "dep_time", "dep_delay", "arr_delay"
    )
    # One pass over all flights; airlines and airports are sums of these few thousand.
    routes = flights.groupBy("carrier", "origin", "dest").agg(*_sums()).persist()
    airlines = _named(
        job, routes.groupBy("carrier").agg(*_totals()), "airlines", "carrier", "carrier", "airline"
    )
    replace(
        airlines.select("carrier", "airline", *_figures()).coalesce(1).sortWithinPartitions("carrier"),
        job.uri("lake", "flights", "airline_punctuality"),
    )
    by_place = [
        routes.groupBy(F.col(column).alias("airport"))
        .agg(*_totals())
        .withColumn("direction", F.lit(direction))
        for column, direction in (("origin", "origin"), ("dest", "destination"))
    ]
    airports = _named(job, by_place[0].unionByName(by_place[1]), "airports", "faa", "airport", "airport_name")
    replace(
        airports.select("airport", "airport_name", "direction", *_figures())
        .coalesce(1)
        .sortWithinPartitions("direction", "airport"),
        job.uri("lake", "flights", "airport_punctuality"),
    )
    routes.unpersist()
    _check(job)


_COUNTED = ("flights", "cancelled", "on_time", "_departed", "_departure_delay", "_arrived", "_arrival_delay")


def _sums() -> list[Column]:
    found = {
        "flights": F.count(F.lit(1)),
        "cancelled": F.count_if(F.col("dep_time").isNull()),
        "on_time": F.count_if(F.coalesce(F.col("arr_delay") <= ON_TIME_MINUTES, F.lit(False))),
        "_departed": F.count("dep_delay"),
        "_departure_delay": F.coalesce(F.sum("dep_delay"), F.lit(0)),
        "_arrived": F.count("arr_delay"),
        "_arrival_delay": F.coalesce(F.sum("arr_delay"), F.lit(0)),
    }
    return [found[name].alias(name) for name in _COUNTED]


def _totals() -> list[Column]:
    return [F.sum(name).alias(name) for name in _COUNTED]


def _figures() -> list[Column]:
    return [
        F.col("flights"),
        F.col("cancelled"),
        F.col("on_time"),
        average(100 * F.col("on_time"), F.col("flights")).alias("on_time_percent"),
        average(F.col("_departure_delay"), F.col("_departed")).alias("average_departure_delay_minutes"),
        average(F.col("_arrival_delay"), F.col("_arrived")).alias("average_arrival_delay_minutes"),
    ]


def _named(job: Job, rows: DataFrame, table: str, key: str, by: str, alias: str) -> DataFrame:
    """With the name of the code in column ``by``; the code itself where there is none."""
    if not exists(job, job.uri("silver", "flights", table)):
        return rows.withColumn(alias, F.col(by))
    names = read(job, "silver", "flights", table).select(F.col(key).alias(by), F.col("name").alias("_name"))
    return rows.join(F.broadcast(names), by, "left").withColumn(alias, F.coalesce("_name", by)).drop("_name")


def _check(job: Job) -> None:
    total = read(job, "silver", "flights", "flights").count()
    airlines = read(job, "lake", "flights", "airline_punctuality")
    airports = read(job, "lake", "flights", "airport_punctuality")
    found = airlines.agg(F.sum("flights"), F.count(F.lit(1))).first()
    places = {
        row[0]: row
        for row in airports.groupBy("direction").agg(F.sum("flights"), F.count(F.lit(1))).collect()
    }
    assert found is not None
    job.count("flights/airline_punctuality", read=total, written=found[1])
    job.count("flights/airport_punctuality", written=sum(row[2] for row in places.values()))
    job.check("airline_punctuality: all flights", expected=total, found=found[0] or 0)
    for direction in ("origin", "destination"):
        flights = places[direction][1] if direction in places else 0
        job.check(f"airport_punctuality: all flights by {direction}", expected=total, found=flights)


if __name__ == "__main__":
    main()
