"""Delta Sharing through the proxy, with the official Python client and the profile files of the outputs."""

from __future__ import annotations

import datetime as dt
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import delta_sharing
import httpx
import pandas as pd
import pyarrow as pa
import pytest
import requests
from delta_sharing.protocol import DeltaSharingProfile
from delta_sharing.rest_client import DataSharingRestClient
from deltalake import DeltaTable, write_deltalake

from tests.integration.clients import ca_file
from tests.integration.stack import ANSWER_S, Stack
from tests.integration.web import Web, local_names

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def rows(start: int, end: int) -> pa.Table:
    return pa.table(
        {
            "id": list(range(start, end)),
            "amount": [i * 1.25 for i in range(start, end)],
            "day": [dt.date(2024, 1, 1 + i % 3) for i in range(start, end)],
            "note": [None if i % 5 == 0 else f"räksmörgås {i}/%25" for i in range(start, end)],
        }
    )


@pytest.fixture(scope="module")
def shared(everything: Stack) -> Iterator[Stack]:
    """The stack with a table in its lake; this process is somebody outside who trusts the platform's CA."""
    options = {
        "aws_endpoint": f"https://localhost:{everything.config['object_store']['loopback_port']}",
        "aws_access_key_id": "root",
        "aws_secret_access_key": everything.outputs_once["credentials"]["object_store"]["root"],
        "aws_region": "us-east-1",
        "aws_conditional_put": "etag",
    }
    ca = ca_file(everything)
    with pytest.MonkeyPatch.context() as patch, local_names():
        # What the clients' HTTP libraries take the CAs they trust from.
        for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE"):
            patch.setenv(name, ca)
        for name in [n for n in os.environ if n.lower().endswith("_proxy")]:
            patch.delenv(name)
        place = "s3://lake/shop/orders"
        changes = {"delta.enableChangeDataFeed": "true"}
        write_deltalake(place, rows(0, 300), partition_by=["day"], configuration=changes,
                        storage_options=options, mode="overwrite")  # fmt: skip
        write_deltalake(place, rows(300, 400), mode="append", storage_options=options)
        DeltaTable(place, storage_options=options).update(predicate="id = 7", updates={"amount": "-1.0"})
        DeltaTable(place, storage_options=options).delete("id >= 350")
        yield everything


@pytest.fixture(scope="module")
def first(shared: Stack) -> int:
    """Version of the first write; a volume that was kept holds earlier ones."""
    return version(shared) - 3


def profile(stack: Stack, name: str, tmp_path: Path) -> str:
    """The profile file as somebody was sent it."""
    path = tmp_path / f"{name}.share"
    path.write_text(stack.outputs_once["connections"]["delta_sharing"]["profiles"][name])
    return str(path)


def version(stack: Stack) -> int:
    found = ask(stack, "/shares/sales/schemas/shop/tables/orders/version")
    return int(found.headers["delta-table-version"])


def ask(stack: Stack, path: str, token: str | None = None, **more: Any) -> httpx.Response:
    token = stack.outputs_once["credentials"]["delta_sharing"]["everyone"] if token is None else token
    headers = {"Authorization": f"Bearer {token}", **more.pop("headers", {})}
    return Web(stack).get("sharing", f"/delta-sharing{path}", headers=headers, **more)


def test_the_profile_is_what_clients_expect(shared: Stack) -> None:
    offered = shared.outputs_once["connections"]["delta_sharing"]
    content = json.loads(offered["profiles"]["everyone"])
    assert content == {
        "shareCredentialsVersion": 1,
        "endpoint": f"https://sharing.data.localhost:{Web(shared).https_port}/delta-sharing",
        "bearerToken": shared.outputs_once["credentials"]["delta_sharing"]["everyone"],
        "expirationTime": "2099-01-01T00:00:00.0Z",
    }
    assert "expirationTime" not in json.loads(offered["profiles"]["partner"])


def test_the_python_client_lists_its_tables(shared: Stack, tmp_path: Path) -> None:
    client = delta_sharing.SharingClient(profile(shared, "partner", tmp_path))
    assert [share.name for share in client.list_shares()] == ["sales"]
    assert sorted(table.name for table in client.list_all_tables()) == ["mapped", "newest", "orders"]
    everyone = delta_sharing.SharingClient(profile(shared, "everyone", tmp_path))
    assert [share.name for share in everyone.list_shares()] == ["sales", "internal"]


def test_the_python_client_loads_a_table(shared: Stack, tmp_path: Path) -> None:
    found = delta_sharing.load_as_pandas(f"{profile(shared, 'partner', tmp_path)}#sales.shop.orders")
    assert sorted(found["id"]) == list(range(350))
    assert found["amount"].sum() == sum(i * 1.25 for i in range(350)) - 7 * 1.25 - 1.0
    assert found.loc[found["id"] == 7, "amount"].tolist() == [-1.0]
    assert found["note"].isna().sum() == 70
    assert found.loc[found["id"] == 201, "note"].tolist() == ["räksmörgås 201/%25"]
    assert found.groupby(found["day"].astype(str))["id"].count().to_dict() == {
        "2024-01-01": 117,
        "2024-01-02": 117,
        "2024-01-03": 116,
    }


def test_limit_and_version(shared: Stack, first: int, tmp_path: Path) -> None:
    url = f"{profile(shared, 'partner', tmp_path)}#sales.shop.orders"
    assert len(delta_sharing.load_as_pandas(url, limit=5)) == 5
    assert delta_sharing.load_as_pandas(url, limit=0).columns.tolist() == ["id", "amount", "day", "note"]
    assert len(delta_sharing.load_as_pandas(url, version=first)) == 300
    assert len(delta_sharing.load_as_pandas(url, version=first + 1)) == 400
    assert delta_sharing.get_table_version(url) == first + 3


