"""Gold tables as each of the platform's ways to read them shows them."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import delta_sharing
from deltalake import DeltaTable

from tests.e2e.checkout import EVERYONE
from tests.integration.notebooks import Lab
from tests.integration.stack import Stack, wait_until
from tests.integration.superset import Superset
from tests.integration.test_presto import rows as query
from tests.integration.web import Web

Table = list[tuple[Any, ...]]
Columns = Mapping[str, Sequence[str]]
"""Columns of each table, `<schema>.<table>`, in the order that rows are compared in."""

_NOTEBOOK = """
import json, millrace
spark = millrace.spark("exactness")
found = {}
for table, columns in json.loads('''%s''').items():
    path = "s3a://lake/" + table.replace(".", "/")
    rows = spark.read.format("delta").load(path).select(*columns).collect()
    found[table] = [[str(v) if v is not None else None for v in row] for row in rows]
spark.stop()
print("FOUND" + json.dumps(found))
"""


def plain(rows: Any) -> Table:
    """Rows in an order of their own, numbers in one exact form, whatever the reader made of them."""
    return sorted((tuple(map(_value, row)) for row in rows), key=str)


def _value(value: Any) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, datetime.date):
        return value.isoformat()
    if isinstance(value, float) and value != value:
        return None  # pandas has no other way to say that there is none
    text = str(value)
    try:
        # One number in whatever type: 7, 7.0 and Decimal("7.00").
        return Decimal(text).normalize() + 0
    except ArithmeticError:
        return text


def by_sql(stack: Stack, sql: str) -> list[list[Any]]:
    """Rows of a statement by the engine's own client, as an analyst."""
    return query(stack, sql, "analyst")


def by_spark(stack: Stack, columns: Columns) -> dict[str, Table]:
    """By a notebook's kernel, whose executors are the cluster's."""
    with Lab(Web(stack), "engineer") as lab:
        lab.save("exactness.ipynb", [_NOTEBOOK % json.dumps({k: list(v) for k, v in columns.items()})])
        (shown,) = lab.run("exactness.ipynb")
    found = json.loads(shown[shown.index("FOUND") + 5 :].strip().splitlines()[0])
    return {table: plain(rows) for table, rows in found.items()}


def by_presto(stack: Stack, columns: Columns) -> dict[str, Table]:
    """By whichever engine is on."""
    found = {}
    for table, names in columns.items():
        schema, name = table.split(".")
        listed = f"SELECT table_name FROM lake.information_schema.tables WHERE table_schema = '{schema}'"
        wait_until(lambda sql=listed, name=name: [name] in by_sql(stack, sql), every=2)
        found[table] = plain(by_sql(stack, f"SELECT {', '.join(names)} FROM lake.{table}"))
    return found


def by_sharing(stack: Stack, columns: Columns, folder: Path) -> dict[str, Table]:
    """By the official client with nothing but profile files: a recipient's, and one for the other share."""
    profiles = stack.outputs_once["connections"]["delta_sharing"]["profiles"]
    found = {}
    for table, names in columns.items():
        share = table.split(".")[0]
        profile = folder / f"{share}.share"
        profile.write_text(profiles["analyst-partner" if share == "retail" else EVERYONE])
        frame = delta_sharing.load_as_pandas(f"{profile}#{share}.{table}")
        found[table] = plain(frame[list(names)].itertuples(index=False))
    return found


def by_superset(stack: Stack, columns: Columns) -> dict[str, Table]:
    """By the dashboards' charts that show whole tables, as somebody who may only look."""
    analyst = Superset(Web(stack), "analyst")
    charts = {
        entry["slice_name"]: entry["id"]
        for entry in analyst.json("GET", "/api/v1/chart/?q=(page_size:100)")["result"]
    }
    found = {}
    for table in CHARTS.keys() & columns.keys():
        chart = CHARTS[table]
        (answer,) = analyst.json("GET", f"/api/v1/chart/{charts[chart]}/data/?force=true")["result"]
        found[table] = plain([row[name] for name in columns[table]] for row in answer["data"])
    return found


CHARTS = {
    "flights.airline_punctuality": "All airlines",
    "retail.branch_performance": "All branches",
    "retail.segment_revenue": "All market segments and nations",
}
"""The charts of `pipelines/demo/dashboards` that leave nothing of their table out."""


def quarantine(stack: Stack, table: str, key: str = "raw") -> dict[str, str]:
    """Reasons of the rows in a table of the quarantine, by their text or another column."""
    port = stack.config["object_store"]["loopback_port"]
    options = {
        "AWS_ENDPOINT_URL": f"https://localhost:{port}",
        "AWS_ACCESS_KEY_ID": "root",
        "AWS_SECRET_ACCESS_KEY": stack.outputs_once["credentials"]["object_store"]["root"],
        "AWS_REGION": "us-east-1",
    }
    rows = DeltaTable(f"s3://silver/quarantine/{table}", storage_options=options).to_pyarrow_table()
    return {row[key]: row["reason"] for row in rows.to_pylist()}
