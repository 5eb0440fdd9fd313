"""An engine over SSH: arguments for ssh, keys given as text, what both providers get."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pulumi
import pytest
import ssh_dial
from millrace import ssh_key, ssh_options
from millrace.engine import Engine, HostSettings

from components.settings import Settings, SettingsError, load
from components.targets import docker_host
from components.targets.docker import DockerTarget
from tests.unit.graph import Graph, Secret, plain_texts, platform

HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ7mXVZkQ2Z5d1Yx"
BODY = "b3BlbnNzaC1rZXktdjEAAAAABG5vbmU="
KEY = f"-----BEGIN OPENSSH PRIVATE KEY-----\n{BODY}\n-----END OPENSSH PRIVATE KEY-----\n"
ENCRYPTED = KEY.replace(BODY, "b3BlbnNzaC1rZXktdjEAAAAACmFlczI1Ni1jdHIAAAA=")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own for the files that are made in ~/.ssh."""
    for module in (ssh_options, ssh_key):
        monkeypatch.setattr(module, "expand", lambda path: path.replace("~", str(tmp_path), 1))
    ssh_options.make_folder()
    return tmp_path


def arguments(host: str = "ssh://u@h", **more: Any) -> list[str]:
    return list(ssh_options.arguments(host, own=("-F", "/dev/null"), **more))


def option(options: Sequence[str], name: str) -> str | None:
    """The value that ssh takes: the first one."""
    return next((text.partition("=")[2] for text in options if text.startswith(f"{name}=")), None)


# -- arguments


def test_connections_are_shared_and_checks_are_strict() -> None:
    options = arguments()
    assert option(options, "ControlMaster") == "auto"
    assert option(options, "BatchMode") == option(options, "StrictHostKeyChecking") == "yes"
    assert "ssh_dial.py" in str(option(options, "ProxyCommand"))
    assert option(options, "IdentityFile") is option(options, "KnownHostsCommand") is None


def test_a_pinned_key_is_the_only_one() -> None:
    options = arguments(host_key=HOST_KEY)
    assert option(options, "KnownHostsCommand") == f"/usr/bin/env echo * {HOST_KEY}"
    assert option(options, "UserKnownHostsFile") == option(options, "GlobalKnownHostsFile") == "/dev/null"


def test_a_file_of_known_hosts_is_read_and_not_written() -> None:
    options = arguments(known_hosts="ssh/100% known hosts")
    assert option(options, "UserKnownHostsFile") == '"ssh/100%% known hosts"'
    assert option(options, "UpdateHostKeys") == "no"


def test_a_key_file_is_the_only_identity() -> None:
    options = arguments(key_file="~/.ssh/deploy")
    assert option(options, "IdentityFile") == "~/.ssh/deploy"
    assert option(options, "IdentitiesOnly") == "yes"


def test_own_arguments_win_over_checks_not_over_sharing() -> None:
    own = ("-o", "StrictHostKeyChecking=no", "-o", "ControlMaster=no", "-J", "jump")
    options = ssh_options.arguments("ssh://u@h", own=own)
    assert option(options, "StrictHostKeyChecking") == "no"
    assert option(options, "ControlMaster") == "auto"
    assert option(options, "ProxyCommand") is None


def test_another_key_or_check_makes_another_connection() -> None:
    every = [
        arguments(),
        arguments("ssh://v@h"),
        arguments(host_key=HOST_KEY),
        arguments(known_hosts="known_hosts"),
        arguments(key_file="a"),
        arguments(key_file="b"),
    ]
    paths = {ssh_options.control_path(options) for options in every}
    assert len(paths) == len(every)
    # macOS has 104 bytes for it, ssh appends 17 for a moment.
    assert all(len(path) < 40 for path in paths)
    assert arguments(key_file="a") == arguments(key_file="a")


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("ssh://h", ["--", "h"]),
        ("ssh://u@h:2222", ["-l", "u", "-p", "2222", "--", "h"]),
        ("ssh://u@[fe80::1]:22", ["-l", "u", "-p", "22", "--", "fe80::1"]),
    ],
)
def test_destinations(host: str, expected: list[str]) -> None:
    assert ssh_options.destination(host) == expected


# -- keys given as text


def test_a_key_has_a_file_while_somebody_needs_it(home: Path) -> None:
    first, second = ssh_key.PlacedKey(KEY.strip()), ssh_key.PlacedKey(KEY)
    assert first.path == second.path
    assert first.path.read_text() == KEY
    assert first.path.stat().st_mode & 0o777 == 0o600
    assert (home / ".ssh").stat().st_mode & 0o777 == 0o700
    first.release()
    first.release()
    assert second.path.exists()
    second.release()
    assert list((home / ".ssh").iterdir()) == []


def test_a_file_that_a_killed_process_left_is_taken_over() -> None:
    left = ssh_key.PlacedKey(KEY)
    os.close(left._handle or 0)
    left._handle = None
    ssh_key.PlacedKey(KEY).release()
    assert not left.path.exists()


def test_many_come_and_go_at_once() -> None:
    wrong: list[object] = []

    def use() -> None:
        for _ in range(20):
            key = ssh_key.PlacedKey(KEY)
            try:
                assert key.path.read_text() == KEY
            except (AssertionError, OSError) as error:
                wrong.append(error)
            key.release()

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_dialer_waits_for_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "late.key"
    threading.Timer(0.2, path.touch).start()
    started = time.monotonic()
    ssh_dial.await_key(str(path))
    assert time.monotonic() - started >= 0.15
    monkeypatch.setattr(ssh_dial, "_KEY_S", 0)
    with pytest.raises(OSError, match="key has not come"):
        ssh_dial.await_key(str(tmp_path / "never.key"))


