"""What every job of the demo is: arguments, a session, one writer per bucket, and a report of what it did."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from pyspark.sql import SparkSession
from storage import Files, WriterLock

BUCKETS = {"raw": "s3a://raw", "bronze": "s3a://bronze", "silver": "s3a://silver", "lake": "s3a://lake"}
"""Where the layers are, unless arguments say otherwise. Gold is what lies in the lake."""


class JobError(Exception):
    """Something that a person has to mend, and another try would find again; shown without a traceback."""


def folder_of(run: str) -> str:
    """A run's id as the name of a folder: file systems of Hadoop take no colons."""
    return re.sub(r"[^A-Za-z0-9_.-]", "-", run)


class Job:
    """A run of a job, with what it counted and checked so far."""

    def __init__(self, name: str, layer: str, arguments: argparse.Namespace, spark: SparkSession) -> None:
        self.name, self.layer, self.arguments, self.spark = name, layer, arguments, spark
        self.run: str = arguments.run
        self.files = Files(spark)
        self.started = datetime.now(UTC)
        self.counts: dict[str, dict[str, int]] = {}
        self.checks: list[dict[str, Any]] = []
        self._clock = time.monotonic()

    def uri(self, layer: str, *parts: str) -> str:
        """Address of something in a layer's bucket."""
        return "/".join((getattr(self.arguments, layer).rstrip("/"), *parts))

    def say(self, text: str) -> None:
        """A line of the job's log, with the seconds since it began."""
        print(f"[{time.monotonic() - self._clock:6.1f} s] {text}", flush=True)

    def count(self, table: str, **counts: int) -> None:
        """Add to what is counted of a table: rows read, written, quarantined and so on."""
        known = self.counts.setdefault(table, {})
        for what, number in counts.items():
            known[what] = known.get(what, 0) + number
        self.say(f"{table}: " + ", ".join(f"{number} {what}" for what, number in counts.items()))

    def check(self, name: str, *, expected: Any, found: Any) -> None:
        """Compare two numbers. A difference fails the job, after all of its tables are written."""
        passed = expected == found
        self.checks.append(
            {"check": name, "expected": float(expected), "found": float(found), "passed": passed}
        )
        self.say(f"check {name}: {'passed' if passed else f'FAILED, expected {expected}, found {found}'}")

    @property
    def failed_checks(self) -> str | None:
        """The error that they make, or None."""
        failed = [check["check"] for check in self.checks if not check["passed"]]
        return f"checks failed: {', '.join(failed)}" if failed else None

    @property
    def report_uri(self) -> str:
        """Where the report goes."""
        return self.uri(self.layer, "_reports", folder_of(self.run), f"{self.name}.json")

    def summary(self, state: str, error: str | None = None, *, retry: bool = False) -> dict[str, Any]:
        """The report: ``state`` is running, succeeded or failed, ``retry`` whether another try may help."""
        return {
            "job": self.name,
            "run": self.run,
            "state": state,
            "started": self.started.isoformat(timespec="seconds"),
            "seconds": round(time.monotonic() - self._clock, 1),
            "application": self.spark.sparkContext.applicationId,
            "counts": self.counts,
            "checks": self.checks,
            "error": error,
            "retry": retry,
        }

    def report(self, state: str, error: str | None = None, *, retry: bool = False) -> dict[str, Any]:
        """Write the report. Of a job that runs again in the same run the last one stays."""
        report = self.summary(state, error, retry=retry)
        self.files.write(self.report_uri, json.dumps(report, indent=1))
        return report


def run(
    name: str,
    layer: str,
    body: Callable[[Job], None],
    argv: Sequence[str] | None = None,
    more: Callable[[argparse.ArgumentParser], None] | None = None,
) -> dict[str, Any]:
    """Run a job that writes the tables of ``layer``, and return its report.

    ``more`` adds arguments of the job's own.

    Raises:
        SystemExit: when it failed; the report says why.
    """
    parser = argparse.ArgumentParser(prog=name)
    parser.add_argument("--run", required=True, help="id of the run, as the scheduler calls it")
    for bucket, uri in BUCKETS.items():
        parser.add_argument(f"--{bucket}", default=uri, help=f"address of the bucket {bucket}")
    if more:
        more(parser)
    arguments = parser.parse_args(argv)
    spark = session(name, arguments.run)
    job = Job(name, layer, arguments, spark)
    try:
        return _locked(job, body)
    finally:
        if argv is None:
            spark.stop()


def _locked(job: Job, body: Callable[[Job], None]) -> dict[str, Any]:
    lock = WriterLock(job.files, job.uri(job.layer), f"{job.name} of {job.run}")
    error, retry = None, False
    try:
        lock.acquire()
        try:
            job.report("running")
            body(job)
        finally:
            for query in job.spark.streams.active:
                query.stop()
            lock.release()
        error = job.failed_checks
    except JobError as problem:
        error = str(problem)
    except Exception as problem:
        traceback.print_exc()
        # Spark's messages go on with whole stacks of the JVM; what happened stands at the top.
        lines = f"{type(problem).__name__}: {problem}".strip().splitlines()
        error, retry = "\n".join(line for line in lines if not line.lstrip().startswith("at "))[:2000], True
    report = job.report("failed" if error else "succeeded", error, retry=retry)
    print(json.dumps(report), flush=True)
    if error:
        print(f"{job.name}: {error}", file=sys.stderr, flush=True)
        raise SystemExit(1)
    return report


def session(name: str, run: str) -> SparkSession:
    """The session, set up for small data and tables that every reader of Delta understands."""
    builder = SparkSession.builder.appName(name)
    keys = {"access": "AWS_ACCESS_KEY_ID", "secret": "AWS_SECRET_ACCESS_KEY"}
    for part, variable in keys.items():
        if variable in os.environ:
            # Executors have another environment, and fetch the modules of the program themselves.
            builder = builder.config(f"spark.hadoop.fs.s3a.{part}.key", os.environ[variable])
    spark = builder.getOrCreate()
    small = str(max(2, spark.sparkContext.defaultParallelism))
    for key, value in {
        # In UTC, days and hours are the same wherever the cluster stands.
        "spark.sql.session.timeZone": "UTC",
        # More would be tasks with a handful of rows each.
        "spark.sql.shuffle.partitions": small,
        # Planning again after each stage would cost more than it can gain here.
        "spark.sql.adaptive.enabled": "false",
        # And a vacuum would list a folder in 10,000 tasks.
        "spark.sql.sources.parallelPartitionDiscovery.parallelism": small,
        # Each commit says which run made it.
        "spark.databricks.delta.commitInfo.userMetadata": run,
        # Deletion vectors are beyond PrestoDB and some clients of Delta Sharing.
        "spark.databricks.delta.properties.defaults.enableDeletionVectors": "false",
        # Of a stream's bookmark, files of a few runs are enough.
        "spark.sql.streaming.minBatchesToRetain": "20",
    }.items():
        spark.conf.set(key, value)
    # Spark's own news fill the task's log, a plan a line; what the job says is its output.
    spark.sparkContext.setLogLevel("WARN")
    return spark
