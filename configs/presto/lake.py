"""Keeps Presto's list of the lake's tables what the object store holds. Only Python's own library.

Every Delta table in ``<schema>/<table>`` of the bucket, and each one that the settings name, is registered in
the catalog ``lake`` once it is there, and taken off the list when its folder is gone or the settings name
another one or none. Data is never touched. What is listed by it, and where, is written to the bucket of the
list, so that it knows after a restart what has changed meanwhile.

    lake.py            look again and again
    lake.py probe      exit 0 when the last look succeeded and is recent
"""

from __future__ import annotations

import json
import re
import signal
import ssl
import sys
import time
from pathlib import Path
from typing import Any

from lake_clients import Presto, RefusedError, Store

FOLDER = Path("/etc/millrace/presto-lake")
CA = "/run/millrace/tls/ca.crt"
DONE = Path("/tmp/done")
NAME = re.compile(r"[a-z0-9_]{1,60}")
COMPARE_EVERY = 20
"""Presto's list may change by hand too: it is asked for after so many looks that found nothing new."""


class Keeper:
    """Compares what the bucket holds with what Presto lists, and mends the list."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.store = Store(settings, ssl.create_default_context(cafile=settings["store_ca"]))
        self.presto = Presto(settings, ssl.create_default_context(cafile=CA))
        self.trino = settings["engine"] == "trino"
        self.bucket, self.declared = settings["bucket"], dict(settings["tables"])
        self.metastore, self.record = settings["metastore"], f"keeper/{settings['engine']}.json"
        self.kept: dict[str, str] | None = None
        """Where each table lies that it keeps on the list, as the record has it; None before that is read."""
        self.rounds, self.even = 0, False
        self.said: set[str] = set()

    def look(self) -> None:
        """One round. A table that cannot be registered is reported and does not hinder the others.

        Raises:
            RefusedError: when the object store or Presto cannot be asked.
        """
        if self.kept is None:
            self.kept = self._read()
        found = {name: f"s3://{self.bucket}/{folder}" for name, folder in self._found().items()}
        self.rounds += 1
        if self.even and found == self.kept and self.rounds % COMPARE_EVERY:
            return
        listed = {
            f"{schema}.{table}"
            for schema, table in self.presto.run(
                "SELECT table_schema, table_name FROM lake.information_schema.tables "
                "WHERE table_schema <> 'information_schema'"
            )
        }
        schemas = {row[0] for row in self.presto.run("SHOW SCHEMAS FROM lake")}
        # What is listed and was never kept is somebody's who works by hand, unless it lies where it would be.
        now = {name: self.kept.get(name, found[name]) for name in found.keys() & listed}
        now |= {name: place for name, place in self.kept.items() if name in listed}
        refused = False
        for name, place in sorted(now.items()):
            if found.get(name) != place:
                try:
                    self._unregister(*name.split("."), place)
                except RefusedError as failure:
                    refused = True
                    self._say(f"{name} cannot be taken off the list: {failure}")
                else:
                    del now[name]
                    self._say(f"{name} taken off the list: it is no longer at {place}", again=True)
        schemas -= self._left({name.split(".")[0] for name in now}, schemas)
        for name, place in sorted(found.items()):
            if name in now:
                continue
            schema, table = name.split(".")
            try:
                if schema not in schemas:
                    self._make_schema(schema)
                    schemas.add(schema)
                self._register(schema, table, place)
            except RefusedError as failure:
                refused = True
                self._say(f"{name} cannot be registered: {failure}")
            else:
                now[name] = place
                self._say(f"{name} registered at {place}", again=True)
        if now != self.kept:
            self.store.put(self.metastore, self.record, now)
        self.kept, self.even = now, not refused

    def _read(self) -> dict[str, str]:
        body = self.store.get(self.metastore, self.record)
        if body is None:
            return {}
        try:
            return {str(name): str(place) for name, place in json.loads(body).items()}
        except (ValueError, AttributeError):
            self._say(f"{self.metastore}/{self.record} cannot be read and is written anew")
            return {}

    def _found(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for schema in self.store.folders(""):
            for table in self.store.folders(f"{schema}/") if not schema.startswith(("_", ".")) else ():
                folder = f"{schema}/{table}"
                if table.startswith(("_", ".")) or not self.store.is_table(folder):
                    continue
                if NAME.fullmatch(schema) and NAME.fullmatch(table):
                    found[f"{schema}.{table}"] = folder
                else:
                    self._say(f"{folder} is left out: names have lower-case letters, digits and _ only")
        for name, folder in self.declared.items():
            if self.store.is_table(folder):
                found[name] = folder
            else:
                self._say(f"{name} is left out: no Delta table at {folder} yet")
        return found

    def _make_schema(self, schema: str) -> None:
        if self.trino:
            place = f"s3://{self.bucket}/{schema}"
            self.presto.run(f"CREATE SCHEMA IF NOT EXISTS lake.\"{schema}\" WITH (location = '{place}')")
        else:
            owner = {"ownerName": "millrace.lake", "ownerType": "USER", "parameters": {}}
            self.store.put(self.metastore, f"prestodb/{schema}/.prestoSchema", owner)

    def _is_here(self, place: str) -> bool:
        return place.startswith(f"s3://{self.bucket}/")

    def _left(self, used: set[str], schemas: set[str]) -> set[str]:
        """Schemas of another bucket, taken off: new tables would go there, where nobody looks now."""
        if not self.trino:
            return set()
        former = {name.split(".")[0] for name, place in (self.kept or {}).items() if not self._is_here(place)}
        gone: set[str] = set()
        for schema in sorted(former & schemas - used):
            try:
                self.presto.run(f'DROP SCHEMA lake."{schema}"')
            except RefusedError as failure:
                self._say(f"schema {schema} stays in its former bucket, drop it by hand: {failure}")
            else:
                gone.add(schema)
                self._say(f"schema {schema} taken off the list: it was of another bucket", again=True)
        return gone

    def _register(self, schema: str, table: str, location: str) -> None:
        if self.trino:
            self.presto.run(
                f"CALL lake.system.register_table(schema_name => '{schema}', table_name => '{table}', "
                f"table_location => '{location}')"
            )
        else:
            # PrestoDB's Delta connector makes no schemas, and its list in files takes tables of local folders
            # only. What it reads of either is a file in JSON. The columns come from the Delta log.
            self.store.put(
                self.metastore,
                f"prestodb/{schema}/{table}/.prestoSchema",
                {
                    "owner": "millrace.lake",
                    "tableType": "EXTERNAL_TABLE",
                    "dataColumns": [{"name": "unused", "type": "int"}],
                    "partitionColumns": [],
                    "parameters": {"EXTERNAL": "TRUE"},
                    "storageFormat": "PARQUET",
                    "storageParameters": {},
                    "serdeParameters": {},
                    "externalLocation": location,
                    "columnStatistics": {},
                },
            )

    def _unregister(self, schema: str, table: str, place: str) -> None:
        if not self.trino:
            # Its DROP TABLE looks into the folder first, and finds no table where there is none any more.
            self.store.delete(self.metastore, f"prestodb/{schema}/{table}/.prestoSchema")
        elif self._is_here(place):
            self.presto.run(
                f"CALL lake.system.unregister_table(schema_name => '{schema}', table_name => '{table}')"
            )
        else:
            # It reads the table's log first, and in another bucket there is no leave to.
            self.store.delete(self.metastore, f"trino/{schema}/{table}/.trinoSchema")

    def _say(self, text: str, *, again: bool = False) -> None:
        """A line in the log; what stays as it is, once."""
        if again or text not in self.said:
            print(text, flush=True)
        if not again:
            self.said.add(text)


def main() -> None:
    """Look, write down when, wait, and so on."""
    settings = json.loads((FOLDER / "settings.json").read_text())
    pause = settings["refresh_s"]
    if sys.argv[1:] == ["probe"]:
        age = time.time() - float(DONE.read_text()) if DONE.exists() else None
        sys.exit(0 if age is not None and age < 3 * pause + 120 else "no look has succeeded lately")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    keeper = Keeper(settings)
    while True:
        try:
            keeper.look()
        except RefusedError as failure:
            print(f"not now: {failure}", flush=True)
            time.sleep(min(pause, 5))
        else:
            DONE.write_text(str(time.time()))
            time.sleep(pause)


if __name__ == "__main__":
    main()