def test_predicates_leave_files_out(shared: Stack, tmp_path: Path) -> None:
    url = f"{profile(shared, 'partner', tmp_path)}#sales.shop.orders"
    hint = {
        "op": "equal",
        "children": [
            {"op": "column", "name": "day", "valueType": "date"},
            {"op": "literal", "value": "2024-01-02", "valueType": "date"},
        ],
    }
    found = delta_sharing.load_as_pandas(url, jsonPredicateHints=json.dumps(hint))
    assert set(found["day"].astype(str)) == {"2024-01-02"}
    assert len(found) == 117


def test_the_change_data_feed(shared: Stack, first: int, tmp_path: Path) -> None:
    url = f"{profile(shared, 'partner', tmp_path)}#sales.shop.orders"
    found = delta_sharing.load_table_changes_as_pandas(url, starting_version=first + 1)
    counts = found.groupby(["_commit_version", "_change_type"])["id"].count().to_dict()
    assert counts == {
        (first + 1, "insert"): 100,
        (first + 2, "update_preimage"): 1,
        (first + 2, "update_postimage"): 1,
        (first + 3, "delete"): 50,
    }
    changed = found[found["_change_type"].str.startswith("update")].set_index("_change_type")["amount"]
    assert changed.to_dict() == {"update_preimage": 8.75, "update_postimage": -1.0}
    assert pd.to_datetime(found["_commit_timestamp"], unit="ms").max().year >= 2024


def test_history_stays_private_where_it_is_not_shared(shared: Stack, tmp_path: Path) -> None:
    url = f"{profile(shared, 'partner', tmp_path)}#sales.shop.newest"
    assert len(delta_sharing.load_as_pandas(url)) == 350
    with pytest.raises(requests.HTTPError, match="history"):
        delta_sharing.load_as_pandas(url, version=0)


def test_delta_format(shared: Stack) -> None:
    header = {"delta-sharing-capabilities": "responseformat=delta;readerfeatures=columnmapping"}
    path = "/shares/sales/schemas/shop/tables/orders/query"
    answer = ask(shared, path, method="POST", json={}, headers=header)
    assert answer.headers["delta-sharing-capabilities"] == "responseformat=delta"
    protocol, metadata, *files = [json.loads(line) for line in answer.text.splitlines()]
    assert protocol["protocol"]["deltaProtocol"]["minReaderVersion"] == 1
    assert metadata["metaData"]["numFiles"] == len(files)
    actions = [line["file"]["deltaSingleAction"]["add"] for line in files]
    assert sum(json.loads(action["stats"])["numRecords"] for action in actions) == 350


# -- refused


def client(stack: Stack, token: str) -> DataSharingRestClient:
    endpoint = stack.outputs_once["connections"]["delta_sharing"]["public_endpoint"]
    return DataSharingRestClient(
        DeltaSharingProfile(share_credentials_version=1, endpoint=endpoint, bearer_token=token), num_retries=0
    )


def test_a_wrong_token_is_refused(shared: Stack) -> None:
    with pytest.raises(requests.HTTPError) as caught:
        client(shared, "A" * 32).list_shares()
    assert caught.value.response.status_code == 401
    assert ask(shared, "/shares", "").status_code == 401


def test_an_expired_token_is_refused(shared: Stack, tmp_path: Path) -> None:
    with pytest.raises(requests.HTTPError, match="expired"):
        delta_sharing.SharingClient(profile(shared, "former", tmp_path)).list_shares()


def test_another_share_is_refused(shared: Stack, tmp_path: Path) -> None:
    with pytest.raises(requests.HTTPError) as caught:
        delta_sharing.load_as_pandas(f"{profile(shared, 'partner', tmp_path)}#internal.shop.orders")
    assert caught.value.response.status_code == 404
    url = f"{profile(shared, 'everyone', tmp_path)}#internal.shop.orders"
    assert len(delta_sharing.load_as_pandas(url)) == 350


def test_a_table_without_data_yet(shared: Stack) -> None:
    answer = ask(shared, "/shares/sales/schemas/shop/tables/mapped/version")
    assert (answer.status_code, answer.json()["errorCode"]) == (404, "RESOURCE_DOES_NOT_EXIST")


def test_files_need_their_signature(shared: Stack) -> None:
    answer = ask(
        shared, "/shares/sales/schemas/shop/tables/orders/query", method="POST", json={"limitHint": 1}
    )
    url = json.loads(answer.text.splitlines()[2])["file"]["url"]
    assert url.startswith(f"https://s3.data.localhost:{Web(shared).https_port}/lake/shop/orders/day%3D")
    assert requests.get(url, timeout=ANSWER_S).content[:4] == b"PAR1"
    assert requests.get(url.partition("?")[0], timeout=ANSWER_S).status_code == 403
    # Signed for reading, and for this file.
    assert requests.put(url, data=b"x", timeout=ANSWER_S).status_code == 403
    assert requests.get(url.replace("/lake/", "/raw/", 1), timeout=ANSWER_S).status_code == 403


def test_the_probe_is_not_offered_outside(shared: Stack) -> None:
    assert Web(shared).get("sharing", "/healthz").status_code == 404


def test_a_rotated_token_replaces_the_old_one(shared: Stack) -> None:
    old = shared.outputs_once["credentials"]["delta_sharing"]["partner"]
    assert ask(shared, "/shares", old).status_code == 200
    with shared.changed(rotation={"delta_sharing/partner": "2026-11"}):
        shared.up()
        new = shared.outputs_once["credentials"]["delta_sharing"]["partner"]
        assert new != old
        assert ask(shared, "/shares", new).status_code == 200
        assert ask(shared, "/shares", old).status_code == 401
    shared.up()
