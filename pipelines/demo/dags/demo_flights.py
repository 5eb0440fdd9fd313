"""New raw files of flights to figures about punctuality: bronze, silver, gold."""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.sdk import chain, dag
from demo_lib.spark import SparkJob, schedule


@dag(
    schedule=schedule(),
    start_date=datetime(2025, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    tags=["demo"],
    description="Flights: raw files to punctuality",
    doc_md=__doc__,
)
def demo_flights() -> None:
    """See the module's description."""
    chain(
        *(
            SparkJob(task_id=layer, program=f"{layer}_flights", layer=layer)
            for layer in ("bronze", "silver", "gold")
        )
    )


demo_flights()
