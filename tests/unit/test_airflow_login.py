"""Airflow's logins: who is believed to be whom, with stand-ins for the parts of Airflow that it builds on."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import anyio.to_thread
import bcrypt
import pytest

SOURCE = Path(__file__).resolve().parents[2] / "configs" / "airflow" / "millrace_login.py"
PROOF = "only-the-proxy-knows"
PROXIED = {"x-millrace-proxy": PROOF, "x-forwarded-host": "airflow.data.test"}


@dataclass
class User:
    """Stands for Airflow's."""

    username: str
    role: str


class Manager:
    """Stands for Airflow's simple auth manager; a token is its claims."""

    def generate_jwt(self, user: User, *, expiration_time_in_seconds: int) -> str:
        """Readable."""
        claims = {**self.serialize_user(user), "seconds": expiration_time_in_seconds}  # type: ignore[attr-defined]
        return json.dumps(claims)


def hashed(password: str) -> str:
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()


@pytest.fixture(scope="module")
def users() -> dict[str, Any]:
    return {
        "proxy": PROOF,
        "users": {
            "ada": {"role": "admin", "hash": hashed("pa")},
            "erin": {"role": "engineer", "hash": hashed("pe")},
            "uma": {"role": "user", "hash": hashed("pu")},
        },
    }


