"""The engine's socket, forwarded over a shared SSH connection; a script in the place of ssh."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from millrace import ssh_forward
from millrace.ssh import SSHForwarder
from millrace.ssh_forward import ForwardedSocket, NoWayError

SHARED = ("-o", "ControlMaster=auto", "-o", "ControlPath=~/.ssh/x")

# Forwards by a link to the socket, as long as that is there.
FORWARDS = """
case "$*" in
  *"-O forward"*) for last; do case $last in *.sock:*) ln -s "${last#*:}" "${last%%:*}" ;; esac; done ;;
  *"-O cancel"*) for last; do case $last in *.sock:*) rm -f "${last%%:*}" ;; esac; done ;;
  *"context inspect"*) echo unix://FOLDER/engine.sock ;;
  *) exec cat ;;
esac
"""


class Engine:
    """Answers each connection with ``answer`` and what it was sent, at ``path``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.answer = b"HTTP/1.1 200 OK\r\n"
        self.start()

    def start(self) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self._listener.listen(64)
        threading.Thread(target=self._serve, args=(self._listener,), daemon=True).start()

    def stop(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.path.unlink()

    def _serve(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                said = connection.recv(4096) if self.answer else b""
                connection.sendall(self.answer + said if self.answer else b"")


@pytest.fixture
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Puts a script in the place of ssh; returns the file that lists its calls."""
    monkeypatch.setattr(ssh_forward, "_REFUSED_S", 60.0)

    def install(script: str) -> Path:
        program, calls = tmp_path / "ssh", tmp_path / "calls"
        text = script.replace("FOLDER", str(tmp_path))
        program.write_text(f'#!/bin/sh\necho "$*" >> {calls}\n{text}\n')
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        return calls

    return install


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    made = Engine(tmp_path / "engine.sock")
    yield made
    made.stop()


@pytest.fixture
def forwarder() -> Iterator[SSHForwarder]:
    made = SSHForwarder("ssh://u@h", SHARED)
    yield made
    made.close()


def ask(forwarder: SSHForwarder, text: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(forwarder.path))
        received = b""
        # Who is refused is hung up on, before or after all is said.
        with contextlib.suppress(OSError):
            client.sendall(text)
            client.shutdown(socket.SHUT_WR)
            while data := client.recv(4096):
                received += data
        return received


def test_one_forwarding_serves_all(
    ssh: Callable[[str], Path], engine: Engine, forwarder: SSHForwarder
) -> None:
    calls = ssh(FORWARDS)
    answers: list[bytes] = []
    threads = [
        threading.Thread(target=lambda n=n: answers.append(ask(forwarder, b"%d" % n))) for n in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == sorted(engine.answer + b"%d" % n for n in range(20))
    where, forward = calls.read_text().splitlines()
    assert where.endswith("-l u -- h docker context inspect --format {{.Endpoints.docker.Host}}")
    assert " -O forward -L " in forward and forward.endswith("-- h")


def test_it_is_made_anew_when_it_broke(
    ssh: Callable[[str], Path], engine: Engine, forwarder: SSHForwarder
) -> None:
    calls = ssh(FORWARDS)
    assert ask(forwarder, b"one").endswith(b"one")
    for link in forwarder.path.parent.glob("engine*.sock"):
        link.unlink()
    assert ask(forwarder, b"two").endswith(b"two")
    assert len(calls.read_text().splitlines()) == 4


def test_closing_ends_it(ssh: Callable[[str], Path], engine: Engine, forwarder: SSHForwarder) -> None:
    calls = ssh(FORWARDS)
    ask(forwarder, b"one")
    forwarder.close()
    assert " -O cancel -L " in calls.read_text().splitlines()[-1]
    assert not forwarder.path.parent.exists()


def test_a_server_that_forwards_no_sockets_is_dialled(
    ssh: Callable[[str], Path], engine: Engine, forwarder: SSHForwarder
) -> None:
    calls = ssh(FORWARDS)
    engine.answer = b""
    assert ask(forwarder, b"one") == b"one"
    assert ask(forwarder, b"two") == b"two"
    dialled = [line for line in calls.read_text().splitlines() if line.endswith("docker system dial-stdio")]
    assert len(dialled) == 2


def test_an_engine_behind_another_host_is_dialled(
    ssh: Callable[[str], Path], forwarder: SSHForwarder
) -> None:
    ssh('case "$*" in *inspect*) echo tcp://other:2376 ;; *) exec cat ;; esac')
    assert ask(forwarder, b"one") == b"one"


def test_a_refusal_is_told_and_asked_for_once(ssh: Callable[[str], Path], forwarder: SSHForwarder) -> None:
    calls = ssh("echo 'u@h: Permission denied (publickey).' >&2; exit 255")
    for _ in range(5):
        assert ask(forwarder, b"x") == b""
    assert "no key is accepted" in forwarder.reason()
    assert len(calls.read_text().splitlines()) == 1


def test_without_ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NoWayError, match="ssh cannot be started"):
        ForwardedSocket([*SHARED, "--", "h"], tmp_path).connect()
