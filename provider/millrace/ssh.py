"""A private local socket whose connections reach a Docker engine over SSH.

``~/.ssh/config``, agent and known hosts apply, and the remote user's DOCKER_HOST counts. With ControlMaster
among the options all connections share one of SSH, in which the engine's socket is forwarded. Where that may
not be, each runs ``ssh HOST docker system dial-stdio``, as Docker's own client does.
"""

from __future__ import annotations

import atexit
import contextlib
import shutil
import socket
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import IO

from millrace.ssh_errors import LOST, explain, telling
from millrace.ssh_forward import ForwardedSocket, NoWayError
from millrace.ssh_options import destination

_CHUNK = 64 * 1024
_END_S = 1.0
_LINES = 100


class SSHForwarder:
    """Listens until the process ends.

    Raises:
        ValueError: when ``host`` is not ``ssh://[user@]host[:port]``.
    """

    def __init__(self, host: str, options: tuple[str, ...]) -> None:
        self._host = [*options, *destination(host)]
        self._command = ["ssh", "-T", *self._host, "docker", "system", "dial-stdio"]
        self.path = Path(tempfile.mkdtemp(prefix="millrace-ssh-")) / "docker.sock"
        shared = any(option.startswith("ControlPath=") for option in options)
        self._forwarded = ForwardedSocket(self._host, self.path.parent) if shared else None
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(self.path))
        self._listener.listen(128)
        self.last_error = ""
        atexit.register(self.close)
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Stop listening and remove the socket."""
        _hang_up(self._listener)
        if self._forwarded is not None:
            self._forwarded.close()
        shutil.rmtree(self.path.parent, ignore_errors=True)

    def reason(self) -> str:
        """Why the last connection that failed did, and what to do; empty when none has."""
        return explain(self.last_error, self._host)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            engine = self._forwarded.connect() if self._forwarded else None
        except NoWayError as error:
            # Why it ended must be known before the client sees that it did.
            self.last_error = str(error) or LOST
            _hang_up(connection)
            return
        if engine is None:
            self._dial(connection)
            return
        threading.Thread(target=_copy, args=(connection, engine), daemon=True).start()
        _copy(engine, connection)
        _hang_up(engine)
        _hang_up(connection)

    def _dial(self, connection: socket.socket) -> None:
        try:
            process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                # Ctrl-C is for the Pulumi engine: it decides what becomes of calls that are under way.
                start_new_session=True,
            )
        except OSError as error:
            self.last_error = f"ssh cannot be started: {error.strerror}"
            _hang_up(connection)
            return
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        threading.Thread(target=_upload, args=(connection, process.stdin), daemon=True).start()
        said: list[str] = []
        complaints = threading.Thread(target=_listen, args=(process.stderr, said), daemon=True)
        complaints.start()
        with contextlib.suppress(OSError):
            while data := process.stdout.read(_CHUNK):
                connection.sendall(data)
        # Below zero: ended here, since the client had hung up.
        if _end(process) > 0:
            complaints.join(_END_S)
            self.last_error = telling(said) or LOST
        _hang_up(connection)
        process.stdout.close()


def _listen(errors: IO[bytes], said: list[str]) -> None:
    # Read all the time: ssh would stop at a full pipe.
    with errors:
        for line in errors:
            text = line.decode(errors="replace").strip()
            if text:
                said.append(text)
                del said[:-_LINES]


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(_CHUNK):
            sink.sendall(data)
        # Only this direction ends.
        sink.shutdown(socket.SHUT_WR)


def _upload(connection: socket.socket, sink: IO[bytes]) -> None:
    # A client that has said all it wants to say may still be listening: only this direction ends.
    with contextlib.suppress(OSError), sink:
        while data := connection.recv(_CHUNK):
            sink.write(data)


def _end(process: subprocess.Popen[bytes]) -> int:
    with contextlib.suppress(subprocess.TimeoutExpired):
        return process.wait(_END_S)
    process.kill()
    return process.wait()


def _hang_up(connection: socket.socket) -> None:
    # close() alone leaves a thread that waits on the socket waiting, and its peer without the end.
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
