"""The keeper of the lake's tables: what it registers and takes off the list, and how it signs requests."""

from __future__ import annotations

import http.client
import importlib
import io
import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture(scope="module")
def lake() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        # A script finds what lies beside it.
        patch.syspath_prepend("configs/presto")
        yield importlib.import_module("lake")


@pytest.fixture(scope="module")
def clients(lake: ModuleType) -> ModuleType:
    return importlib.import_module("lake_clients")


class FakeStore:
    """A bucket by its Delta tables' folders, and other folders."""

    def __init__(self) -> None:
        self.tables: set[str] = set()
        self.others: set[str] = set()
        self.written: dict[str, dict[str, Any]] = {}

    def folders(self, prefix: str) -> list[str]:
        inside = {f[len(prefix) :].split("/")[0] for f in self.tables | self.others if f.startswith(prefix)}
        return sorted(inside)

    def is_table(self, folder: str) -> bool:
        return folder in self.tables

    def put(self, bucket: str, key: str, document: dict[str, Any]) -> None:
        self.written[f"{bucket}/{key}"] = document

    def delete(self, bucket: str, key: str) -> None:
        self.written.pop(f"{bucket}/{key}", None)
        if found := re.fullmatch(r"trino/(\w+)/(\w+)/\.trinoSchema", key):
            self.unlisted(list(found.groups()))

    def unlisted(self, name: list[str]) -> None:
        """A file of Trino's own list is gone."""

    def get(self, bucket: str, key: str) -> bytes | None:
        found = self.written.get(f"{bucket}/{key}")
        return None if found is None else json.dumps(found).encode()


class FakePresto:
    """Answers the keeper's questions and remembers its statements."""

    def __init__(self, error: type[Exception]) -> None:
        self.listed: list[list[str]] = []
        self.schemas: set[str] = set()
        self.said: list[str] = []
        self.refuses = ""
        self.error = error

    def run(self, statement: str) -> list[list[str]]:
        if statement.startswith("SELECT"):
            return self.listed
        if statement.startswith("SHOW"):
            return [[schema] for schema in self.schemas | {schema for schema, _ in self.listed}]
        if self.refuses and self.refuses in statement:
            raise self.error("no")
        self.said.append(statement)
        if found := re.match(r'(CREATE|DROP) SCHEMA[^.]*\."(\w+)"', statement):
            (self.schemas.add if found[1] == "CREATE" else self.schemas.discard)(found[2])
        if found := re.search(
            r"(un)?register_table\(schema_name => '(\w+)', table_name => '(\w+)'", statement
        ):
            gone, *name = found.groups()
            self.listed[:] = [entry for entry in self.listed if entry != name] + ([] if gone else [name])
        return []


STORE = {
    "endpoint": "https://s:9000",
    "bucket": "b",
    "region": "fra1",
    "store_user": "u",
    "store_password": "p",
}
RECORD = "list/keeper/trino.json"


@pytest.fixture
def keeper(lake: ModuleType) -> Any:
    return made(lake, FakeStore(), FakePresto(lake.RefusedError))


def made(lake: ModuleType, store: FakeStore, presto: FakePresto) -> Any:
    """A keeper that has just started."""
    keeper = lake.Keeper.__new__(lake.Keeper)
    keeper.store, keeper.presto = store, presto
    store.unlisted = lambda name: presto.listed.remove(name)  # type: ignore[method-assign]
    keeper.trino, keeper.bucket, keeper.declared = True, "lake", {}
    keeper.metastore, keeper.record = "list", "keeper/trino.json"
    keeper.kept, keeper.rounds, keeper.even, keeper.said = None, 0, False, set()
    return keeper


def test_a_new_table_is_registered_with_its_schema(keeper: Any) -> None:
    keeper.store.tables = {"sales/orders"}
    keeper.store.others = {"sales/notes", "_tmp/x", "raw"}
    keeper.look()
    schema, table = keeper.presto.said
    assert schema == "CREATE SCHEMA IF NOT EXISTS lake.\"sales\" WITH (location = 's3://lake/sales')"
    assert table.startswith("CALL lake.system.register_table(schema_name => 'sales', table_name => 'orders'")
    assert "'s3://lake/sales/orders'" in table


def test_prestodb_reads_its_list_from_files(keeper: Any) -> None:
    keeper.trino, keeper.record = False, "keeper/prestodb.json"
    keeper.store.tables = {"sales/orders"}
    keeper.look()
    assert keeper.presto.said == []
    written = keeper.store.written
    assert set(written) == {
        "list/keeper/prestodb.json",
        "list/prestodb/sales/.prestoSchema",
        "list/prestodb/sales/orders/.prestoSchema",
    }
    table = written["list/prestodb/sales/orders/.prestoSchema"]
    assert (table["tableType"], table["externalLocation"]) == ("EXTERNAL_TABLE", "s3://lake/sales/orders")
    keeper.presto.listed = [["sales", "orders"]]
    keeper.store.tables = set()
    keeper.look()
    assert keeper.presto.said == []
    assert set(written) == {"list/keeper/prestodb.json", "list/prestodb/sales/.prestoSchema"}


