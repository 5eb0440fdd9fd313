"""The demo on the real stack: figures are exact whatever happens.

The pipelines run three times. The first run, by `make demo`, loses its worker in the middle of a job. Then
the simulator crashes, goes on and is stopped, so that figures stand still; files and messages come that
nobody can read, an order changes late, and the second run loses its database. The third one finds nothing
new.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from scripts.demo import DAGS
from tests.e2e import expected, faults, readers
from tests.e2e.demo_stack import COPIES, Demo, Reports
from tests.e2e.readers import Table
from tests.integration import clients
from tests.integration.stack import wait_until

FLIGHTS, WEATHER = 336_776, 26_115
"""Rows of the data set."""

pytestmark = [pytest.mark.demo, pytest.mark.filterwarnings("ignore::DeprecationWarning")]


# -- what happens


@dataclass
class First:
    """The first run."""

    printed: str
    reports: Reports


@pytest.fixture(scope="module")
def first(demo: Demo) -> First:
    """`make demo`, with a worker that dies under its largest job."""

    def kill_the_worker() -> None:
        # Some tables are written, that of the flights is being made.
        demo.wait_for("silver", "flights/weather/_delta_log/")
        demo.crash("spark-worker-1")

    with demo.meanwhile(kill_the_worker):
        printed = demo.command()
    return First(printed, demo.last_reports())


@pytest.fixture(scope="module")
def still(demo: Demo, first: First) -> Iterator[Demo]:
    """Sources that stand still, after everything has happened to them."""
    before = demo.count("orders")
    demo.crash(demo.own["simulator"])
    wait_until(lambda: demo.count("orders") > before)
    demo.simulator.stop(timeout=30)
    for key, content in faults.FILES.items():
        demo.put("raw", key, content)
    with clients.postgres(demo.stack, demo.own["database"], "shop_simulator") as shop:
        shop.execute(faults.LATE_CHANGE)
    demo.publish([*((b"1", message) for message in faults.BAD_MESSAGES), *demo.copies()])
    yield demo
    demo.simulator.start()


@pytest.fixture(scope="module")
def second(still: Demo) -> Reports:
    """A run whose database restarts while it reads from it."""

    def restart_the_database() -> None:
        still.wait_for_reader()
        still.stack.container("postgres").restart(timeout=20)

    with still.meanwhile(restart_the_database):
        still.run(*DAGS)
    return still.last_reports()


@pytest.fixture(scope="module")
def wanted(still: Demo, second: Reports, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Table]:
    """What gold has to be by now."""
    folder = tmp_path_factory.mktemp("raw")
    for table in ("flights", "airlines", "airports"):
        still.download("raw", f"flights/{table}/", folder / table, without=faults.FILES)
    (folder / "flights" / "good.csv").write_text("\n".join([faults.HEADER, *faults.GOOD_FLIGHTS]) + "\n")
    orders = still.admin("SELECT customer_id, amount FROM orders")
    sums = still.admin(expected.BRANCHES)
    customers = readers.by_sql(still.stack, expected.CUSTOMERS)
    return {
        **expected.flights(folder),
        "retail.branch_performance": expected.branches(sums),
        "retail.segment_revenue": expected.segments(orders, customers),
    }


# -- 1. exactness, after all the faults


def test_gold_by_spark(still: Demo, wanted: dict[str, Table]) -> None:
    found = readers.by_spark(still.stack, expected.COLUMNS)
    assert found == wanted


def test_gold_by_trino(still: Demo, wanted: dict[str, Table]) -> None:
    assert readers.by_presto(still.stack, expected.COLUMNS) == wanted


def test_gold_by_delta_sharing(still: Demo, wanted: dict[str, Table], tmp_path: Path) -> None:
    assert readers.by_sharing(still.stack, expected.COLUMNS, tmp_path) == wanted


def test_gold_by_superset(still: Demo, wanted: dict[str, Table]) -> None:
    found = readers.by_superset(still.stack, expected.COLUMNS)
    assert found.keys() == readers.CHARTS.keys()
    assert found == {table: wanted[table] for table in found}


def test_figures_are_of_all_there_is(wanted: dict[str, Table]) -> None:
    """The figures that are expected, by what is known of the data anyway."""
    airlines = wanted["flights.airline_punctuality"]
    assert len(airlines) == 16
    assert sum(row[2] for row in airlines) == FLIGHTS + len(faults.GOOD_FLIGHTS)
    assert len(wanted["retail.branch_performance"]) == 12
    hours = [row[6] for row in wanted["retail.branch_performance"] if row[5]]
    assert len(hours) >= 6 and all(5 < hour < 100 for hour in hours)


# -- make demo


def test_make_demo_shows_progress_and_ends_with_a_table(first: First, demo: Demo) -> None:
    for pipeline in ("flights", "retail"):
        for task in ("bronze", "silver", "gold"):
            line = rf"^\[ *\d+ s\] {pipeline} +{task}: "
            assert re.search(rf"{line}running", first.printed, re.MULTILINE), first.printed
            assert re.search(rf"{line}done in \d+ s$", first.printed, re.MULTILINE), first.printed
    assert re.search(r"flights +silver: failed, will be tried again: ", first.printed), first.printed
    assert re.search(r"^ *flights/flights +336,776$", first.printed, re.MULTILINE), first.printed
    assert re.search(r"^ *flights/airline_punctuality +16$", first.printed, re.MULTILINE)
    assert demo.stack.outputs_once["urls"]["bi"]["url"] in first.printed
    for password in demo.stack.outputs_once["credentials"]["users"].values():
        assert password not in first.printed


# -- 2. increments


def test_the_first_run_reads_everything_once(first: First) -> None:
    bronze = first.reports["bronze_flights"]["counts"]
    assert bronze["flights"]["written"] == FLIGHTS
    assert bronze["weather"]["written"] == WEATHER
    silver = first.reports["silver_flights"]["counts"]
    assert silver["flights/flights"]["written"] == FLIGHTS
    assert silver["flights/flights"].get("quarantined", 0) == 0


def test_the_second_run_reads_what_is_new(still: Demo, first: First, second: Reports) -> None:
    flights = second["bronze_flights"]["counts"]
    lines = len(faults.GOOD_FLIGHTS) + len(faults.BAD_FLIGHTS)
    assert flights["flights"] == {"files": 1, "read": lines, "written": lines}
    assert "airports" not in flights
    assert flights["weather"]["written"] == len(faults.WEATHER_LINES)
    before, now = (r["bronze_retail"]["counts"] for r in (first.reports, second))
    assert now["retail/order_history"]["written"] > 0
    # Every row of the history once, in one run or the other.
    both = [counts["retail/order_history"]["written"] for counts in (before, now)]
    assert sum(both) == still.count("order_history")
    both = [counts["retail/order_events"]["written"] for counts in (before, now)]
    assert sum(both) == still.messages()
    assert 0 < now["retail/orders"]["written"] < still.count("orders")


def test_a_third_run_finds_nothing_and_changes_nothing(still: Demo, wanted: dict[str, Table]) -> None:
    before = readers.by_presto(still.stack, expected.COLUMNS)
    still.run(*DAGS)
    reports = still.last_reports()
    for job in ("bronze_flights", "silver_flights", "bronze_retail", "silver_retail"):
        counts = reports[job]["counts"].values()
        assert sum(c.get("written", 0) + c.get("quarantined", 0) for c in counts) == 0, reports[job]
    assert readers.by_presto(still.stack, expected.COLUMNS) == before == wanted


def test_maintenance_keeps_the_figures(still: Demo, wanted: dict[str, Table]) -> None:
    still.run("demo_maintenance")
    assert readers.by_presto(still.stack, expected.COLUMNS) == wanted


# -- 3. faults


def test_what_nobody_can_read_is_counted_and_kept(still: Demo, second: Reports) -> None:
    silver = second["silver_flights"]["counts"]
    assert silver["flights/flights"]["quarantined"] == len(faults.BAD_FLIGHTS)
    assert silver["flights/weather"]["quarantined"] == len(faults.BAD_WEATHER)
    assert silver["files"]["quarantined"] == len(faults.BAD_FILES)
    retail = second["silver_retail"]["counts"]
    assert retail["retail/order_events"]["quarantined"] == len(faults.BAD_MESSAGES)
    # Copies of events are none.
    assert retail["retail/order_events"]["read"] > COPIES


@pytest.mark.usefixtures("second")
def test_refused_rows_say_why(still: Demo) -> None:
    found = {table: readers.quarantine(still.stack, table) for table in faults.REFUSED}
    assert found == faults.REFUSED
    files = readers.quarantine(still.stack, "files", "source")
    assert {uri.removeprefix("s3a://raw/") for uri in files} == faults.BAD_FILES.keys()


def test_runs_and_checks_are_on_record(still: Demo, second: Reports) -> None:
    sql = "SELECT job, state, quarantined FROM lake.operations.job_runs WHERE run = '{}'"
    for dag in DAGS:
        rows = readers.by_sql(still.stack, sql.format(still.runs[dag].id))
        layers = {f"{layer}_{dag.removeprefix('demo_')}" for layer in ("bronze", "silver", "gold")}
        assert {row[0] for row in rows} == layers
        assert {row[1] for row in rows} == {"succeeded"}
    failed = readers.by_sql(still.stack, "SELECT * FROM lake.operations.data_quality WHERE NOT passed")
    assert failed == []
    assert readers.by_sql(still.stack, "SELECT count(*) FROM lake.operations.data_quality")[0][0] > 5


# -- the other engine; last, as it takes two `up`


def test_gold_by_prestodb(still: Demo, wanted: dict[str, Table]) -> None:
    presto: dict[str, Any] = {**still.stack.config["presto"], "engine": "prestodb", "memory_mib": 1408}
    try:
        with still.stack.changed(presto=presto):
            still.stack.up()
            found = readers.by_presto(still.stack, expected.COLUMNS)
    finally:
        still.stack.up()
    assert found == wanted
