"""Starts runs of Airflow's DAGs through its REST API and follows them, task by task."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from scripts.console import SetupError, say
from scripts.https import Answer, Site, UnreachableError

_POLL_S = 2.0
_SIGN_OF_LIFE_S = 15.0
_PATIENCE_S = 300.0
"""How long Airflow may be away, or a DAG that was just put there not yet read."""
_TAIL_LINES = 15
_ENDED = ("success", "failed")
_NOT_OF_THE_TASK = (
    "::",
    "Could not read served logs",
    "/var/lib/millrace/airflow-logs/",
    "s3://airflow-logs/",
)
"""How lines begin that tell where the log is, of which the API makes part of it."""


@dataclass(frozen=True)
class Run:
    """One run of a DAG."""

    dag: str
    id: str

    @property
    def path(self) -> str:
        """Where the API has it, below /api/v2; the page has it at the same place."""
        return f"/dags/{quote(self.dag)}/dagRuns/{quote(self.id, safe='')}"

    @property
    def page(self) -> str:
        """Where the web page has it."""
        return f"/dags/{quote(self.dag)}/runs/{quote(self.id, safe='')}"


class Airflow:
    """Airflow as somebody who may run these DAGs."""

    def __init__(self, site: Site) -> None:
        self.site = site

    def get(self, path: str) -> Any:
        """The document at a path below /api/v2, with patience; None where there is nothing.

        Raises:
            SetupError: Airflow does not answer, or refuses.
        """
        answer = self._ask("GET", path)
        return None if answer.status == 404 else self._good(answer, path)

    def start(self, dag: str) -> Run:
        """Start a run.

        Raises:
            SetupError: Airflow refuses.
        """
        path = f"/dags/{quote(dag)}/dagRuns"
        made = self._good(self._ask("POST", path, {"logical_date": None}), path)
        return Run(dag, str(made["dag_run_id"]))

    def switch_on(self, dag: str) -> int:
        """Take a DAG out of its pause; the status: 404 when Airflow has not read it (yet)."""
        return self._ask("PATCH", f"/dags/{quote(dag)}?update_mask=is_paused", {"is_paused": False}).status

    def going(self, dag: str) -> list[Run]:
        """Its runs that have not ended."""
        states = urlencode([("state", "queued"), ("state", "running"), ("order_by", "run_after")])
        found = self.get(f"/dags/{quote(dag)}/dagRuns?{states}") or {"dag_runs": []}
        return [Run(dag, str(entry["dag_run_id"])) for entry in found["dag_runs"]]

    def tasks(self, run: Run) -> list[dict[str, Any]]:
        """Its task instances, those that started first in front."""
        found = (self.get(f"{run.path}/taskInstances?limit=200") or {}).get("task_instances", [])
        return sorted(found, key=lambda task: (task["start_date"] is None, task["start_date"] or ""))

    def result(self, run: Run, task: dict[str, Any]) -> Any:
        """What a task returned, or None."""
        path = f"{_place(run, task)}/xcomEntries/return_value?map_index={task['map_index']}"
        return (self.get(path) or {}).get("value")

    def log(self, run: Run, task: dict[str, Any]) -> list[str]:
        """Lines of the log of a task's latest try; none when there is no log."""
        path = f"{_place(run, task)}/logs/{task['try_number']}"
        try:
            found = self.get(f"{path}?full_content=true&map_index={task['map_index']}")
        except SetupError:
            return []
        return [line for entry in (found or {}).get("content", []) for line in _lines(entry)]

    def _ask(self, method: str, path: str, body: Any = None) -> Answer:
        end = time.monotonic() + _PATIENCE_S
        while True:
            try:
                return self.site.ask(method, f"/api/v2{path}", body)
            except UnreachableError as error:
                # What may have started a run is not repeated.
                if method == "POST" or time.monotonic() > end:
                    raise SetupError(f"Airflow does not answer: {error}") from error
            time.sleep(_POLL_S)

    @staticmethod
    def _good(answer: Answer, path: str) -> Any:
        if answer.status >= 400:
            raise SetupError(f"Airflow answers {answer.status} to {path}: {_detail(answer)}")
        return answer.json


def _place(run: Run, task: dict[str, Any]) -> str:
    return f"{run.path}/taskInstances/{quote(task['task_id'], safe='')}"


def _detail(answer: Answer) -> str:
    text = answer.body.decode(errors="replace")
    try:
        text = str(answer.json["detail"])
    except (UnreachableError, KeyError, TypeError):
        pass
    return " ".join(text.split())[:200]


