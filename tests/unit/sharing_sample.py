"""Delta tables on disk and the Delta Sharing server on top of them, for the server's own tests."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable, write_deltalake

sys.path.append(str(Path(__file__).resolve().parents[2] / "images" / "delta-sharing"))

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from fastapi.testclient import TestClient

from sharing_server import config
from sharing_server.access import Gate
from sharing_server.app import create_app

TOKENS = {"all": "token-of-all", "some": "token-of-some", "late": "token-of-late", "inside": "token-inside"}
TOKENS["soon"] = "token-of-soon"
PREFIX = "/delta-sharing"
URL_ENDS = 1_900_000_000_000
SOON = dt.datetime(2099, 1, 1, tzinfo=dt.UTC)
COMMITTED = 1_700_000_000_000
"""Time of version 0; each further version is a minute later (ms since 1970)."""


class LocalStorage:
    """Tables in folders; addresses that say what they are for."""

    def options(self) -> dict[str, str]:
        return {}

    def uri(self, location: str) -> str:
        return location

    def read(self, location: str, path: str) -> bytes:
        return (Path(location) / path).read_bytes()

    def changed(self, location: str, path: str) -> str | None:
        found = Path(location) / path
        return str(found.stat().st_mtime_ns) if found.exists() else None

    def listing(self, location: str, folder: str) -> Iterator[tuple[str, int]]:
        for path in sorted((Path(location) / folder).iterdir(), reverse=True):
            yield path.name, round(path.stat().st_mtime * 1000)

    def sign(self, location: str, path: str, urls: str, until: dt.datetime | None) -> tuple[str, int]:
        return f"https://{urls}.example/{Path(location).name}/{path}", URL_ENDS if until is None else int(
            until.timestamp() * 1000
        )


def rows(ids: Iterable[int]) -> pa.Table:
    """Rows with an id, a name (none for every third), an amount and a day, three ids to a day."""
    ids = list(ids)
    return pa.table(
        {
            "id": ids,
            "name": [None if i % 3 == 0 else f"name {i}" for i in ids],
            "amount": [i / 2 for i in ids],
            "day": [dt.date(2024, 1, 1 + i // 3) for i in ids],
        }
    )


def make_orders(folder: Path) -> Path:
    """Five versions: two appends, an update, a delete and an optimize that changes nothing."""
    place = folder / "orders"
    write_deltalake(place, rows(range(6)), partition_by=["day"],
                    configuration={"delta.enableChangeDataFeed": "true"})  # fmt: skip
    write_deltalake(place, rows(range(6, 9)), mode="append")
    DeltaTable(place).update(predicate="id = 4", updates={"amount": "100.0"})
    DeltaTable(place).delete("id = 7")
    write_deltalake(place, rows(range(9, 12)), mode="append")
    stamp(place)
    return place


def make_plain(folder: Path) -> Path:
    """One version, without partitions or a record of changes."""
    place = folder / "plain"
    write_deltalake(place, rows(range(4)))
    stamp(place)
    return place


def make_lake(folder: Path) -> Path:
    """Both tables."""
    make_orders(folder)
    make_plain(folder)
    return folder


def make_log(folder: Path, name: str, *commits: list[Mapping[str, Any]]) -> Path:
    """A table with these commits, whose data files nobody looks at."""
    log = folder / name / "_delta_log"
    log.mkdir(parents=True)
    for version, actions in enumerate(commits):
        (log / f"{version:020}.json").write_text("\n".join(json.dumps(action) for action in actions))
    stamp(folder / name)
    return folder / name


def stamp(place: Path) -> None:
    """Give the commits their times."""
    for version, path in enumerate(sorted((place / "_delta_log").glob("*.json"))):
        os.utime(path, ns=(0, (COMMITTED + version * 60_000) * 1_000_000))


def moment(version: int, offset_s: int = 0) -> str:
    """The time of a version, or some seconds off it."""
    at = dt.datetime.fromtimestamp(COMMITTED / 1000 + version * 60 + offset_s, dt.UTC)
    return at.isoformat().replace("+00:00", "Z")


def recipient(name: str, **more: Any) -> config.Recipient:
    return config.Recipient(name, hashlib.sha256(TOKENS[name].encode()).hexdigest(), **more)


def client_of(tables: Mapping[str, config.Table], **settings: Any) -> TestClient:
    """A client of a server that shares these tables as Sales.Daily.<name>, and more shares to list."""
    shares = (
        config.Share("Sales", (config.Schema("Daily", tuple(tables.values())), config.Schema("empty"))),
        config.Share("other", (config.Schema("private", tuple(tables.values())),)),
        *(config.Share(f"share{i}") for i in range(5)),
    )
    recipients = [
        recipient("all"),
        recipient("some", shares=frozenset({"sales"})),
        recipient("late", expires=dt.datetime(2020, 1, 1, tzinfo=dt.UTC)),
        recipient("inside", urls="internal"),
        recipient("soon", expires=SOON),
    ]
    values = {"predicate_hints": True, **settings}
    app = create_app(config.Settings(shares=shares, **values), Gate(recipients), LocalStorage(), lambda: None)
    return TestClient(app, raise_server_exceptions=False)


def client_of_lake(folder: Path) -> TestClient:
    """A client of a server that shares both tables, orders in three ways, and one that is not there."""
    orders = str(folder / "orders")
    return client_of(
        {
            "orders": config.Table("Orders", orders, id="id-1", history=True),
            "recent": config.Table("recent", orders, history=True, start_version=2),
            "newest": config.Table("newest", orders),
            "plain": config.Table("plain", str(folder / "plain"), history=True),
            "absent": config.Table("absent", str(folder / "absent"), history=True),
        }
    )


def get(client: Any, path: str, who: str = "all", **more: Any) -> Any:
    """The answer to a request of a recipient."""
    return client.get(f"{PREFIX}{path}", headers={"Authorization": f"Bearer {TOKENS[who]}"}, **more)


def error(answer: Any, status: int, code: str) -> str:
    """The message of an answer that has to be this error."""
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"errorCode", "message"}
    assert answer.json()["errorCode"] == code
    return str(answer.json()["message"])


class Asker:
    """Requests of one recipient about one table."""

    def __init__(self, client: TestClient, table: str = "orders", who: str = "all") -> None:
        self.client, self.who = client, who
        self.base = f"/shares/sales/schemas/daily/tables/{table}"

    def ask(self, path: str, method: str = "GET", capabilities: str | None = None, **more: Any) -> Any:
        """The answer to a request below the table's path."""
        headers = {"Authorization": f"Bearer {TOKENS[self.who]}", **more.pop("headers", {})}
        if capabilities:
            headers["delta-sharing-capabilities"] = capabilities
        return self.client.request(method, f"{PREFIX}{self.base}{path}", headers=headers, **more)

    def query(self, capabilities: str | None = None, **body: Any) -> list[dict[str, Any]]:
        """The lines of a query."""
        return lines(self.ask("/query", "POST", capabilities, json=body))

    def changes(self, capabilities: str | None = None, **parameters: Any) -> list[dict[str, Any]]:
        """The lines of a request for changes."""
        return lines(self.ask("/changes", capabilities=capabilities, params=parameters))


def lines(answer: Any) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/x-ndjson; charset=utf-8"
    return [json.loads(line) for line in answer.text.splitlines()]


def of(kind: str, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The contents of the lines of one kind."""
    return [line[kind] for line in found if kind in line]


def ids(place: Path, files: Iterable[Mapping[str, Any]]) -> list[int]:
    """The ids in the rows of these files, read where their addresses say."""
    found: list[int] = []
    for file in files:
        path = unquote(file["url"].split(f"/{place.name}/", 1)[1])
        found += pq.ParquetFile(place / path).read().column("id").to_pylist()
    return sorted(found)
