"""Raw files of flights that never took off, with the mistakes raw files have, and what is to come of them.

The figures are worked out here in plain Python, by the definitions in the demo's documentation and not by its
code.
"""

from __future__ import annotations

import csv
import io
import json
import random
from collections.abc import Callable, Iterable, Mapping
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

Row = dict[str, str]

COLUMNS = (
    "year", "month", "day", "dep_time", "sched_dep_time", "dep_delay", "arr_time", "sched_arr_time",
    "arr_delay", "carrier", "flight", "tailnum", "origin", "dest", "air_time", "distance", "hour", "minute",
    "time_hour",
)  # fmt: skip

AIRLINES = {"AA": "American", "B6": "JetBlue", "UA": 'United "Continental", Inc.'}
"""XX flies, too, and is not on the list."""
AIRPORTS = {"EWR": "Newark", "JFK": "Kennedy", "LGA": "La Guardia", "BOS": "Logan", "ORD": "O'Hare"}
"""Nothing is known of SJU."""


def flights(month: int, number: int = 400) -> list[Row]:
    """A month of flights, the same each time."""
    chance = random.Random(month)
    found = []
    for index in range(number):
        cancelled, diverted = chance.random() < 0.05, chance.random() < 0.03
        hour, minute, late = (
            chance.randrange(5, 23),
            chance.randrange(60),
            int(chance.expovariate(1 / 20)) - 8,
        )
        arrived = not (cancelled or diverted)
        day = 1 + index % 28
        found.append(
            {
                "year": "2013",
                "month": str(month),
                "day": str(day),
                "dep_time": "NA" if cancelled else str(hour * 100 + minute),
                "sched_dep_time": str(hour * 100 + minute),
                "dep_delay": "NA" if cancelled else str(late),
                "arr_time": "2400" if arrived else "NA",
                "sched_arr_time": "2359",
                "arr_delay": str(late + chance.randrange(-10, 11)) if arrived else "NA",
                "carrier": chance.choice(["AA", "B6", "UA", "XX"]),
                "flight": str(index),
                "tailnum": "NA" if cancelled else f"N{index % 7}",
                "origin": chance.choice(["EWR", "JFK", "LGA"]),
                "dest": chance.choice(["BOS", "ORD", "SJU"]),
                "air_time": "100" if arrived else "NA",
                "distance": "700",
                "hour": str(hour),
                "minute": str(minute),
                "time_hour": f"2013-{month:02}-{day:02}T{hour:02}:00:00Z",
            }
        )
    return found


