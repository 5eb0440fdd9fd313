"""Runs the demo: starts its pipelines, follows them, and shows what they took in, refused and serve."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from typing import Any

from scripts import demo_result, pulumi_cli, up
from scripts import stack as stack_module
from scripts.console import SetupError, main, say
from scripts.dag_runs import Airflow, Run, failure, follow, ready, short, who_may_run
from scripts.data import switched_on
from scripts.https import Site, UnreachableError, trusting
from scripts.stack import file_of

DAGS = ("demo_flights", "demo_retail")


def run(outputs: Mapping[str, Any], stack: str) -> int:
    """Run the demo's pipelines on a stack that is up; 1 when one of them fails.

    Raises:
        SetupError: Airflow does not answer, or refuses.
    """
    airflow = who_may_run(sites(outputs), DAGS[0])
    for dag in DAGS:
        ready(airflow, dag)
    if going := [run for dag in DAGS for run in airflow.going(dag)]:
        say("airflow", f"{' and '.join(short(run.dag) for run in going)} going already, waiting for the end")
        follow(airflow, going)
    runs = [airflow.start(dag) for dag in DAGS]
    say("airflow", f"{' and '.join(short(run.dag) for run in runs)} started, as {airflow.site.user}")
    try:
        states = follow(airflow, runs)
    except KeyboardInterrupt:
        print(f"the runs go on: {airflow.site.url}/dags", file=sys.stderr)
        raise
    if failed := [run for run in runs if states[run] != "success"]:
        for one in failed:
            _explain(airflow, one)
        return 1
    print()
    print(demo_result.text(airflow, runs, outputs, stack))
    return 0


def _explain(airflow: Airflow, run: Run) -> None:
    """Say on standard error which task failed, why, and where to look further."""
    task, lines = failure(airflow, run)
    for line in lines:
        print(f"  | {line}", file=sys.stderr)
    what = f"task {task} failed; its last lines are above" if task else "it failed before a task started"
    print(f"error: {run.dag}: {what}; all of it: {airflow.site.url}{run.page}", file=sys.stderr, flush=True)


def sites(outputs: Mapping[str, Any]) -> list[Site]:
    """Airflow as each of the platform's users; it tells itself who may do what."""
    context = trusting(outputs["ca_certificate"])
    url = str(outputs["connections"]["airflow"]["public_url"])
    return [Site(url, context, name, password) for name, password in outputs["credentials"]["users"].items()]


def outputs_of(stack: str) -> dict[str, Any] | None:
    """Outputs of a stack that is up and has the demo, else None.

    Raises:
        SetupError: it has the demo, without its pipelines.
    """
    if not pulumi_cli.COMMAND.exists():
        return None
    outputs = stack_module.outputs(stack) or {}
    connections = outputs.get("connections", {})
    if "demo" not in connections:
        return None
    if "airflow" not in connections:
        raise SetupError(f"stack {stack}: there is nothing to run, demo.pipelines is off")
    try:
        sites(outputs)[0].ask("GET", "/api/v2/version")
    except UnreachableError:
        return None
    return outputs


def _platform(stack: str) -> dict[str, Any] | int:
    """Outputs of the stack, which is brought up when it is not; an exit code when that fails.

    Raises:
        SetupError: the demo is off, or there is no such stack.
    """
    file = file_of(stack)
    if file.is_file() and not switched_on("demo", file.read_text()):
        option = "" if stack == "dev" else f" STACK={stack}"
        raise SetupError(f"stack {stack}: the demo is off: add `millrace:demo: {{}}` to {file.name}, "
                         f"then run `make demo{option}` again")  # fmt: skip
    if outputs := outputs_of(stack):
        return outputs
    say("stack", f"{stack} is not up, or not with the demo: bringing it up")
    if code := up.bring("up", stack):
        return code
    if outputs := outputs_of(stack):
        return outputs
    raise SetupError(f"stack {stack} is up, but Airflow does not answer: see the log of its container")


def _main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stack", default="dev", help="a stack with the demo (default: dev)")
    stack = parser.parse_args().stack
    found = _platform(stack)
    return found if isinstance(found, int) else run(found, stack)


if __name__ == "__main__":
    main(_main)