def _lines(entry: Any) -> Iterable[str]:
    """A log entry as lines: its text, and the exceptions that belong to it."""
    if isinstance(entry, str):
        return entry.splitlines()
    lines = str(entry.get("event", "")).splitlines()
    for error in entry.get("error_detail") or []:
        lines += f"{error.get('exc_type')}: {error.get('exc_value')}".splitlines()
    return [line for line in lines if line and not line.startswith(_NOT_OF_THE_TASK)]


def who_may_run(sites: Sequence[Site], dag: str) -> Airflow:
    """Airflow as the first of these users who may run a DAG; the DAG is taken out of its pause.

    Raises:
        SetupError: none of them may, or Airflow does not know the DAG.
    """
    for airflow in map(Airflow, sites):
        status = airflow.switch_on(dag)
        if status not in (401, 403):
            return airflow
    raise SetupError("no user of the platform may run DAGs: one with role engineer is needed")


def ready(airflow: Airflow, dag: str) -> None:
    """Wait until Airflow has read a DAG, and take it out of its pause.

    Raises:
        SetupError: it has an error, or does not appear.
    """
    end = time.monotonic() + _PATIENCE_S
    told = False
    while (status := airflow.switch_on(dag)) == 404:
        for error in (airflow.get("/importErrors") or {}).get("import_errors", []):
            last = (error["stack_trace"].strip().splitlines() or ["no message"])[-1]
            raise SetupError(f"Airflow cannot read {error['filename']}: {last}")
        if time.monotonic() > end:
            raise SetupError(f"Airflow knows no DAG {dag}: run `make up`, and see the DAG processor's log")
        if not told:
            say("airflow", f"has not read {dag} yet, waiting")
            told = True
        time.sleep(_POLL_S)
    if status >= 400:
        raise SetupError(f"Airflow answers {status} to switching {dag} on")


def follow(airflow: Airflow, runs: Sequence[Run]) -> dict[Run, str]:
    """Show each task's progress until all runs have ended; the state each one ended in."""
    ended: dict[Run, str] = {}
    shown: dict[tuple[Run, str], str] = {}
    spoken = time.monotonic()
    while len(ended) < len(runs):
        for run in [run for run in runs if run not in ended]:
            # The run's state first: all that its tasks did before that is seen below.
            state = str((airflow.get(run.path) or {"state": "failed"})["state"])
            for task in airflow.tasks(run):
                spoken = time.monotonic() if _show(airflow, run, task, shown) else spoken
            if state in _ENDED:
                ended[run] = state
        if len(ended) < len(runs):
            if time.monotonic() - spoken > _SIGN_OF_LIFE_S:
                say(*_busy([(run, task) for run in runs if run not in ended for task in airflow.tasks(run)]))
                spoken = time.monotonic()
            time.sleep(_POLL_S)
    return ended


def _name(task: dict[str, Any]) -> str:
    return f"{task['task_id']}[{task['map_index']}]" if task["map_index"] >= 0 else str(task["task_id"])


def _show(airflow: Airflow, run: Run, task: dict[str, Any], shown: dict[tuple[Run, str], str]) -> bool:
    """Say what became of a task since it was last looked at; whether there was anything to say."""
    name, state = _name(task), str(task["state"])
    now = f"{state} {task['try_number']}"
    if shown.get((run, name)) == now:
        return False
    shown[run, name] = now
    text = {
        "running": "running" if task["try_number"] < 2 else f"running, try {task['try_number']}",
        "success": f"done in {task['duration'] or 0:.0f} s",
        "skipped": "skipped",
        "failed": "FAILED",
        "up_for_retry": "failed, will be tried again",
    }.get(state)
    if text is None:
        return False
    if state == "up_for_retry" and (lines := airflow.log(run, task)):
        text = f"{text}: {lines[-1][:160]}"
    say(short(run.dag), f"{name}: {text}")
    return True


def _busy(tasks: Sequence[tuple[Run, dict[str, Any]]]) -> tuple[str, str]:
    """What is going on while nothing changes."""
    running = [(run, task) for run, task in tasks if task["state"] == "running"]
    if not running:
        return "airflow", "waiting for a task to start"
    return short(running[0][0].dag), ", ".join(f"{_name(task)} is running" for _, task in running)


def short(dag: str) -> str:
    """A DAG's name for the column of progress lines."""
    return dag.removeprefix("demo_")


def failure(airflow: Airflow, run: Run) -> tuple[str, list[str]]:
    """Which task ended a run, and the last lines it logged."""
    for task in airflow.tasks(run):
        if task["state"] == "failed":
            return _name(task), airflow.log(run, task)[-_TAIL_LINES:]
    return "", []
