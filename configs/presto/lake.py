"""Keeps Presto's list of the lake's tables what the object store holds. Only Python's own library.

Every Delta table in ``<schema>/<table>`` of the bucket, and each one that the settings name, is registered in
the catalog ``lake`` once it is there, and taken off the list when its folder is gone or the settings name
another one or none. Data is never touched. What is listed by it, and where, is written to the bucket of the
list, so that it knows after a restart what has changed meanwhile.

    lake.py            look again and again
    lake.py probe      exit 0 when the last look succeeded and is recent
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import hmac
import http.client
import json
import re
import signal
import ssl
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

FOLDER = Path("/etc/millrace/presto-lake")
CA = "/run/millrace/tls/ca.crt"
DONE = Path("/tmp/done")
NAME = re.compile(r"[a-z0-9_]{1,60}")
TRIES = 3
COMPARE_EVERY = 20
"""Presto's list may change by hand too: it is asked for after so many looks that found nothing new."""


class RefusedError(Exception):
    """Something refused, did not answer or answered nonsense; the message says what.

    ``status`` is the HTTP status of a refusal, else 0.
    """

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


def fetch(request: urllib.request.Request, context: ssl.SSLContext) -> bytes:
    """The body of the answer.

    Raises:
        RefusedError: when there is none after some tries, or it says that the request is wrong.
    """
    address = request.full_url.partition("?")[0]
    for attempt in range(1, TRIES + 1):
        try:
            with urllib.request.urlopen(request, timeout=60, context=context) as answer:
                return bytes(answer.read())
        except urllib.error.HTTPError as error:
            if (error.code < 500 and error.code != 429) or attempt == TRIES:
                raise RefusedError(f"{address}: {error.code} {_reason(error)}", error.code) from None
        except (OSError, http.client.HTTPException) as error:
            # The second is what is no answer of HTTP, or ends before its end.
            if attempt == TRIES:
                raise RefusedError(f"{address}: {error or type(error).__name__}") from None
        time.sleep(attempt)
    raise AssertionError


def _reason(error: urllib.error.HTTPError) -> str:
    try:
        return error.read(300).decode(errors="replace")
    except (OSError, http.client.HTTPException):
        return str(error.reason)


class Store:
    """A bucket over S3: requests are signed by AWS Signature Version 4."""

    def __init__(self, settings: dict[str, Any], context: ssl.SSLContext) -> None:
        self.endpoint, self.bucket = settings["endpoint"], settings["bucket"]
        self.user, self.secret = settings["store_user"], settings["store_password"]
        self.context = context

    def folders(self, prefix: str) -> list[str]:
        """Names of the folders right below a prefix (which ends in / or is empty)."""
        found: list[str] = []
        token = ""
        while True:
            more = {"continuation-token": token} if token else {}
            answer = self._list(delimiter="/", prefix=prefix, **more)
            found += [
                (entry.text or "")[len(prefix) :].rstrip("/")
                for entry in answer.iterfind("{*}CommonPrefixes/{*}Prefix")
            ]
            token = answer.findtext("{*}NextContinuationToken") or ""
            if not token:
                return found

    def is_table(self, folder: str) -> bool:
        """Whether a folder holds a Delta table: its log has an entry."""
        answer = self._list(**{"prefix": f"{folder}/_delta_log/", "max-keys": "50"})
        keys = [entry.text or "" for entry in answer.iterfind("{*}Contents/{*}Key")]
        return any(key.endswith((".json", ".checkpoint.parquet")) for key in keys)

    def _list(self, **query: str) -> ElementTree.Element:
        values = sorted({"list-type": "2", "encoding-type": "url", **query}.items())
        text = "&".join(f"{quote(key)}={quote(value)}" for key, value in values)
        body = self._ask("GET", f"/{self.bucket}", text)
        try:
            root = ElementTree.fromstring(body)
        except ElementTree.ParseError as error:
            raise RefusedError(f"list of bucket {self.bucket}: no XML: {error}") from None
        for element in root.iter():
            if element.tag.rpartition("}")[2] in ("Key", "Prefix") and element.text:
                element.text = urllib.parse.unquote(element.text)
        return root

    def put(self, bucket: str, key: str, document: dict[str, Any]) -> None:
        """Write an object in JSON."""
        self._ask("PUT", f"/{bucket}/{key}", "", json.dumps(document).encode())

    def get(self, bucket: str, key: str) -> bytes | None:
        """An object, or None when there is none."""
        try:
            return self._ask("GET", f"/{bucket}/{key}", "")
        except RefusedError as failure:
            if failure.status == 404:
                return None
            raise

    def delete(self, bucket: str, key: str) -> None:
        """Remove an object; one that is not there is no mistake."""
        self._ask("DELETE", f"/{bucket}/{key}", "")

    def _ask(self, method: str, path: str, query: str, body: bytes = b"") -> bytes:
        request = urllib.request.Request(
            f"{self.endpoint}{path}" + (f"?{query}" if query else ""),
            data=body or None,
            headers=self._signed(method, path, query, body),
            method=method,
        )
        return fetch(request, self.context)

    def _signed(self, method: str, path: str, query: str, body: bytes) -> dict[str, str]:
        now = datetime.datetime.now(datetime.UTC)
        stamp, day = now.strftime("%Y%m%dT%H%M%SZ"), now.strftime("%Y%m%d")
        content = hashlib.sha256(body).hexdigest()
        host = urllib.parse.urlsplit(self.endpoint).netloc
        headers = {"host": host, "x-amz-content-sha256": content, "x-amz-date": stamp}
        names = ";".join(sorted(headers))
        lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
        canonical = "\n".join((method, path, query, lines, names, content))
        scope = f"{day}/us-east-1/s3/aws4_request"
        digest = hashlib.sha256(canonical.encode()).hexdigest()
        key = f"AWS4{self.secret}".encode()
        for part in (day, "us-east-1", "s3", "aws4_request"):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        signature = hmac.new(
            key, "\n".join(("AWS4-HMAC-SHA256", stamp, scope, digest)).encode(), hashlib.sha256
        ).hexdigest()
        headers["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={self.user}/{scope}, SignedHeaders={names}, Signature={signature}"
        )
        del headers["host"]
        return headers


