"""Requests to the platform's sites, with nothing but what every Python has."""

from __future__ import annotations

import base64
import http.client
import json
import socket
import ssl
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

_SECONDS = 60


class UnreachableError(Exception):
    """No answer: a connection that failed, a certificate that does not verify, a server in trouble."""


@dataclass(frozen=True)
class Answer:
    """What a server said."""

    status: int
    body: bytes

    @property
    def json(self) -> Any:
        """The document it holds.

        Raises:
            UnreachableError: it holds none.
        """
        try:
            return json.loads(self.body)
        except ValueError:
            raise UnreachableError(f"answers {self.status} without JSON") from None


def trusting(ca: str) -> ssl.SSLContext:
    """Verifies servers against the CAs of the machine and one more, in PEM."""
    context = ssl.create_default_context()
    if ca:
        context.load_verify_locations(cadata=ca)
    return context


def connect(host: str, port: int, timeout: float | None) -> socket.socket:
    """Connect as browsers do: names below ``localhost`` are this machine; the C library may not know."""
    return socket.create_connection(("127.0.0.1" if host.endswith(".localhost") else host, port), timeout)


class _Connection(http.client.HTTPSConnection):
    def connect(self) -> None:
        plain = connect(self.host, self.port, self.timeout)
        self.sock = self._own_context.wrap_socket(plain, server_hostname=self.host)

    def __init__(self, host: str, port: int, context: ssl.SSLContext) -> None:
        super().__init__(host, port, timeout=_SECONDS, context=context)
        self._own_context = context


class Site:
    """One site, as one user logged in by name and password."""

    def __init__(self, url: str, context: ssl.SSLContext, user: str = "", password: str = "") -> None:
        self.url, self.user, self.password = url.rstrip("/"), user, password
        self._context = context

    def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Answer:
        """One request; ``body`` is text or is sent as JSON.

        Raises:
            UnreachableError: there was no answer, or that of a server in trouble: its database is away, say.
        """
        parts = urlsplit(self.url)
        sent = dict(headers or {})
        if self.user:
            login = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
            sent["Authorization"] = f"Basic {login}"
        if body is not None and not isinstance(body, str):
            body = json.dumps(body)
            sent["Content-Type"] = "application/json"
        connection = _Connection(str(parts.hostname), parts.port or 443, self._context)
        try:
            connection.request(method, path, body, sent)
            response = connection.getresponse()
            answer = Answer(response.status, response.read())
        except (OSError, http.client.HTTPException) as error:
            raise UnreachableError(f"{self.url}: {error}") from error
        finally:
            connection.close()
        if answer.status >= 500:
            raise UnreachableError(f"{self.url} answers {answer.status}")
        return answer