def test_what_is_listed_is_left_alone(keeper: Any) -> None:
    keeper.store.tables = {"sales/orders"}
    keeper.presto.listed = [["sales", "orders"], ["sales", "by_hand"]]
    for _ in range(50):
        keeper.look()
    assert keeper.presto.said == []


def test_a_table_whose_folder_goes_is_taken_off(keeper: Any) -> None:
    keeper.store.tables = {"sales/orders", "sales/old"}
    keeper.presto.listed = [["sales", "orders"], ["sales", "old"], ["sales", "by_hand"]]
    keeper.look()
    keeper.store.tables = {"sales/orders"}
    keeper.look()
    (said,) = keeper.presto.said
    assert said == "CALL lake.system.unregister_table(schema_name => 'sales', table_name => 'old')"


def test_one_bad_table_does_not_hinder_the_others(keeper: Any, capsys: pytest.CaptureFixture[str]) -> None:
    keeper.store.tables = {"sales/broken", "sales/orders"}
    keeper.presto.refuses = "'broken'"
    keeper.look()
    assert any("'orders'" in statement for statement in keeper.presto.said)
    keeper.presto.refuses = ""
    keeper.look()
    assert any("'broken'" in statement for statement in keeper.presto.said)
    assert capsys.readouterr().out.count("sales.broken cannot be registered: no") == 1


def test_declared_tables_come_when_they_are_there(keeper: Any, capsys: pytest.CaptureFixture[str]) -> None:
    keeper.declared = {"sales.archive": "old/2019/sales"}
    keeper.look()
    keeper.look()
    assert keeper.presto.said == []
    assert capsys.readouterr().out == "sales.archive is left out: no Delta table at old/2019/sales yet\n"
    keeper.store.tables = {"old/2019/sales"}
    keeper.look()
    assert "'s3://lake/old/2019/sales'" in keeper.presto.said[-1]


def test_a_declared_table_that_changes_is_registered_again_after_a_restart(
    lake: ModuleType, keeper: Any
) -> None:
    keeper.store.tables = {"old/2019", "old/2020"}
    keeper.declared = {"sales.archive": "old/2019"}
    keeper.look()
    # Numbers are names too, so both folders are found by themselves as well.
    assert keeper.store.written[RECORD]["sales.archive"] == "s3://lake/old/2019"
    second = made(lake, keeper.store, keeper.presto)
    second.declared = {"sales.archive": "old/2020"}
    keeper.presto.said.clear()
    second.look()
    assert second.presto.said == [
        "CALL lake.system.unregister_table(schema_name => 'sales', table_name => 'archive')",
        "CALL lake.system.register_table(schema_name => 'sales', table_name => 'archive', "
        "table_location => 's3://lake/old/2020')",
    ]
    assert keeper.store.written[RECORD]["sales.archive"] == "s3://lake/old/2020"


def test_a_declared_table_that_is_declared_no_more_goes_after_a_restart(
    lake: ModuleType, keeper: Any
) -> None:
    keeper.store.tables = {"old/2019"}
    keeper.declared = {"sales.archive": "old/2019"}
    keeper.look()
    keeper.presto.listed.append(["sales", "by_hand"])
    keeper.presto.said.clear()
    second = made(lake, keeper.store, keeper.presto)
    second.look()
    assert second.presto.said == [
        "CALL lake.system.unregister_table(schema_name => 'sales', table_name => 'archive')"
    ]
    assert keeper.store.written[RECORD] == {"old.2019": "s3://lake/old/2019"}


def test_another_bucket_is_another_place(lake: ModuleType, keeper: Any) -> None:
    keeper.store.tables = {"sales/orders"}
    keeper.look()
    second = made(lake, keeper.store, keeper.presto)
    second.bucket = "lake2"
    keeper.presto.said.clear()
    second.look()
    dropped, made_anew, registered = second.presto.said
    assert dropped == 'DROP SCHEMA lake."sales"'
    assert "location = 's3://lake2/sales'" in made_anew
    assert "'s3://lake2/sales/orders'" in registered
    third = made(lake, keeper.store, keeper.presto)
    third.bucket = "lake2"
    keeper.presto.said.clear()
    third.look()
    assert third.presto.said == []


