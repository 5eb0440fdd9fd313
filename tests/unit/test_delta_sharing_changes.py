"""The Delta Sharing server: changes, hints, both formats, and logs of other writers."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from sharing_sample import (
    COMMITTED,
    Asker,
    client_of,
    ids,
    lines,
    make_log,
    make_orders,
    make_plain,
    moment,
    of,
)
from sharing_server import config
from sharing_server.predicates import Bounds, outcomes, parse_sql

MAPPED = {"delta.columnMapping.mode": "name", "delta.columnMapping.maxColumnId": "2"}
NAMES = {"id": "col-1", "at": "col-2"}
"""Names of the columns in the files of a table with column mapping."""


def metadata(**configuration: str) -> dict[str, Any]:
    fields: list[dict[str, Any]] = [
        {"name": "id", "type": "long", "nullable": True, "metadata": {"comment": "key", "own": 1}},
        {"name": "at", "type": "timestamp", "nullable": True, "metadata": {}},
    ]
    if "delta.columnMapping.mode" in configuration:
        for number, field in enumerate(fields, 1):
            name = NAMES[field["name"]]
            field["metadata"] |= {"delta.columnMapping.id": number, "delta.columnMapping.physicalName": name}
    about = {"id": "m", "format": {"provider": "parquet", "options": {}},
             "schemaString": json.dumps({"type": "struct", "fields": fields}),
             "partitionColumns": ["at"], "configuration": configuration, "createdTime": 1}  # fmt: skip
    return {"metaData": about}


def protocol(*features: str, reader: int = 3) -> dict[str, Any]:
    named = {"readerFeatures": list(features), "writerFeatures": list(features)} if reader == 3 else {}
    return {"protocol": {"minReaderVersion": reader, "minWriterVersion": 7 if reader == 3 else 5, **named}}


def add(path: str, mapped: bool = False, **more: Any) -> dict[str, Any]:
    key, at = (NAMES["id"], NAMES["at"]) if mapped else ("id", "at")
    stats = json.dumps({"numRecords": 2, "minValues": {key: 1}, "maxValues": {key: 5}, "nullCount": {key: 0}})
    return {"add": {"path": path, "partitionValues": {at: "2024-01-01 10:00:00"}, "size": 7, "stats": stats,
                    "modificationTime": 1, "dataChange": True, **more}}  # fmt: skip


def commit_info(**more: Any) -> dict[str, Any]:
    return {"commitInfo": {"timestamp": 1, "operation": "WRITE", **more}}


CDF = {"delta.enableChangeDataFeed": "true"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("logs")
    make_orders(place)
    make_plain(place)
    make_log(place, "mapped", [protocol(reader=2), metadata(**MAPPED), add("x/a%20b.parquet", mapped=True)])
    make_log(place, "vectors", [protocol("deletionVectors"), metadata(), add("a.parquet")])
    make_log(place, "outside", [protocol(reader=1), metadata(), add("s3://other/a.parquet")])
    make_log(place, "checkpoints", [protocol("v2Checkpoint"), metadata(), add("a.parquet")])
    make_log(
        place,
        "dated",
        [commit_info(inCommitTimestamp=1_600_000_000_000), protocol(reader=1),
         metadata(**CDF, **{"delta.enableInCommitTimestamps": "true"}), add("a.parquet")],
        [commit_info(inCommitTimestamp=1_600_000_500_000), add("b.parquet")],
    )  # fmt: skip
    zero = {f"numTargetRows{what}": "0" for what in ("Inserted", "Updated", "Deleted")}
    make_log(
        place,
        "merged",
        [protocol(reader=1), metadata(**CDF), add("a.parquet")],
        [commit_info(operation="MERGE", operationMetrics=zero), add("b.parquet")],
        [add("c.parquet", dataChange=False), metadata(**CDF, note="new")],
        [metadata(note="off"), add("d.parquet")],
        [metadata(**CDF), add("e.parquet")],
    )
    return place


@pytest.fixture(scope="module")
def client(folder: Path) -> Any:
    names = [path.name for path in folder.iterdir()]
    return client_of({name: config.Table(name, str(folder / name), history=True) for name in names})


@pytest.fixture
def orders(client: Any) -> Asker:
    return Asker(client)


@pytest.fixture(scope="module")
def place(folder: Path) -> Path:
    return folder / "orders"


def kinds(found: list[dict[str, Any]]) -> list[str]:
    return [kind for line in found for kind in line]


def refused(answer: Any, code: str = "INVALID_PARAMETER_VALUE") -> str:
    assert answer.status_code == 400, answer.text
    assert answer.json()["errorCode"] == code
    return str(answer.json()["message"])


# -- changes


def test_the_change_data_feed(orders: Asker) -> None:
    answer = orders.ask("/changes", params={"startingVersion": 1})
    assert answer.headers["delta-table-version"] == "1"
    found = lines(answer)
    assert of("metaData", found)[0]["version"] == 4
    by_version = {}
    for line in found[2:]:
        ((kind, about),) = line.items()
        by_version.setdefault(about["version"], set()).add(kind)
        assert about["timestamp"] == COMMITTED + about["version"] * 60_000
        assert {"url", "id", "size", "partitionValues", "expirationTimestamp"} <= set(about)
    assert by_version == {1: {"add"}, 2: {"cdf"}, 3: {"cdf"}, 4: {"add"}}
    assert all("_change_data" in about["url"] for about in of("cdf", found))


@pytest.mark.parametrize(
    ("asked", "versions"),
    [
        ({"startingVersion": 0, "endingVersion": 0}, {0}),
        ({"startingVersion": 2, "endingVersion": 3}, {2, 3}),
        ({"startingTimestamp": moment(2, 1)}, {3, 4}),
        ({"startingTimestamp": moment(0, -900), "endingTimestamp": moment(1, 30)}, {0, 1}),
        ({"startingVersion": 3, "endingTimestamp": moment(9)}, {3, 4}),
    ],
)
def test_ranges_of_changes(orders: Asker, asked: dict[str, Any], versions: set[int]) -> None:
    found = orders.changes(**asked)
    assert {about["version"] for line in found[2:] for about in line.values()} == versions


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"endingVersion": 1},
        {"startingVersion": "x"},
        {"startingVersion": -1},
        {"startingVersion": 5},
        {"startingVersion": 2, "endingVersion": 1},
        {"startingVersion": 0, "endingVersion": 5},
        {"startingVersion": 1, "startingTimestamp": moment(1)},
        {"startingVersion": 1, "endingVersion": 2, "endingTimestamp": moment(1)},
        {"startingTimestamp": "x"},
        {"startingTimestamp": moment(4, 1)},
        {"startingVersion": 0, "endingTimestamp": moment(0, -1)},
        {"startingVersion": 0, "maxFiles": 0},
    ],
)
def test_ranges_that_cannot_be_meant(orders: Asker, asked: dict[str, Any]) -> None:
    refused(orders.ask("/changes", params=asked))


def test_changes_must_have_been_recorded(client: Any) -> None:
    assert "not recorded" in refused(Asker(client, "plain").ask("/changes?startingVersion=0"))
    merged = Asker(client, "merged")
    assert "in version 3" in refused(merged.ask("/changes?startingVersion=3"))
    # Found on the way: the answer has begun by then, or not.
    answer = merged.ask("/changes?startingVersion=0")
    assert "in version 3" in answer.text and "d.parquet" not in answer.text


def test_a_merge_without_effect_and_rearranged_files_are_no_changes(client: Any) -> None:
    found = Asker(client, "merged").changes(startingVersion=0, endingVersion=2)
    assert [about["url"].rpartition("/")[2] for about in of("add", found)] == ["a.parquet"]


def test_historical_metadata(client: Any) -> None:
    merged = Asker(client, "merged")
    assert len(of("metaData", merged.changes(startingVersion=0, endingVersion=2))) == 1
    found = merged.changes(startingVersion=0, endingVersion=2, includeHistoricalMetadata="true")
    assert [about["version"] for about in of("metaData", found)] == [0, 2]


def test_changes_in_pages(orders: Asker) -> None:
    whole = orders.changes(startingVersion=0)[2:]
    found, token, pages = [], None, 0
    while True:
        more = {"pageToken": token} if token else {}
        answer = orders.changes(startingVersion=0, maxFiles=2, **more)
        found += answer[2:-1]
        pages += 1
        token = answer[-1]["endStreamAction"].get("nextPageToken")
        if token is None:
            break
    assert pages == -(-len(whole) // 2)
    assert found == whole


def test_files_since_a_version(orders: Asker, place: Path) -> None:
    answer = orders.ask("/query", "POST", json={"startingVersion": 1, "endingVersion": 2})
    found = lines(answer)
    assert answer.headers["delta-table-version"] == "1"
    assert of("metaData", found)[0]["version"] == 1
    assert ids(place, [about for about in of("add", found) if about["version"] == 1]) == [6, 7, 8]
    assert {about["version"] for about in of("remove", found)} == {2}
    assert "cdf" not in kinds(found) and "cdc" not in kinds(found)


# -- hints


def column(name: str, kind: str) -> dict[str, str]:
    return {"op": "column", "name": name, "valueType": kind}


def literal(value: Any, kind: str) -> dict[str, Any]:
    return {"op": "literal", "value": value, "valueType": kind}


def test_json_hints(orders: Asker) -> None:
    day = {"op": "equal", "children": [column("day", "date"), literal("2024-01-02", "date")]}
    assert [f["partitionValues"] for f in of("file", orders.query(jsonPredicateHints=json.dumps(day)))] == [
        {"day": "2024-01-02"}
    ]
    large = {"op": "greaterThan", "children": [column("ID", "long"), literal("8", "long")]}
    assert len(of("file", orders.query(jsonPredicateHints=json.dumps(large)))) == 1
    for unclear in ("{", "[]", "5", json.dumps({"op": "like"}), json.dumps({**day, "children": [{}]})):
        assert len(of("file", orders.query(jsonPredicateHints=unclear))) == 4


def test_sql_hints(orders: Asker) -> None:
    def days(*hints: str) -> list[str]:
        return sorted(
            f["partitionValues"]["day"] for f in of("file", orders.query(predicateHints=list(hints)))
        )

    assert days("day >= '2024-01-03'") == ["2024-01-03", "2024-01-04"]
    assert days("day > '2024-01-01'", "id < 5") == ["2024-01-02"]
    assert days("'2024-01-02' = day") == ["2024-01-02"]
    assert days("day IS NULL") == []
    assert days("name is not null", "id=2") == ["2024-01-01"]
    assert len(days("lower(name) = 'x'", "nothing = 1", "id LIKE 4")) == 4


def test_hints_can_be_switched_off(folder: Path) -> None:
    off = client_of({"orders": config.Table("orders", str(folder / "orders"))}, predicate_hints=False,
                    json_predicate_hints=False)  # fmt: skip
    day = {"op": "equal", "children": [column("day", "date"), literal("2024-01-02", "date")]}
    asked = {"jsonPredicateHints": json.dumps(day), "predicateHints": ["id = 1"]}
    assert len(of("file", Asker(off).query(**asked))) == 4
    # And then no limit counts on what was not filtered.
    assert len(of("file", Asker(off).query(limitHint=1, **asked))) == 4


def test_limits_count_rows_that_surely_match(orders: Asker) -> None:
    assert [len(of("file", orders.query(limitHint=n))) for n in (0, 1, 3, 4, 100)] == [0, 1, 1, 2, 4]
    # Any file may hold rows with such a name, or none: all are needed.
    assert len(of("file", orders.query(limitHint=1, predicateHints=["name > 'a'"]))) == 4
    assert len(of("file", orders.query(limitHint=1, predicateHints=["day > '2023-01-01'"]))) == 1


BOUNDS = {
    "n": Bounds(3, 7, nulls=False),
    "maybe": Bounds(3, 7),
    "one": Bounds(5, 5, nulls=False),
    "empty": Bounds(only_nulls=True),
    "open": Bounds(nulls=False),
    "text": Bounds("b", "d", nulls=False),
}


@pytest.mark.parametrize(
    ("hint", "may"),
    [
        ("n = 2", "F"), ("n = 5", "FT"), ("one = 5", "T"), ("maybe = 9", "FN"), ("empty = 1", "N"),
        ("n < 3", "F"), ("n < 4", "FT"), ("n < 8", "T"), ("n <= 3", "FT"), ("n <= 2", "F"), ("n <= 7", "T"),
        ("n > 7", "F"), ("n > 6", "FT"), ("n > 2", "T"), ("n >= 7", "FT"), ("n >= 8", "F"), ("n >= 3", "T"),
        ("8 < n", "F"), ("2 < n", "T"), ("open > 1", "FT"), ("one <> 5", "F"), ("n <> 9", "T"),
        ("n IS NULL", "F"), ("maybe IS NULL", "FT"), ("empty IS NULL", "T"), ("empty IS NOT NULL", "F"),
        ("text = 'a'", "F"), ("text >= 'b'", "T"), ("text = 5", "FNT"), ("n = 'x'", "FNT"),
        ("none = 1", "FNT"),
    ],
)  # fmt: skip
def test_what_a_file_can_hold(hint: str, may: str) -> None:
    types = {name: "string" if name == "text" else "long" for name in BOUNDS}
    assert "".join(sorted(outcomes(parse_sql(hint, types), BOUNDS.get))) == may


@pytest.mark.parametrize(
    ("op", "hints", "may"),
    [
        ("and", ["n = 2", "n = 5"], "F"), ("and", ["n > 2", "one = 5"], "T"),
        ("and", ["n > 2", "n = 5"], "FT"),
        ("or", ["n = 2", "n = 9"], "F"), ("or", ["n = 2", "one = 5"], "T"),
        ("or", ["n = 2", "empty = 1"], "N"),
        ("and", ["n = 2", "none = 1"], "F"), ("or", ["one = 5", "none = 1"], "T"),
        ("and", ["one = 5", "none = 1"], "FNT"),
    ],
)  # fmt: skip
def test_predicates_together(op: str, hints: list[str], may: str) -> None:
    types = dict.fromkeys(BOUNDS, "long")
    node = {"op": op, "children": [parse_sql(hint, types) for hint in hints]}
    assert "".join(sorted(outcomes(node, BOUNDS.get))) == may
    inverse = may.translate(str.maketrans("FT", "TF"))
    assert set(outcomes({"op": "not", "children": [node]}, BOUNDS.get)) == set(inverse)


@pytest.mark.parametrize(
    ("kind", "value", "may"),
    [("int", "5", "FT"), ("long", 9, "F"), ("double", "6.5", "FT"), ("float", 2.5, "F"),
     ("string", "5", "FNT"), ("date", "2024-01-01", "FNT"), ("bool", "true", "FNT"), ("int", "5.5", "FNT"),
     ("double", "NaN", "FNT")],
)  # fmt: skip
def test_values_of_types(kind: str, value: Any, may: str) -> None:
    node = {"op": "equal", "children": [column("n", kind), literal(value, kind)]}
    assert "".join(sorted(outcomes(node, BOUNDS.get))) == may


# -- formats


def test_delta_format(orders: Asker) -> None:
    answer = orders.ask("/query", "POST", "responseFormat=DELTA;readerFeatures=deletionVectors", json={})
    assert answer.headers["delta-sharing-capabilities"] == "responseformat=delta"
    protocol_line, metadata_line, *files = lines(answer)
    assert protocol_line["protocol"]["deltaProtocol"]["minReaderVersion"] == 1
    about = metadata_line["metaData"]["deltaMetadata"]
    assert about["configuration"] == {"delta.enableChangeDataFeed": "true"}
    assert {"id", "schemaString", "partitionColumns", "format", "createdTime"} <= set(about)
    for line in files:
        action = line["file"]["deltaSingleAction"]["add"]
        assert action["path"].startswith("https://public.example/orders/day%3D") or "day=" in action["path"]
        assert action["dataChange"] is True and action["size"] > 0
        assert list(action["partitionValues"]) == ["day"]
    parquet = {file["id"] for file in of("file", orders.query())}
    assert {line["file"]["id"] for line in files} == parquet


def test_changes_in_delta_format(orders: Asker) -> None:
    found = orders.changes("responseformat=delta", startingVersion=1, endingVersion=2)
    actions = [(line["file"]["version"], *line["file"]["deltaSingleAction"]) for line in found[2:]]
    assert {(version, kind) for version, kind in actions} == {(1, "add"), (2, "cdc")}


def test_the_simplest_format_that_does_is_taken(client: Any) -> None:
    both = "responseformat=delta,parquet;readerfeatures=columnmapping"
    for table, wanted in (("orders", "parquet"), ("checkpoints", "parquet"), ("mapped", "delta")):
        answer = Asker(client, table).ask("/metadata", capabilities=both)
        assert answer.headers["delta-sharing-capabilities"] == f"responseformat={wanted}"
    for header in (
        None,
        "responseformat=parquet",
        "responseformat=avro",
        "x",
        "readerfeatures=columnmapping",
    ):
        answer = Asker(client, "mapped").ask("/metadata", capabilities=header)
        assert "columnmapping" in refused(answer, "UNSUPPORTED_OPERATION")
    assert "readerfeatures" in refused(
        Asker(client, "mapped").ask("/metadata", capabilities="responseformat=delta"), "UNSUPPORTED_OPERATION"
    )


def test_column_mapping(client: Any) -> None:
    header = "responseformat=delta;readerfeatures=columnmapping"
    (file,) = of("file", Asker(client, "mapped").query(header))
    action = file["deltaSingleAction"]["add"]
    assert action["partitionValues"] == {"col-2": "2024-01-01 10:00:00"}
    assert json.loads(action["stats"])["minValues"] == {"col-1": 1}
    hint = {"op": "greaterThan", "children": [column("id", "long"), literal("5", "long")]}
    assert of("file", Asker(client, "mapped").query(header, jsonPredicateHints=json.dumps(hint))) == []


def test_only_comments_are_told_of_columns(client: Any) -> None:
    (about,) = of("metaData", lines(Asker(client, "checkpoints").ask("/metadata")))
    fields = json.loads(about["schemaString"])["fields"]
    assert [field["metadata"] for field in fields] == [{"comment": "key"}, {}]


def test_what_is_not_shared(client: Any) -> None:
    header = "responseformat=delta;readerfeatures=deletionvectors"
    answer = Asker(client, "vectors").ask("/query", "POST", header, json={})
    assert "deletionvectors" in refused(answer, "UNSUPPORTED_OPERATION")


# -- logs


def test_times_in_commits_count_where_the_table_says_so(client: Any) -> None:
    dated = Asker(client, "dated")
    answer = dated.ask("/version", params={"startingTimestamp": "2020-09-13T12:26:41Z"})
    assert answer.headers["delta-table-version"] == "1"
    found = of("add", dated.changes(startingVersion=0))
    assert [about["timestamp"] for about in found] == [1_600_000_000_000, 1_600_000_500_000]


def test_a_table_that_grows_and_is_made_anew(tmp_path: Path) -> None:
    place = make_log(tmp_path, "t", [protocol(reader=1), metadata(), add("a.parquet")])
    grown = Asker(client_of({"orders": config.Table("orders", str(place))}))
    assert len(of("file", grown.query())) == 1
    (place / "_delta_log" / f"{1:020}.json").write_text(json.dumps(add("b.parquet")))
    assert len(of("file", grown.query())) == 2
    shutil.rmtree(place)
    assert grown.ask("/query", "POST", json={}).status_code == 404
    make_log(tmp_path, "t", [protocol(reader=1), metadata(), add("c.parquet")], [add("d.parquet")])
    os.utime(place / "_delta_log" / f"{1:020}.json", ns=(0, 5))
    found = [file["url"][-9:] for file in of("file", grown.query())]
    assert sorted(found) == ["c.parquet", "d.parquet"]
