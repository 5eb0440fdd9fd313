"""What both jobs of gold do: exact averages, checks of their own work, and the tables of operations."""

from __future__ import annotations

from collections.abc import Callable

from common import Job
from pyspark.sql import Column
from pyspark.sql import functions as F  # noqa: N812
from reports import collect


def average(total: Column, count: Column) -> Column:
    """A quotient of whole numbers, rounded half up to 2 digits; null of nothing.

    In decimals: a floating-point number for 0.125 and its like could go either way.
    """
    parts = F.nullif(count, F.lit(0)).cast("decimal(18,0)")
    return F.round(total.cast("decimal(20,0)") / parts, 2).cast("double")


def make(job: Job, tables: Callable[[Job], None]) -> None:
    """Make a job's tables and put the reports of the run, this one as well, into those of operations."""
    tables(job)
    error = job.failed_checks
    collect(job, job.summary("failed" if error else "succeeded", error))
