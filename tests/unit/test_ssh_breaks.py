"""A connection over SSH that breaks, or does not come about."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import docker
import pytest
from docker.errors import APIError
from millrace import client, server, ssh_errors
from millrace.engine import LABEL_IDENTITY, LABEL_STACK, Engine, EngineError, HostSettings
from millrace.resources import Call
from requests.exceptions import ChunkedEncodingError
from requests.exceptions import ConnectionError as NoConnectionError
from urllib3.exceptions import ProtocolError

from components.targets import docker_hooks
from tests.unit.fake_docker import FakeDocker
from tests.unit.graph import run


class Line:
    """A client's way to the engine that breaks: raises what is planned, then answers."""

    def __init__(self, *breaks: Exception) -> None:
        self.breaks = list(breaks)
        self.asked: list[str] = []

    def send(self, client: object, request: Any, **more: object) -> str:
        self.asked.append(request.method)
        if self.breaks:
            raise self.breaks.pop(0)
        return "answer"


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Line:
    line = Line(NoConnectionError("aborted"), NoConnectionError("refused"))
    monkeypatch.setattr(docker.APIClient, "send", lambda *args, **more: line.send(*args, **more))
    monkeypatch.setattr(client, "_PAUSE_S", 0.0)
    return line


def api(*, final: bool = False) -> client.APIClient:
    made = client.APIClient(base_url="unix:///nowhere.sock", version="1.41")
    made.give_up = lambda: final
    return made


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE"])
def test_what_may_be_sent_twice_is_sent_until_the_line_is_back(method: str, broken: Line) -> None:
    assert api().send(SimpleNamespace(method=method)) == "answer"
    assert broken.asked == [method] * 3


def test_what_may_not_is_not(broken: Line) -> None:
    with pytest.raises(NoConnectionError):
        api().send(SimpleNamespace(method="POST"))
    assert broken.asked == ["POST"]


def test_nobody_asks_in_vain(broken: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NoConnectionError, match="aborted"):
        api(final=True).send(SimpleNamespace(method="GET"))
    local = client.APIClient(base_url="unix:///nowhere.sock", version="1.41")
    with pytest.raises(NoConnectionError, match="refused"):
        local.send(SimpleNamespace(method="GET"))
    broken.breaks = [NoConnectionError("too long")] * 3
    monkeypatch.setattr(client, "PATIENCE_S", 0.0)
    with pytest.raises(NoConnectionError, match="too long"):
        api().send(SimpleNamespace(method="GET"))


def over_ssh(said: str = "") -> Engine:
    """An engine whose connection over SSH was there before; ``said`` is ssh's last complaint."""
    engine = Engine(HostSettings(host="ssh://u@h"))
    engine._client = FakeDocker()
    engine._forwarder = SimpleNamespace(reason=lambda: said, close=lambda: None)  # type: ignore[assignment]
    return engine


def persist(engine: Engine, breaks: list[Exception]) -> tuple[str, list[str]]:
    said: list[str] = []
    call = Call(engine=engine, progress=said.append, cancelled=threading.Event(), warn=said.append)

    def work() -> str:
        if breaks:
            raise breaks.pop(0)
        return "done"

    return server._persist(call, work), said


def test_a_resource_begins_anew_when_its_connection_broke() -> None:
    breaks = [NoConnectionError("aborted"), ProtocolError("broken"), ChunkedEncodingError("in a build")]
    assert persist(over_ssh(), breaks) == ("done", ["the SSH connection broke: started anew"] * 3)
    with pytest.raises(NoConnectionError):
        persist(over_ssh(), [NoConnectionError("again")] * 9)


@pytest.mark.parametrize(
    ("engine", "error"),
    [
        (Engine(HostSettings(host="unix:///nowhere.sock")), NoConnectionError("aborted")),
        (over_ssh("Host key verification failed: another"), NoConnectionError("aborted")),
        (over_ssh(), APIError("conflict")),
    ],
)
def test_other_failures_are_final(engine: Engine, error: Exception) -> None:
    with pytest.raises(type(error)):
        persist(engine, [error])


