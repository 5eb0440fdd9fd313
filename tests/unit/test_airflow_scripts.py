"""The scripts that run beside Airflow: clean-up, DAG files, keys."""

from __future__ import annotations

import importlib.util
import json
import os
import runpy
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest
from airflow_sample import CONFIGS
from cryptography.fernet import Fernet


class Store:
    """Stands for Airflow's hook for the object store, with three objects."""

    deleted: ClassVar[list[str]] = []

    def __init__(self, aws_conn_id: str) -> None:
        assert aws_conn_id == "object_store"

    def get_conn(self) -> Any:
        """The client."""
        return self

    def get_paginator(self, operation: str) -> Any:
        """The paginator."""
        assert operation == "list_objects_v2"
        return self

    def paginate(self, Bucket: str) -> Any:  # noqa: N803  # the client's own name
        """Two pages, and one without anything."""
        assert Bucket == "logs"
        now = datetime.now(UTC)
        ages = {"new": 1, "younger": 9, "old": 11}
        entries = [{"Key": k, "LastModified": now - timedelta(days=d)} for k, d in ages.items()]
        return [{"Contents": entries[:2]}, {}, {"Contents": entries[2:]}]

    def delete_objects(self, bucket: str, keys: list[str]) -> None:
        """Notes what goes."""
        self.deleted.extend(keys)


def test_the_clean_up_deletes_what_is_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logs = tmp_path / "logs"
    old = time.time() - 11 * 86400
    for name, stamp in (("a/old", old), ("a/new", None), ("b/c/old", old)):
        (logs / name).parent.mkdir(parents=True, exist_ok=True)
        (logs / name).touch()
        if stamp:
            os.utime(logs / name, (stamp, stamp))
    for folder in ("b/c", "b", "a"):
        os.utime(logs / folder, (old, old))
    source = CONFIGS / "dags" / "platform_cleanup.py"
    keep = {"metadata_days": 20, "log_days": 10, "bucket": "logs", "folders": {str(logs): 10}}
    (tmp_path / source.name).write_text(source.read_text())
    (tmp_path / "platform_cleanup.json").write_text(json.dumps(keep))
    ran: list[Any] = []

    def task(function: Any) -> Any:
        return lambda: ran.append((function.__name__, function()))

    options: dict[str, Any] = {}
    sdk = ModuleType("airflow.sdk")
    sdk.__dict__.update(task=task, dag=lambda **given: (options.update(given), lambda function: function)[1])
    s3 = ModuleType("airflow.providers.amazon.aws.hooks.s3")
    s3.__dict__["S3Hook"] = Store
    for module in (sdk, s3):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "airflow-db-not-allowed:///")
    commands: list[Any] = []
    monkeypatch.setattr(subprocess, "run", lambda command, **more: commands.append((command, more)))
    spec = importlib.util.spec_from_file_location("platform_cleanup", tmp_path / source.name)
    assert spec and spec.loader
    spec.loader.exec_module(importlib.util.module_from_spec(spec))

    assert dict(ran) == {"metadata": None, "task_logs": 1, "local_files": 2}
    assert Store.deleted == ["old"]
    # The folder that became empty just now has a new time stamp: it goes the next time.
    assert sorted(str(p.relative_to(logs)) for p in logs.rglob("*")) == ["a", "a/new", "b", "b/c"]
    ((command, more),) = commands
    assert command[:3] == ["airflow", "db", "clean"] and "--yes" in command
    until = datetime.fromisoformat(command[command.index("--clean-before-timestamp") + 1])
    assert abs(datetime.now(UTC) - timedelta(days=20) - until) < timedelta(minutes=1)
    assert more["check"] and not any("SQL_ALCHEMY" in name for name in more["env"])
    assert options["is_paused_upon_creation"] is False


