"""How fast the demo's flights go from raw files to figures: rows a second in each stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from scripts.dag_runs import failure, follow, ready, who_may_run
from scripts.demo import sites
from tests.integration.stack import Stack

DAG = "demo_flights"
GOAL_S = 180


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage: rows it took in, seconds of its task in Airflow and of the job's own work."""

    name: str
    rows: int
    task_s: float
    job_s: float


@dataclass(frozen=True)
class Result:
    """All stages, and seconds from the start of the run to its end."""

    stages: list[Stage]
    seconds: float


def measure(stack: Stack) -> Result:
    """Run the pipeline on a stack that has not run it yet."""
    airflow = who_may_run(sites(stack.outputs_once), DAG)
    ready(airflow, DAG)
    run = airflow.start(DAG)
    if follow(airflow, [run])[run] != "success":
        task, lines = failure(airflow, run)
        raise SystemExit("\n".join([*lines, f"bench: {DAG}: task {task} failed"]))
    stages = [_stage(task, airflow.result(run, task)) for task in airflow.tasks(run)]
    shown = airflow.get(run.path)
    began, ended = (datetime.fromisoformat(shown[name]) for name in ("queued_at", "end_date"))
    return Result(stages, (ended - began).total_seconds())


def _stage(task: Mapping[str, Any], report: Mapping[str, Any]) -> Stage:
    counts = report["counts"].values()
    # What is read is the measure; bronze counts no more than what it writes, which is all it reads.
    rows = sum(c.get("read", c.get("written", 0)) for c in counts)
    return Stage(
        name=task["task_id"], rows=rows, task_s=float(task["duration"]), job_s=float(report["seconds"])
    )


def table(result: Result) -> str:
    """The stages as a table, with the time of the whole below."""
    form = "{:10} {:>10} {:>10} {:>10} {:>10} {:>12}"
    lines = [form.format("stage", "rows", "task s", "rows/s", "job s", "rows/s (job)")]
    for s in result.stages:
        numbers = (f"{s.rows:,}", f"{s.task_s:.1f}", f"{s.rows / s.task_s:,.0f}", f"{s.job_s:.1f}")
        lines.append(form.format(s.name, *numbers, f"{s.rows / s.job_s:,.0f}"))
    lines.append(f"raw -> gold: {result.seconds:.0f} s (goal: at most {GOAL_S} s)")
    return "\n".join(lines)