def quote(text: str) -> str:
    """Percent-encoded as the signature wants it."""
    return urllib.parse.quote(text, safe="-_.~")


class Presto:
    """Runs statements over the HTTP protocol of either engine."""

    def __init__(self, settings: dict[str, Any], context: ssl.SSLContext) -> None:
        self.url, self.context = settings["presto"], context
        product = "Trino" if settings["engine"] == "trino" else "Presto"
        login = f"{settings['user']}:{settings['password']}".encode()
        self.headers = {
            "Authorization": f"Basic {base64.b64encode(login).decode()}",
            f"X-{product}-User": settings["user"],
            f"X-{product}-Source": "millrace-lake",
        }

    def run(self, statement: str) -> list[list[Any]]:
        """The rows of a statement.

        Raises:
            RefusedError: with Presto's own words, when it fails.
        """
        request = urllib.request.Request(
            f"{self.url}/v1/statement", data=statement.encode(), headers=self.headers
        )
        rows: list[list[Any]] = []
        while True:
            body = fetch(request, self.context)
            try:
                answer = json.loads(body)
            except ValueError as error:
                raise RefusedError(f"{self.url}: no JSON: {error}") from None
            rows += answer.get("data") or []
            if error := answer.get("error"):
                raise RefusedError(f"{error.get('errorName')}: {error.get('message')}")
            if "nextUri" not in answer:
                return rows
            request = urllib.request.Request(answer["nextUri"], headers=self.headers)


class Keeper:
    """Compares what the bucket holds with what Presto lists, and mends the list."""

    def __init__(self, settings: dict[str, Any]) -> None:
        context = ssl.create_default_context(cafile=CA)
        self.store, self.presto = Store(settings, context), Presto(settings, context)
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
                    self._unregister(*name.split("."))
                except RefusedError as failure:
                    refused = True
                    self._say(f"{name} cannot be taken off the list: {failure}")
                else:
                    del now[name]
                    self._say(f"{name} taken off the list: it is no longer at {place}", again=True)
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

    def _unregister(self, schema: str, table: str) -> None:
        if self.trino:
            self.presto.run(
                f"CALL lake.system.unregister_table(schema_name => '{schema}', table_name => '{table}')"
            )
        else:
            # Its DROP TABLE looks into the folder first, and finds no table where there is none any more.
            self.store.delete(self.metastore, f"prestodb/{schema}/{table}/.prestoSchema")

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
