"""Tables of what was measured."""

from __future__ import annotations

import os
import statistics
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """Several runs of one measurement, in seconds."""

    what: str
    seconds: list[float]
    goal: str


def show(rows: list[Row]) -> None:
    """Print minimum, median and maximum of each row."""
    load = os.getloadavg()[0]
    print(f"\nseconds of wall time, {os.cpu_count()} cores, load {load:.1f} at the end")
    print(f"{'':44} {'min':>7} {'median':>7} {'max':>7}   goal")
    for row in rows:
        low, middle, high = min(row.seconds), statistics.median(row.seconds), max(row.seconds)
        print(f"{row.what:44} {low:7.1f} {middle:7.1f} {high:7.1f}   {row.goal}")
