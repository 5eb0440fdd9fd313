"""The Delta Sharing server: a table's versions, metadata and files, in pages and with addresses."""

from __future__ import annotations

import json
import random
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake
from sharing_sample import (
    COMMITTED,
    SOON,
    URL_ENDS,
    Asker,
    client_of,
    client_of_lake,
    error,
    ids,
    lines,
    make_lake,
    moment,
    of,
)
from sharing_server import config
from sharing_server.storage import S3Storage


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_lake(tmp_path_factory.mktemp("lake"))


@pytest.fixture(scope="module")
def client(folder: Path) -> Any:
    return client_of_lake(folder)


@pytest.fixture
def orders(client: Any) -> Asker:
    return Asker(client)


@pytest.fixture(scope="module")
def place(folder: Path) -> Path:
    return folder / "orders"


# -- version and metadata


def test_version(orders: Asker) -> None:
    answer = orders.ask("/version")
    assert (answer.status_code, answer.headers["delta-table-version"], answer.text) == (200, "4", "")
    answer = orders.ask("", "HEAD")
    assert (answer.status_code, answer.headers["delta-table-version"]) == (200, "4")


@pytest.mark.parametrize(
    ("time", "version"),
    [(moment(0, -3600), 0), (moment(0), 0), (moment(0, 1), 1), (moment(2), 2), (moment(3, 59), 4)],
)
def test_the_first_version_since_a_time(orders: Asker, time: str, version: int) -> None:
    answer = orders.ask("/version", params={"startingTimestamp": time})
    assert answer.headers["delta-table-version"] == str(version)


@pytest.mark.parametrize("time", [moment(4, 1), "yesterday", "2024-01-01T00:00:00", "1700000000"])
def test_times_without_a_version(orders: Asker, time: str) -> None:
    error(orders.ask("/version", params={"startingTimestamp": time}), 400, "INVALID_PARAMETER_VALUE")


def test_metadata(orders: Asker) -> None:
    answer = orders.ask("/metadata")
    protocol, metadata = lines(answer)
    assert answer.headers["delta-table-version"] == "4"
    assert answer.headers["delta-sharing-capabilities"] == "responseformat=parquet"
    assert protocol == {"protocol": {"minReaderVersion": 1}}
    about = metadata["metaData"]
    assert about["partitionColumns"] == ["day"]
    assert about["format"] == {"provider": "parquet"}
    assert about["configuration"] == {"enableChangeDataFeed": "true"}
    assert '"name":"amount","type":"double"' in about["schemaString"].replace(" ", "")
    assert about["numFiles"] == 4 and about["size"] > 0
    assert "version" not in about


def test_metadata_of_a_version(orders: Asker) -> None:
    assert orders.ask("/metadata?version=0").headers["delta-table-version"] == "0"
    answer = orders.ask("/metadata", params={"timestamp": moment(1, 30)})
    assert answer.headers["delta-table-version"] == "1"
    error(
        orders.ask("/metadata", params={"version": 0, "timestamp": moment(1)}), 400, "INVALID_PARAMETER_VALUE"
    )
    error(orders.ask("/metadata?version=-1"), 400, "INVALID_PARAMETER_VALUE")


# -- files


def test_all_files(orders: Asker, place: Path) -> None:
    protocol, metadata, *files = orders.query()
    assert set(protocol) == {"protocol"} and set(metadata) == {"metaData"}
    found = of("file", files)
    assert ids(place, found) == [0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 11]
    for file in found:
        assert file["expirationTimestamp"] == URL_ENDS
        assert file["partitionValues"]["day"] in file["url"]
        assert not {"version", "timestamp"} & set(file)
    assert len({file["id"] for file in found}) == len(found) == metadata["metaData"]["numFiles"]
    assert {file["id"] for file in found} == {file["id"] for file in of("file", orders.query())}


def test_statistics(orders: Asker) -> None:
    stats = {file["partitionValues"]["day"]: file["stats"] for file in of("file", orders.query())}
    first = json.loads(stats["2024-01-01"])
    assert first["numRecords"] == 3
    assert first["minValues"]["id"] == 0 and first["maxValues"]["id"] == 2
    assert first["maxValues"]["amount"] == 1.0
    assert first["nullCount"] == {"id": 0, "name": 1, "amount": 0}


