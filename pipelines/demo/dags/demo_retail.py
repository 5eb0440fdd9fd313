"""The shop's orders and events to figures about branches and customers: bronze, silver, gold.

Customers are those of TPC-H, which a task fetches from Presto or Trino. Without either it is skipped, and
the figures by market segment are left out.
"""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.providers.amazon.aws.hooks.s3 import S3Hook
from airflow.sdk import Connection, chain, dag, task
from airflow.sdk.exceptions import AirflowNotFoundException, AirflowSkipException
from demo_lib.spark import SparkJob, bucket, schedule

TPCH = {"customer": ("custkey", "name", "nationkey", "mktsegment"), "nation": ("nationkey", "name")}
"""Tables of ``tpch.tiny`` and the columns that are wanted."""


@task(retries=2, retry_delay=timedelta(seconds=20), execution_timeout=timedelta(minutes=5))
def export_tpch() -> dict[str, int]:
    """Put tables of Presto's catalog ``tpch`` into the raw bucket, as CSV."""
    hook = presto()
    store = S3Hook("demo_export")
    counts = {}
    for table, columns in TPCH.items():
        rows = hook.get_records(
            f"SELECT {', '.join(columns)} FROM tpch.tiny.{table} ORDER BY {columns[0]}"  # noqa: S608
        )
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([columns, *rows])
        store.load_string(text.getvalue(), f"tpch/{table}.csv", bucket("raw"), replace=True)
        counts[table] = len(rows)
        print(f"raw/tpch/{table}.csv: {len(rows)} rows")
    return counts


def presto() -> Any:
    """The hook of the engine that is there; skips the task when none is."""
    for name in ("trino_default", "presto_default"):
        try:
            Connection.get(name)
        except AirflowNotFoundException:
            continue
        if name.startswith("trino"):
            from airflow.providers.trino.hooks.trino import TrinoHook

            return TrinoHook(name)
        from airflow.providers.presto.hooks.presto import PrestoHook

        return PrestoHook(name)
    raise AirflowSkipException("Presto is off: no customers of TPC-H, no figures by market segment")


@dag(
    schedule=schedule(),
    start_date=datetime(2025, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    tags=["demo"],
    description="Shop: orders and events to branches and segments",
    doc_md=__doc__,
)
def demo_retail() -> None:
    """See the module's description."""
    chain(
        export_tpch(),
        SparkJob(
            task_id="bronze",
            program="bronze_retail",
            layer="bronze",
            sources=True,
            # Also when there was nothing to export.
            trigger_rule="none_failed",
        ),
        *(SparkJob(task_id=layer, program=f"{layer}_retail", layer=layer) for layer in ("silver", "gold")),
    )


demo_retail()
