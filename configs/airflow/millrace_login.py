"""Airflow's users are the platform's: an auth manager for logins at the proxy, and tokens for API clients.

Reads one file, ``[millrace] users`` in airflow.cfg: the header value that only the proxy knows, and each
user's role and bcrypt hash. Runs on Airflow 3 as it is; nothing but this file has to be on PYTHONPATH.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import math
import secrets
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
from airflow.configuration import conf

PROXY_HEADER = b"x-millrace-proxy"
USER_HEADER = b"x-forwarded-user"
# What the injected token is good for: one request.
REQUEST_S = 120
ROLES = {"user": "VIEWER", "engineer": "OP", "admin": "ADMIN"}
# A client may be wrong so often at once, and once more after each of these spans.
WRONG, AGAIN_S = 10, 6
# How many clients are remembered, and how many requests wait for a check of a password.
CLIENTS, WAITING = 10_000, 8


@cache
def known() -> dict[str, Any]:
    """The file; it changes only together with the container."""
    found: dict[str, Any] = json.loads(Path(conf.get("millrace", "users")).read_text())
    return found


def user(name: str) -> SimpleAuthManagerUser | None:
    """A platform user with the role the platform gives, or None."""
    entry = known()["users"].get(name)
    return SimpleAuthManagerUser(username=name, role=ROLES[entry["role"]]) if entry else None


def password_mark(name: str) -> str:
    """Changes with the user's password, so that tokens end with it; tells nothing about it."""
    return hashlib.sha256(known()["users"][name]["hash"].encode()).hexdigest()[:16]


@cache
def nobody() -> bytes:
    """The hash of nobody's password: an unknown name takes as long as a wrong password."""
    import bcrypt

    return bcrypt.hashpw(secrets.token_bytes(16), bcrypt.gensalt(10))


def right_password(name: str, password: str) -> bool:
    """Whether it is the user's. Costs a core some 60 ms."""
    import bcrypt

    entry = known()["users"].get(name)
    given = password.encode()
    # bcrypt looks at 72 bytes; newer versions refuse more, and no password is that long.
    right = bcrypt.checkpw(given[:72], entry["hash"].encode() if entry else nobody())
    return right and entry is not None and len(given) <= 72


class TooManyError(Exception):
    """Too many wrong passwords of a client, or requests at a time; ``wait_s`` until there is room."""

    def __init__(self, wait_s: float) -> None:
        super().__init__(wait_s)
        self.wait_s = max(1, math.ceil(wait_s))


class Guesses:
    """How often each client may still be wrong: counted before the check, as many run at a time."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._left: dict[str, tuple[float, float]] = {}

    def take(self, client: str) -> None:
        """One guess of the client.

        Raises:
            TooManyError: when it has none left.
        """
        left = self._balance(client)
        if left < 1:
            raise TooManyError((1 - left) * AGAIN_S)
        self._note(client, left - 1)

    def give_back(self, client: str) -> None:
        """It was none: the password was right."""
        self._note(client, min(WRONG, self._balance(client) + 1))

    def _balance(self, client: str) -> float:
        left, at = self._left.get(client, (WRONG, self._now()))
        return min(WRONG, left + (self._now() - at) / AGAIN_S)

    def _note(self, client: str, left: float) -> None:
        # The one that was longest silent is first, and forgotten first.
        self._left.pop(client, None)
        self._left[client] = (left, self._now())
        if len(self._left) > CLIENTS:
            del self._left[next(iter(self._left))]


class Passwords:
    """Checks passwords, one at a time, in a thread that nothing else of Airflow waits for."""

    def __init__(self, guesses: Guesses | None = None) -> None:
        self._guesses = guesses or Guesses()
        self._limiter: Any = None
        self._pending = 0

    async def right(self, client: str, name: str, password: str) -> bool:
        """Whether it is the user's password.

        Raises:
            TooManyError: when nobody looked.
        """
        from anyio import CapacityLimiter, to_thread

        self._limiter = self._limiter or CapacityLimiter(1)
        if self._pending > WAITING:
            raise TooManyError(1)
        self._guesses.take(client)
        self._pending += 1
        try:
            right = await to_thread.run_sync(right_password, name, password, limiter=self._limiter)
        finally:
            self._pending -= 1
        if right:
            self._guesses.give_back(client)
        return right


class PlatformAuthManager(SimpleAuthManager):
    """The rules of Airflow's simple auth manager for its four roles; users, logins and tokens of our own.

    A browser is known by the proxy, anew with each request, so there is no session to steal or to end. Tokens
    for API clients are Airflow's usual ones, checked against the platform's users of today.
    """

    @staticmethod
    def get_users() -> list[SimpleAuthManagerUser]:
        """The platform's users."""
        return [found for name in known()["users"] if (found := user(name))]

    def init(self) -> None:
        """Nothing of the simple auth manager's: it would generate passwords and print them."""

    def serialize_user(self, user: SimpleAuthManagerUser) -> dict[str, Any]:
        """Claims of a token."""
        return {"sub": user.username, "password": password_mark(user.username)}

    def deserialize_user(self, token: dict[str, Any]) -> SimpleAuthManagerUser:
        """The user of a token, with today's role.

        Raises:
            ValueError: for a user who is gone, or whose password is another one now.
        """
        found = user(token["sub"])
        if found is None or not hmac.compare_digest(token["password"], password_mark(token["sub"])):
            raise ValueError("the user or the password is not valid any more")
        return found

    def get_url_login(self, **kwargs: Any) -> str:
        """Where one gets when a request had no valid login."""
        query = f"?{urlencode({'next': kwargs['next_url']})}" if kwargs.get("next_url") else ""
        return f"/auth/login{query}"

    def get_fastapi_middlewares(self) -> list[Any]:
        """The proxy's login."""
        return [(ProxyLogin, {"auth_manager": self})]

    def get_fastapi_app(self) -> Any:
        """Mounted at /auth: tokens for API clients, and what a browser without a login is shown."""
        from airflow.api_fastapi.core_api.security import is_safe_url
        from starlette.applications import Starlette
        from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse
        from starlette.routing import Route

        passwords = Passwords()

        async def token(request: Any) -> Any:
            cli = request.url.path.endswith("/cli")
            option = "jwt_cli_expiration_time" if cli else "jwt_expiration_time"
            name, password = credentials(request.headers.get("content-type", ""), await request.body())
            if not (name and password):
                return JSONResponse({"detail": "Username and password must be provided"}, 400)
            # The proxy says who it is; the network's other members may go without.
            client = request.headers.get("x-real-ip") or (request.client.host if request.client else "")
            try:
                right = await passwords.right(client, name, password)
            except TooManyError as error:
                headers = {"Retry-After": str(error.wait_s)}
                return JSONResponse({"detail": "Too many attempts"}, 429, headers=headers)
            if not right:
                return JSONResponse({"detail": "Invalid credentials"}, 401)
            signed = self.generate_jwt(user(name), expiration_time_in_seconds=conf.getint("api_auth", option))
            return JSONResponse({"access_token": signed}, 201)

        async def login(request: Any) -> Any:
            # With the proxy's login one is never sent here; after a logout one is in again at once.
            if request.scope.get("millrace_user") is None:
                return PlainTextResponse("Open Airflow through the platform's proxy.\n", 401)
            to = request.query_params.get("next")
            return RedirectResponse(to if to and is_safe_url(to, request=request) else "/")

        return Starlette(
            routes=[
                Route("/token", token, methods=["POST"]),
                Route("/token/cli", token, methods=["POST"]),
                Route("/login", login, methods=["GET"]),
            ]
        )


