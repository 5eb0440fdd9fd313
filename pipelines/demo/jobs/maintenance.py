"""Upkeep of a bucket's tables: small files become few, and what no version needs is deleted.

Files that no version of a table of the last days refers to are deleted (``--keep-hours``): readers of older
versions would miss them. Reports of runs go after ``--keep-reports-days``; the table ``job_runs`` keeps what
they say.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

from common import Job, run
from delta.tables import DeltaTable
from tables import exists

KEEP_HOURS = {"bronze": 30 * 24, "silver": 7 * 24, "lake": 7 * 24}
"""Bronze longer: silver reads its versions one after the other, and may have stood still for weeks."""


def main(argv: Sequence[str] | None = None) -> dict[str, object]:
    """Keep up the tables of ``--layer``."""
    known = argparse.ArgumentParser(add_help=False)
    known.add_argument("--layer", required=True, choices=tuple(KEEP_HOURS))
    layer = known.parse_known_args(argv)[0].layer
    return run(f"maintenance_{layer}", layer, keep_up, argv, more)


def more(parser: argparse.ArgumentParser) -> None:
    """Arguments besides those of every job."""
    parser.add_argument("--layer", required=True, choices=tuple(KEEP_HOURS), help="whose tables")
    parser.add_argument("--keep-hours", type=float, help="how long replaced files stay")
    parser.add_argument("--keep-reports-days", type=float, default=14, help="how long reports stay")


def keep_up(job: Job) -> None:
    """See the module's description."""
    hours = job.arguments.keep_hours
    hours = KEEP_HOURS[job.layer] if hours is None else hours
    for schema in job.files.folders(job.uri(job.layer)):
        for name in () if schema.startswith(("_", ".")) else job.files.folders(job.uri(job.layer, schema)):
            uri = job.uri(job.layer, schema, name)
            if exists(job, uri):
                _table(job, uri, f"{schema}/{name}", hours)
    oldest = (time.time() - 86400 * job.arguments.keep_reports_days) * 1000
    old = [file.uri for file in job.files.below(job.uri(job.layer, "_reports")) if file.modified < oldest]
    for uri in old:
        job.files.delete(uri)
    job.say(f"{len(old)} old reports deleted")


def _table(job: Job, uri: str, name: str, hours: float) -> None:
    table = DeltaTable.forPath(job.spark, uri)
    before = _files(job, uri)
    if before > 1:
        table.optimize().executeCompaction()
    table.vacuum(hours)
    job.count(name, files_before=before, files_after=_files(job, uri))


def _files(job: Job, uri: str) -> int:
    return len(job.spark.read.format("delta").load(uri).inputFiles())


if __name__ == "__main__":
    main()
