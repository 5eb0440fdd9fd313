"""Upkeep of the demo's tables: few files instead of many, and none that no version needs."""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.sdk import chain, dag
from demo_lib.spark import BUCKETS, SparkJob, schedule


@dag(
    # Of pipelines that run by hand only, the upkeep does, too.
    schedule=schedule() and "30 3 * * *",
    start_date=datetime(2025, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    tags=["demo"],
    description="Compact and vacuum the demo's tables",
    doc_md=__doc__,
)
def demo_maintenance() -> None:
    """See the module's description."""
    chain(
        *(
            SparkJob(
                task_id=layer,
                program="maintenance",
                job=f"maintenance_{bucket}",
                layer=layer,
                arguments=("--layer", bucket),
            )
            for layer, bucket in BUCKETS.items()
        )
    )


demo_maintenance()
