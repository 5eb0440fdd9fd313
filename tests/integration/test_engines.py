"""A stack on another machine's engine, over SSH and over TLS, and on an engine whose daemon is killed."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from docker.errors import DockerException
from docker.models.containers import Container

from components.images import built_reference
from components.settings import load
from components.targets.docker_capacity import engine_capacity
from tests.integration.conftest import USERS
from tests.integration.second_engine import SSH_PORT, SecondEngine, second_engine
from tests.integration.stack import Run, Stack, free_port, wait_until


@pytest.fixture(scope="module")
def engine() -> Iterator[SecondEngine]:
    with second_engine() as engine:
        yield engine


def _config(target: dict[str, object]) -> dict[str, Any]:
    # What apt installs in half a minute: that engine has nothing built and no cache.
    return {
        "target": target,
        "proxy": {"http_port": free_port(), "https_port": free_port()},
        "users": USERS[:1],
        "postgres": {"memory_mib": 256, "databases": [{"name": "shop"}]},
    }


@pytest.fixture(scope="module")
def over_ssh(engine: SecondEngine, new_stack: Callable[..., Stack]) -> Iterator[Stack]:
    """A platform on the second engine, with one row in its database."""
    stack = new_stack(_config(engine.ssh_target), engine=engine.client, address=engine.address)
    stack.up()
    _sql(stack, "create table kept (what text); insert into kept values ('a row')")
    yield stack
    if stack.file.exists():
        stack.destroy()


def _sql(stack: Stack, statement: str) -> str:
    command = ["psql", "-X", "-qAt", "-U", "postgres", "-d", "shop", "-c", statement]
    code, output = stack.container("postgres").exec_run(command)
    assert code == 0, output
    return str(output.decode().strip())


def _answers(stack: Stack) -> bool:
    return stack.http("", user="ada").status_code == 200


def _local_paths(container: Container) -> list[str]:
    return [mount["Source"] for mount in container.attrs["Mounts"] if mount["Type"] == "bind"]


def _refused(stack: Stack, cause: str) -> None:
    """A first `up` fails with one line that names engine and cause, and has made nothing."""
    run = stack.up_fails()
    host = stack.config["target"]["host"]
    errors = {line.strip() for line in run.output.splitlines() if line.strip().startswith("error: Docker")}
    assert len(errors) == 1, run.output
    assert f"Docker engine {host}: " in errors.pop()
    _explained(run, cause)
    assert stack.remains() == []


def _explained(run: Run, cause: str) -> None:
    assert cause in run.output
    assert "Traceback" not in run.output
    assert 'File "' not in run.output


def test_ssh_platform_answers_at_the_other_machine(over_ssh: Stack) -> None:
    assert _answers(over_ssh)
    assert over_ssh.http("", user="ada", password="wrong").status_code == 401


def test_ssh_what_the_other_machine_has_is_found_out(over_ssh: Stack, engine: SecondEngine) -> None:
    target = load(over_ssh.config, over_ssh.file.name).target
    assert target.kind == "docker"
    found = engine_capacity(target, over_ssh.project, over_ssh.name)
    assert found is not None
    info = engine.client.info()
    assert found.memory_mib == info["MemTotal"] // 2**20
    # Both machines of this test are one in truth: its disk is at hand to compare with.
    free = shutil.disk_usage(info["DockerRootDir"]).free / 10**6
    assert found.disk_mb == pytest.approx(free, rel=0.1)
    assert found.volumes == {"postgres-data"}
    assert built_reference("postgres") in found.images
    assert {c.status for c in over_ssh.containers()} == {"running"}
    assert _sql(over_ssh, "select what from kept") == "a row"


def test_ssh_needs_no_file_of_this_machine(over_ssh: Stack) -> None:
    assert [path for c in over_ssh.containers() for path in _local_paths(c)] == []


def test_ssh_has_nothing_to_do_again(over_ssh: Stack) -> None:
    over_ssh.no_change()


def test_ssh_failing_service_shows_its_last_lines(over_ssh: Stack) -> None:
    postgres = {**over_ssh.config["postgres"], "parameters": {"work_mem": "a lot"}}
    with over_ssh.changed(postgres=postgres):
        run = over_ssh.up_fails()
        assert "postgres" in run.output
        assert 'invalid value for parameter "work_mem": "a lot"' in run.output
        assert "Traceback" not in run.output
    over_ssh.up()
    assert _sql(over_ssh, "select what from kept") == "a row"


def test_ssh_host_whose_key_has_changed(over_ssh: Stack, engine: SecondEngine) -> None:
    known = engine.folder / "known_hosts"
    right = known.read_text()
    known.write_text((engine.folder / "other_known_hosts").read_text())
    engine.hang_up()
    try:
        _explained(over_ssh.up_fails(), "Host key verification failed")
    finally:
        known.write_text(right)
    over_ssh.no_change()


def test_first_up_on_an_engine_that_cannot_be_used(
    engine: SecondEngine, new_stack: Callable[..., Stack]
) -> None:
    """Wrong host key, nobody there, another CA than the engine's, a client certificate the engine refuses."""
    stack = new_stack(_config(engine.ssh_target), engine=engine.client, address=engine.address)
    engine.hang_up()
    target = {**engine.ssh_target, "ssh_options": engine.ssh_options("other_known_hosts")}
    with stack.changed(target=target):
        _refused(stack, "Host key verification failed")
    started = time.monotonic()
    target = {**engine.ssh_target, "host": f"ssh://root@{engine.address}:{SSH_PORT + 1}"}
    with stack.changed(target=target):
        _refused(stack, "Connection refused")
    assert time.monotonic() - started < 60
    with stack.changed(target={**engine.tls_target, "ca": str(engine.folder / "other_ca.pem")}):
        _refused(stack, "certificate was not issued by the given CA")
    strangers = {"certificate": "stranger.pem", "key": "stranger.key.pem"}
    own = {name: str(engine.folder / file) for name, file in strangers.items()}
    with stack.changed(target={**engine.tls_target, **own}):
        _refused(stack, "certificate")


def test_killed_daemon_loses_nothing(over_ssh: Stack, engine: SecondEngine) -> None:
    _sql(over_ssh, "insert into kept values ('written last')")
    before = {c.name: c.attrs["State"]["StartedAt"] for c in over_ssh.containers()}
    engine.kill()
    with pytest.raises(DockerException):
        engine.client.ping()
    engine.start()
    # They come back by themselves: nobody runs `up` after a crash in the night.
    wait_until(lambda: {c.status for c in over_ssh.containers()} == {"running"}, seconds=60)
    wait_until(lambda: _answers(over_ssh), seconds=60)
    wait_until(lambda: _sql(over_ssh, "select count(*) from kept") == "2", seconds=60)
    after = {c.name: c.attrs["State"]["StartedAt"] for c in over_ssh.containers()}
    assert before.keys() == after.keys()
    assert all(before[name] != after[name] for name in before)
    over_ssh.no_change()


def test_ssh_destroy_leaves_nothing(over_ssh: Stack, engine: SecondEngine) -> None:
    over_ssh.destroy()
    assert over_ssh.remains() == []
    assert engine.client.containers.list(all=True) == []


def test_tls(engine: SecondEngine, new_stack: Callable[..., Stack]) -> None:
    stack = new_stack(_config(engine.tls_target), engine=engine.client, address=engine.address)
    stack.up()
    assert _answers(stack)
    stack.no_change()
    key = Path(str(engine.tls_target["key"])).read_text()
    assert key.splitlines()[1] not in stack.state()

    stack.destroy()
    assert stack.remains() == []
