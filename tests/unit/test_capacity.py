"""What the machine of an engine has: asked of the engine, the free disk looked up where it can be."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from docker.errors import APIError

from components.estimates import Host
from components.settings import DockerTarget
from components.targets import docker_capacity
from components.targets.docker_capacity import engine_capacity

_Usage = namedtuple("_Usage", ("total", "used", "free"))
LOCAL = DockerTarget(host="unix:///var/run/docker.sock")
SSH = DockerTarget(host="ssh://deploy@host.example.com:2222")


class _Api:
    def __init__(self, **info: Any) -> None:
        self._info = {"Name": "box", "MemTotal": 4 * 2**30, "DockerRootDir": "/data/docker", **info}
        self.asked: dict[str, Any] = {}

    def info(self) -> dict[str, Any]:
        return self._info

    def images(self) -> list[dict[str, Any]]:
        return [{"RepoTags": ["postgres:15"], "RepoDigests": None}, {"RepoTags": None}]

    def volumes(self, filters: dict[str, str]) -> dict[str, Any]:
        self.asked = filters
        return {"Volumes": [{"Name": "millrace-dev-postgres-data"}]}


def asked(api: Any, target: DockerTarget, monkeypatch: pytest.MonkeyPatch) -> Host | None:
    engine = SimpleNamespace(client=SimpleNamespace(api=api))
    monkeypatch.setattr(docker_capacity, "engine_of", lambda _: engine)
    return engine_capacity(target, "millrace", "dev")


def found(target: DockerTarget, monkeypatch: pytest.MonkeyPatch, **info: Any) -> Host:
    host = asked(_Api(**info), target, monkeypatch)
    assert host is not None
    return host


def test_the_engine_tells_memory_images_and_the_volumes_of_the_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    api = _Api()
    host = asked(api, LOCAL, monkeypatch)
    assert host is not None
    assert (host.name, host.memory_mib) == ("Docker engine box", 4096)
    assert host.images == {"postgres:15", "docker.io/library/postgres:15"}
    assert host.volumes == {"postgres-data"}
    assert api.asked == {"label": "dev.millrace.stack=millrace/dev"}


@pytest.mark.parametrize(("info", "cpus"), [({"NCPU": 2}, 2), ({"NCPU": 0}, None), ({}, None)])
def test_the_engine_tells_its_cpus_where_it_knows_them(
    info: dict[str, Any], cpus: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert found(LOCAL, monkeypatch, **info).cpus == cpus


def test_an_engine_that_does_not_answer_leaves_it_open(monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent:
        def info(self) -> dict[str, Any]:
            raise APIError("no")

    assert asked(Silent(), LOCAL, monkeypatch) is None


def test_disk_of_this_machine_is_looked_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(
        shutil, "disk_usage", lambda root: _Usage(0, 0, 5 * 10**9 if root == str(tmp_path) else 0)
    )
    here = socket.gethostname()
    assert found(LOCAL, monkeypatch, Name=here, DockerRootDir=str(tmp_path)).disk_mb == 5000


def test_a_socket_that_leads_elsewhere_says_nothing_of_this_disk(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert found(LOCAL, monkeypatch, Name="docker-desktop", DockerRootDir=str(tmp_path)).disk_mb is None
    assert found(LOCAL, monkeypatch, Name=socket.gethostname(), DockerRootDir="/nowhere").disk_mb is None


def test_disk_behind_tcp_is_unknown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    target = DockerTarget(host="tcp://127.0.0.1:2376")
    assert found(target, monkeypatch, Name=socket.gethostname(), DockerRootDir=str(tmp_path)).disk_mb is None


@pytest.mark.parametrize(
    ("said", "mb"),
    [
        ("Filesystem 1024-blocks Used Available Capacity Mounted on\n/dev/vda1 100 10 5000000 2% /\n", 5120),
        ("df: /data/docker: No such file or directory\n", None),
        ("", None),
    ],
)
def test_disk_over_ssh_is_asked_of_the_host(
    said: str, mb: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[list[str]] = []

    def run(command: list[str], **more: Any) -> SimpleNamespace:
        commands.append(command)
        return SimpleNamespace(stdout=said, returncode=0)

    monkeypatch.setattr(docker_capacity, "ssh_arguments", lambda _: ("-o", "BatchMode=yes"))
    monkeypatch.setattr(subprocess, "run", run)
    assert found(SSH, monkeypatch).disk_mb == mb
    (command,) = commands
    assert command[:3] == ["ssh", "-o", "BatchMode=yes"]
    assert "host.example.com" in command
    assert command[-3:] == ["df", "-Pk", "/data/docker"]


def test_ssh_that_cannot_be_started_leaves_the_disk_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], **more: Any) -> SimpleNamespace:
        raise FileNotFoundError("ssh")

    monkeypatch.setattr(docker_capacity, "ssh_arguments", lambda _: ())
    monkeypatch.setattr(subprocess, "run", run)
    assert found(SSH, monkeypatch).disk_mb is None
