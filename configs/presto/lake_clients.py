"""How the keeper of the lake's tables talks to the object store and to Presto. Only Python's own library."""

from __future__ import annotations

import base64
import datetime
import hashlib
import hmac
import http.client
import json
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
import xml.etree.ElementTree as ElementTree
from typing import Any

TRIES = 3


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
        self.region = settings["region"]
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
        scope = f"{day}/{self.region}/s3/aws4_request"
        digest = hashlib.sha256(canonical.encode()).hexdigest()
        key = f"AWS4{self.secret}".encode()
        for part in (day, self.region, "s3", "aws4_request"):
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
