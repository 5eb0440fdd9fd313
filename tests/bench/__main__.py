"""What `make bench` measures: see :mod:`scripts.bench`."""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from scripts.bench import arguments
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
    options = arguments()
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
