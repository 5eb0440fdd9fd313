"""Connections to an SSH server that turns some of them away."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import pytest
import ssh_dial
from millrace import ssh_errors, ssh_options
from millrace.client import APIClient
from millrace.ssh import SSHForwarder

SILENCED = "proxy dialer did not pass back a connection"
BANNER = b"SSH-2.0-OpenSSH_9.2\r\n"


@pytest.fixture
def server() -> Iterator[Callable[[list[bytes]], int]]:
    """Says one of the given lines to each connection and hangs up, but keeps the last one open."""
    listener = socket.create_server(("127.0.0.1", 0))

    def answer(lines: list[bytes]) -> None:
        for line in lines[:-1]:
            connection, _ = listener.accept()
            connection.sendall(line)
            connection.close()
        connection, _ = listener.accept()
        connection.sendall(lines[-1])
        connection.recv(1)
        connection.close()

    def start(lines: list[bytes]) -> int:
        def run() -> None:
            with contextlib.suppress(OSError):  # the test has all it wants
                answer(lines)

        threading.Thread(target=run, daemon=True).start()
        return int(listener.getsockname()[1])

    yield start
    listener.close()


@pytest.mark.parametrize("refusal", [b"", b"Exceeded MaxStartups\r\n", b"Not allowed at this time\r\n"])
def test_who_is_turned_away_comes_again(refusal: bytes, server: Callable[[list[bytes]], int]) -> None:
    with ssh_dial.dial("127.0.0.1", server([refusal, refusal, BANNER])) as connection:
        # Nothing of what the server said is lost: ssh has yet to read it.
        assert connection.recv(len(BANNER), socket.MSG_WAITALL) == BANNER


def test_patience_ends(server: Callable[[list[bytes]], int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh_dial, "_PATIENCE_S", 0)
    with pytest.raises(OSError, match="MaxStartups"):
        ssh_dial.dial("127.0.0.1", server([b"", b""]))


def test_ssh_gets_the_connection(server: Callable[[list[bytes]], int]) -> None:
    ours, theirs = socket.socketpair()
    command = [sys.executable, ssh_dial.__file__, "127.0.0.1", str(server([b"", BANNER]))]
    with ours, subprocess.Popen(command, stdin=theirs, stdout=theirs):
        theirs.close()
        _, (handle,), _, _ = socket.recv_fds(ours, 1, 1)
        with socket.socket(fileno=handle) as connection:
            assert connection.recv(len(BANNER), socket.MSG_WAITALL) == BANNER


def test_nobody_there() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        command = [sys.executable, ssh_dial.__file__, "127.0.0.1", str(port)]
        done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == f"connect to host 127.0.0.1 port {port}: Connection refused\n"


def test_a_server_that_says_nothing_is_no_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh_errors, "_TRY_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        command = [sys.executable, ssh_dial.__file__, "127.0.0.1", str(port)]
        environment = {**os.environ, "MILLRACE_SSH_PATIENCE_S": "0.1"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=10)
        assert done.stderr.endswith(f"port {port}: Connection timed out during banner exchange\n")
        # The same where ssh silences the command that connects for it.
        said = ssh_errors.explain(
            ssh_errors._NO_CONNECTION, ["-F", "/dev/null", "-p", str(port), "127.0.0.1"]
        )
        assert "Connection timed out during banner exchange" in said and "MaxStartups" not in said


def test_a_server_that_hangs_up_refuses(server: Callable[[list[bytes]], int]) -> None:
    port = server([b"", b""])
    said = ssh_errors.explain(SILENCED, ["-F", "/dev/null", "-p", str(port), "127.0.0.1"])
    assert "turned all attempts away (see MaxStartups" in said


def test_the_cause_is_told_though_ssh_does_not() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        forwarder = SSHForwarder(f"ssh://u@127.0.0.1:{port}", ("-F", "/dev/null"))
        assert forwarder.reason() == ""
        forwarder.last_error = "proxy dialer did not pass back a connection"
        assert forwarder.reason() == f"connect to host 127.0.0.1 port {port}: Connection refused"
        forwarder.last_error = "Host key verification failed."
        assert forwarder.reason() == "Host key verification failed."
        forwarder.last_error = "No ED25519 host key is known for h and you have requested strict checking."
        assert "set target.host_key" in forwarder.reason()
        forwarder.close()


def test_the_way_the_user_goes_is_kept() -> None:
    none = ("-F", "/dev/null")
    assert not ssh_options._has_proxy("ssh://u@host:22", none)
    assert ssh_options._has_proxy("ssh://u@host:22", (*none, "-J", "jump"))
    assert ssh_options._has_proxy("ssh://u@host:22", (*none, "-o", "ProxyCommand=nc %h %p"))


def test_the_command_is_where_the_options_say() -> None:
    root = Path(ssh_options.__file__).resolve().parents[2]
    assert (root / ssh_options._DIAL.split()[1]).samefile(ssh_dial.__file__)


def test_the_engines_ca_is_not_replaced_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/etc/ssl/other.pem")
    tls = docker.tls.TLSConfig(verify=True)
    client = APIClient(base_url="tcp://host:2376", tls=tls, version="1.41")
    client.verify = "/run/engine-ca.pem"
    used = client.merge_environment_settings(client.base_url, {}, None, None, None)
    assert used["verify"] == "/run/engine-ca.pem"
