"""A stack on another machine's engine over TLS, and on an engine whose daemon is killed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from docker.errors import DockerException

from components.images import built_reference
from tests.integration.conftest import USERS
from tests.integration.second_engine import SecondEngine, refused, second_engine
from tests.integration.stack import Stack, proxy_ports, wait_until


@pytest.fixture(scope="module")
def engine() -> Iterator[SecondEngine]:
    with second_engine() as engine:
        engine.load(*(built_reference(name) for name in ("base", "nginx", "postgres")))
        yield engine


def _config(target: dict[str, object]) -> dict[str, Any]:
    return {
        "target": target,
        "proxy": proxy_ports(),
        "users": USERS[:1],
        "postgres": {"memory_mib": 256, "databases": [{"name": "shop"}]},
    }


@pytest.fixture(scope="module")
def stack(engine: SecondEngine, new_stack: Callable[..., Stack]) -> Stack:
    """A platform on the second engine, with one row in its database, after an `up` with mistakes in TLS."""
    stack = new_stack(_config(engine.tls_target), engine=engine.client, address=engine.address)
    with stack.changed(target={**engine.tls_target, "ca": str(engine.folder / "other_ca.pem")}):
        refused(stack, "certificate was not issued by the given CA")
    strangers = {"certificate": "stranger.pem", "key": "stranger.key.pem"}
    own = {name: str(engine.folder / file) for name, file in strangers.items()}
    with stack.changed(target={**engine.tls_target, **own}):
        refused(stack, "certificate")
    stack.up()
    _sql(stack, "create table kept (what text); insert into kept values ('a row')")
    return stack


def _sql(stack: Stack, statement: str) -> str:
    command = ["psql", "-X", "-qAt", "-U", "postgres", "-d", "shop", "-c", statement]
    code, output = stack.container("postgres").exec_run(command)
    assert code == 0, output
    return str(output.decode().strip())


def _answers(stack: Stack) -> bool:
    return stack.http("", user="ada").status_code == 200


def test_platform_answers_at_the_other_machine(stack: Stack, engine: SecondEngine) -> None:
    assert _answers(stack)
    assert stack.http("", user="ada", password="wrong").status_code == 401
    stack.no_change()
    key = Path(str(engine.tls_target["key"])).read_text()
    assert key.splitlines()[1] not in stack.state()


def test_a_failed_up_leaves_no_key_behind(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(stack.environment, "TMPDIR", str(tmp_path))
    with stack.changed(postgres={**stack.config["postgres"], "parameters": {"work_mem": "a lot"}}):
        assert "work_mem" in stack.up_fails().output
    stack.up()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("millrace")] == []


def test_killed_daemon_loses_nothing(stack: Stack, engine: SecondEngine) -> None:
    _sql(stack, "insert into kept values ('written last')")
    before = {c.name: c.attrs["State"]["StartedAt"] for c in stack.containers()}
    engine.kill()
    with pytest.raises(DockerException):
        engine.client.ping()
    engine.start()
    # They come back by themselves: nobody runs `up` after a crash in the night.
    wait_until(lambda: {c.status for c in stack.containers()} == {"running"})
    wait_until(lambda: _answers(stack))
    wait_until(lambda: _sql(stack, "select count(*) from kept") == "2")
    after = {c.name: c.attrs["State"]["StartedAt"] for c in stack.containers()}
    assert before.keys() == after.keys()
    assert all(before[name] != after[name] for name in before)
    stack.no_change()


def test_destroy_leaves_nothing(stack: Stack, engine: SecondEngine) -> None:
    stack.destroy()
    assert stack.remains() == []
    assert engine.client.containers.list(all=True) == []
