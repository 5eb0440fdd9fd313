"""How long the platform takes to come up, against docker compose with the same containers, and what it takes.

What is measured are the settings of ``Pulumi.dev.yaml``, in a stack of its own, on ports of its own, which is
removed afterwards. The demo's pipeline of flights runs on it once; ``--pipeline`` measures nothing else.
``--minimal`` adds the memory of ``Pulumi.minimal.yaml``. ``--cold`` adds `make up` of a fresh clone with
empty caches: it removes Millrace's images and the engine's build cache first, takes up to half an hour and
refuses while a container uses those images.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.bench import pipeline
from tests.bench.cold import cold_up
from tests.bench.compose import ComposeCopy
from tests.bench.report import Row, show
from tests.bench.stacks import PROJECT, config_of
from tests.bench.usage import measure, table, total_disk, total_memory
from tests.integration.stack import Stack


def _timed(action: Callable[[], object]) -> float:
    started = time.monotonic()
    action()
    return time.monotonic() - started


def _measure(
    what: str, runs: int, action: Callable[[], object], reset: Callable[[], object] | None = None
) -> list[float]:
    times = []
    for number in range(runs):
        if reset:
            reset()
        times.append(_timed(action))
        print(f"{what}, run {number + 1} of {runs}: {times[-1]:.1f} s", flush=True)
    return times


def main() -> None:
    """Run all measurements and print them as tables."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="runs of each measurement (default 3)")
    parser.add_argument("--cold", action="store_true", help="also from nothing; removes images and caches")
    parser.add_argument("--minimal", action="store_true", help="also the memory of Pulumi.minimal.yaml")
    parser.add_argument("--no-compose", action="store_true", help="without the comparison")
    parser.add_argument("--pipeline", action="store_true", help="nothing but the demo's pipeline of flights")
    options = parser.parse_args()
    cold = [cold_up()] if options.cold and not options.pipeline else []
    folder = Path(tempfile.mkdtemp(prefix="millrace-bench-"))
    try:
        if options.pipeline:
            _pipeline(folder / "dev")
            return
        if options.minimal:
            _minimal(folder / "minimal")
        _dev(folder / "dev", options.runs, cold, compare=not options.no_compose)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _dev(folder: Path, runs: int, cold: list[float], *, compare: bool) -> None:
    rows = [Row("make up from nothing", cold, "at most 1500 s")] if cold else []
    stack = Stack(folder / "project", "dev", config_of("dev"), project=PROJECT)
    try:
        print("bringing the stack up once, so that images are built ...", flush=True)
        stack.up()
        print("a minute's rest before memory is measured ...", flush=True)
        usages = measure(stack)
        flights = pipeline.measure(stack)
        rows.append(Row("up, nothing to do", _measure("up, nothing to do", runs, stack.up), ""))
        copy = ComposeCopy(stack, folder / "compose") if compare else None
        down = ["destroy", "--yes", "--skip-preview", "--stack", stack.name]
        cached = _measure("up, images built", runs, stack.up, lambda: stack.pulumi(*down))
        rows.append(Row("up, images built", cached, "at most 240 s, and 1.2 x compose"))
        stack.pulumi(*down)
        if copy is not None:
            try:
                compose = _measure("docker compose", runs, copy.up, copy.reset)
            finally:
                copy.down()
            rows.append(Row("docker compose up --wait, same containers", compose, ""))
        show(rows)
        if copy is not None:
            ratio = statistics.median(cached) / statistics.median(compose)
            print(f"\nup with images built / compose: {ratio:.2f} (medians)")
        print(f"\n{pipeline.table(flights)}")
        print(f"\n{table(usages)}\n")
        print(f"idle memory: {total_memory(usages) / 1024:.2f} GiB (goal: at most 8)")
        print(f"images on disk: {total_disk(usages) / 1000:.2f} GB (goal: at most 9)")
    finally:
        stack.destroy()


def _pipeline(folder: Path) -> None:
    stack = Stack(folder / "project", "dev", config_of("dev"), project=PROJECT)
    try:
        print("bringing the stack up ...", flush=True)
        stack.up()
        print(f"\n{pipeline.table(pipeline.measure(stack))}")
    finally:
        stack.destroy()


def _minimal(folder: Path) -> None:
    stack = Stack(folder, "minimal", config_of("minimal"), project=PROJECT)
    try:
        print("Pulumi.minimal.yaml: bringing it up, then a minute's rest ...", flush=True)
        stack.up()
        usages = measure(stack)
        print(f"\n{table(usages)}\n")
        print(f"Pulumi.minimal.yaml, idle memory: {total_memory(usages) / 1024:.2f} GiB (goal: at most 3)\n")
    finally:
        stack.destroy()


if __name__ == "__main__":
    main()