def test_a_schema_of_another_bucket_that_is_in_use_is_named(
    lake: ModuleType, keeper: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    keeper.store.tables = {"sales/orders"}
    keeper.look()
    second = made(lake, keeper.store, keeper.presto)
    second.bucket, second.presto.refuses = "lake2", "DROP SCHEMA"
    second.look()
    assert "schema sales stays in its former bucket, drop it by hand: no" in capsys.readouterr().out
    assert "'s3://lake2/sales/orders'" in second.presto.said[-1]


def test_what_cannot_be_taken_off_is_tried_again(keeper: Any) -> None:
    keeper.store.tables = {"sales/orders", "sales/old"}
    keeper.look()
    keeper.store.tables = {"sales/orders"}
    keeper.presto.refuses = "unregister_table"
    keeper.look()
    assert "sales.old" in keeper.store.written[RECORD]
    keeper.presto.refuses = ""
    keeper.look()
    assert keeper.store.written[RECORD] == {"sales.orders": "s3://lake/sales/orders"}


def test_what_is_dropped_by_hand_comes_back_while_its_folder_is_there(keeper: Any) -> None:
    keeper.store.tables = {"sales/orders"}
    keeper.look()
    keeper.presto.listed.clear()
    for _ in range(25):
        keeper.look()
    assert keeper.presto.listed == [["sales", "orders"]]


@pytest.mark.parametrize("body", [b"", b"[]", b'{"a'])
def test_a_record_that_cannot_be_read_is_written_anew(keeper: Any, body: bytes) -> None:
    keeper.store.tables = {"sales/orders"}
    keeper.store.get = lambda *_: body
    keeper.look()
    assert keeper.store.written[RECORD] == {"sales.orders": "s3://lake/sales/orders"}


@pytest.mark.parametrize("folder", ["Sales/orders", "sales/or-ders", "sales/o'; DROP TABLE x"])
def test_names_it_cannot_write_are_left_out(
    keeper: Any, folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    keeper.store.tables = {folder}
    keeper.look()
    assert keeper.presto.said == []
    assert f"{folder} is left out: names have" in capsys.readouterr().out


def test_lists_of_a_bucket_are_read_to_their_end(
    clients: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = clients.Store(STORE, None)
    namespace = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
    pages = [
        f"<L {namespace}><CommonPrefixes><Prefix>a/b%20c/</Prefix></CommonPrefixes>"
        "<NextContinuationToken>t/1</NextContinuationToken></L>",
        f"<L {namespace}><CommonPrefixes><Prefix>a/d/</Prefix></CommonPrefixes></L>",
    ]
    asked = []

    def answer(request: Any, context: Any) -> bytes:
        asked.append(request.full_url)
        signed = request.get_header("Authorization")
        assert re.match(r"AWS4-HMAC-SHA256 Credential=u/\d{8}/fra1/s3/aws4_request, ", signed)
        return pages[len(asked) - 1].encode()

    monkeypatch.setattr(clients, "fetch", answer)
    assert store.folders("a/") == ["b c", "d"]
    assert "continuation-token=t%2F1" in asked[1] and "prefix=a%2F" in asked[0]


class Broken(io.BytesIO):
    """An answer that ends before its end."""

    def read(self, *_: Any) -> bytes:
        raise http.client.IncompleteRead(b"half")


@pytest.mark.parametrize(
    "failure",
    [
        http.client.BadStatusLine("?"),
        Broken(),
        urllib.error.URLError("gone"),
        urllib.error.HTTPError("https://s", 503, "busy", http.client.HTTPMessage(), Broken()),
    ],
)
def test_answers_that_break_off_are_refused_requests(
    clients: ModuleType, monkeypatch: pytest.MonkeyPatch, failure: Any
) -> None:
    asked = []

    def answer(request: Any, **_: Any) -> Any:
        asked.append(request)
        if isinstance(failure, Exception):
            raise failure
        return failure

    monkeypatch.setattr(urllib.request, "urlopen", answer)
    monkeypatch.setattr(Broken, "close", lambda _: None)
    monkeypatch.setattr(clients.time, "sleep", lambda _: None)
    with pytest.raises(clients.RefusedError, match="https://s"):
        clients.fetch(urllib.request.Request("https://s"), None)
    assert len(asked) == clients.TRIES


def test_answers_that_are_none_are_refused_requests(
    clients: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "fetch", lambda *_: b"<html>")
    with pytest.raises(clients.RefusedError, match="no XML"):
        clients.Store(STORE, None).folders("")
    presto = {"presto": "https://p", "engine": "trino", "user": "u", "password": "p"}
    with pytest.raises(clients.RefusedError, match="no JSON"):
        clients.Presto(presto, None).run("SELECT 1")


def test_an_object_that_is_not_there_is_none(clients: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    status = 404

    def answer(*_: Any) -> bytes:
        raise clients.RefusedError("no", status)

    monkeypatch.setattr(clients, "fetch", answer)
    assert clients.Store(STORE, None).get("b", "k") is None
    status = 403
    with pytest.raises(clients.RefusedError):
        clients.Store(STORE, None).get("b", "k")
