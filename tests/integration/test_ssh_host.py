"""The platform on another machine, over SSH: the core of the tests that a stack on this machine passes.

The tests themselves are those of the modules that they are imported from; here the stack is another one. The
connection breaks in the middle of its first `up`; its images are there but for one, which is built there.
"""

from __future__ import annotations

import contextlib
import io
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from components.images import built_reference
from components.settings import load
from components.targets.docker_capacity import engine_capacity
from tests.integration.clients import object_store, postgres
from tests.integration.conftest import USERS, full_config
from tests.integration.second_engine import SSH_PORT, SecondEngine, explained, refused, second_engine
from tests.integration.stack import Run, Stack, free_port, pulumi_command, wait_until
from tests.integration.test_convergence import (  # noqa: F401
    test_removed_container_comes_back,
    test_stopped_container_is_started_again,
)
from tests.integration.test_durability import (  # noqa: F401
    _object,
    _row,
    test_changed_memory_limit,
    test_killed_container,
    test_killed_up,
    test_old_password_is_dead_after_rotation,
)
from tests.integration.test_failures import (  # noqa: F401
    test_image_build_error,
    test_settings_mistakes_change_nothing,
)
from tests.integration.test_secrecy import (  # noqa: F401
    secrets,
    test_docker_inspect,
    test_secret_files_are_there_and_private,
    test_state_and_stack_file,
    test_world_readable_files_in_containers,
)
from tests.integration.test_two_stacks import (  # noqa: F401
    test_a_container_reaches_itself,
    test_only_containers_with_ports_on_the_host_have_a_way_out,
    test_only_linked_services_reach_each_other,
)

THERE = ("base", "go-build", "minio", "postgres")
"""Images that the other engine is given; the proxy's, nginx, is built by it."""


class Tunnel:
    """Ports of the other machine's loopback, on this one's: what docs/ssh-host.md tells people to do."""

    def __init__(self, engine: SecondEngine, ports: Sequence[int]) -> None:
        forwards = [text for port in ports for text in ("-L", f"127.0.0.1:{port}:127.0.0.1:{port}")]
        files = engine.ssh_files("known_hosts")
        self._command = [
            "ssh", "-N", "-i", str(files["key"]), "-o", f"UserKnownHostsFile={files['known_hosts']}",
            "-o", "BatchMode=yes", "-o", "ExitOnForwardFailure=yes", *forwards,
            "-p", str(SSH_PORT), f"root@{engine.address}",
        ]  # fmt: skip
        self._closed = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        threading.Thread(target=self._keep, daemon=True).start()

    def close(self) -> None:
        self._closed.set()
        if self._process is not None:
            self._process.terminate()

    def _keep(self) -> None:
        # The tests break all connections.
        while not self._closed.is_set():
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            self._process.wait()
            self._closed.wait(0.2)


@pytest.fixture(scope="module")
def engine() -> Iterator[SecondEngine]:
    with second_engine() as engine:
        engine.load(*(built_reference(name) for name in THERE))
        yield engine


@pytest.fixture(scope="module")
def first_up() -> dict[str, Any]:
    """What happened while the stack came up."""
    return {}


@pytest.fixture(scope="module")
def stack(engine: SecondEngine, new_stack: Callable[..., Stack], first_up: dict[str, Any]) -> Iterator[Stack]:
    """A platform on the other machine with one row and one object in it."""
    target = {"host": engine.ssh_host, "key": engine.ssh_target["key"], "host_key": engine.host_key}
    stack = new_stack(full_config(target=target), engine=engine.client, address=engine.address)
    tunnel = Tunnel(engine, [stack.config[key]["loopback_port"] for key in ("postgres", "object_store")])
    try:
        before = engine.logins()
        first_up["run"], first_up["broken"] = _broken_up(stack, engine)
        first_up["logins"] = engine.logins() - before
        assert first_up["run"].code == 0, first_up["run"].output
        with wait_until(lambda: postgres(stack, "shop", "shop_owner")) as connection:
            connection.execute("create table kept (what text)")
            connection.execute("insert into kept values ('a row')")
        object_store(stack, "loader").put_object("raw", "kept.txt", io.BytesIO(b"an object"), 9)
        yield stack
        if stack.file.exists():
            stack.destroy()
    finally:
        tunnel.close()


@pytest.fixture(scope="module")
def platform(stack: Stack) -> Stack:
    """The tests of a platform look at this one."""
    return stack


@pytest.fixture(autouse=True)
def _still_there(stack: Stack) -> Iterator[None]:
    yield
    if stack.file.exists():
        wait_until(lambda: _row(stack) == "a row")
        wait_until(lambda: _object(object_store(stack, "loader")) == b"an object")


SIGNS = ("started anew", "retrying create")
"""What a break leaves in the output: of a build by Millrace's provider, of a container by Docker's."""


def _broken_up(stack: Stack, engine: SecondEngine) -> tuple[Run, list[int]]:
    """An `up` whose connections all break, while an image is built and a container is half made.

    The breaks: how many connections there were at each. A container may be made before the break reaches
    who makes it: then the next one will do.
    """
    seen: set[str] = set()
    breaks: list[int] = []
    client = engine.client

    def watch(written: str) -> bool:
        if "Container postgres creat" not in written or all(sign in written for sign in SIGNS):
            return False
        # Made, and not yet given its files and networks: the Docker provider is in the middle of it.
        half_made = {"name": f"^/{stack.prefix}-", "status": "created"}
        names = {c.name for c in client.containers.list(all=True, filters=half_made, ignore_removed=True)}
        if names - seen:
            seen.update(names)
            breaks.append(engine.hang_up())
        return False

    run = stack.interrupted_up(when=watch)
    return run, breaks


