"""The table that `make demo` ends with."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_airflow import FakeAirflow, Task

from scripts import demo_result
from scripts.console import SetupError
from scripts.dag_runs import Airflow, Run
from scripts.https import Answer, Site

OUTPUTS: dict[str, Any] = {
    "ca_certificate": "",
    "urls": {"spark-history": {"url": "https://spark-history.example"}},
    "connections": {"airflow": {"public_url": "https://airflow.example"}},
}


def reports(**counts: dict[str, dict[str, int]]) -> list[Task]:
    return [Task(layer, ["success"], {"job": layer, "counts": of}) for layer, of in counts.items()]


def text(outputs: dict[str, Any], stack: str = "dev", **dags: list[Task]) -> list[str]:
    """Lines for runs of these DAGs."""
    fake = FakeAirflow(dags)
    airflow = Airflow(fake.site("engineer"))  # type: ignore[arg-type]
    fake.paused.clear()
    runs = [airflow.start(dag) for dag in dags]
    return demo_result.text(airflow, runs, outputs, stack).splitlines()


FLIGHTS = reports(
    bronze={"flights": {"files": 12, "written": 336776}, "refused_files": {"files": 1}},
    silver={"flights/flights": {"read": 336776, "written": 336770, "quarantined": 6}},
    gold={"flights/airline_punctuality": {"read": 336770, "written": 16}},
)


def test_what_was_taken_in_refused_and_served() -> None:
    retail = [
        Task("export_tpch", ["success"], {"customer": 1500}),
        *reports(
            bronze={"retail/orders": {"written": 2000}, "tpch/customer": {"written": 1500}},
            silver={"retail/orders": {"written": 2000, "quarantined": 0}},
            gold={"retail/branch_performance": {"written": 12}},
        ),
    ]
    lines = text(OUTPUTS, demo_flights=FLIGHTS, demo_retail=retail)
    assert lines[: lines.index("") + 10] == [
        "Taken in (rows)",
        "  flights/flights                        336,776",
        "  retail/orders                            2,000",
        "  tpch/customer                            1,500",
        "",
        "Refused (rows)",
        "  flights/flights                              6",
        "",
        "Served (rows, as written)",
        "  flights/airline_punctuality                 16",
        "  retail/branch_performance                   12",
        "",
        "Airflow, flights  https://airflow.example/dags/demo_flights/runs/manual__2026-01-01T00%3A00%3A00%2B00%3A00_0",
        "Airflow, retail   https://airflow.example/dags/demo_retail/runs/manual__2026-01-01T00%3A00%3A00%2B00%3A00_1",
    ]
    assert lines[-1] == "Spark history     https://spark-history.example"


def test_nothing_new_is_said() -> None:
    lines = text(OUTPUTS, demo_flights=reports(bronze={}, silver={}, gold={"flights/x": {"written": 1}}))
    assert lines[:3] == ["Taken in: nothing new", "", "Refused: nothing"]


def test_a_report_may_come_as_text() -> None:
    task = Task("bronze", ["success"], json.dumps({"job": "bronze", "counts": {"a": {"written": 5}}}))
    assert "  flights/a                                    5" in text(OUTPUTS, demo_flights=[task])


def test_links_are_to_what_is_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("sales.yaml", "flights.yaml", "README.md"):
        (tmp_path / name).write_text("")
    monkeypatch.setattr(demo_result, "_DASHBOARDS", tmp_path)
    connections = {
        "bi": {"engine": "superset", "public_url": "https://bi.example"},
        "jupyter": {"public_url": "https://jupyter.example"},
        "delta_sharing": {"profiles": {"analyst-partner": '{"bearerToken": "hidden"}'}},
    }
    lines = text({**OUTPUTS, "connections": connections}, "e2e", demo_flights=FLIGHTS)
    assert lines[-4:] == [
        "Dashboard         https://bi.example/superset/dashboard/flights/",
        "Dashboard         https://bi.example/superset/dashboard/sales/",
        "Notebooks         https://jupyter.example/lab/tree/examples",
        "Share of analyst-partner: pulumi stack output connections --show-secrets --stack e2e"
        " | jq -r '.delta_sharing.profiles[\"analyst-partner\"]' > analyst-partner.share",
    ]
    assert not any("hidden" in line for line in lines)


# -- Presto


@pytest.fixture
def with_presto(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[tuple[str, str, dict[str, str]]]]:
    """Has a coordinator answer in this order; what it was asked."""

    def prepare(*pages: dict[str, Any]) -> list[tuple[str, str, dict[str, str]]]:
        asked: list[tuple[str, str, dict[str, str]]] = []
        left = iter(pages)

        def ask(site: Site, method: str, path: str, body: Any = None, headers: Any = None) -> Answer:
            asked.append((method, body or path, headers))
            return Answer(200, json.dumps(next(left)).encode())

        monkeypatch.setattr(Site, "ask", ask)
        monkeypatch.setattr(demo_result, "_POLL_S", 0)
        return asked

    return prepare


class Person(FakeAirflow):
    """Airflow's server, whose users have passwords."""

    def site(self, user: str) -> Any:
        found = super().site(user)
        found.password = "secret"  # type: ignore[attr-defined]
        return found