def credentials(content_type: str, body: bytes) -> tuple[str, str]:
    """User name and password of a JSON document or a form; empty where there is none."""
    if content_type.startswith("application/x-www-form-urlencoded"):
        found: Any = dict(parse_qsl(body.decode("utf-8", "replace")))
    else:
        try:
            found = json.loads(body)
        except ValueError:
            found = None
    pair = (found.get("username"), found.get("password")) if isinstance(found, dict) else ()
    return pair if pair and all(isinstance(part, str) for part in pair) else ("", "")


class ProxyLogin:
    """Takes the user's name from the proxy, and from nobody else who may send the same header.

    A browser sends the proxy's password by itself, with requests that another site made it send too: those
    that change something only count from Airflow's own pages (``Sec-Fetch-Site``; every current browser sends
    it, programs do not). The task API is for tasks: it is not there for requests through the proxy.
    """

    def __init__(self, app: Any, auth_manager: PlatformAuthManager) -> None:
        self.app, self.auth_manager = app, auth_manager

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """One request."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        path = scope["path"]
        proxied = any(name == b"x-forwarded-host" for name, _ in headers)
        if proxied and (path == "/execution" or path.startswith("/execution/")):
            await self._not_found(send)
            return
        own = {name: value for name, value in headers if name in (PROXY_HEADER, USER_HEADER)}
        rest = [pair for pair in headers if pair[0] not in (PROXY_HEADER, USER_HEADER)]
        found = self._user(own)
        if found is not None and self._own_page(scope, rest):
            signed = self.auth_manager.generate_jwt(found, expiration_time_in_seconds=REQUEST_S)
            rest = [pair for pair in rest if pair[0] not in (b"authorization", b"cookie")]
            rest.append((b"authorization", b"Bearer " + signed.encode()))
            scope = {**scope, "millrace_user": found.username}
        await self.app({**scope, "headers": rest}, receive, send)

    @staticmethod
    def _user(headers: dict[bytes, bytes]) -> SimpleAuthManagerUser | None:
        proof = headers.get(PROXY_HEADER, b"")
        if not hmac.compare_digest(proof, known()["proxy"].encode()):
            return None
        return user(headers.get(USER_HEADER, b"").decode("utf-8", "replace"))

    @staticmethod
    def _own_page(scope: Any, headers: list[tuple[bytes, bytes]]) -> bool:
        if scope.get("method") in ("GET", "HEAD", "OPTIONS"):
            return True
        sites = {value for name, value in headers if name == b"sec-fetch-site"}
        return sites <= {b"same-origin", b"none"}

    @staticmethod
    async def _not_found(send: Any) -> None:
        await send({"type": "http.response.start", "status": 404, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})
