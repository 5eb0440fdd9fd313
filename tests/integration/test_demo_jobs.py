"""The demo's Spark jobs on files: all cases in one JVM, without a stack; see demo_jobs_driver.py."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping
from typing import Any

import docker
import pytest

from components.images import built_reference
from tests.integration import demo_sample
from tests.integration.demo_sample import BAD_LINES, CORRECTED, FEBRUARY, JANUARY, MARCH, REFUSED_FILES
from tests.integration.stack import ROOT

pytestmark = pytest.mark.demo

FOLDER = "opt/spark/work-dir"
JOBS = ROOT / "pipelines/demo/jobs"

COMMAND = (
    "/opt/spark/bin/spark-submit --master local[2] --driver-memory 700m"
    " --conf spark.ui.enabled=false --conf spark.driver.bindAddress=127.0.0.1"
    " --conf spark.driver.host=127.0.0.1 --conf spark.databricks.delta.snapshotPartitions=2"
    # Compiling a query takes longer than these few rows do.
    " --conf spark.sql.codegen.wholeStage=false --conf spark.sql.codegen.factoryMode=NO_CODEGEN"
    " --conf spark.sql.extensions=io.delta.sql.DeltaSparkSessionExtension"
    " --conf spark.sql.catalog.spark_catalog=org.apache.spark.sql.delta.catalog.DeltaCatalog"
    f" /{FOLDER}/driver.py /{FOLDER}"
)


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """What the driver found."""
    files = {f"{FOLDER}/jobs/{path.name}": path.read_bytes() for path in JOBS.glob("*.py")}
    files[f"{FOLDER}/driver.py"] = (ROOT / "tests/integration/demo_jobs_driver.py").read_bytes()
    files |= {f"{FOLDER}/first/{name}": content for name, content in demo_sample.FIRST.items()}
    files |= {f"{FOLDER}/second/{name}": content for name, content in demo_sample.SECOND.items()}
    container = docker.from_env().containers.create(
        built_reference("spark"),
        COMMAND.split(),
        environment={
            "PYTHONPATH": f"/{FOLDER}/jobs:/opt/spark/python:/opt/spark/python/lib/py4j-0.10.9.9-src.zip",
            "JAVA_TOOL_OPTIONS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
        },
        # Without a network its own name would have no address.
        network_mode="none",
        hostname="localhost",
        mem_limit="1500m",
    )
    try:
        container.put_archive("/", _tar(files))
        container.start()
        code = container.wait(timeout=3000)["StatusCode"]
        log = container.logs().decode(errors="replace")
        print("\n".join(line for line in log.splitlines() if line.startswith("CASE")))
        assert code == 0, log[-8000:]
        blocks, _ = container.get_archive(f"/{FOLDER}/found.json")
        with tarfile.open(fileobj=io.BytesIO(b"".join(blocks))) as archive:
            entry = archive.extractfile("found.json")
            assert entry is not None
            result: dict[str, Any] = json.load(entry)
    finally:
        container.remove(force=True)
    if errors := [text for name, text in result.items() if name.startswith("error in ")]:
        pytest.fail("\n".join([log[-3000:], *errors]))
    return result


def _tar(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path, content in files.items():
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode, entry.uid = len(content), 0o644, 185
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def _counts(reports: list[dict[str, Any]]) -> list[dict[str, dict[str, int]]]:
    assert [report["state"] for report in reports] == ["succeeded"] * 3, reports
    return [report["counts"] for report in reports]


# -- flights


def test_figures_of_the_first_files(found: dict[str, Any]) -> None:
    bronze, silver, gold = _counts(found["first reports"])
    assert bronze["flights"] == {"files": 2, "read": 800, "written": 800}
    assert bronze["airports"] == {"files": 1, "read": 5, "written": 5}
    assert silver["flights/flights"] == {"read": 800, "written": 800, "quarantined": 0}
    assert gold["flights/airline_punctuality"] == {"read": 800, "written": 4}
    assert found["first"] == demo_sample.figures([*JANUARY, *FEBRUARY])


def test_a_second_run_reads_nothing(found: dict[str, Any]) -> None:
    bronze, silver, _ = _counts(found["again reports"])
    assert (bronze, silver) == ({}, {})
    assert found["again commits"] == 0
    assert found["again"] == found["first"]


def test_new_files_are_read_and_late_corrections_shown(found: dict[str, Any]) -> None:
    bronze, silver, _ = _counts(found["second reports"])
    lines = len(MARCH) + len(BAD_LINES) + len(FEBRUARY) + len(CORRECTED)
    assert bronze["flights"] == {"files": 4, "read": lines, "written": lines}
    assert silver["flights/flights"] == {
        "read": lines,
        # Files are compared by their time: the month that came again replaces what is there.
        "written": len(MARCH) + len(FEBRUARY) + len(CORRECTED),
        "quarantined": len(BAD_LINES),
    }
    assert found["second"] == demo_sample.figures(demo_sample.after_second())


def test_bad_lines_are_in_quarantine_with_the_reason(found: dict[str, Any]) -> None:
    refused = {raw: reason for raw, reason, _, _ in found["refused flights"]}
    assert refused == BAD_LINES
    (source,) = {source.rpartition("/")[2] for _, _, source, _ in found["refused flights"]}
    assert source == "2013-03.csv"
    assert {run for *_, run in found["refused flights"]} == {"run 3:00"}
    weather = dict(found["refused weather"])
    assert sorted(weather.values()) == ["no time_hour", "not JSON", "not JSON"]
    assert set(weather) == set(demo_sample.BAD_WEATHER)


def test_files_that_are_not_what_they_should_be_are_refused_whole(found: dict[str, Any]) -> None:
    refused = {source.partition("/raw/flights/")[2]: reason for source, reason, _ in found["refused files"]}
    assert refused == {name: reason for name, (_, reason) in REFUSED_FILES.items()}
    assert found["second reports"][0]["counts"]["refused_files"]["files"] == len(REFUSED_FILES)
    assert found["second reports"][1]["counts"]["files"] == {"quarantined": len(REFUSED_FILES)}


def test_flights_are_joined(found: dict[str, Any]) -> None:
    by_key = {(row[0], row[1]): row[2:] for row in found["joined"]}
    assert len(by_key) == 1200
    for row in JANUARY[:50]:
        plane = row["tailnum"] in {f"N{n}" for n in range(6)}
        weather = row["day"] == "1"
        assert by_key[1, int(row["flight"])] == [
            demo_sample.AIRLINES.get(row["carrier"]),
            demo_sample.AIRPORTS.get(row["origin"]),
            demo_sample.AIRPORTS.get(row["dest"]),
            "AIRBUS" if plane else None,
            "A320" if plane else None,
            39.02 if weather else None,
            10.5 if weather else None,
        ]


def test_runs_and_checks_are_tables(found: dict[str, Any]) -> None:
    runs = {(run, job): rest for run, job, *rest in found["runs"]}
    for number in (1, 2, 3):
        for layer in ("bronze", "silver", "gold"):
            assert runs[f"run {number}:00", f"{layer}_flights"][0] == "succeeded"
    # Weather is short, and taken as a whole again.
    weather = len(demo_sample.FIRST["weather/2013-01.jsonl"].splitlines()) + 3
    read = len(MARCH) + len(BAD_LINES) + len(FEBRUARY) + len(CORRECTED) + weather
    quarantined = len(BAD_LINES) + 3
    assert runs["run 3:00", "silver_flights"][1:2] == [read]
    assert runs["run 3:00", "silver_flights"][3] == quarantined + len(REFUSED_FILES)
    checks = [check for run, _, check, passed in found["quality"] if run == "run 3:00" and passed]
    assert checks == [
        "airline_punctuality: all flights",
        "airport_punctuality: all flights by destination",
        "airport_punctuality: all flights by origin",
        "flights: more rows in silver than came",
    ]


def test_maintenance_changes_no_figure(found: dict[str, Any]) -> None:
    upkeep = found["maintenance"]
    assert upkeep["flights/flights"]["files_after"] == 1
    assert upkeep["operations/job_runs"]["files_after"] == 1
    assert any(counts["files_before"] > 1 for counts in upkeep.values())
    bronze, silver, _ = found["after maintenance"]
    assert (bronze, silver) == ({}, {})
    assert found["maintained alike"]


def test_a_crash_anywhere_loses_and_doubles_nothing(found: dict[str, Any]) -> None:
    assert found["crashes"] == 9
    assert found["crashed alike"] == dict.fromkeys(found["crashed alike"], True)
    # Rows are counted by the table's log, so those of a try that failed count once.
    lines = len(MARCH) + len(BAD_LINES) + len(FEBRUARY) + len(CORRECTED)
    kept = lines - len(BAD_LINES)
    silver = {"read": lines, "written": kept, "quarantined": len(BAD_LINES)}
    assert found["counted through crashes"] == [lines, silver]


def test_without_sources_there_is_nothing_to_do(found: dict[str, Any]) -> None:
    assert found["nothing"] == ["succeeded"] * 3
    assert found["nothing written"] == []


def test_a_failed_check_fails_the_job_and_is_kept(found: dict[str, Any]) -> None:
    report = found["failed check"]
    assert report["state"] == "failed" and report["retry"] is False
    assert report["error"].startswith("checks failed: airline_punctuality: all flights")
    assert ["short", "airline_punctuality: all flights", False] in found["failed check kept"]
    assert ["short", "gold_flights", "failed"] in found["failed run kept"]


def test_a_job_that_was_killed_is_on_record_as_lost(found: dict[str, Any]) -> None:
    assert [row for row in found["failed run kept"] if row[0] == "killed"] == [
        ["killed", "silver_flights", "lost"]
    ]


def test_one_job_at_a_time_writes_a_bucket(found: dict[str, Any]) -> None:
    assert found["lock held"].startswith("first still writes ")
    assert found["lock waits"] and found["lock passed on"] and found["lock taken over"]
    assert found["lock lost"] == ["fifth"]
    assert found["lock of others stays"]


# -- the shop


def test_the_shops_figures(found: dict[str, Any]) -> None:
    bronze, silver, _ = _counts(found["shop first reports"])
    # Order 13 is of a transaction beyond the one that still runs.
    assert bronze["retail/orders"] == {"read": 12, "written": 12}
    assert bronze["retail/order_history"]["read"] == 21
    assert bronze["retail/order_events"]["read"] == 21
    assert silver["retail/orders"] == {"read": 12, "written": 12, "quarantined": 0}
    assert found["shop first"] == {
        "branches": [
            [1, "Branch 1", 4, 1, 23.5, "31.00"],
            [2, "Branch 2", 4, 1, 21.5, "23.00"],
            [3, "Branch 3", 4, 1, 22.5, "27.00"],
            [4, "Branch 4", 0, 0, None, "0.00"],
        ],
        "segments": [],
    }


def test_the_shop_again_reads_nothing(found: dict[str, Any]) -> None:
    bronze, silver, _ = found["shop again"]
    assert {name: counts["read"] for name, counts in bronze.items()} == {
        "retail/orders": 0,
        "retail/order_history": 0,
        "retail/order_events": 0,
    }
    assert all(counts["read"] == 0 for counts in silver.values())


def test_late_commits_and_late_changes_show(found: dict[str, Any]) -> None:
    bronze, silver, _ = _counts(found["shop second reports"])
    # 13 and 14 came late, 4 and 1 changed, 15 and 16 are wrong.
    assert bronze["retail/orders"]["read"] == 6
    assert silver["retail/orders"] == {"read": 6, "written": 4, "quarantined": 2}
    assert found["shop second"]["branches"] == [
        [1, "Branch 1", 4, 1, 23.5, "31.00"],
        [2, "Branch 2", 5, 2, 26.0, "1035.00"],
        [3, "Branch 3", 5, 1, 22.5, "41.25"],
        [4, "Branch 4", 0, 0, None, "0.00"],
    ]
    assert found["shop second"]["segments"] == [
        ["SEG0", "PERU", 6, "1042.25"],
        ["SEG1", "KENYA", 5, "37.25"],
        ["unknown", "unknown", 3, "27.75"],
    ]
    state = dict(found["shop state"])
    assert len(state) == 14 and state[4] == state[1] == "DELIVERED" and state[5] == "INTRANSIT"


def test_events_come_once_and_bad_messages_are_refused(found: dict[str, Any]) -> None:
    assert sorted(found["shop events"]) == list(range(1, 25))
    _, silver, _ = found["shop second reports"]
    assert silver["counts"]["retail/order_events"] == {"read": 14, "written": 3, "quarantined": 8}
    refused = sorted(reason for reason, _ in found["shop refused"])
    everything = "; ".join(
        f"no {name}"
        for name in ("event_id", "order_id", "branch_id", "customer_id", "amount", "status", "occurred_at")
    )
    assert refused == sorted(
        [
            *["not a JSON object"] * 4,
            "not text in UTF-8",
            everything,
            "event_id is no bigint",
            "status is none of NEW, INTRANSIT, DELIVERED; amount is below zero",
        ]
    )
    # Where to look: topic, partition, offset.
    assert {source for _, source in found["shop refused"]} == {
        f"kafka/shop-orders/0/{n}" for n in range(27, 35)
    }
    assert sorted(found["shop refused orders"]) == [
        ["amount is below zero", "shop.orders"],
        ["status is none of NEW, INTRANSIT, DELIVERED", "shop.orders"],
    ]


def test_a_bookmark_that_is_gone_doubles_nothing(found: dict[str, Any]) -> None:
    assert found["shop bookmark gone"] == ["succeeded"] * 2
    assert found["shop the same"]


def test_what_only_a_person_can_mend_says_so(found: dict[str, Any]) -> None:
    (older,) = found["shop older"]
    assert older["state"] == "failed" and older["retry"] is False
    assert "was read up to transaction 80, and the database is at 70" in older["error"]
    (tpch,) = found["shop tpch"]
    assert "nation.csv: unknown columns: country; missing columns: name" in tpch["error"]


def test_a_crash_in_the_shops_jobs_loses_and_doubles_nothing(found: dict[str, Any]) -> None:
    assert found["shop crashes"] == 6
    assert found["shop crashed"] == {
        "orders": 12,
        "order_history": 12,
        "order_events": 12,
        "silver orders": 12,
        "silver order_events": 12,
    }