def test_a_connection_that_does_not_come_back_says_so() -> None:
    engine = over_ssh("connect to host h port 22: Connection refused")
    engine._client = SimpleNamespace(ping=raiser(NoConnectionError("x")))  # type: ignore[assignment]
    with pytest.raises(EngineError, match="Docker engine ssh://u@h: connect to host h port 22"):
        engine.await_back()
    assert over_ssh().reason(NoConnectionError("x")) == "the SSH connection broke"


def raiser(error: Exception) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


# What the Docker provider says (docker/cli, commandconn.go).
BROKE = (
    "Unable to create container: error during connect: Post http://docker.example.com/v1.41/containers: "
    "command [ssh -l u -- h docker system dial-stdio] has exited with exit status 255, make sure the URL is "
    "valid, and Docker 18.09 or later is installed on the remote host: stderr="
)


def after_error(
    host: str, engine: Engine, monkeypatch: pytest.MonkeyPatch, *errors: str, **more: Any
) -> bool:
    monkeypatch.setattr(docker_hooks, "engine", lambda props: engine)
    made: list[docker_hooks.DockerHooks] = []
    run(lambda: made.append(docker_hooks.DockerHooks({"host": host})))
    labels = [{"label": key, "value": "x"} for key in (LABEL_STACK, LABEL_IDENTITY)]
    args = {
        "type": "docker:index/container:Container", "failed_operation": "create", "errors": list(errors),
        "new_inputs": {"name": "web", "labels": labels}, **more,
    }  # fmt: skip
    hooks = made[0].of_container.on_error or []
    return any(asyncio.run(hook.callback(SimpleNamespace(**args))) for hook in hooks)  # type: ignore[arg-type]


def test_a_container_is_made_again_when_the_connection_broke(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = over_ssh()
    half = engine.client.add("web")  # the engine made it, its answer was lost
    half.labels = {LABEL_STACK: "x", LABEL_IDENTITY: "x"}
    assert after_error("ssh://u@h", engine, monkeypatch, BROKE)
    assert engine.container("web") is None


def test_a_container_is_not_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another failure, a line that breaks again and again, one that stays away, a local engine."""
    assert not after_error("ssh://u@h", over_ssh(), monkeypatch, "Bind for 0.0.0.0:80 failed: port is taken")
    assert not after_error("ssh://u@h", over_ssh(), monkeypatch, *[BROKE] * 5)
    gone = over_ssh()
    gone._client = SimpleNamespace(ping=raiser(NoConnectionError("x")))  # type: ignore[assignment]
    assert not after_error("ssh://u@h", gone, monkeypatch, BROKE)
    assert not after_error("unix:///nowhere.sock", over_ssh(), monkeypatch, BROKE)


def test_a_deletion_is_tried_again_and_removes_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = over_ssh()
    engine.client.add("web")
    assert after_error("ssh://u@h", engine, monkeypatch, BROKE, failed_operation="delete", new_inputs=None)
    assert engine.container("web") is not None


# -- what ssh says


DIAL = "failed to open the raw stream connection: dial unix /var/run/docker.sock: connect:"
CHANGED = """@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @
Offending ED25519 key in known_hosts:1
Host key for h has changed and you have requested strict checking.
Host key verification failed."""
UNKNOWN = """No ED25519 host key is known for h and you have requested strict checking.
Host key verification failed."""


@pytest.mark.parametrize(
    ("said", "expected", "final"),
    [
        (CHANGED, "another machine answers", True),
        (UNKNOWN, "set target.host_key", True),
        ("u@h: Permission denied (publickey).", "Permission denied (publickey) - no key is accepted", True),
        (f"{DIAL} permission denied", "usermod -aG docker", True),
        (f"{DIAL} no such file or directory", "is it running there?", False),
        ("bash: line 1: docker: command not found", "install Docker there", True),
        ("ssh: Could not resolve hostname h\nConnection to h closed.", "Could not resolve hostname h", False),
        ("mux_client_request_session: read from master failed", "", False),
    ],
)
def test_what_ssh_says_is_explained(said: str, expected: str, final: bool) -> None:
    text = ssh_errors.explain(ssh_errors.telling(said.splitlines()), ["--", "h"])
    assert expected in text and "\n" not in text
    assert bool(text) is bool(expected)
    assert ssh_errors.final(text) is final
