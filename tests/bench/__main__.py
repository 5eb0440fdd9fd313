"""How long the platform takes to come up, against docker compose with the same containers.

Everything runs in a stack of its own, on ports of its own, and is removed afterwards. With ``--cold`` it also
measures `make up` of a fresh clone with empty caches, which removes Millrace's images and the engine's build
cache first; it takes some ten minutes and refuses while a container uses those images.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.bench.cold import cold_up
from tests.bench.compose import ComposeCopy
from tests.bench.report import Row, memory_table, show
from tests.integration.conftest import full_config
from tests.integration.stack import Stack


def _timed(action: Callable[[], object]) -> float:
    started = time.monotonic()
    action()
    return time.monotonic() - started


def _measure(
    runs: int, action: Callable[[], object], reset: Callable[[], object] | None = None
) -> list[float]:
    times = []
    for _ in range(runs):
        if reset:
            reset()
        times.append(_timed(action))
    return times


def main() -> None:
    """Run all measurements and print them as tables."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="runs of each measurement (default 3)")
    parser.add_argument("--cold", action="store_true", help="also from nothing; removes images and caches")
    options = parser.parse_args()
    rows: list[Row] = []
    if options.cold:
        rows.append(Row("make up from nothing", [cold_up()], "at most 720 s"))
    folder = Path(tempfile.mkdtemp(prefix="millrace-bench-"))
    stack = Stack(folder / "project", "bench", full_config(), project="mrbench")
    try:
        print("bringing the stack up once, so that images are built ...", flush=True)
        stack.up()
        containers = memory_table(stack)
        noop = _measure(options.runs, stack.up)
        copy = ComposeCopy(stack, folder / "compose")
        down = ["destroy", "--yes", "--skip-preview", "--stack", stack.name]
        cached = _measure(options.runs, stack.up, lambda: stack.pulumi(*down))
        stack.pulumi(*down)
        try:
            compose = _measure(options.runs, copy.up, copy.reset)
        finally:
            copy.down()
        ratio = statistics.median(cached) / statistics.median(compose)
        rows += [
            Row("up, nothing to do", noop, "at most 8 s"),
            Row("up, images built", cached, "at most 1.2 x compose"),
            Row("docker compose up --wait, same containers", compose, ""),
        ]
        show(rows)
        print(f"\nup with images built / compose: {ratio:.2f} (medians)\n")
        print(containers)
    finally:
        stack.destroy()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
