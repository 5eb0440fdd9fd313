"""The demo in short: flights from raw files to figures, and what each part may do.

`make demo-test` has the whole of it: the shop as well, and faults on the way.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import delta_sharing
import psycopg
import pytest
import requests
from minio.error import S3Error

from tests.e2e import expected, readers
from tests.e2e.demo_stack import Demo
from tests.e2e.readers import Table
from tests.integration import clients

DAG = "demo_flights"
COLUMNS = {table: names for table, names in expected.COLUMNS.items() if table.startswith("flights.")}

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def refined(demo: Demo, request: pytest.FixtureRequest) -> Demo:
    """After a run of the flights' pipeline, the first on this stack."""
    if any(item.get_closest_marker("demo") for item in request.session.items):
        pytest.skip("the demo's own tests are among those of this run: its files are not the first ones")
    demo.run(DAG)
    return demo


@pytest.fixture(scope="module")
def wanted(refined: Demo, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Table]:
    """The figures by DuckDB, from the files as they are in the bucket."""
    folder = tmp_path_factory.mktemp("raw")
    for table in ("flights", "airlines", "airports"):
        refined.download("raw", f"flights/{table}/", folder / table, without=())
    return expected.flights(folder)


def test_figures_by_trino(refined: Demo, wanted: dict[str, Table]) -> None:
    assert sum(row[2] for row in wanted["flights.airline_punctuality"]) == 336_776
    assert readers.by_presto(refined.stack, COLUMNS) == wanted


def test_figures_by_delta_sharing(refined: Demo, wanted: dict[str, Table], tmp_path: Path) -> None:
    assert readers.by_sharing(refined.stack, COLUMNS, tmp_path) == wanted


def test_figures_by_superset(refined: Demo, wanted: dict[str, Table]) -> None:
    found = readers.by_superset(refined.stack, COLUMNS)
    assert found == {"flights.airline_punctuality": wanted["flights.airline_punctuality"]}


# -- rights


def test_the_recipient_reads_what_is_shared_and_nothing_else(demo: Demo, tmp_path: Path) -> None:
    text = demo.stack.outputs_once["connections"]["delta_sharing"]["profiles"]["analyst-partner"]
    (tmp_path / "partner.share").write_text(text)
    client = delta_sharing.SharingClient(tmp_path / "partner.share")
    assert [share.name for share in client.list_shares()] == ["retail"]
    tables = {f"{t.share}.{t.schema}.{t.name}" for t in client.list_all_tables()}
    assert tables == {"retail.retail.branch_performance", "retail.retail.segment_revenue"}
    for other in ("flights.flights.airline_punctuality", "retail.retail.orders", "sales.shop.orders"):
        with pytest.raises(requests.HTTPError) as caught:
            delta_sharing.load_as_pandas(f"{tmp_path / 'partner.share'}#{other}")
        assert caught.value.response.status_code == 404
    # There is no credential of the object store in it.
    assert set(json.loads(text)) == {"shareCredentialsVersion", "endpoint", "bearerToken"}


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO branches VALUES (99, 'x', 'x', 'x')",
        "UPDATE orders SET amount = 0",
        "DELETE FROM orders",
        "TRUNCATE order_history",
        "CREATE TABLE mine (a int)",
        "DROP TABLE orders",
        "UPDATE simulator.progress SET next_order = 1",
        "SELECT nextval('order_history_history_id_seq')",
    ],
)
def test_sparks_role_cannot_write_to_the_shop(demo: Demo, statement: str) -> None:
    with clients.postgres(demo.stack, demo.own["database"], "shop_reader") as shop:
        assert shop.execute("SELECT count(*) FROM branches").fetchone() == (12,)
        with pytest.raises((psycopg.errors.InsufficientPrivilege, psycopg.errors.ReadOnlySqlTransaction)):
            shop.execute(statement)


RIGHTS: Mapping[str, Mapping[str, str]] = {
    "demo-bronze": {"jobs": "r", "raw": "r", "bronze": "rw"},
    "demo-silver": {"jobs": "r", "bronze": "r", "silver": "rw"},
    "demo-gold": {"jobs": "r", "silver": "r", "lake": "rw"},
    "demo-export": {"raw": "w"},
}


def allowed(action: Callable[..., Any], *arguments: Any) -> bool:
    try:
        action(*arguments)
    except S3Error as error:
        if error.code != "AccessDenied":
            raise
        return False
    return True


@pytest.mark.parametrize("user", RIGHTS)
def test_a_jobs_user_reaches_its_own_buckets_only(demo: Demo, user: str) -> None:
    root, client = (clients.object_store(demo.stack, name) for name in ("root", user))
    found: dict[str, str] = {}
    for bucket in sorted(entry.name for entry in root.list_buckets()):
        there, own = f"rights/{user}", f"rights/{user}-own"
        root.put_object(bucket, there, io.BytesIO(b"x"), 1)
        rights = "r" if allowed(client.stat_object, bucket, there) else ""
        rights += "w" if allowed(client.put_object, bucket, own, io.BytesIO(b"x"), 1) else ""
        for name in (there, own):
            root.remove_object(bucket, name)
        if rights:
            found[bucket] = rights
    assert found == RIGHTS[user]
