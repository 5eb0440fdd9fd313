"""What an interrupted update left on the engine."""

from __future__ import annotations

import asyncio
import contextlib
from types import SimpleNamespace

import pytest
from fake_docker import FakeDocker
from graph import run
from millrace.engine import Engine, EngineError, HostSettings

from components.targets import docker_hooks


@pytest.mark.parametrize(
    ("owner", "removed"),
    [
        (("millrace/test", "1a"), True),
        (("millrace/other", "1a"), False),
        (("millrace/test", "2b"), False),  # another checkout's stack of this name
        (None, False),
    ],
)
def test_a_leftover_container_is_removed_when_it_is_ours(
    owner: tuple[str, str] | None, removed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    docker = FakeDocker()
    leftover = docker.add("millrace-test-web")
    keys = ("dev.millrace.stack", "dev.millrace.identity")
    leftover.labels = dict(zip(keys, owner, strict=True)) if owner else {}
    engine = Engine(HostSettings(host="unix:///nowhere.sock"))
    engine._client = docker
    monkeypatch.setattr(docker_hooks, "engine", lambda *_: engine)
    made: list[docker_hooks.DockerHooks] = []
    run(lambda: made.append(docker_hooks.DockerHooks({"host": "unix:///nowhere.sock"})))
    labels = [
        {"label": key, "value": value} for key, value in zip(keys, ("millrace/test", "1a"), strict=True)
    ]

    def before(name: str) -> None:
        args = SimpleNamespace(new_inputs={"name": name, "labels": labels})
        asyncio.run(made[0].of_container.before_create[0].callback(args))

    before("millrace-test-none")
    with (
        contextlib.nullcontext() if removed else pytest.raises(EngineError, match="not of this stack's state")
    ):
        before("millrace-test-web")
    assert (docker.by_id == {}) is removed
