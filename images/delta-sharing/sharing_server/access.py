"""Who asks: bearer tokens, and the tokens of pages, which only their owner can use."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sharing_server.config import Recipient
from sharing_server.errors import invalid, unauthenticated


@dataclass(frozen=True)
class Caller:
    """The recipient of a request, and a key that nobody else has."""

    recipient: Recipient
    key: bytes


class Gate:
    """Finds the recipient that a token belongs to."""

    def __init__(
        self, recipients: Sequence[Recipient], now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._recipients = [(recipient, bytes.fromhex(recipient.token_sha256)) for recipient in recipients]
        self._now = now

    def admit(self, authorization: str | None) -> Caller:
        """The caller who sent this Authorization header.

        Raises:
            ApiError: 401 for a header that is missing or of another form, a wrong token, an expired one.
        """
        scheme, _, token = (authorization or "").partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            raise unauthenticated("a bearer token is required")
        digest = hashlib.sha256(token.encode()).digest()
        found: Recipient | None = None
        # All are compared, each in constant time: how long it takes tells nothing of the tokens.
        for recipient, expected in self._recipients:
            if hmac.compare_digest(digest, expected):
                found = recipient
        if found is None:
            raise unauthenticated("the bearer token is not valid")
        if found.expires is not None and self._now() >= found.expires:
            raise unauthenticated("the bearer token has expired")
        return Caller(found, hashlib.sha256(b"pages" + token.encode()).digest())


def seal(key: bytes, content: dict[str, Any], lifetime_s: int) -> str:
    """A token that holds ``content``: the client hands it back, and can't make another."""
    body = json.dumps({**content, "exp": int(time.time()) + lifetime_s}, sort_keys=True).encode()
    return base64.urlsafe_b64encode(hmac.digest(key, body, "sha256") + body).decode()


def unseal(key: bytes, token: str, **expected: Any) -> dict[str, Any]:
    """What :func:`seal` put in.

    Raises:
        ApiError: when it isn't a token of this recipient, is too old, or was given for something else.
    """
    try:
        raw = base64.urlsafe_b64decode(token.encode())
    except ValueError:
        raise invalid("the page or refresh token is not valid") from None
    signature, body = raw[:32], raw[32:]
    if not hmac.compare_digest(signature, hmac.digest(key, body, "sha256")):
        raise invalid("the page or refresh token is not valid")
    content: dict[str, Any] = json.loads(body)
    if content["exp"] < time.time():
        raise invalid("the page or refresh token has expired: start again")
    if any(content.get(name) != value for name, value in expected.items()):
        raise invalid("the page or refresh token belongs to another request")
    return content
