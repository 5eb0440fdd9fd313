"""The engine's socket, forwarded over a shared SSH connection.

A forwarded socket takes neither a process nor a session for each connection: sshd lets ten sessions share one
(MaxSessions), and what goes beyond makes connections of its own.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from millrace.ssh_errors import telling

# Its answer is where the remote user's docker command goes, whatever says so: context, DOCKER_HOST, default.
_WHERE = ["docker", "context", "inspect", "--format", "{{.Endpoints.docker.Host}}"]
_LOCAL = "unix://"
_SSH_S = 90.0
_PING_S = 15.0
# Dozens ask at once; when one is refused, so are the others.
_REFUSED_S = 1.0


class NoWayError(Exception):
    """ssh did not get there; the message is the line of ssh's that says why, or empty."""


class ForwardedSocket:
    """Makes the shared connection and the forwarding when they are not there, for one caller at a time.

    ``arguments`` are ssh's, with ControlMaster and the destination; sockets are made in ``folder``.
    """

    def __init__(self, arguments: Sequence[str], folder: Path) -> None:
        self._arguments = list(arguments)
        self._folder = folder
        self._lock = threading.Lock()
        self._made = 0
        self._path: Path | None = None
        self._remote = ""
        self._off = False
        self._refused: tuple[float, str] | None = None

    def connect(self) -> socket.socket | None:
        """A connection to the engine; None where the server forwards no sockets.

        Raises:
            NoWayError: the host cannot be reached, or refuses.
        """
        path = self._path
        connection = _connect(path)
        if connection is None and not self._off:
            with self._lock:
                if self._path is path:
                    self._make()
                connection = _connect(self._path)
        return connection

    def close(self) -> None:
        """End the forwarding; the connection stays for others, who end it when nobody uses it any more."""
        if self._path is not None:
            self._control("cancel", self._path)
            self._path = None

    def _make(self) -> None:
        self._path = None
        if self._off:
            return
        if self._refused and time.monotonic() - self._refused[0] < _REFUSED_S:
            raise NoWayError(self._refused[1])
        where = self._ask()
        if where.startswith(_LOCAL):
            self._remote = where.removeprefix(_LOCAL)
            self._made += 1
            path = self._folder / f"engine{self._made}.sock"
            if self._control("forward", path) and _answers(path):
                self._path = path
                return
        self._off = True

    def _ask(self) -> str:
        """Have the shared connection, and learn where the engine's socket is."""
        try:
            done = subprocess.run(
                ["ssh", "-T", *self._arguments, *_WHERE],
                capture_output=True,
                text=True,
                timeout=_SSH_S,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        except FileNotFoundError as error:
            raise NoWayError(f"ssh cannot be started: {error.strerror}") from None
        except subprocess.TimeoutExpired:
            raise NoWayError(f"no answer from ssh within {_SSH_S:.0f} s") from None
        if done.returncode == 0:
            self._refused = None
            return done.stdout.strip()
        why = telling([line.strip() for line in done.stderr.splitlines() if line.strip()])
        self._refused = (time.monotonic(), why)
        raise NoWayError(why)

    def _control(self, what: str, path: Path) -> bool:
        where, destination = self._arguments[:], []
        if "--" in where:
            at = where.index("--")
            where, destination = where[:at], where[at:]
        command = ["ssh", *where, "-O", what, "-L", f"{path}:{self._remote}", *destination]
        with contextlib.suppress(subprocess.TimeoutExpired, FileNotFoundError):
            done = subprocess.run(command, capture_output=True, timeout=_PING_S, stdin=subprocess.DEVNULL)
            return done.returncode == 0
        return False


def _connect(path: Path | None) -> socket.socket | None:
    if path is None:
        return None
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(str(path))
    except OSError:
        connection.close()
        return None
    return connection


def _answers(path: Path) -> bool:
    """Whether the engine answers there: a server that forwards no sockets hangs up."""
    connection = _connect(path)
    if connection is None:
        return False
    with connection, contextlib.suppress(OSError):
        connection.settimeout(_PING_S)
        connection.sendall(b"GET /_ping HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n")
        return connection.recv(5, socket.MSG_WAITALL) == b"HTTP/"
    return False
