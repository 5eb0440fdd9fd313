"""As much of Airflow's REST API as `make demo` uses; a run goes on by a step each time it is asked for."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from scripts.https import Answer, UnreachableError

_INSTANCES = r"/dags/(?P<dag>\w+)/dagRuns/(?P<run>[^/]+)"


@dataclass
class Task:
    """One task: the states it goes through, what it returns and logs."""

    id: str
    states: list[str | None]
    result: Any = None
    log: list[Any] = field(default_factory=list)
    map_index: int = -1

    def at(self, step: int) -> dict[str, Any]:
        """The task instance as the API shows it."""
        past = self.states[: step + 1] or [None]
        state = past[-1]
        began = next((i for i, state in enumerate(self.states) if state == "running"), None)
        return {
            "task_id": self.id,
            "map_index": self.map_index,
            "state": state,
            "try_number": max(1, sum(a != b == "running" for a, b in zip([None, *past], past, strict=False))),
            "duration": 12.3 if state == "success" else None,
            "start_date": f"2026-01-01T00:00:{began:02}Z" if began is not None and began <= step else None,
        }


class FakeAirflow:
    """Its server; :meth:`site` is what a user reaches it by."""

    def __init__(self, dags: dict[str, list[Task]]) -> None:
        self.dags = dags
        self.unread: dict[str, int] = {}
        """DAGs that the DAG processor has not read yet, and after how many requests it has."""
        self.import_errors: list[dict[str, str]] = []
        self.paused = set(dags)
        self.runs: dict[str, tuple[str, int]] = {}
        """DAG and step of each run."""
        self.going: dict[str, str] = {}
        """Runs that go on since before, and their DAGs."""
        self.away = 0
        """How many requests fail before it answers again."""
        self.roles = {"engineer": True, "analyst": False}
        self.seen: list[str] = []

    def site(self, user: str) -> FakeSite:
        """The web site as one user."""
        return FakeSite(self, user)

    def ask(self, user: str, method: str, path: str, body: Any) -> Answer:
        self.seen.append(f"{method} {path}")
        if self.away:
            self.away -= 1
            raise UnreachableError("connection refused")
        if method != "GET" and not self.roles[user]:
            return _answer(403, {"detail": "Forbidden"})
        parts = urlsplit(path.removeprefix("/api/v2"))
        for (verb, pattern), handler in self._routes().items():
            if verb == method and (found := re.fullmatch(pattern, parts.path)):
                named = {name: unquote(value) for name, value in found.groupdict().items()}
                return handler(body=body, query=parse_qs(parts.query), **named)
        raise AssertionError(f"{method} {path}: no such path")

    def _routes(self) -> dict[Any, Callable[..., Answer]]:
        return {
            ("PATCH", r"/dags/(?P<dag>\w+)"): self._patch,
            ("GET", r"/importErrors"): lambda **_: _answer(200, {"import_errors": self.import_errors}),
            ("GET", r"/dags/(?P<dag>\w+)/dagRuns"): self._list,
            ("POST", r"/dags/(?P<dag>\w+)/dagRuns"): self._start,
            ("GET", _INSTANCES): self._run,
            ("GET", rf"{_INSTANCES}/taskInstances"): self._tasks,
            ("GET", rf"{_INSTANCES}/taskInstances/(?P<task>\w+)/xcomEntries/return_value"): self._result,
            ("GET", rf"{_INSTANCES}/taskInstances/(?P<task>\w+)/logs/(?P<number>\d+)"): self._log,
        }

    def _patch(self, dag: str, body: Any, query: Any) -> Answer:
        if self.unread.get(dag, 0) > 0:
            self.unread[dag] -= 1
            return _answer(404, {"detail": "not found"})
        if dag not in self.dags:
            return _answer(404, {"detail": "not found"})
        assert body == {"is_paused": False} and query == {"update_mask": ["is_paused"]}
        self.paused.discard(dag)
        return _answer(200, {"dag_id": dag})

    def _list(self, dag: str, query: Any, **_: Any) -> Answer:
        assert query["state"] == ["queued", "running"]
        going = [run for run, own in self.going.items() if own == dag]
        for run in going:
            self.runs[run] = (dag, 0)
        return _answer(200, {"dag_runs": [{"dag_run_id": run} for run in going]})

    def _start(self, dag: str, body: Any, **_: Any) -> Answer:
        assert body == {"logical_date": None}
        if dag in self.paused:
            return _answer(409, {"detail": "it would wait for ever"})
        run = f"manual__2026-01-01T00:00:00+00:00_{len(self.runs)}"
        self.runs[run] = (dag, 0)
        return _answer(200, {"dag_run_id": run})

    def _run(self, dag: str, run: str, **_: Any) -> Answer:
        own, step = self.runs[run]
        assert own == dag
        self.runs[run] = (dag, step + 1)
        states = [task.at(step + 1)["state"] for task in self.dags[dag]]
        last = all(len(task.states) <= step + 2 for task in self.dags[dag])
        state = (
            "running" if not last else "failed" if {"failed", "upstream_failed"} & {*states} else "success"
        )
        return _answer(200, {"state": state})

    def _tasks(self, dag: str, run: str, **_: Any) -> Answer:
        instances = [task.at(self.runs[run][1]) for task in self.dags[dag]]
        return _answer(200, {"task_instances": instances, "total_entries": len(instances)})

    def _find(self, dag: str, task: str, query: Any) -> Task:
        index = int(query["map_index"][0])
        return next(t for t in self.dags[dag] if t.id == task and t.map_index == index)

    def _result(self, dag: str, run: str, task: str, query: Any, **_: Any) -> Answer:
        value = self._find(dag, task, query).result
        return _answer(200, {"value": value}) if value is not None else _answer(404, {"detail": "none"})

    def _log(self, dag: str, run: str, task: str, number: str, query: Any, **_: Any) -> Answer:
        return _answer(200, {"content": self._find(dag, task, query).log})


class FakeSite:
    """Stands for :class:`scripts.https.Site`."""

    url = "https://airflow.example"

    def __init__(self, airflow: FakeAirflow, user: str) -> None:
        self.user = user
        self._airflow = airflow

    def ask(self, method: str, path: str, body: Any = None, headers: Any = None) -> Answer:
        return self._airflow.ask(self.user, method, path, body)


def _answer(status: int, document: Any) -> Answer:
    return Answer(status, json.dumps(document).encode())