@pytest.mark.parametrize(
    ("asked", "version", "found"),
    [
        ({"version": 0}, 0, [0, 1, 2, 3, 4, 5]),
        ({"version": 1}, 1, [0, 1, 2, 3, 4, 5, 6, 7, 8]),
        ({"timestamp": moment(0, 59)}, 0, [0, 1, 2, 3, 4, 5]),
        ({"timestamp": moment(3)}, 3, [0, 1, 2, 3, 4, 5, 6, 8]),
        ({"timestamp": moment(4)}, 4, [0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 11]),
    ],
)
def test_time_travel(
    orders: Asker, place: Path, asked: dict[str, Any], version: int, found: list[int]
) -> None:
    answer = orders.ask("/query", "POST", json=asked)
    files = of("file", lines(answer))
    assert answer.headers["delta-table-version"] == str(version)
    assert ids(place, files) == found
    assert {file["version"] for file in files} == {version}
    assert {file["timestamp"] for file in files} == {COMMITTED + version * 60_000}


@pytest.mark.parametrize(
    "body",
    [
        {"version": 5},
        {"version": -1},
        {"timestamp": moment(0, -1)},
        {"timestamp": moment(4, 1)},
        {"timestamp": "now"},
        {"version": 1, "timestamp": moment(1)},
        {"version": 1, "startingVersion": 1},
        {"startingVersion": 5},
        {"startingVersion": 2, "endingVersion": 1},
        {"startingVersion": 2, "endingVersion": 5},
        {"maxFiles": 0},
        {"limitHint": -1},
        {"pageToken": "x"},
        {"refreshToken": "x"},
        {"version": 1, "includeRefreshToken": True},
    ],
)
def test_queries_that_cannot_be_meant(orders: Asker, body: dict[str, Any]) -> None:
    error(orders.ask("/query", "POST", json=body), 400, "INVALID_PARAMETER_VALUE")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"version": "many"}', '{"predicateHints": "id = 1"}'])
def test_bodies_that_are_none(orders: Asker, content: str) -> None:
    answer = orders.ask("/query", "POST", content=content, headers={"Content-Type": "application/json"})
    error(answer, 400, "MALFORMED_REQUEST")


def test_keys_of_newer_clients_are_ignored(orders: Asker) -> None:
    assert len(of("file", orders.query(somethingNew=1, idempotencyKey="x"))) == 4


def test_history_is_shared_only_where_the_settings_say_so(client: Any) -> None:
    newest = Asker(client, "newest")
    assert len(of("file", newest.query())) == 4
    assert of("metaData", newest.query())[0]["configuration"] == {}
    for body in ({"version": 0}, {"timestamp": moment(1)}, {"startingVersion": 0}):
        error(newest.ask("/query", "POST", json=body), 400, "INVALID_PARAMETER_VALUE")
    for path in ("/metadata?version=0", "/changes?startingVersion=0",
                 f"/version?startingTimestamp={moment(0)}"):  # fmt: skip
        assert "history" in error(newest.ask(path), 400, "INVALID_PARAMETER_VALUE")


def test_history_from_a_version_on(client: Any) -> None:
    recent = Asker(client, "recent")
    assert recent.ask("/metadata?version=2").status_code == 200
    assert recent.ask("/query", "POST", json={"timestamp": moment(2)}).status_code == 200
    for answer in (
        recent.ask("/metadata?version=1"),
        recent.ask("/query", "POST", json={"version": 1}),
        recent.ask("/query", "POST", json={"timestamp": moment(1)}),
        recent.ask("/query", "POST", json={"startingVersion": 1}),
        recent.ask("/changes?startingVersion=1"),
        recent.ask("/version", params={"startingTimestamp": moment(0)}),
    ):
        assert "since version 2" in error(answer, 400, "INVALID_PARAMETER_VALUE")


# -- addresses of files


def test_addresses_end_with_their_recipient(client: Any) -> None:
    ends = {file["expirationTimestamp"] for file in of("file", Asker(client, who="soon").query())}
    assert ends == {int(SOON.timestamp() * 1000)}
    changed = of("add", Asker(client, "plain", who="soon").query(startingVersion=0))
    assert {file["expirationTimestamp"] for file in changed} == ends


@pytest.mark.parametrize(("left", "lifetime"), [(None, 600), (3600.0, 600), (90.0, 90), (0.2, 1), (-5.0, 1)])
def test_what_the_store_signs_ends_with_the_recipient(left: float | None, lifetime: int) -> None:
    keys = config.Keys("https://store:9000", "key", "secret", public_endpoint="https://s3.example")
    until = None if left is None else datetime.now(UTC) + timedelta(seconds=left)
    url, ends = S3Storage(keys, 600).sign("s3a://lake/t", "a.parquet", "public", until)
    assert url.startswith("https://s3.example/lake/t/a.parquet?")
    (signed,) = parse_qs(urlsplit(url).query)["X-Amz-Expires"]
    assert 0 <= lifetime - int(signed) <= 1
    assert abs(ends / 1000 - time.time() - int(signed)) < 5


