"""Silver of the shop: orders as they are now, when they were delivered, each event once, and who bought.

Of an order's versions that of the latest transaction stands, so a late change shows. Events are known by
their id: Kafka may bring one twice. What cannot be right goes to quarantine with the reason.
"""

from __future__ import annotations

from collections.abc import Sequence

from common import Job, run
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F  # noqa: N812
from reports import forward
from tables import RAW, REASON, SOURCE, exists, read, reasons, refine, renew, unless

NAME = "silver_retail"

STATUSES = ("NEW", "INTRANSIT", "DELIVERED")

_EVENT = {
    "event_id": "bigint",
    "order_id": "bigint",
    "branch_id": "int",
    "customer_id": "int",
    "amount": "decimal(12,2)",
    "status": "string",
    "occurred_at": "timestamp",
}


def main(argv: Sequence[str] | None = None) -> dict[str, object]:
    """Refine what is new in bronze."""
    return run(NAME, "silver", refine_all, argv)


def refine_all(job: Job) -> None:
    """See the module's description."""
    refine(job, "retail/orders", "retail/orders", _orders, ("order_id",), ("changed_in",))
    refine(job, "retail/order_history", "retail/status_changes", _history, ("history_id",), ("changed_in",))
    refine(
        job,
        "retail/order_events",
        "retail/order_events",
        _events,
        ("event_id",),
        # The copy that came first stays.
        ("_first",),
        newer_wins=False,
    )
    _branches(job)
    _customers(job)
    _check(job)
    forward(job)


def _orders(rows: DataFrame) -> DataFrame:
    return _judged(
        rows,
        "orders",
        [
            *_order_rules(),
            unless(F.col("updated_at") >= F.col("created_at"), "updated before it was created"),
        ],
    )


def _history(rows: DataFrame) -> DataFrame:
    return _judged(rows, "order_history", [_known_status(), _there("order_id"), _there("changed_at")])


def _judged(rows: DataFrame, table: str, found: Sequence[Column]) -> DataFrame:
    """Rows of the database, whose types are right already, with what is wrong with them."""
    own = [name for name in rows.columns if not name.startswith("_")]
    return rows.select(
        *own,
        reasons(found).alias(REASON),
        F.to_json(F.struct(*own)).alias(RAW),
        F.lit(f"shop.{table}").alias(SOURCE),
    )


def _order_rules() -> list[Column]:
    return [
        *(_there(name) for name in ("order_id", "branch_id", "customer_id", "amount")),
        _known_status(),
        unless(F.col("amount") >= 0, "amount is below zero"),
    ]


def _there(name: str) -> Column:
    return unless(F.col(name).isNotNull(), f"no {name}")


def _known_status() -> Column:
    known = F.col("status").isin(*STATUSES)
    return unless(F.coalesce(known, F.lit(False)), f"status is none of {', '.join(STATUSES)}")


def _events(rows: DataFrame) -> DataFrame:
    """Messages as typed events. Numbers may come as text, as long as they are numbers."""
    valid = F.is_valid_utf8("value")
    fields = F.from_json(F.when(valid, F.col("value").cast("string")), "MAP<STRING,STRING>")
    place = F.concat_ws(
        "/", F.lit("kafka"), "topic", F.col("partition").cast("string"), F.col("offset").cast("string")
    )
    parsed = rows.withColumns({"_fields": fields, "_valid": valid})
    values = {name: F.try_element_at("_fields", F.lit(name)) for name in _EVENT}
    texts = parsed.select(
        *(values[name].alias(f"_text_{name}") for name in _EVENT),
        *(values[name].try_cast(kind).alias(name) for name, kind in _EVENT.items()),
        F.col("_fields").isNotNull().alias("_json"),
        "_valid",
        # Of copies the first in its partition; all copies of an event are in one, by the key.
        (-F.col("offset")).alias("_first"),
        F.coalesce(F.make_valid_utf8(F.col("value").cast("string")), F.lit("")).alias(RAW),
        place.alias(SOURCE),
    )
    wrong = [
        unless(F.col(name).isNotNull() | F.col(f"_text_{name}").isNull(), f"{name} is no {kind}")
        for name, kind in _EVENT.items()
    ]
    # What is no number of the right kind is said once, not as missing too.
    rules = [unless(F.col(f"_text_{name}").isNotNull(), f"no {name}") for name in _EVENT]
    status = F.when(F.col("_text_status").isNotNull(), _known_status())
    amount = unless(F.col("amount") >= 0, "amount is below zero")
    reason = (
        F.when(~F.col("_valid"), F.lit("not text in UTF-8"))
        .when(~F.col("_json"), F.lit("not a JSON object"))
        .otherwise(reasons([*rules, *wrong, status, amount]))
    )
    return texts.withColumn(REASON, reason).select(*_EVENT, "_first", REASON, RAW, SOURCE)


def _branches(job: Job) -> None:
    rows = read(job, "bronze", "retail", "branches")
    renew(job, rows.drop("_run").withColumn("_run", F.lit(job.run)), "silver", "retail/branches")


def _customers(job: Job) -> None:
    """Customers of TPC-H with their nation, where both are there."""
    if not all(exists(job, job.uri("bronze", "tpch", name)) for name in ("customer", "nation")):
        job.say("tpch is not there: retail/customers is left out")
        return
    nations = read(job, "bronze", "tpch", "nation").select("nationkey", F.col("name").alias("nation"))
    rows = read(job, "bronze", "tpch", "customer").join(F.broadcast(nations), "nationkey", "left")
    rows = rows.select(
        F.col("custkey").try_cast("int").alias("customer_id"),
        "name",
        F.col("mktsegment").alias("market_segment"),
        "nation",
        F.lit(job.run).alias("_run"),
    )
    renew(job, rows, "silver", "retail/customers")


def _check(job: Job) -> None:
    """Nothing doubled, nothing without its branch."""
    if not exists(job, job.uri("silver", "retail", "orders")):
        return
    orders = read(job, "silver", "retail", "orders")
    found = orders.agg(F.count(F.lit(1)).alias("rows"), F.countDistinct("order_id").alias("orders")).first()
    assert found is not None
    job.check("orders: one row each", expected=found["orders"], found=found["rows"])
    branches = read(job, "silver", "retail", "branches")
    job.check(
        "orders: without a branch", expected=0, found=orders.join(branches, "branch_id", "left_anti").count()
    )
    if exists(job, job.uri("silver", "retail", "order_events")):
        events = read(job, "silver", "retail", "order_events")
        found = events.agg(
            F.count(F.lit(1)).alias("rows"), F.countDistinct("event_id").alias("events")
        ).first()
        assert found is not None
        job.check("order_events: one row each", expected=found["events"], found=found["rows"])


if __name__ == "__main__":
    main()
