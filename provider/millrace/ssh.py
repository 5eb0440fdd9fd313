"""A private local socket whose connections reach a Docker engine over SSH.

Each connection runs ``ssh HOST docker system dial-stdio``, as Docker's own client does, so that the remote
user's DOCKER_HOST counts and ``~/.ssh/config``, agent and known hosts apply. With ControlMaster among the
options all of them share one SSH connection.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import threading
from pathlib import Path
from urllib.parse import urlsplit

_CHUNK = 64 * 1024


class SSHForwarder:
    """Listens until the process ends.

    Raises:
        ValueError: when ``host`` is not ``ssh://[user@]host[:port]``.
    """

    def __init__(self, host: str, options: tuple[str, ...]) -> None:
        url = urlsplit(host)
        if url.scheme != "ssh" or not url.hostname:
            raise ValueError(f"{host}: expected ssh://[user@]host[:port]")
        self._command = ["ssh", "-T", *options]
        if url.username:
            self._command += ["-l", url.username]
        if url.port:
            self._command += ["-p", str(url.port)]
        self._command += ["--", url.hostname, "docker", "system", "dial-stdio"]
        self.path = Path(tempfile.mkdtemp(prefix="millrace-ssh-")) / "docker.sock"
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(self.path))
        self._listener.listen(128)
        self.last_error = ""
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Stop listening and remove the socket."""
        self._listener.close()
        shutil.rmtree(self.path.parent, ignore_errors=True)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
        )
        upload = threading.Thread(target=_upload, args=(connection, process), daemon=True)
        upload.start()
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            while data := process.stdout.read(_CHUNK):
                connection.sendall(data)
        except OSError:
            pass
        finally:
            connection.close()
            process.terminate()
            error = process.stderr.read().decode(errors="replace").strip()
            if error:
                self.last_error = error.splitlines()[-1]
            process.wait()


def _upload(connection: socket.socket, process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    try:
        while data := connection.recv(_CHUNK):
            process.stdin.write(data)
        process.stdin.close()
    except OSError:
        process.terminate()