@pytest.mark.parametrize(("engine", "prefix"), [("trino", "X-Trino"), ("prestodb", "X-Presto")])
def test_rows_are_counted_by_presto(with_presto: Any, engine: str, prefix: str) -> None:
    asked = with_presto(
        {"error": {"message": "Table 'lake.flights.airline_punctuality' does not exist"}},
        {"nextUri": "https://presto.example/v1/statement/queued/1?slug=x"},
        {"nextUri": "https://presto.example/v1/statement/executing/1", "data": [[16]]},
        {},
    )
    presto = {"engine": engine, "public_url": "https://presto.example"}
    outputs = {**OUTPUTS, "connections": {"presto": presto}}
    fake = Person({"demo_flights": FLIGHTS})
    fake.paused.clear()
    airflow = Airflow(fake.site("engineer"))
    lines = demo_result.text(airflow, [airflow.start("demo_flights")], outputs, "dev").splitlines()
    assert f"Served (rows, as {engine} reads them)" in lines
    sql = 'SELECT count(*) FROM lake."flights"."airline_punctuality"'
    assert [(method, what) for method, what, _ in asked] == [
        ("POST", sql),
        ("POST", sql),
        ("GET", "/v1/statement/queued/1?slug=x"),
        ("GET", "/v1/statement/executing/1"),
    ]
    assert all(headers[f"{prefix}-User"] == "engineer" for *_, headers in asked)


def test_presto_may_not_show_them_in_time(with_presto: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_result, "_LISTED_S", 0)
    with_presto({"error": {"message": "no such table"}})
    presto = {"engine": "trino", "public_url": "https://presto.example"}
    fake = Person({"demo_flights": FLIGHTS})
    fake.paused.clear()
    airflow = Airflow(fake.site("engineer"))
    run = airflow.start("demo_flights")
    lines = demo_result.text(airflow, [run], {**OUTPUTS, "connections": {"presto": presto}}, "dev")
    assert "Served (rows, as written)" in lines


def test_a_refused_statement(with_presto: Any) -> None:
    with_presto({"error": {"message": "line 1:1: mismatched input"}})
    with pytest.raises(SetupError, match="mismatched input"):
        demo_result.rows(Site("https://presto.example", None, "a", "b"), "trino", "x")  # type: ignore[arg-type]


def test_pages_of_runs() -> None:
    run = Run("demo_retail", "manual__2026-01-01T00:00:00+00:00")
    assert run.page == "/dags/demo_retail/runs/manual__2026-01-01T00%3A00%3A00%2B00%3A00"
