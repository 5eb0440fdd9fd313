"""The figures that the gold tables must have, from the sources by other means than the pipelines'."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import duckdb

from tests.e2e.readers import Table, plain

_PUNCTUALITY = (
    "flights",
    "cancelled",
    "on_time",
    "on_time_percent",
    "average_departure_delay_minutes",
    "average_arrival_delay_minutes",
)
COLUMNS: dict[str, Sequence[str]] = {
    "flights.airline_punctuality": ("carrier", "airline", *_PUNCTUALITY),
    "flights.airport_punctuality": ("airport", "airport_name", "direction", *_PUNCTUALITY),
    "retail.branch_performance": (
        "branch_id",
        "branch",
        "city",
        "region",
        "orders",
        "delivered",
        "average_delivery_hours",
        "revenue",
    ),
    "retail.segment_revenue": ("market_segment", "nation", "orders", "revenue"),
}
"""The gold tables and their columns, those that tell rows apart in front."""


def ratio(part: Any, whole: Any) -> Decimal | None:
    """A quotient with two digits, rounded half up from its exact value; None where there is nothing."""
    if not whole:
        return None
    exact = Fraction(part) / Fraction(whole) * 100
    cents = math.floor(abs(exact) + Fraction(1, 2))
    return Decimal(cents if exact > 0 else -cents) / 100


# -- flights

_SUMS = """
    count(*), count(*) FILTER (dep_time = 'NA'), count(*) FILTER (try_cast(arr_delay AS int) <= 15),
    coalesce(sum(try_cast(dep_delay AS int)), 0)::bigint, count(try_cast(dep_delay AS int)),
    coalesce(sum(try_cast(arr_delay AS int)), 0)::bigint, count(try_cast(arr_delay AS int))
"""


def flights(folder: Path) -> dict[str, Table]:
    """Punctuality by DuckDB from raw files, of which ``folder`` has a part of the layout of the bucket."""
    with duckdb.connect() as duck:
        for table in ("flights", "airlines", "airports"):
            files = f"{folder}/{table}/*.csv"
            duck.execute(
                f"CREATE TABLE {table} AS FROM read_csv(?, all_varchar = true, header = true)", [files]
            )
        airlines = duck.execute(
            f"SELECT carrier, coalesce(name, carrier), {_SUMS}"
            " FROM flights LEFT JOIN airlines USING (carrier) GROUP BY 1, 2"
        ).fetchall()
        airports = [
            row
            for column, direction in (("origin", "origin"), ("dest", "destination"))
            for row in duck.execute(
                f"SELECT {column}, coalesce(name, {column}), '{direction}', {_SUMS}"
                f" FROM flights LEFT JOIN airports ON faa = {column} GROUP BY 1, 2, 3"
            ).fetchall()
        ]
    return {
        "flights.airline_punctuality": plain(_figures(row, 2) for row in airlines),
        "flights.airport_punctuality": plain(_figures(row, 3) for row in airports),
    }


def _figures(row: Sequence[Any], names: int) -> tuple[Any, ...]:
    total, cancelled, on_time, departure, departed, arrival, arrived = row[names:]
    return (
        *row[:names],
        total,
        cancelled,
        on_time,
        ratio(100 * on_time, total),
        ratio(departure, departed),
        ratio(arrival, arrived),
    )


# -- retail

BRANCHES = """
    SELECT b.branch_id, b.name, b.city, b.region, count(o.order_id) AS orders,
           count(*) FILTER (WHERE o.status = 'DELIVERED') AS delivered,
           sum(extract(epoch FROM arrived - o.created_at)) FILTER (WHERE o.status = 'DELIVERED') AS seconds,
           coalesce(sum(o.amount), 0) AS revenue
    FROM branches b
    LEFT JOIN orders o USING (branch_id)
    LEFT JOIN LATERAL (
        SELECT min(changed_at) AS arrived FROM order_history h
        WHERE h.order_id = o.order_id AND h.status = 'DELIVERED'
    ) h ON true
    GROUP BY 1, 2, 3, 4
"""
"""For Postgres; each delivered order has its delivery in the history."""

CUSTOMERS = """
    SELECT c.custkey, c.mktsegment, n.name FROM tpch.tiny.customer c JOIN tpch.tiny.nation n USING (nationkey)
"""
"""For Presto."""


def branches(rows: Iterable[Mapping[str, Any]]) -> Table:
    """Of the rows of :data:`BRANCHES`."""
    return plain(
        (
            *(row[name] for name in ("branch_id", "name", "city", "region", "orders", "delivered")),
            ratio(Fraction(row["seconds"] or 0) / 3600, row["delivered"]),
            row["revenue"],
        )
        for row in rows
    )


def segments(orders: Iterable[Mapping[str, Any]], customers: Iterable[Sequence[Any]]) -> Table:
    """Of customer and amount of all orders, and the rows of :data:`CUSTOMERS`."""
    of = {number: (segment, nation) for number, segment, nation in customers}
    found: dict[tuple[str, str], list[Any]] = {}
    for order in orders:
        entry = found.setdefault(of[order["customer_id"]], [0, Decimal(0)])
        entry[0] += 1
        entry[1] += order["amount"]
    return plain((*key, count, revenue) for key, (count, revenue) in found.items())