@pytest.fixture(scope="module")
def login(users: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The module, as Airflow would import it."""
    file = tmp_path_factory.mktemp("airflow") / "users.json"
    file.write_text(json.dumps(users))
    simple = "airflow.api_fastapi.auth.managers.simple"
    parts = {
        f"{simple}.simple_auth_manager": {"SimpleAuthManager": Manager},
        f"{simple}.user": {"SimpleAuthManagerUser": User},
        "airflow.configuration": {"conf": SimpleNamespace(get=lambda section, option: str(file))},
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, content in parts.items():
            module = ModuleType(name)
            module.__dict__.update(content)
            patch.setitem(sys.modules, name, module)
        spec = importlib.util.spec_from_file_location("millrace_login", SOURCE)
        assert spec and spec.loader
        made = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(made)
        yield made


def seen(login: Any, headers: dict[str, str], path: str = "/api/v2/dags", method: str = "GET") -> Any:
    """The headers that Airflow gets to see, or the status it is refused with."""
    got: dict[str, Any] = {}

    async def airflow(scope: Any, receive: Any, send: Any) -> None:
        got.update({k.decode(): v.decode() for k, v in scope["headers"]})
        got["user"] = scope.get("millrace_user")

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            got["status"] = message["status"]

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "headers": [(k.encode(), v.encode()) for k, v in headers.items()],
    }
    asyncio.run(login.ProxyLogin(airflow, login.PlatformAuthManager())(scope, None, send))
    return got


def bearer(got: dict[str, Any]) -> Any:
    return json.loads(got["authorization"].removeprefix("Bearer "))["sub"] if "authorization" in got else None


def test_the_proxy_says_who_it_is(login: Any) -> None:
    got = seen(login, {**PROXIED, "x-forwarded-user": "erin", "cookie": "_token=old", "accept": "*/*"})
    assert bearer(got) == got["user"] == "erin"
    assert got["accept"] == "*/*"
    # Neither an older session nor the proof goes further.
    assert not {"cookie", "x-millrace-proxy", "x-forwarded-user"} & set(got)


@pytest.mark.parametrize(
    "headers",
    [
        {"x-forwarded-user": "ada"},
        {"x-forwarded-user": "ada", "x-millrace-proxy": ""},
        {"x-forwarded-user": "ada", "x-millrace-proxy": "guess"},
        {"x-forwarded-user": "ada", "x-millrace-proxy": PROOF + "x"},
        {"x-forwarded-user": "stranger", "x-millrace-proxy": PROOF},
        {"x-forwarded-user": "", "x-millrace-proxy": PROOF},
        {"x-millrace-proxy": PROOF},
    ],
)
def test_nobody_else_does(login: Any, headers: dict[str, str]) -> None:
    got = seen(login, headers)
    assert got["user"] is None and "authorization" not in got
    assert "x-forwarded-user" not in got


def test_tokens_of_api_clients_pass(login: Any) -> None:
    assert seen(login, {"authorization": "Bearer t"})["authorization"] == "Bearer t"


@pytest.mark.parametrize(
    ("method", "site", "counts"),
    [
        ("POST", "same-origin", True),
        ("POST", "none", True),
        ("POST", None, True),
        ("POST", "same-site", False),
        ("DELETE", "cross-site", False),
        ("GET", "cross-site", True),
    ],
)
def test_other_sites_change_nothing(login: Any, method: str, site: str | None, counts: bool) -> None:
    more = {"sec-fetch-site": site} if site else {}
    got = seen(login, {**PROXIED, "x-forwarded-user": "ada", **more}, method=method)
    assert (bearer(got) == "ada") is counts


def test_the_api_of_tasks_is_not_on_the_proxy(login: Any) -> None:
    for path in ("/execution", "/execution/variables/x"):
        assert seen(login, {"x-forwarded-host": "airflow-api.data.test"}, path)["status"] == 404
        assert "status" not in seen(login, {"authorization": "Bearer task"}, path)


def test_roles(login: Any) -> None:
    assert {u.username: u.role for u in login.PlatformAuthManager.get_users()} == {
        "ada": "ADMIN",
        "erin": "OP",
        "uma": "VIEWER",
    }


def test_a_token_ends_with_the_password_and_the_user(login: Any, users: dict[str, Any]) -> None:
    manager = login.PlatformAuthManager()
    claims = manager.serialize_user(login.user("erin"))
    assert manager.deserialize_user(claims).role == "OP"
    assert users["users"]["erin"]["hash"] not in json.dumps(claims)
    for changed in ({"sub": "gone"}, {"sub": "ada"}, {"password": "x"}):
        with pytest.raises(ValueError, match="not valid any more"):
            manager.deserialize_user({**claims, **changed})


@pytest.mark.parametrize(
    ("name", "password", "right"),
    [
        ("erin", "pe", True),
        ("erin", "pa", False),
        ("erin", "", False),
        ("nobody", "pe", False),
        ("erin", "pe" + "x" * 100, False),
    ],
)
def test_passwords(login: Any, name: str, password: str, right: bool) -> None:
    assert login.right_password(name, password) is right


@pytest.mark.parametrize(
    ("kind", "body", "found"),
    [
        ("application/json", b'{"username": "a", "password": "b"}', ("a", "b")),
        ("application/x-www-form-urlencoded", b"username=a&password=b%2B", ("a", "b+")),
        ("application/json", b'{"username": "a"}', ("", "")),
        ("application/json", b'{"username": 1, "password": ["b"]}', ("", "")),
        ("application/json", b"[]", ("", "")),
        ("", b"\xff", ("", "")),
    ],
)
def test_credentials(login: Any, kind: str, body: bytes, found: tuple[str, str]) -> None:
    assert login.credentials(kind, body) == found


def test_only_so_many_wrong_guesses(login: Any) -> None:
    now = [0.0]
    guesses = login.Guesses(lambda: now[0])
    passwords = login.Passwords(guesses)

    def tries(client: str, password: str) -> Any:
        return asyncio.run(passwords.right(client, "erin", password))

    for _ in range(30):
        assert tries("a", "pe") is True
    for _ in range(login.WRONG):
        assert tries("a", "wrong") is False
    # Even the right one: it would tell a guess from another.
    with pytest.raises(login.TooManyError) as refused:
        tries("a", "pe")
    assert refused.value.wait_s == login.AGAIN_S
    assert tries("b", "pe") is True
    now[0] += login.AGAIN_S
    assert tries("a", "pe") is True
    assert tries("a", "wrong") is False
    with pytest.raises(login.TooManyError):
        tries("a", "wrong")


def test_clients_are_forgotten_some_day(login: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login, "CLIENTS", 2)
    guesses = login.Guesses()
    for client in ("a", "b", "a", "c"):
        guesses.take(client)
    assert set(guesses._left) == {"a", "c"}


def test_few_wait_and_nobody_waits_for_them(login: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    go, at_a_time, most = threading.Event(), 0, 0

    def slow(name: str, password: str) -> bool:
        nonlocal at_a_time, most
        at_a_time += 1
        most = max(most, at_a_time)
        assert go.wait(10)
        at_a_time -= 1
        return True

    monkeypatch.setattr(login, "right_password", slow)

    async def all_of_them() -> list[Any]:
        passwords = login.Passwords()
        flood = [
            asyncio.create_task(passwords.right(f"c{n}", "erin", "pe")) for n in range(login.WAITING + 3)
        ]
        await asyncio.sleep(0)
        # A thread of the pool that everything else shares is still there, however few it has.
        anyio.to_thread.current_default_thread_limiter().total_tokens = 1
        await anyio.to_thread.run_sync(go.set)
        return await asyncio.gather(*flood, return_exceptions=True)

    done = asyncio.run(all_of_them())
    assert done.count(True) == login.WAITING + 1
    assert sum(isinstance(answer, login.TooManyError) for answer in done) == 2
    assert most == 1
