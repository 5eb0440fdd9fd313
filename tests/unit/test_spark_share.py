"""Spark's reader of shared tables against canned answers; PySpark itself is in the images alone."""

from __future__ import annotations

import importlib.util
import io
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

COLUMNS = pa.schema([("n", pa.int32()), ("day", pa.date32()), ("note", pa.string())])


class Source:
    """What PySpark's base classes give: the reader's options."""

    def __init__(self, options: dict[str, str]) -> None:
        self.options = options


class StructType:
    @staticmethod
    def fromJson(text: Any) -> Any:
        return text


@pytest.fixture
def share(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    bases = {"DataSource": Source, "DataSourceReader": object, "InputPartition": object}
    modules: dict[str, dict[str, Any]] = {
        "pyspark": {},
        "pyspark.sql": {},
        "pyspark.sql.datasource": bases,
        "pyspark.sql.types": {"StructType": StructType},
        "pyspark.sql.pandas": {},
        "pyspark.sql.pandas.types": {"to_arrow_schema": lambda columns: columns},
    }
    for name, values in modules.items():
        module = ModuleType(name)
        vars(module).update(values)
        monkeypatch.setitem(sys.modules, name, module)
    spec = importlib.util.spec_from_file_location("spark_share", "configs/jupyter/spark_share.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Server:
    """Answers by the ends of addresses, and notes who asked with which token and body."""

    def __init__(self, **answers: bytes) -> None:
        self.answers, self.asked = answers, list[tuple[str, str | None, Any]]()

    def open(self, url: str, token: str | None = None, body: Any = None) -> io.BytesIO:
        self.asked.append((url, token, body))
        return io.BytesIO(self.answers[url.rsplit("/", 1)[1]])


def lines(*entries: Any) -> bytes:
    return b"\n".join(json.dumps(entry).encode() for entry in entries)


def table(share: ModuleType, folder: Path, path: str = "#sales.my shop.orders", **options: str) -> Any:
    profile = folder / "partner.share"
    profile.write_text(json.dumps({"endpoint": "https://sharing/delta-sharing/", "bearerToken": "secret"}))
    return share.SharedTable({"path": f"{profile}{path}", **options})


def test_the_server_is_asked_with_the_token_and_the_store_without(
    share: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    buffer = io.BytesIO()
    # Written before there was a note, partitioned by day, in a wider type.
    pq.write_table(pa.table({"n": pa.array([1, 2], pa.int64())}), buffer)
    file = {"url": "https://store/a.parquet", "partitionValues": {"day": "2026-01-31"}}
    server = Server(
        metadata=lines({"protocol": {}}, {"metaData": {"schemaString": '{"type": "struct"}'}}),
        query=lines({"protocol": {}}, {"metaData": {}}, {"file": file}),
        **{"a.parquet": buffer.getvalue()},
    )
    monkeypatch.setattr(share, "_open", server.open)
    source = table(share, tmp_path, limit="7")
    assert source.schema() == {"type": "struct"}
    reader = source.reader(COLUMNS)
    (partition,) = reader.partitions()
    rows = [row for batch in reader.read(partition) for row in batch.to_pylist()]
    assert [(row["n"], str(row["day"]), row["note"]) for row in rows] == [
        (1, "2026-01-31", None), (2, "2026-01-31", None),
    ]  # fmt: skip
    base = "https://sharing/delta-sharing/shares/sales/schemas/my%20shop/tables/orders"
    assert server.asked == [
        (f"{base}/metadata", "secret", None),
        (f"{base}/query", "secret", {"limitHint": 7}),
        ("https://store/a.parquet", None, None),
    ]
    # Executors get addresses, and no token.
    assert "secret" not in json.dumps(vars(partition))


@pytest.mark.parametrize("path", ["", "#sales.orders", "#a.b.c.d", "#a..c"])
def test_an_address_that_is_none(share: ModuleType, tmp_path: Path, path: str) -> None:
    with pytest.raises(ValueError, match=r"write <profile file>#<share>.<schema>.<table>"):
        table(share, tmp_path, path).schema()


def test_nothing_goes_in_plain(share: ModuleType) -> None:
    with pytest.raises(ValueError, match=r"not an https:// address: http://store/a$"):
        share._open("http://store/a?signature=secret")
