"""The flights data: which files there are, their columns, and what makes a row right."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

SCHEMA = "flights"
"""Folder of the raw files in their bucket, and schema of the tables in every layer."""

REFUSED = "refused_files"
"""Table in bronze with the files that were not taken, and why."""


@dataclass(frozen=True)
class Table:
    """A table of the source.

    ``columns`` are its columns in the order of a CSV file, with Spark's types. ``required`` may not be
    empty, ``key`` tells rows apart. ``rules`` are conditions in SQL that a row must not break, each with
    what is wrong otherwise; they see typed columns, and what stood in those of numbers as `_<name>_text`.
    """

    columns: Mapping[str, str]
    required: tuple[str, ...]
    key: tuple[str, ...]
    rules: Mapping[str, str]
    json: bool = False

    @property
    def suffixes(self) -> tuple[str, ...]:
        """How the names of its files end."""
        return (".json", ".jsonl", ".ndjson") if self.json else (".csv",)


_CLOCK = "{0} BETWEEN 0 AND 2400 AND {0} % 100 < 60"


def _clocks(*names: str) -> dict[str, str]:
    return {_CLOCK.format(name): f"{name} is no time of day" for name in names}


TABLES: Mapping[str, Table] = {
    "airlines": Table(
        columns={"carrier": "string", "name": "string"},
        required=("carrier", "name"),
        key=("carrier",),
        rules={},
    ),
    "airports": Table(
        columns={
            "faa": "string", "name": "string", "lat": "double", "lon": "double", "alt": "int", "tz": "int",
            "dst": "string", "tzone": "string",
        },
        required=("faa", "name", "lat", "lon"),
        key=("faa",),
        rules={
            "lat BETWEEN -90 AND 90": "lat is no latitude",
            "lon BETWEEN -180 AND 180": "lon is no longitude",
        },
    ),
    "planes": Table(
        columns={
            "tailnum": "string", "year": "int", "type": "string", "manufacturer": "string",
            "model": "string", "engines": "int", "seats": "int", "speed": "int", "engine": "string",
        },
        required=("tailnum",),
        key=("tailnum",),
        rules={"seats > 0": "seats is not above zero"},
    ),
    "weather": Table(
        columns={
            "origin": "string", "year": "int", "month": "int", "day": "int", "hour": "int",
            "temp": "double", "dewp": "double", "humid": "double", "wind_dir": "int",
            "wind_speed": "double", "wind_gust": "double", "precip": "double", "pressure": "double",
            "visib": "double", "time_hour": "timestamp",
        },
        required=("origin", "time_hour"),
        key=("origin", "time_hour"),
        rules={"humid BETWEEN 0 AND 110": "humid is no percentage"},
        json=True,
    ),
    "flights": Table(
        columns={
            "year": "int", "month": "int", "day": "int", "dep_time": "int", "sched_dep_time": "int",
            "dep_delay": "int", "arr_time": "int", "sched_arr_time": "int", "arr_delay": "int",
            "carrier": "string", "flight": "int", "tailnum": "string", "origin": "string",
            "dest": "string", "air_time": "int", "distance": "int", "hour": "int", "minute": "int",
            "time_hour": "timestamp",
        },
        required=(
            "year", "month", "day", "sched_dep_time", "carrier", "flight", "origin", "dest", "time_hour",
        ),
        key=("year", "month", "day", "carrier", "flight", "origin", "sched_dep_time"),
        rules={
            "flight_date IS NOT NULL": "year, month and day are no date",
            **_clocks("dep_time", "sched_dep_time", "arr_time", "sched_arr_time"),
            # Its text: one that is no number is a mistake by itself.
            "_dep_time_text IS NOT NULL OR dep_delay IS NULL": "dep_delay without dep_time",
            "_dep_time_text IS NOT NULL OR arr_delay IS NULL": "arr_delay without dep_time",
            "distance > 0": "distance is not above zero",
        },
    ),
}  # fmt: skip
"""By the name of the folder, or of the one file, in the raw bucket. Flights are last and join the others."""
