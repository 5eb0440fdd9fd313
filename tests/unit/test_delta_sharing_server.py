"""The Delta Sharing server: tokens, listings and errors by way of its HTTP interface."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sharing_sample import (
    PREFIX,
    TOKENS,
    Asker,
    client_of_lake,
    error,
    get,
    make_lake,
    of,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_lake(tmp_path_factory.mktemp("lake"))


@pytest.fixture(scope="module")
def client(folder: Path) -> Any:
    return client_of_lake(folder)


# -- who may ask


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        "Basic dG9rZW4=",
        f"Token {TOKENS['all']}",
        TOKENS["all"],
    ],
)
@pytest.mark.parametrize(
    "path", ["/shares", "/shares/sales/schemas/daily/tables/orders/metadata", "/shares/nothing"]
)
def test_without_a_valid_token_nothing_is_told(client: Any, header: str | None, path: str) -> None:
    answer = client.get(f"{PREFIX}{path}", headers={} if header is None else {"Authorization": header})
    error(answer, 401, "UNAUTHENTICATED")
    assert answer.headers["www-authenticate"] == "Bearer"


def test_an_expired_token_is_refused(client: Any) -> None:
    assert "expired" in error(get(client, "/shares", "late"), 401, "UNAUTHENTICATED")


def test_the_scheme_has_no_case(client: Any) -> None:
    answer = client.get(f"{PREFIX}/shares", headers={"Authorization": f"bearer {TOKENS['all']}"})
    assert answer.status_code == 200


def test_a_recipient_sees_only_its_shares(client: Any) -> None:
    assert [item["name"] for item in get(client, "/shares", "some").json()["items"]] == ["Sales"]
    for path in ("", "/schemas", "/all-tables", "/schemas/private/tables"):
        error(get(client, f"/shares/other{path}", "some"), 404, "RESOURCE_DOES_NOT_EXIST")
        assert get(client, f"/shares/other{path}").status_code == 200
    hidden = "/shares/other/schemas/private/tables/orders"
    for path in ("/version", "/metadata", "/changes?startingVersion=0"):
        error(get(client, f"{hidden}{path}", "some"), 404, "RESOURCE_DOES_NOT_EXIST")
        assert get(client, f"{hidden}{path}").status_code == 200


def test_what_is_hidden_and_what_is_not_there_look_alike(client: Any) -> None:
    hidden = get(client, "/shares/other/schemas/private/tables/orders/version", "some").json()["message"]
    absent = get(client, "/shares/none/schemas/private/tables/orders/version", "some").json()["message"]
    assert hidden.replace("other", "none") == absent


def test_addresses_are_those_that_the_recipient_reaches(client: Any) -> None:
    for who, host in (("all", "public"), ("inside", "internal")):
        (file, *_) = of("file", Asker(client, who=who).query())
        assert file["url"].startswith(f"https://{host}.example/orders/")


# -- listings


def test_listings(client: Any) -> None:
    assert get(client, "/shares/SALES").json() == {"share": {"name": "Sales"}}
    assert get(client, "/shares/sales/schemas").json()["items"] == [
        {"name": "Daily", "share": "Sales"},
        {"name": "empty", "share": "Sales"},
    ]
    tables = get(client, "/shares/sales/schemas/DAILY/tables").json()["items"]
    assert tables[0] == {"name": "Orders", "schema": "Daily", "share": "Sales", "id": "id-1"}
    assert tables[3] == {"name": "plain", "schema": "Daily", "share": "Sales"}
    assert get(client, "/shares/sales/all-tables").json()["items"] == tables
    assert get(client, "/shares/sales/schemas/empty/tables").json() == {"items": []}


@pytest.mark.parametrize(
    ("path", "count"),
    [("/shares", 7), ("/shares/sales/schemas", 2), ("/shares/sales/schemas/daily/tables", 5),
     ("/shares/sales/all-tables", 5)],
)  # fmt: skip
@pytest.mark.parametrize("size", [1, 2, 500])
def test_pages(client: Any, path: str, count: int, size: int) -> None:
    names: list[str] = []
    token: str | None = None
    while True:
        parameters = {"maxResults": str(size), **({"pageToken": token} if token else {})}
        found = get(client, path, params=parameters).json()
        assert len(found["items"]) <= size
        names += [item["name"] for item in found["items"]]
        token = found.get("nextPageToken")
        if token is None:
            break
    whole = get(client, path).json()
    assert names == [item["name"] for item in whole["items"]]
    assert len(names) == count
    assert "nextPageToken" not in whole


def test_a_page_of_nothing_tells_that_there_is_more(client: Any) -> None:
    found = get(client, "/shares?maxResults=0").json()
    assert found["items"] == [] and found["nextPageToken"]


def test_page_tokens_are_good_for_their_listing_and_owner_only(client: Any) -> None:
    token = get(client, "/shares?maxResults=1").json()["nextPageToken"]
    assert get(client, "/shares", params={"pageToken": token}).status_code == 200
    for path, who in (("/shares/sales/schemas", "all"), ("/shares", "inside")):
        error(get(client, path, who, params={"pageToken": token}), 400, "INVALID_PARAMETER_VALUE")
    changed = token[:-2] + ("A" if token[-2] != "A" else "B") + token[-1]
    for bad in (changed, "x", "ä", "AAAA"):
        error(get(client, "/shares", params={"pageToken": bad}), 400, "INVALID_PARAMETER_VALUE")


@pytest.mark.parametrize("value", ["-1", "501", "many", "1.5"])
def test_page_lengths_out_of_range(client: Any, value: str) -> None:
    error(get(client, f"/shares?maxResults={value}"), 400, "INVALID_PARAMETER_VALUE")


@pytest.mark.parametrize(
    "path",
    ["/shares/none", "/shares/none/schemas", "/shares/sales/schemas/none/tables", "/shares/none/all-tables",
     "/shares/sales/schemas/daily/tables/none/version", "/shares/sales/schemas/none/tables/orders/metadata",
     "/shares/sales/schemas/daily/tables/orders/nothing", "/nothing"],
)  # fmt: skip
def test_what_is_not_there(client: Any, path: str) -> None:
    error(get(client, path), 404, "RESOURCE_DOES_NOT_EXIST")


def test_a_table_without_data_yet(client: Any) -> None:
    absent = Asker(client, "absent")
    for answer in (absent.ask("/version"), absent.ask("/metadata"), absent.ask("/query", "POST", json={})):
        error(answer, 404, "RESOURCE_DOES_NOT_EXIST")


# -- what is not for recipients


def test_health_is_told_inside_only(client: Any) -> None:
    error(client.get("/healthz"), 404, "RESOURCE_DOES_NOT_EXIST")
    for path in ("/docs", "/openapi.json", "/redoc", "/"):
        error(client.get(path), 404, "RESOURCE_DOES_NOT_EXIST")


def test_other_methods(client: Any) -> None:
    answer = client.post(f"{PREFIX}/shares", headers={"Authorization": f"Bearer {TOKENS['all']}"})
    error(answer, 405, "MALFORMED_REQUEST")