def test_an_engine_places_its_key_and_takes_it_away(home: Path) -> None:
    engine = Engine(HostSettings.from_props({"host": "ssh://u@h", "sshKey": KEY}))
    assert KEY not in repr(engine.settings)
    engine.place_key()
    assert [path.suffix for path in (home / ".ssh").iterdir()] == [".key"]
    engine.close()
    assert list((home / ".ssh").iterdir()) == []


# -- settings


def problem(**target: object) -> str:
    with pytest.raises(SettingsError) as caught:
        load({"target": target, "users": [{"name": "a", "role": "admin"}]}, "Pulumi.x.yaml")
    (line,) = str(caught.value).splitlines()
    return line.partition("millrace:")[2]


def test_settings_that_contradict(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(KEY)
    (tmp_path / "key.pub").write_text(HOST_KEY)
    key, public, host = str(tmp_path / "key"), str(tmp_path / "key.pub"), "ssh://u@h"
    two = problem(host=host, key=key, private_key=KEY)
    assert two == "target.private_key: stands beside key - remove one of the two"
    checks = problem(host=host, host_key=HOST_KEY, known_hosts=public)
    assert checks == "target.known_hosts: stands beside host_key - remove one of the two"
    assert "holds no private key" in problem(host=host, key=public)
    assert "no private key" in problem(host=host, private_key=HOST_KEY)
    assert "has a passphrase" in problem(host=host, private_key=ENCRYPTED)
    odd = problem(host=host, private_key=KEY.replace(BODY, f"{BODY}ü"))
    assert odd.startswith("target.private_key: has characters that no key has - ")
    assert "has the wrong form" in problem(host=host, host_key="SHA256:abc")
    for name, value in {"private_key": KEY, "host_key": HOST_KEY, "known_hosts": public}.items():
        assert f"target.{name}: has no meaning for unix:///x" in problem(host="unix:///x", **{name: value})


# -- providers


def providers(graph: Graph) -> list[Any]:
    return [graph.named("docker-engine"), graph.named("docker-engine-extras")]


def options_of(provider: Any) -> list[str]:
    listed = provider.get("sshOpts") or provider.get("sshOptions")
    return list(json.loads(listed) if isinstance(listed, str) else listed)


def test_a_key_in_the_settings_reaches_the_state_as_a_secret_only() -> None:
    target = {"host": "ssh://u@h", "private_key": KEY, "host_key": f"{HOST_KEY} root@h"}
    graph = platform({"target": target, "users": [{"name": "a", "role": "admin"}]})
    docker, millrace = providers(graph)
    assert options_of(docker) == options_of(millrace)
    assert option(options_of(docker), "IdentityFile") == ssh_key.file_of(KEY)
    assert ssh_key.file_of(KEY) in str(option(options_of(docker), "ProxyCommand"))
    assert option(options_of(docker), "KnownHostsCommand") == f"/usr/bin/env echo * {HOST_KEY}"
    assert millrace.inputs["sshKey"] == Secret(KEY)
    assert not [text for node in graph.nodes for text in plain_texts(node.inputs) if BODY in text]


def made_host(settings: Settings, host: None) -> DockerTarget:
    """A target on a host that the program makes: all that is known of it are outputs."""
    made = docker_host.ssh_host(
        user="millrace",
        address=pulumi.Output.from_input("192.0.2.7"),
        port=2022,
        private_key=pulumi.Output.secret(KEY),
        host_key=pulumi.Output.from_input(f"{HOST_KEY} root@new\n"),
        after=[pulumi.CustomResource("test:index:Reachable", "gate", {})],
    )
    return DockerTarget(settings, host=made)


def test_a_host_that_the_program_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("components.platform.DockerTarget", made_host)
    graph = platform({"users": [{"name": "a", "role": "admin"}]})
    docker, millrace = providers(graph)
    for provider in (docker, millrace):
        assert provider.get("host") == "ssh://millrace@192.0.2.7:2022"
        assert any(urn.endswith("::gate") for urn in provider.depends_on)
        # Nothing but the key is secret: a reviewer sees where and how.
        assert re.search("192.0.2.7", " ".join(plain_texts(provider.inputs)))
    assert options_of(docker) == options_of(millrace)
    assert option(options_of(docker), "KnownHostsCommand") == f"/usr/bin/env echo * {HOST_KEY}"
    assert not isinstance(docker.inputs["sshOpts"], Secret)
    assert millrace.inputs["sshKey"] == Secret(KEY)
    assert not [text for node in graph.nodes for text in plain_texts(node.inputs) if BODY in text]


def test_a_program_that_ends_at_once_leaves_no_key_behind(tmp_path: Path) -> None:
    """As ours does when an update failed; what is registered with atexit does not run then."""
    program = """
import os, sys
sys.path.append("provider")
from components.targets.docker_host import remove_files
from millrace.engine import Engine, HostSettings
from millrace.ssh_key import PlacedKey
# What they hold once they are connected.
file = Engine(HostSettings(host="tcp://127.0.0.1:1"))._pem_file("key.pem", "key")
placed = Engine(HostSettings(host="ssh://127.0.0.1:1"))._key = PlacedKey("of test_ssh_host")
there = [os.path.exists(path) for path in (file, placed.path)]
remove_files()
print(there, placed.path.exists(), flush=True)
os._exit(0)
"""
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[True, True] False", done.stderr
    assert not list(tmp_path.glob("millrace-*"))
