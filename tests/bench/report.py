"""Tables of what was measured."""

from __future__ import annotations

import os
import statistics
from dataclasses import dataclass

from tests.integration.stack import Stack


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


def memory_table(stack: Stack) -> str:
    """Memory in use and image size of each container, in MiB."""
    lines = [f"{'container':24} {'memory MiB':>10} {'limit MiB':>10} {'image MiB':>10}"]
    total, images = 0.0, {}
    for container in sorted(stack.containers(), key=lambda c: c.name):
        stats = container.stats(stream=False)["memory_stats"]
        # As `docker stats` counts: page cache that can be dropped is not in use.
        used = (
            stats["usage"] - stats["stats"].get("total_inactive_file", stats["stats"].get("inactive_file", 0))
        ) / 2**20
        images[container.image.id] = container.image.attrs["Size"] / 2**20
        total += used
        limit = container.attrs["HostConfig"]["Memory"] / 2**20
        name = container.name.removeprefix(f"{stack.prefix}-")
        lines.append(f"{name:24} {used:10.0f} {limit:10.0f} {images[container.image.id]:10.0f}")
    lines.append(
        f"{'all':24} {total:10.0f} {'':>10} {sum(images.values()):10.0f}  (shared layers counted in each)"
    )
    return "\n".join(lines)
