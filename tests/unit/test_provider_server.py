"""The provider's process: Pulumi's protocol, connections to an engine, how it ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import requests
from fake_docker import FakeDocker, api_error
from google.protobuf import empty_pb2
from google.protobuf.struct_pb2 import Struct
from millrace import engine as engine_module
from millrace.engine import Engine, EngineError, HostSettings
from millrace.server import Servicer
from millrace.ssh import SSHForwarder
from pulumi.runtime import rpc
from pulumi.runtime.proto import provider_pb2, provider_pb2_grpc

ROOT = Path(__file__).resolve().parents[2]


class AbortedError(Exception):
    """What gRPC's abort raises."""


class Context:
    """Enough of gRPC's context."""

    def abort(self, code: grpc.StatusCode, details: str) -> None:
        raise AbortedError(details)


def struct(values: dict[str, Any]) -> Struct:
    return asyncio.run(rpc.serialize_properties(values, {}))


def urn(type_: str, name: str = "web") -> str:
    return f"urn:pulumi:test::millrace::millrace:services:Web$millrace:docker:{type_}::{name}"


@pytest.fixture
def docker() -> FakeDocker:
    return FakeDocker()


@pytest.fixture
def servicer(docker: FakeDocker) -> Iterator[Servicer]:
    servicer = Servicer(None)
    servicer._docker = Engine(HostSettings(host="unix:///nowhere.sock"))
    servicer._docker._client = docker
    yield servicer
    servicer.close()


# -- Diff


def diff(servicer: Servicer, type_: str, old: dict[str, Any], new: dict[str, Any]) -> Any:
    request = provider_pb2.DiffRequest(urn=urn(type_), old_inputs=struct(old), news=struct(new))
    return servicer.Diff(request, Context())


READY = {"container": "id-web", "service": "web", "probe": ["ask"], "deadline": 5, "timeout": 1}


def test_nothing_changed(servicer: Servicer) -> None:
    found = diff(servicer, "Ready", READY, dict(READY))
    assert found.changes == provider_pb2.DiffResponse.DIFF_NONE


@pytest.mark.parametrize(
    ("type_", "old", "new", "diffs", "replaces"),
    [
        ("Ready", READY, {**READY, "container": "other"}, ["container"], []),
        ("Ready", READY, {**READY, "probe": ["ask", "more"], "timeout": 2}, ["probe", "timeout"], []),
        ("Ready", READY, {**READY, "deadline": 6}, [], []),
        ("Job", {"timeout": 300}, {"timeout": 900}, [], []),
        ("Job", {"triggers": []}, {"triggers": ["1"]}, ["triggers"], ["triggers"]),
        ("Job", {"files": [{"content": "a"}]}, {"files": [{"content": "b"}]}, ["files"], ["files"]),
        ("Network", {"pool": "a", "prefix": 27}, {"pool": "b", "prefix": 27}, ["pool"], ["pool"]),
        ("VolumeOwner", {"volume": "a", "uid": 1}, {"volume": "b", "uid": 2}, ["uid", "volume"], ["volume"]),
        ("VolumeOwner", {"image": "a"}, {"image": "b"}, [], []),
    ],
)
def test_what_changes_and_what_replaces(
    servicer: Servicer, type_: str, old: Any, new: Any, diffs: list[str], replaces: list[str]
) -> None:
    found = diff(servicer, type_, old, new)
    assert (list(found.diffs), list(found.replaces)) == (diffs, replaces)
    assert (found.changes == provider_pb2.DiffResponse.DIFF_NONE) == (not diffs)


# -- errors


def create(servicer: Servicer, type_: str, values: dict[str, Any]) -> Any:
    return servicer.Create(provider_pb2.CreateRequest(urn=urn(type_), properties=struct(values)), Context())


def test_a_failure_is_told_as_it_is(servicer: Servicer, docker: FakeDocker) -> None:
    docker.add("web", status="exited", code=1).log = b"bad config"
    with pytest.raises(AbortedError) as error:
        create(servicer, "Ready", READY)
    expected = "web: container web exited with code 1\nlast 30 log lines:\n  bad config"
    assert str(error.value) == expected


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (requests.exceptions.ConnectionError("('Connection aborted.', ConnectionRefusedError(111, ''))"),
         "web: Docker engine: connection refused - is Docker running there?"),
        (requests.exceptions.ReadTimeout("Read timed out."), "web: Docker engine: Read timed out."),
        (api_error(500, "no space left\non device"), "web: Docker engine: no space left on device"),
        (EngineError("image x is not on the engine"), "image x is not on the engine"),
    ],
)  # fmt: skip
def test_a_failing_engine_is_told_in_one_line(
    servicer: Servicer, docker: FakeDocker, failure: Exception, expected: str
) -> None:
    def fail(_: str) -> None:
        raise failure

    docker.containers.get = fail
    with pytest.raises(AbortedError) as error:
        create(servicer, "Ready", READY)
    assert str(error.value) == expected