def table(rows: Iterable[Mapping[str, str]], columns: Iterable[str] = COLUMNS) -> str:
    """Rows as a CSV file."""
    text = io.StringIO()
    writer = csv.DictWriter(text, tuple(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _weather() -> list[str]:
    return [
        json.dumps({
            "origin": origin, "year": 2013, "month": 1, "day": 1, "hour": hour, "temp": 39.02, "dewp": None,
            "humid": 59, "wind_dir": 270, "wind_speed": 10.5, "wind_gust": None, "precip": 0,
            "pressure": 1012.5, "visib": 10, "time_hour": f"2013-01-01T{hour:02}:00:00Z",
        })
        for origin in ("EWR", "JFK", "LGA")
        for hour in range(24)
    ]  # fmt: skip


JANUARY, FEBRUARY, MARCH = (flights(month) for month in (1, 2, 3))

CORRECTED = [{**row, "dep_delay": "60", "arr_delay": "66"} for row in JANUARY if row["dep_time"] != "NA"][:5]
"""Later news of flights that are there already."""

_PLANES = ("tailnum", "year", "type", "manufacturer", "model", "engines", "seats", "speed", "engine")
_AIRPORTS = ("faa", "name", "lat", "lon", "alt", "tz", "dst", "tzone")

FIRST: dict[str, bytes] = {
    name: text.encode()
    for name, text in {
        "flights/2013-01.csv": table(JANUARY),
        "flights/2013-02.csv": table(FEBRUARY).replace("\n", "\r\n"),
        "airlines/airlines.csv": table(
            [{"carrier": code, "name": name} for code, name in AIRLINES.items()], ("carrier", "name")
        ),
        "airports.csv": table(
            [
                dict(zip(_AIRPORTS, (code, name, "40.5", "-74.1", "18", "-5", "A", "NA"), strict=True))
                for code, name in AIRPORTS.items()
            ],
            _AIRPORTS,
        ),
        "planes/planes.csv": table(
            [
                dict(
                    zip(
                        _PLANES,
                        (f"N{n}", "NA", "jet", "AIRBUS", "A320", "2", "180", "NA", "fan"),
                        strict=True,
                    )
                )
                for n in range(6)
            ],
            _PLANES,
        ),
        "weather/2013-01.jsonl": "\n".join(_weather()),
    }.items()
}
"""Files of the first run, all well."""


def _line(number: int, **changed: str) -> str:
    row = {**flights(4)[number], **changed}
    return ",".join(row[name] for name in COLUMNS)


BAD_LINES = {
    _line(0) + ",more": "not CSV with 19 columns",
    _line(1, carrier="NA"): "no carrier",
    _line(2, dep_delay="late"): "dep_delay is no whole number",
    _line(3, month="13"): "year, month and day are no date",
    _line(4, dep_time="2575", dep_delay="3"): "dep_time is no time of day",
    _line(5, distance="-3", time_hour="yesterday"): "time_hour is no time; distance is not above zero",
    _line(6, dep_time="NA", dep_delay="5", arr_delay="NA"): "dep_delay without dep_time",
    _line(6, dep_time="six", dep_delay="5", arr_delay="7"): "dep_time is no whole number",
    "\x01\x02\ufffd\ufffd": "not CSV with 19 columns",
    # Not even its end is there.
    _line(7)[:40]: "not CSV with 19 columns",
}
"""Lines that are refused, and why."""

BAD_WEATHER = ('{"origin": "EWR", "time_hour": ', '["EWR"]', '{"origin": "EWR", "humid": 40}')

REFUSED_FILES: dict[str, tuple[bytes, str]] = {
    "flights/unknown.csv": (
        table([{**row, "gate": "7"} for row in flights(5, 20)], (*COLUMNS, "gate")).encode(),
        "unknown columns: gate",
    ),
    "flights/fewer.csv": (
        table([{name: row[name] for name in COLUMNS[1:]} for row in flights(5, 20)], COLUMNS[1:]).encode(),
        "missing columns: year",
    ),
    "flights/order.csv": (
        table(flights(5, 20), COLUMNS[::-1]).encode(),
        "columns twice, or in another order",
    ),
    "flights/binary.csv": (bytes(range(256)) * 8, "not text"),
    "flights/latin.csv": ("année,mois\n2013,1\n".encode("latin-1"), "not text in UTF-8"),
    "flights/empty.csv": (b"\n\n", "empty"),
    "flights/2013-01.xlsx": (b"PK", "flights comes in files that end in .csv"),
    "seats/seats.csv": (
        b"seat\n1A\n",
        "no table takes it - known are airlines, airports, planes, weather, flights",
    ),
}
"""Files that are refused as a whole, and why."""

SECOND: dict[str, bytes] = {
    "flights/2013-03.csv": (table(MARCH) + "".join(f"{line}\n" for line in BAD_LINES))
    .rstrip("\n")
    .replace("\ufffd", "\udcff")
    .encode(errors="surrogateescape"),
    # Somebody sends a month again, under another name, and some flights of it with other times.
    "flights/2013-02-again.csv": table(FEBRUARY).encode(),
    "flights/corrected.csv": table(CORRECTED).encode(),
    "flights/head-only.csv": table([]).encode(),
    "weather/bad.jsonl": "\n".join(BAD_WEATHER).encode(),
    **{name: content for name, (content, _) in REFUSED_FILES.items()},
}
"""Files of the second run."""


# -- what is to come of it


def half_up(total: int | Decimal, count: int | Decimal) -> float | None:
    """A quotient with two digits."""
    if not count:
        return None
    return float((Decimal(total) / Decimal(count)).quantize(Decimal("0.01"), ROUND_HALF_UP))


def punctuality(rows: Iterable[Row], by: Callable[[Row], Any]) -> dict[Any, tuple[Any, ...]]:
    """Flights, cancelled, on time, its percentage, average delays of departure and arrival, by a key."""
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        groups.setdefault(by(row), []).append(row)
    found = {}
    for key, group in groups.items():
        departures = [int(row["dep_delay"]) for row in group if row["dep_delay"] != "NA"]
        arrivals = [int(row["arr_delay"]) for row in group if row["arr_delay"] != "NA"]
        on_time = sum(late <= 15 for late in arrivals)
        found[key] = (
            len(group),
            sum(row["dep_time"] == "NA" for row in group),
            on_time,
            half_up(100 * on_time, len(group)),
            half_up(sum(departures), len(departures)),
            half_up(sum(arrivals), len(arrivals)),
        )
    return found


def figures(rows: list[Row]) -> dict[str, list[Any]]:
    """Both tables of gold, as the test's driver writes them."""
    airlines = punctuality(rows, lambda row: row["carrier"])
    airports = {
        (row_key, direction): values
        for direction, column in (("destination", "dest"), ("origin", "origin"))
        for row_key, values in punctuality(rows, lambda row, column=column: row[column]).items()
    }
    return {
        "airlines": sorted([code, AIRLINES.get(code, code), *values] for code, values in airlines.items()),
        "airports": sorted(
            [code, AIRPORTS.get(code, code), direction, *values]
            for (code, direction), values in airports.items()
        ),
    }


def after_second() -> list[Row]:
    """All flights there are once the second files are in."""
    changed = {row["flight"]: row for row in CORRECTED}
    return [*(changed.get(row["flight"], row) for row in JANUARY), *FEBRUARY, *MARCH]
