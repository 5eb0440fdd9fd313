"""Gold of the shop: how its branches do, and who buys.

======================  =========================================================================
``branch_performance``  a row for each branch
``orders``              orders of the branch, whatever their status
``delivered``           those among them with the status DELIVERED
``average_delivery_hours``  from the creation of an order to its first DELIVERED in the history, over
                        delivered orders that have one; rounded to 2 digits
``revenue``             sum of the amounts of all orders
``segment_revenue``     orders and revenue by market segment and nation of the customer, of TPC-H
======================  =========================================================================

The tables are made anew from silver each time: what ran before makes no difference.
"""

from __future__ import annotations

from collections.abc import Sequence

from common import Job, run
from gold import average, make
from pyspark.sql import functions as F  # noqa: N812
from tables import exists, read, replace

NAME = "gold_retail"

_HOUR = 3_600_000_000
"""In microseconds."""


def main(argv: Sequence[str] | None = None) -> dict[str, object]:
    """Make the tables."""
    return run(NAME, "lake", lambda job: make(job, tables), argv)


def tables(job: Job) -> None:
    """See the module's description."""
    if not all(exists(job, job.uri("silver", "retail", name)) for name in ("orders", "status_changes")):
        job.say("no orders in silver yet")
        return
    _branch_performance(job)
    if exists(job, job.uri("silver", "retail", "customers")):
        _segment_revenue(job)
    else:
        job.say("no customers in silver: segment_revenue is left out")


def _branch_performance(job: Job) -> None:
    orders = read(job, "silver", "retail", "orders")
    changes = read(job, "silver", "retail", "status_changes").where("status = 'DELIVERED'")
    arrived = changes.groupBy("order_id").agg(F.min("changed_at").alias("delivered_at"))
    delivered = F.col("status") == "DELIVERED"
    took = F.unix_micros("delivered_at") - F.unix_micros("created_at")
    timed = delivered & F.col("delivered_at").isNotNull()
    sums = (
        orders.join(arrived, "order_id", "left")
        .groupBy("branch_id")
        .agg(
            F.count(F.lit(1)).alias("orders"),
            F.count_if(delivered).alias("delivered"),
            F.sum(F.when(timed, took)).alias("_took"),
            F.count_if(timed).alias("_timed"),
            F.sum("amount").cast("decimal(18,2)").alias("revenue"),
        )
    )
    branches = read(job, "silver", "retail", "branches")
    rows = branches.join(sums, "branch_id", "left").select(
        "branch_id",
        F.col("name").alias("branch"),
        "city",
        "region",
        F.coalesce("orders", F.lit(0)).alias("orders"),
        F.coalesce("delivered", F.lit(0)).alias("delivered"),
        average(F.col("_took"), F.col("_timed") * _HOUR).alias("average_delivery_hours"),
        F.coalesce("revenue", F.lit(0).cast("decimal(18,2)")).alias("revenue"),
    )
    uri = job.uri("lake", "retail", "branch_performance")
    replace(rows.coalesce(1).sortWithinPartitions("branch_id"), uri)
    expected = orders.agg(F.count(F.lit(1)), F.coalesce(F.sum("amount"), F.lit(0))).first()
    found = (
        read(job, "lake", "retail", "branch_performance")
        .agg(F.coalesce(F.sum("orders"), F.lit(0)), F.coalesce(F.sum("revenue"), F.lit(0)), F.count(F.lit(1)))
        .first()
    )
    assert expected is not None
    assert found is not None
    job.count("retail/branch_performance", read=expected[0], written=found[2])
    job.check("branch_performance: all orders", expected=expected[0], found=found[0])
    job.check("branch_performance: all revenue", expected=expected[1], found=found[1])


def _segment_revenue(job: Job) -> None:
    orders = read(job, "silver", "retail", "orders").select("customer_id", "amount")
    customers = read(job, "silver", "retail", "customers").select("customer_id", "market_segment", "nation")
    rows = (
        orders.join(F.broadcast(customers), "customer_id", "left")
        .groupBy(
            F.coalesce("market_segment", F.lit("unknown")).alias("market_segment"),
            F.coalesce("nation", F.lit("unknown")).alias("nation"),
        )
        .agg(F.count(F.lit(1)).alias("orders"), F.sum("amount").cast("decimal(18,2)").alias("revenue"))
    )
    uri = job.uri("lake", "retail", "segment_revenue")
    replace(rows.coalesce(1).sortWithinPartitions("market_segment", "nation"), uri)
    found = (
        read(job, "lake", "retail", "segment_revenue")
        .agg(F.coalesce(F.sum("orders"), F.lit(0)), F.count(F.lit(1)))
        .first()
    )
    assert found is not None
    total = orders.count()
    job.count("retail/segment_revenue", read=total, written=found[1])
    job.check("segment_revenue: all orders", expected=total, found=found[0])


if __name__ == "__main__":
    main()