def script(name: str, *arguments: object, **env: str) -> str:
    done = subprocess.run(
        [sys.executable, "-S", str(CONFIGS / name), *map(str, arguments)],
        capture_output=True, text=True, check=False, env={**os.environ, **env},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_folder_becomes_what_the_manifest_says(tmp_path: Path) -> None:
    manifest, folder = tmp_path / "m.json", tmp_path / "dags"
    folder.mkdir()

    def sync(**wanted: str) -> str:
        manifest.write_text(json.dumps({name.replace("__", "/"): text for name, text in wanted.items()}))
        return script("sync_dags.py", manifest, folder)

    assert sync(a="1", b__c="2", b__empty="") == "3 files, 3 written, 0 removed"
    kept = (folder / "a").stat().st_mtime_ns
    assert sync(a="1", b__c="3") == "2 files, 1 written, 1 removed"
    assert (folder / "a").stat().st_mtime_ns == kept
    assert (folder / "b/c").read_text() == "3"
    (folder / "x/y").mkdir(parents=True)
    (folder / "x/y/.foreign").touch()
    assert sync(a="1") == "1 files, 0 written, 2 removed"
    assert [path.name for path in folder.rglob("*")] == ["a"]


class Cursor:
    """Stands for the driver's, on SQLite."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self.database, self.rows, self.itersize, self.rowcount = database, [], 0, 0

    def __enter__(self) -> Cursor:
        return self

    def __exit__(self, *_: object) -> None: ...

    def __iter__(self) -> Iterator[Any]:
        return iter(self.rows)

    def execute(self, text: str, values: Sequence[object] = ()) -> None:
        done = self.database.execute(text.replace("%s", "?"), values)
        self.rows, self.rowcount = done.fetchall(), done.rowcount

    def fetchone(self) -> Any:
        return self.rows[0]


class Reader(Cursor):
    """A cursor of the server; something happens once it has read the variables."""

    def execute(self, text: str, values: Sequence[object] = ()) -> None:
        super().execute(text, values)
        if "FROM variable" in text:
            self.database.execute(Database.meanwhile)


class Database(sqlite3.Connection):
    """Stands for Airflow's."""

    meanwhile: ClassVar[str] = ""

    def cursor(self, name: str = "") -> Any:
        return Reader(self) if name else Cursor(self)


@pytest.fixture
def encrypted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A database with nothing in it, and the script that encrypts anew with some keys."""
    database = sqlite3.connect(":memory:", factory=Database, isolation_level=None)
    columns = "password TEXT, extra TEXT, is_encrypted, is_extra_encrypted"
    database.executescript(
        f"CREATE TABLE connection (id INTEGER PRIMARY KEY, conn_id TEXT, {columns});"
        "CREATE TABLE variable (id INTEGER PRIMARY KEY, key TEXT, val TEXT, is_encrypted);"
        "CREATE TABLE trigger_ (id INTEGER PRIMARY KEY, classpath TEXT, kwargs TEXT);"
        "CREATE TABLE log (dttm, event TEXT, owner TEXT, extra TEXT);"
    )
    database.create_function("now", 0, lambda: "now")
    there = ("connection", "variable", "trigger")
    database.create_function("to_regclass", 1, lambda name: name if name in there else None)

    class Sql(str):
        def format(self, *_: object, **values: object) -> Sql:
            return Sql(str.format(self, **values))

    driver, sql = ModuleType("psycopg2"), ModuleType("psycopg2.sql")
    # SQLite takes no table of this name.
    sql.__dict__.update(SQL=Sql, Identifier=lambda name: "trigger_" if name == "trigger" else name)
    driver.__dict__.update(sql=sql, connect=lambda uri, **more: database)
    for module in (driver, sql):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(Database, "meanwhile", "")

    def run(*keys: bytes) -> sqlite3.Connection:
        (tmp_path / "keys").write_bytes(b",".join(keys))
        (tmp_path / "database").write_text("postgresql://")
        monkeypatch.setattr(sys, "argv", ["", str(tmp_path / "keys"), str(tmp_path / "database")])
        runpy.run_path(str(CONFIGS / "rotate_fernet.py"))
        return database

    return run


def test_what_a_former_key_reads_is_encrypted_anew(
    encrypted: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    new, old, older, gone = (Fernet.generate_key() for _ in range(4))
    database = encrypted(new)
    assert capsys.readouterr().out == "encrypted anew: {}\n"

    def token(key: bytes, text: str) -> str:
        return Fernet(key).encrypt(text.encode()).decode()

    kept = token(new, "c")
    database.execute(
        "INSERT INTO connection VALUES (1, 'a', ?, ?, 1, 1), (2, 'b', 'plain', NULL, 0, 0)",
        (token(old, "p"), token(older, "x")),
    )
    database.execute(
        "INSERT INTO variable VALUES (1, 'c', ?, 1), (2, 'd', ?, 1), (3, 'e', '', 1), (4, 'f', ?, 1)",
        (kept, token(gone, "d"), token(old, "f")),
    )
    database.execute(
        "INSERT INTO trigger_ VALUES (1, 't', ?), (2, 'u', '{\"plain\": 1}')", (token(old, "{}"),)
    )
    # Saved by a program that still has the former key, after the job has read the row.
    saved = token(old, "saved")
    Database.meanwhile = f"UPDATE variable SET val = '{saved}' WHERE key = 'f'"
    encrypted(new, old, older)
    printed = capsys.readouterr()
    assert json.loads(printed.out.partition(":")[2]) == {"connection": 2, "variable": 0, "trigger": 1}
    assert printed.err == "no key that is still known reads variable d: val\n"
    password, extra = database.execute("SELECT password, extra FROM connection WHERE id = 1").fetchone()
    (kwargs,) = database.execute("SELECT kwargs FROM trigger_ WHERE id = 1").fetchone()
    assert [Fernet(new).decrypt(t.encode()) for t in (password, extra, kwargs)] == [b"p", b"x", b"{}"]
    assert database.execute("SELECT password FROM connection WHERE id = 2").fetchone() == ("plain",)
    assert dict(database.execute("SELECT key, val FROM variable WHERE key IN ('c', 'f')")) == {
        "c": kept,
        "f": saved,
    }
    (logged,) = database.execute("SELECT event, extra FROM log").fetchall()
    assert logged == ("encrypted with an unknown key", '["variable d: val"]')
    # And the next run takes it up.
    Database.meanwhile = ""
    encrypted(new, old, older)
    assert Fernet(new).decrypt(dict(database.execute("SELECT key, val FROM variable"))["f"]) == b"saved"