def test_an_unforeseen_failure_says_where_it_came_from(servicer: Servicer) -> None:
    with pytest.raises(AbortedError) as error:
        create(servicer, "Ready", {"service": "web"})
    assert "Traceback" not in str(error.value)
    assert "KeyError: 'deadline' (at " in str(error.value)


def test_an_unknown_type_and_a_missing_configuration(servicer: Servicer) -> None:
    with pytest.raises(AbortedError, match="unknown resource type 'millrace:docker:Nonsense'"):
        create(servicer, "Nonsense", {})
    with pytest.raises(AbortedError, match="before it was configured"):
        create(Servicer(None), "Ready", READY)


# -- the protocol over a real connection


@pytest.fixture
def provider(servicer: Servicer) -> Iterator[Any]:
    from concurrent import futures

    server = grpc.server(futures.ThreadPoolExecutor(4))
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    # Errors travel as metadata; the Pulumi engine takes 16 MiB of it (grpc-go's default), Python 16 KiB.
    options = [("grpc.absolute_max_metadata_size", 16 << 20), ("grpc.max_metadata_size", 16 << 20)]
    with grpc.insecure_channel(f"127.0.0.1:{port}", options) as channel:
        yield provider_pb2_grpc.ResourceProviderStub(channel)
    server.stop(grace=None).wait()


def test_a_resource_lives_through_create_read_update_delete(provider: Any, docker: FakeDocker) -> None:
    docker.add("web")
    request = provider_pb2.CreateRequest(urn=urn("Ready"), properties=struct(READY))
    made = provider.Create(request)
    assert made.id == "id-web"
    assert rpc.deserialize_properties(made.properties) == READY
    read = provider.Read(provider_pb2.ReadRequest(id=made.id, urn=urn("Ready"), properties=made.properties))
    assert read.id == made.id
    changed = struct({**READY, "deadline": 7})
    updated = provider.Update(
        provider_pb2.UpdateRequest(id=made.id, urn=urn("Ready"), olds=made.properties, news=changed)
    )
    assert rpc.deserialize_properties(updated.properties)["deadline"] == 7
    provider.Delete(provider_pb2.DeleteRequest(id=made.id, urn=urn("Ready"), properties=made.properties))
    docker.by_id.clear()
    gone = provider.Read(provider_pb2.ReadRequest(id=made.id, urn=urn("Ready"), properties=made.properties))
    assert gone.id == ""


def test_long_logs_reach_the_engine_whole(provider: Any, docker: FakeDocker) -> None:
    container = docker.add("web", status="exited", code=1)
    container.log = "\n".join(["ü" * 300] * 30).encode()
    with pytest.raises(grpc.RpcError) as error:
        provider.Create(provider_pb2.CreateRequest(urn=urn("Ready"), properties=struct(READY)))
    details = error.value.details()  # type: ignore[attr-defined]
    assert details.count("ü" * 300) == 30


def test_configuration_takes_options_as_lists_and_as_json(provider: Any, servicer: Servicer) -> None:
    assert servicer._docker is not None
    for options in (["-v"], json.dumps(["-v"])):
        args = struct({"host": "ssh://u@h", "sshOptions": options})
        answer = provider.Configure(provider_pb2.ConfigureRequest(args=args))
        assert not answer.acceptSecrets
        assert servicer._docker.settings == HostSettings(host="ssh://u@h", ssh_options=("-v",))


def test_cancel_reaches_what_waits(provider: Any, docker: FakeDocker) -> None:
    docker.add("web").probe = lambda: (1, b"")
    request = provider_pb2.CreateRequest(urn=urn("Ready"), properties=struct({**READY, "deadline": 60}))
    pending = provider.Create.future(request)
    time.sleep(0.1)
    provider.Cancel(empty_pb2.Empty())
    with pytest.raises(grpc.RpcError, match="cancelled"):
        pending.result(timeout=5)


def test_the_program_and_the_provider_agree_on_names() -> None:
    from millrace.engine import LABEL_IDENTITY, LABEL_STACK
    from millrace.server import RESOURCES

    from components.targets import docker as target

    assert (LABEL_STACK, LABEL_IDENTITY) == (target.LABEL_STACK, target.LABEL_IDENTITY)
    names = ("Image", "Ready", "Job", "Network", "VolumeOwner")
    others = {"millrace:core:Former", "millrace:core:Kept", "millrace:host:Ready"}
    assert set(RESOURCES) == {f"millrace:docker:{n}" for n in names} | others


# -- the process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_process_prints_its_port_and_ends_at_a_signal(number: signal.Signals) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT / "provider")}
    process = subprocess.Popen([sys.executable, "-m", "millrace"], stdout=subprocess.PIPE, env=env, text=True)
    assert process.stdout is not None
    with process:
        port = int(process.stdout.readline())
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            process.send_signal(number)
            assert process.wait(timeout=5) == 0


# -- connections


def refusal(settings: HostSettings) -> str:
    engine = Engine(settings)
    with pytest.raises(EngineError) as error:
        assert engine.client
    engine.close()
    text = str(error.value)
    assert "\n" not in text
    assert "Traceback" not in text
    return text


