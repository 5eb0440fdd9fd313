"""Bronze of the shop: what changed in its database, its events from Kafka, and customers of TPC-H.

**Database.** Rows carry the transaction that wrote them, ``changed_in``. A run reads those from where the
last one ended up to the oldest transaction that still runs. So none is missed that commits late, which a
bookmark of times would. The bookmark is the highest ``_horizon`` in the bronze table itself: rows and
bookmark are written in one commit or not at all. A version that was overwritten before it was read is not
seen.

**Kafka.** A stream with a checkpoint reads what is there and ends. Messages are kept as bytes, for silver to
make sense of.

**TPC-H.** Files that another task exported; where there are none, the tables are left out.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from common import Job, JobError, run
from headers import LIMIT, header_problem
from pyspark.sql import DataFrame
from pyspark.sql import functions as F  # noqa: N812
from tables import append, exists, finish, renew, written

NAME = "bronze_retail"

CHANGING: Mapping[str, str] = {
    "orders": "order_id, branch_id, customer_id, amount, status, created_at, updated_at",
    "order_history": "history_id, order_id, status, changed_at",
}
"""Tables read by bookmark, and their columns."""

TOPIC = "shop-orders"

TPCH: Mapping[str, tuple[str, ...]] = {
    "customer": ("custkey", "name", "nationkey", "mktsegment"),
    "nation": ("nationkey", "name"),
}
"""Files of ``raw/tpch``, and their columns."""


def main(argv: Sequence[str] | None = None) -> dict[str, object]:
    """Read what is new."""
    return run(NAME, "bronze", ingest, argv)


def ingest(job: Job) -> None:
    """See the module's description."""
    high = horizon(job)
    for table in CHANGING:
        _changes(job, table, high)
    _branches(job)
    _events(job)
    for table, columns in TPCH.items():
        _tpch(job, table, columns)


# -- the database


def query(job: Job, sql: str) -> DataFrame:
    """Rows of a query, read by one connection in one statement: all of one moment."""
    reader = job.spark.read.format("jdbc").option("driver", "org.postgresql.Driver").option("query", sql)
    # Without limits, in seconds, a server that is gone would be waited for as long as the network keeps
    # quiet; without a size of portions the driver would hold all rows at once.
    patience = {"connectTimeout": "20", "socketTimeout": "300", "fetchsize": "5000"}
    login = {name: os.environ[f"SHOP_JDBC_{name.upper()}"] for name in ("url", "user", "password")}
    return reader.options(**patience, **login).load()


def horizon(job: Job) -> int:
    """The oldest transaction that still runs: all before it are over and seen by everybody."""
    found = query(job, "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS horizon").first()
    assert found is not None
    return int(found[0])


def _changes(job: Job, table: str, high: int) -> None:
    uri = job.uri("bronze", "retail", table)
    low = _bookmark(job, uri)
    if high < low:
        raise JobError(
            f"{table} was read up to transaction {low}, and the database is at {high}: it is another one, or "
            f"older than what was read. Remove {uri} to read it from the start"
        )
    rows = query(
        job,
        f"SELECT {CHANGING[table]}, changed_in::text::bigint AS changed_in FROM {table} "  # noqa: S608
        f"WHERE changed_in >= '{low}'::xid8 AND changed_in < '{high}'::xid8",
    )
    append(rows.withColumns({"_horizon": F.lit(high).cast("long"), "_run": F.lit(job.run)}), uri)
    new = written(job, uri)
    job.count(f"retail/{table}", read=new, written=new)


def _bookmark(job: Job, uri: str) -> int:
    if not exists(job, uri):
        return 0
    found = job.spark.read.format("delta").load(uri).agg(F.max("_horizon")).first()
    return int(found[0]) if found and found[0] is not None else 0


def _branches(job: Job) -> None:
    rows = query(job, "SELECT branch_id, name, city, region FROM branches")
    renew(job, rows.withColumn("_run", F.lit(job.run)), "bronze", "retail/branches")


# -- Kafka


def messages(job: Job) -> DataFrame:
    """A stream of the topic, with Kafka's own columns."""
    user, password = os.environ["KAFKA_USER"], os.environ["KAFKA_PASSWORD"]
    login = "org.apache.kafka.common.security.scram.ScramLoginModule required"
    options = {
        "kafka.bootstrap.servers": os.environ["KAFKA_BOOTSTRAP"],
        "kafka.security.protocol": "SASL_SSL",
        # A managed cluster may have another one than brokers of the platform.
        "kafka.sasl.mechanism": os.environ["KAFKA_MECHANISM"],
        "kafka.sasl.jaas.config": f'{login} username="{user}" password="{password}";',
        "kafka.ssl.truststore.type": "PEM",
        "kafka.ssl.truststore.location": "/run/millrace/tls/ca.crt",
        # The user may use consumer groups of its own name.
        "groupIdPrefix": f"{user}-spark",
        "subscribe": TOPIC,
        "startingOffsets": "earliest",
        # A long absence is made up for in batches that a small executor holds.
        "maxOffsetsPerTrigger": "200000",
    }
    return job.spark.readStream.format("kafka").options(**options).load()


def _events(job: Job) -> None:
    uri = job.uri("bronze", "retail", "order_events")
    rows = messages(job).select(
        "key", "value", "topic", "partition", "offset", "timestamp", F.lit(job.run).alias("_run")
    )
    writer = rows.coalesce(1).writeStream.format("delta").outputMode("append").option("path", uri)
    finish(job, writer, "retail/order_events")
    new = written(job, uri)
    job.count("retail/order_events", read=new, written=new)


# -- TPC-H


def _tpch(job: Job, table: str, columns: tuple[str, ...]) -> None:
    file = job.uri("raw", "tpch", f"{table}.csv")
    start = job.files.read(file, LIMIT)
    if start is None:
        job.say(f"{file} is not there: tpch/{table} is left out")
        return
    problem, _ = header_problem(start, columns)
    if problem:
        raise JobError(f"{file}: {problem}")
    schema = ", ".join(f"{name} STRING" for name in columns)
    reader = job.spark.read.schema(schema).option("header", "true").option("escape", '"')
    rows = reader.option("mode", "FAILFAST").csv(file)
    renew(job, rows.withColumn("_run", F.lit(job.run)), "bronze", f"tpch/{table}")


if __name__ == "__main__":
    main()