# -- pages, end of the answer, refreshing


def test_files_in_pages(orders: Asker, place: Path) -> None:
    files, token, pages = [], None, 0
    while True:
        found = orders.query(maxFiles=3, **({"pageToken": token} if token else {}))
        files += of("file", found)
        (end,) = of("endStreamAction", found)
        assert end["minUrlExpirationTimestamp"] == URL_ENDS
        pages += 1
        token = end.get("nextPageToken")
        if token is None:
            break
    assert pages == 2
    assert ids(place, files) == [0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 11]


def test_pages_fit_together_though_the_log_is_written_anew_between_them(tmp_path: Path) -> None:
    place = tmp_path / "t"
    for number in range(12):
        write_deltalake(place, pa.table({"id": [number]}), mode="append")
    every, token = [], None
    for turn in range(4):
        # As after a restart, when the log is read from a checkpoint that somebody else has just written.
        DeltaTable(place).create_checkpoint()
        _reorder(next((place / "_delta_log").glob("*.checkpoint.parquet")), turn)
        asker = Asker(client_of({"orders": config.Table("orders", str(place))}))
        found = asker.query(maxFiles=3, **({"pageToken": token} if token else {}))
        every += of("file", found)
        token = of("endStreamAction", found)[0].get("nextPageToken")
    assert token is None
    assert ids(place, every) == list(range(12))


def _reorder(checkpoint: Path, turn: int) -> None:
    """Another order of the rows each time; the first two stay, as they say what the table is."""
    table = pq.read_table(checkpoint)
    files = [i for i in range(table.num_rows) if table["add"][i].as_py()]
    others = [i for i in range(table.num_rows) if i not in files]
    random.Random(turn).shuffle(files)
    pq.write_table(table.take(others + files), checkpoint)


def test_a_page_belongs_to_its_query(orders: Asker, client: Any) -> None:
    (end,) = of("endStreamAction", orders.query(maxFiles=1))
    token = end["nextPageToken"]
    for asker, body in (
        (orders, {"limitHint": 1}),
        (Asker(client, "newest"), {}),
        (Asker(client, who="inside"), {}),
    ):
        answer = asker.ask("/query", "POST", json={"maxFiles": 1, "pageToken": token, **body})
        error(answer, 400, "INVALID_PARAMETER_VALUE")


def test_the_end_of_an_answer_is_marked_where_the_client_wants_it(orders: Asker) -> None:
    assert of("endStreamAction", orders.query()) == []
    answer = orders.ask("/query", "POST", "includeEndStreamAction=true", json={})
    assert (
        answer.headers["delta-sharing-capabilities"] == "responseformat=parquet;includeendstreamaction=true"
    )
    assert lines(answer)[-1] == {"endStreamAction": {"minUrlExpirationTimestamp": URL_ENDS}}


def test_addresses_are_made_anew_for_the_same_version(orders: Asker) -> None:
    (end,) = of("endStreamAction", orders.query(includeRefreshToken=True))
    again = orders.query(refreshToken=end["refreshToken"])
    assert len(of("file", again)) == 4


def test_an_answer_that_breaks_off_says_so(folder: Path) -> None:
    client = client_of({"orders": config.Table("orders", str(folder / "orders"))})
    signed: list[str] = []

    def sign(self: Any, location: str, path: str, urls: str, until: Any) -> tuple[str, int]:
        if len(signed) == 2:
            raise OSError("secret detail")
        signed.append(path)
        return path, URL_ENDS

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sharing_sample.LocalStorage.sign", sign)
        found = Asker(client).query()
    assert found[-1]["endStreamAction"] == {"errorMessage": "the server failed to list the files"}


def test_an_unexpected_error_tells_nothing(folder: Path) -> None:
    client = client_of({"orders": config.Table("orders", str(folder / "orders"))})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sharing_sample.LocalStorage.uri", lambda self, location: 1 / 0)
        assert error(Asker(client).ask("/version"), 500, "INTERNAL_ERROR") == ""


@pytest.mark.parametrize("value", ["parquet", "delta", "DELTA"])
def test_file_ids_of_either_scheme(orders: Asker, value: str) -> None:
    answer = orders.ask("/query", "POST", json={}, headers={"fileidhash": value})
    assert answer.headers["fileidhash"] == value.lower()
    assert [f["id"] for f in of("file", lines(answer))] == [f["id"] for f in of("file", orders.query())]


def test_file_ids_of_no_scheme(orders: Asker) -> None:
    answer = orders.ask("/query", "POST", json={}, headers={"fileidhash": "md5"})
    error(answer, 400, "INVALID_PARAMETER_VALUE")