def test_no_engine_at_a_socket(tmp_path: Path) -> None:
    path = tmp_path / "docker.sock"
    assert refusal(HostSettings(host=f"unix://{path}")) == (
        f"Docker engine unix://{path}: no such socket - is Docker running there?"
    )
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        assert "connection refused" in refusal(HostSettings(host=f"unix://{path}"))


def test_a_refusal_is_remembered_for_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(HostSettings(host=f"unix://{tmp_path}/none.sock"))
    tries: list[int] = []
    connect = engine._connect
    monkeypatch.setattr(engine, "_connect", lambda: (tries.append(1), connect())[1])
    for _ in range(5):
        with pytest.raises(EngineError, match="no such socket"):
            assert engine.client
    assert len(tries) == 1
    monkeypatch.setattr(engine_module, "_REFUSED_S", 0.0)
    with pytest.raises(EngineError):
        assert engine.client
    assert len(tries) == 2


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="files in memory are Linux's")
def test_key_material_is_on_no_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    engine = Engine(HostSettings(host="tcp://127.0.0.1:1"))
    path = Path(engine._pem_file("key.pem", "secret"))
    # The TLS library opens it for each connection.
    assert [path.read_text() for _ in range(2)] == ["secret"] * 2
    assert path.stat().st_mode & 0o777 == 0o600
    assert not list(tmp_path.iterdir())
    engine.close()
    assert not path.exists()


def test_key_material_is_private_and_does_not_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create", raising=False)
    engine = Engine(HostSettings(host="tcp://127.0.0.1:1"))
    path = Path(engine._pem_file("key.pem", "secret"))
    assert path.read_text() == "secret"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    engine.close()
    assert not path.parent.exists()


# -- ssh


@pytest.fixture
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Puts a program of that text in the place of ssh."""

    def install(script: str) -> None:
        program = tmp_path / "ssh"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    return install


@pytest.fixture
def forwarder() -> Iterator[SSHForwarder]:
    made = SSHForwarder("ssh://u@h:2222", ("-o", "BatchMode=yes"))
    yield made
    made.close()


def connect(forwarder: SSHForwarder) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(5)
    client.connect(str(forwarder.path))
    return client


def everything(client: socket.socket) -> bytes:
    received = b""
    while data := client.recv(65536):
        received += data
    return received


def test_bytes_go_both_ways_and_a_half_close_is_one(ssh: Any, forwarder: SSHForwarder) -> None:
    ssh("cat; echo end")
    data = os.urandom(300_000)
    with connect(forwarder) as client:
        client.sendall(data[:1000])
        assert client.recv(1000)
        client.sendall(data[1000:])
        client.shutdown(socket.SHUT_WR)
        assert everything(client).endswith(b"end\n")


def test_the_command_is_the_one_docker_uses(ssh: Any, forwarder: SSHForwarder) -> None:
    ssh('printf "%s " "$@"')
    with connect(forwarder) as client:
        command = everything(client).decode().split()
    assert command == [
        "-T",
        "-o",
        "BatchMode=yes",
        "-l",
        "u",
        "-p",
        "2222",
        "--",
        "h",
        "docker",
        "system",
        "dial-stdio",
    ]


def test_a_failing_ssh_ends_the_connection_and_says_why(ssh: Any, forwarder: SSHForwarder) -> None:
    ssh("echo 'u@h: Permission denied (publickey).' >&2; exit 255")
    started = time.monotonic()
    with connect(forwarder) as client:
        assert everything(client) == b""
    assert time.monotonic() - started < 3
    assert forwarder.last_error == "u@h: Permission denied (publickey)."


def test_an_engine_behind_a_failing_ssh(ssh: Any) -> None:
    ssh("echo 'ssh: Could not resolve hostname h' >&2; exit 255")
    assert refusal(HostSettings(host="ssh://h")) == "Docker engine ssh://h: ssh: Could not resolve hostname h"


def test_without_ssh(forwarder: SSHForwarder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with connect(forwarder) as client:
        assert everything(client) == b""
    assert forwarder.last_error == "ssh cannot be started: No such file or directory"


def test_a_talkative_ssh_does_not_stall(ssh: Any, forwarder: SSHForwarder) -> None:
    ssh("yes noise | head -c 300000 >&2; cat")
    with connect(forwarder) as client:
        client.sendall(b"hello")
        client.shutdown(socket.SHUT_WR)
        assert everything(client) == b"hello"


def test_an_ssh_that_outlives_its_connection_is_ended(
    ssh: Any, forwarder: SSHForwarder, tmp_path: Path
) -> None:
    ssh(f"echo $$ > {tmp_path}/pid; exec >&-; exec sleep 60")
    with connect(forwarder) as client:
        assert everything(client) == b""
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_closing_removes_the_socket(forwarder: SSHForwarder) -> None:
    assert forwarder.path.parent.stat().st_mode & 0o777 == 0o700
    forwarder.close()
    assert not forwarder.path.parent.exists()


@pytest.mark.parametrize("host", ["tcp://h:1", "ssh://", "h"])
def test_only_ssh_addresses(host: str) -> None:
    with pytest.raises(ValueError, match="expected ssh://"):
        SSHForwarder(host, ())
