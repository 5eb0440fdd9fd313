"""What the jobs' reports become: tables ``job_runs`` and ``data_quality`` of the lake.

A job of gold reads silver and not bronze, so silver passes bronze's reports on.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from common import Job, folder_of
from delta.tables import DeltaTable
from pyspark.sql import Row
from pyspark.sql import functions as F  # noqa: N812
from tables import append, exists, read

RUNS = (
    "run STRING, job STRING, state STRING, started TIMESTAMP, seconds DOUBLE, read LONG, written LONG, "
    "quarantined LONG, counts STRING, application STRING, error STRING"
)
CHECKS = "run STRING, job STRING, check STRING, expected DOUBLE, found DOUBLE, passed BOOLEAN"


def keys(job: Job, layer: str) -> dict[tuple[str, str], str]:
    """Addresses of a bucket's reports, by the folder of the run and the job."""
    found = {}
    for file in job.files.below(job.uri(layer, "_reports")):
        folder, name = file.uri.rsplit("/", 2)[1:]
        found[folder, name.removesuffix(".json")] = file.uri
    return found


def forward(job: Job) -> None:
    """Copy reports of bronze to silver: those of this run, and others that are not there yet."""
    there = keys(job, "silver")
    for (folder, name), uri in keys(job, "bronze").items():
        if folder == folder_of(job.run) or (folder, name) not in there:
            content = job.files.read(uri)
            if content is not None:
                job.files.write(job.uri("silver", "_reports", folder, f"{name}.json"), content.decode())


def collect(job: Job, own: dict[str, Any]) -> None:
    """Put reports into the lake's tables: this run's with ``own``, and others that are not there yet."""
    runs, checks = job.uri("lake", "operations", "job_runs"), job.uri("lake", "operations", "data_quality")
    known: set[tuple[str, str]] = set()
    if exists(job, runs):
        listed = read(job, "lake", "operations", "job_runs").select("run", "job").collect()
        known = {(folder_of(row["run"]), row["job"]) for row in listed}
    found = [own]
    for place, uri in {**keys(job, "silver"), **keys(job, "lake")}.items():
        mine = place[0] == folder_of(job.run)
        if place != (folder_of(job.run), job.name) and (mine or place not in known):
            content = job.files.read(uri)
            if content is not None:
                report = json.loads(content)
                if report["state"] == "running" and not mine:
                    # Jobs run one at a time, so it ended without a word. A next try's report takes its place.
                    report["state"] = "lost"
                found.append(report)
    _merge(job, runs, RUNS, [_run(report) for report in found], ("run", "job"))
    rows = [
        Row(report["run"], report["job"], c["check"], c["expected"], c["found"], c["passed"])
        for report in found
        for c in report["checks"]
    ]
    _merge(job, checks, CHECKS, rows, ("run", "job", "check"))


def _run(report: dict[str, Any]) -> Row:
    def total(what: str) -> int:
        return sum(counts.get(what, 0) for counts in report["counts"].values())

    return Row(
        report["run"],
        report["job"],
        report["state"],
        datetime.fromisoformat(report["started"]),
        float(report["seconds"]),
        total("read"),
        total("written"),
        total("quarantined"),
        json.dumps(report["counts"], sort_keys=True),
        report["application"],
        report["error"],
    )


def _merge(job: Job, uri: str, schema: str, rows: list[Row], key: tuple[str, ...]) -> None:
    """Add rows, in place of those with the same key."""
    if not rows:
        return
    new = job.spark.createDataFrame(rows, schema).coalesce(1)
    if not exists(job, uri):
        append(new, uri)
        return
    places = [schema.split(", ").index(f"{name} STRING") for name in key]
    fresh = {tuple(row[place] for place in places) for row in rows}
    there = job.spark.read.format("delta").load(uri).where(F.col("run").isin([row[0] for row in rows]))
    if fresh.isdisjoint(tuple(row) for row in there.select(*key).collect()):
        # By far the most frequent case, and a merge costs several times as much.
        append(new, uri)
        return
    same = " AND ".join(f"kept.{name} = new.{name}" for name in key)
    merge = DeltaTable.forPath(job.spark, uri).alias("kept").merge(new.alias("new"), same)
    merge.whenMatchedUpdateAll().whenNotMatchedInsertAll().execute()
