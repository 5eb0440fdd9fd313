"""Keeps Presto's list of the lake's tables what the object store holds. Only Python's own library.

Every Delta table in ``<schema>/<table>`` of the bucket, and each one that the settings name, is registered in
the catalog ``lake`` once it is there, and taken off the list when its folder is gone. Data is never touched.

    lake.py            look again and again
    lake.py probe      exit 0 when the last look succeeded and is recent
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import hmac
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
    """Something refused or did not answer; the message says what."""


def fetch(request: urllib.request.Request, context: ssl.SSLContext) -> bytes:
    """The body of the answer.

    Raises:
        RefusedError: when there is none after some tries, or it says that the request is wrong.
    """
    for attempt in range(1, TRIES + 1):
        try:
            with urllib.request.urlopen(request, timeout=60, context=context) as answer:
                return bytes(answer.read())
        except urllib.error.HTTPError as error:
            if (error.code < 500 and error.code != 429) or attempt == TRIES:
                text = error.read()[:300].decode(errors="replace")
                raise RefusedError(f"{request.full_url.partition('?')[0]}: {error.code} {text}") from None
        except OSError as error:
            if attempt == TRIES:
                raise RefusedError(f"{request.full_url.partition('?')[0]}: {error}") from None
        time.sleep(attempt)
    raise AssertionError


class Store:
    """Lists a bucket and writes objects over S3, with requests signed by AWS Signature Version 4."""

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
        root = ElementTree.fromstring(self._ask("GET", f"/{self.bucket}", text))
        for element in root.iter():
            if element.tag.rpartition("}")[2] in ("Key", "Prefix") and element.text:
                element.text = urllib.parse.unquote(element.text)
        return root

    def put(self, bucket: str, key: str, document: dict[str, Any]) -> None:
        """Write an object in JSON."""
        self._ask("PUT", f"/{bucket}/{key}", "", json.dumps(document).encode())

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
            answer = json.loads(fetch(request, self.context))
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
        self.metastore = settings["metastore"]
        self.seen: dict[str, str] = {}
        self.rounds, self.even = 0, False
        self.said: set[str] = set()

    def look(self) -> None:
        """One round. A table that cannot be registered is reported and does not hinder the others.

        Raises:
            RefusedError: when the object store or Presto cannot be asked.
        """
        found = self._found()
        self.rounds += 1
        if self.even and found == self.seen and self.rounds % COMPARE_EVERY:
            return
        listed = {
            f"{schema}.{table}"
            for schema, table in self.presto.run(
                "SELECT table_schema, table_name FROM lake.information_schema.tables "
                "WHERE table_schema <> 'information_schema'"
            )
        }
        schemas = {row[0] for row in self.presto.run("SHOW SCHEMAS FROM lake")}
        refused = False
        for name, folder in sorted(found.items()):
            if name in listed:
                continue
            schema, table = name.split(".")
            try:
                if schema not in schemas:
                    self._make_schema(schema)
                    schemas.add(schema)
                self._register(schema, table, f"s3://{self.bucket}/{folder}")
            except RefusedError as failure:
                refused = True
                self._say(f"{name} cannot be registered: {failure}")
            else:
                self._say(f"{name} registered at s3://{self.bucket}/{folder}", again=True)
        for name in sorted((self.seen.keys() - found.keys()) & listed):
            schema, table = name.split(".")
            self._unregister(schema, table)
            self._say(f"{name} taken off the list: its folder is gone", again=True)
        self.seen, self.even = found, not refused

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
            self.presto.run(f'DROP TABLE lake."{schema}"."{table}"')

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