def test_a_broken_connection_does_not_end_the_first_up(stack: Stack, first_up: dict[str, Any]) -> None:
    run: Run = first_up["run"]
    assert any(first_up["broken"])
    assert [sign for sign in SIGNS if sign not in run.output] == []
    assert "Traceback" not in run.output
    stack.no_change()


def test_many_resources_share_few_connections(stack: Stack, first_up: dict[str, Any]) -> None:
    assert len(stack.containers()) == 4
    # One before each break, one after, and those of the Docker provider that find no session free.
    assert first_up["logins"] < 10 * (1 + len(first_up["broken"]))


def test_nothing_of_this_machine_is_in_containers(stack: Stack) -> None:
    for container in stack.containers():
        assert [m["Source"] for m in container.attrs["Mounts"] if m["Type"] == "bind"] == []


def test_what_the_other_machine_has_is_found_out(stack: Stack, engine: SecondEngine) -> None:
    target = load(stack.config, stack.file.name).target
    assert target.kind == "docker"
    found = engine_capacity(target, stack.project, stack.name)
    assert found is not None
    info = engine.client.info()
    assert found.memory_mib == info["MemTotal"] // 2**20
    # Both machines of this test are one in truth: its disk is at hand to compare with.
    free = shutil.disk_usage(info["DockerRootDir"]).free / 10**6
    assert found.disk_mb == pytest.approx(free, rel=0.1)
    assert found.volumes == {"postgres-data", "object-store-data"}
    assert built_reference("postgres") in found.images


def test_taken_port_of_the_other_machine(stack: Stack) -> None:
    proxy = stack.config["proxy"]
    with stack.changed(proxy={**proxy, "http_port": SSH_PORT}):
        explained(stack.up_fails(), "address already in use")
    stack.up()
    assert stack.http("", user="ada").status_code == 200


def test_host_whose_key_has_changed(stack: Stack, engine: SecondEngine) -> None:
    with stack.changed(target={**engine.ssh_target, **engine.ssh_files("other_known_hosts")}):
        explained(stack.up_fails(), "Host key verification failed")


def test_first_up_on_a_host_that_cannot_be_used(
    stack: Stack, engine: SecondEngine, new_stack: Callable[..., Stack]
) -> None:
    """Another host key than the known one, none known, a key it refuses, nobody there, no right to Docker."""
    other = new_stack(
        {"target": engine.ssh_target, "users": USERS[:1], "proxy": {"http_port": free_port()}},
        engine=engine.client,
        address=engine.address,
    )
    good = engine.ssh_target
    (engine.folder / "empty").touch()
    key = {name: str(engine.folder / name) for name in ("other_key", "powerless_key")}
    for target, cause in (
        ({**good, **engine.ssh_files("other_known_hosts")}, "is not the host's known key"),
        ({**good, **engine.ssh_files("empty")}, "set target.host_key"),
        ({**good, "key": key["other_key"]}, "Permission denied (publickey"),
        ({**good, "host": f"ssh://root@{engine.address}:{SSH_PORT + 1}"}, "Connection refused"),
        ({**good, "key": key["powerless_key"]}, "may not use Docker there"),
    ):
        with other.changed(target=target):
            refused(other, cause)


def test_key_in_the_settings_is_enough(stack: Stack, engine: SecondEngine) -> None:
    """For `up`, and for commands that do not run the program: they have nothing but the state."""
    text = (engine.folder / "client_key").read_text()
    target = {"host": engine.ssh_host, "host_key": engine.host_key}
    stack.configure({**stack.config, "target": target})
    subprocess.run(
        [pulumi_command(), "config", "set", "--secret", "--path", "millrace:target.private_key"],
        input=text, text=True, cwd=stack.folder, env=stack.environment, check=True,
    )  # fmt: skip
    body = text.splitlines()[2]
    engine.hang_up()
    stack.up()
    engine.hang_up()
    stack.pulumi("refresh", "--yes", "--skip-preview", "--expect-no-changes", "--stack", stack.name)
    assert body not in stack.state()
    assert body not in stack.file.read_text()
    assert body not in stack.pulumi("preview", "--diff", "--stack", stack.name).output
    assert not list(Path("~/.ssh").expanduser().glob("millrace-*.key"))


def test_destroy_leaves_nothing(stack: Stack, engine: SecondEngine) -> None:
    engine.hang_up()
    stack.destroy()
    assert stack.remains() == []
    assert not list(Path("~/.ssh").expanduser().glob("millrace-*.key"))
    # What is left ends by itself a minute after its last use; nothing else is, once all have noticed the end.
    assert wait_until(lambda: len(_processes(engine)) <= 1, seconds=30)
    engine.hang_up()
    wait_until(lambda: not _processes(engine))


def _processes(engine: SecondEngine) -> list[str]:
    """Command lines of all ssh on this machine that lead there, but for the tunnel."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            here = engine.address in words or f"{Path('~/.ssh').expanduser()}/millrace-" in words
            if words.startswith("ssh") and here and " -N " not in words:
                found.append(words)
    return found
