"""Access to a Docker engine over ``unix://``, ``tcp://`` with TLS or ``ssh://``."""

from __future__ import annotations

import atexit
import io
import json
import os
import shutil
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker.tls
from docker.errors import APIError, DockerException, NotFound
from docker.models.containers import Container

from millrace.client import Client, lost
from millrace.ssh import SSHForwarder
from millrace.ssh_errors import LOST, final
from millrace.ssh_key import PlacedKey

LOG_LINES = 30
_LOG_WIDTH = 1000
_TIMEOUT_S = 60
_REFUSED_S = 10.0


LABEL_STACK = "dev.millrace.stack"
"""Label of everything that the program makes on an engine: project and stack."""

LABEL_IDENTITY = "dev.millrace.identity"
"""Label with a random number that the stack's state holds: two states of one name are not one stack."""


def same_owner(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    """Whether two things on the engine belong to the same stack and state."""
    return all(one.get(label) == other.get(label) for label in (LABEL_STACK, LABEL_IDENTITY))


class EngineError(Exception):
    """The engine refused or cannot be reached; the message is meant for the user."""


@dataclass(frozen=True, kw_only=True)
class HostSettings:
    """Where the engine is: the provider's configuration. PEM texts are given, not paths."""

    host: str
    ca_material: str | None = None
    cert_material: str | None = None
    key_material: str | None = None
    ssh_options: tuple[str, ...] = ()
    ssh_key: str | None = field(default=None, repr=False)

    @classmethod
    def from_props(cls, props: Mapping[str, Any]) -> HostSettings:
        """From the provider's inputs; lists arrive JSON-encoded, as Pulumi does with provider inputs."""
        options = props.get("sshOptions") or "[]"
        return cls(
            host=props["host"],
            ca_material=props.get("caMaterial") or None,
            cert_material=props.get("certMaterial") or None,
            key_material=props.get("keyMaterial") or None,
            ssh_options=tuple(json.loads(options) if isinstance(options, str) else options),
            ssh_key=props.get("sshKey") or None,
        )


_engines: list[Engine] = []


def remove_files() -> None:
    """Remove what the engines of this process have written, key material above all, and wait for nothing."""
    for engine in _engines:
        engine.remove_files()


class Engine:
    """A lazily connected client, shared by all calls of one provider process."""

    def __init__(self, settings: HostSettings) -> None:
        self.settings = settings
        self._client: Client | None = None
        self._lock = threading.Lock()
        self._forwarder: SSHForwarder | None = None
        self._key: PlacedKey | None = None
        self._folder: Path | None = None
        self._handles: list[int] = []
        self._refused: tuple[float, str] | None = None
        _engines.append(self)
        atexit.register(self.close)

    def close(self) -> None:
        """Stop forwarding and remove the files that hold key material."""
        self._disconnect()
        if self._key is not None:
            self._key.release()
            self._key = None

    def remove_files(self) -> None:
        """Remove its files, and wait for nothing."""
        if self._forwarder is not None:
            shutil.rmtree(self._forwarder.path.parent, ignore_errors=True)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        if self._key is not None:
            self._key.release()

    def _disconnect(self) -> None:
        if self._forwarder is not None:
            self._forwarder.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None
        while self._handles:
            os.close(self._handles.pop())

    @property
    def client(self) -> Client:
        """The client.

        Raises:
            EngineError: when the engine cannot be reached.
        """
        with self._lock:
            if self._client is None:
                # Dozens of resources ask at once; each would wait for the same time-out, one by one.
                if self._refused and time.monotonic() - self._refused[0] < _REFUSED_S:
                    raise EngineError(self._refused[1])
                try:
                    self._client = self._connect()
                except (DockerException, OSError, ValueError) as error:
                    text = f"Docker engine {self.settings.host}: {self.reason(error)}"
                    self._refused = (time.monotonic(), text)
                    self._disconnect()
                    raise EngineError(text) from None
            return self._client

    def reason(self, error: Exception) -> str:
        """What went wrong, in one line: ssh's own words where its connection ended."""
        if self._forwarder is None or not lost(error):
            return reason(error)
        return self._forwarder.reason() or LOST

    def may_come_back(self, error: Exception) -> bool:
        """Whether an error means that the connection broke, and may be there again in a while."""
        return self._forwarder is not None and lost(error) and not self._gone_for_good()

    def await_back(self) -> None:
        """Return once the engine answers.

        Raises:
            EngineError: it did not within :data:`millrace.client.PATIENCE_S`.
        """
        try:
            self.client.ping()
        except (DockerException, OSError) as error:
            text = f"Docker engine {self.settings.host}: {self.reason(error)}"
            raise EngineError(text) from None

    def _gone_for_good(self) -> bool:
        return self._forwarder is not None and final(self._forwarder.reason())

    def _connect(self) -> Client:
        settings = self.settings
        host, tls = settings.host, None
        if host.startswith("ssh://"):
            self.place_key()
            self._forwarder = SSHForwarder(host, settings.ssh_options)
            host = f"unix://{self._forwarder.path}"
        if settings.cert_material and settings.key_material:
            tls = docker.tls.TLSConfig(
                client_cert=(
                    self._pem_file("cert.pem", settings.cert_material),
                    self._pem_file("key.pem", settings.key_material),
                ),
                ca_cert=self._pem_file("ca.pem", settings.ca_material) if settings.ca_material else None,
                verify=True,
            )
        # More connections than requests' default of ten: every waiting resource holds one.
        client = Client(base_url=host, tls=tls or False, timeout=_TIMEOUT_S, max_pool_size=64, version="auto")
        if self._forwarder is not None:
            # From here on: what fails at the first try is a mistake rather than a broken line.
            client.api.give_up = self._gone_for_good
        return client

    def place_key(self) -> None:
        """Have the file of the key for ssh, where it is given as text; other processes wait for it too."""
        if self.settings.ssh_key and self._key is None:
            self._key = PlacedKey(self.settings.ssh_key)

    def _pem_file(self, name: str, text: str) -> str:
        # The TLS library takes paths only and opens them for each connection.
        if hasattr(os, "memfd_create") and Path("/proc/self/fd").is_dir():
            # In memory, so that it is gone with the process, however that ends.
            handle = os.memfd_create(name)
            os.fchmod(handle, 0o600)
            self._handles.append(handle)
            with open(handle, "w", closefd=False) as file:
                file.write(text)
            return f"/proc/self/fd/{handle}"
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="millrace-tls-"))
        path = self._folder / name
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
        return str(path)

    def container(self, id_or_name: str) -> Container | None:
        """The container, or None when there is none."""
        try:
            return self.client.containers.get(id_or_name)
        except NotFound:
            return None

    def remove(self, id_or_name: str) -> None:
        """Remove a container, running or not, with its anonymous volumes; none is fine."""
        container = self.container(id_or_name)
        if container is not None:
            try:
                container.remove(force=True, v=True)
            except APIError as error:
                # Gone meanwhile, or about to be.
                if error.status_code not in (404, 409):
                    raise

    def remove_leftover(self, name: str, labels: Mapping[str, str]) -> None:
        """Remove a container that an interrupted update of this very stack left behind under a name.

        Raises:
            EngineError: it is somebody else's: of another checkout with a stack of the same name, say.
        """
        container = self.container(name)
        if container is None:
            return
        if not same_owner(container.labels, labels):
            raise EngineError(
                f"container {name} is there already and not of this stack's state: another checkout has a "
                f"stack of this name on the engine, or the state was lost - choose another name, or remove it"
            )
        self.remove(container.id)

    def ensure_image(self, image: str) -> None:
        """Nothing is pulled here: images are resources of their own.

        Raises:
            EngineError: when the engine does not have it.
        """
        try:
            self.client.images.get(image)
        except NotFound:
            raise EngineError(f"image {image} is not on the engine {self.settings.host}") from None

    def exit_of(self, container: Container, command: Iterable[str], timeout: float) -> tuple[int | None, str]:
        """Run a command in a container: exit code and output; (None, reason) when it could not be run.

        The engine cannot end an exec: one that exceeds ``timeout`` seconds is given up, not killed.
        """
        result: list[tuple[int | None, str]] = []

        def run() -> None:
            try:
                done = container.exec_run(list(command), demux=False)
                result.append((done.exit_code, done.output.decode(errors="replace").strip()))
            except APIError as error:
                result.append((None, str(error.explanation or error)))
            except (DockerException, OSError) as error:
                result.append((None, str(error)))

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        thread.join(timeout)
        return result[0] if result else (None, f"no answer within {timeout:.0f} s")


def tail(container: Container, lines: int = LOG_LINES) -> str:
    """The last lines a container wrote, indented for an error message."""
    try:
        text = container.logs(tail=lines, stdout=True, stderr=True).decode(errors="replace").rstrip()
    except DockerException as error:
        return f"  (no logs: {error})"
    return "\n".join(f"  {_cut(line)}" for line in text.splitlines()) or "  (it wrote no logs)"


def warnings(container: Container) -> list[str]:
    """What a container wrote on standard output as ``WARNING <text>``, the texts alone."""
    mark = "WARNING "
    try:
        text = container.logs(stdout=True, stderr=False).decode(errors="replace")
    except DockerException:
        return []
    return [_cut(line.removeprefix(mark)) for line in text.splitlines() if line.startswith(mark)]


def _cut(line: str) -> str:
    return line if len(line) <= _LOG_WIDTH else line[:_LOG_WIDTH] + "…"


def archive(files: Iterable[Mapping[str, Any]], uid: int) -> bytes:
    """A tar of ``{path, content, secret, executable}``, owned by ``uid``; secret ones are for it alone."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for file in files:
            content = str(file["content"]).encode()
            info = tarfile.TarInfo(str(file["path"]).lstrip("/"))
            info.size = len(content)
            info.mode = 0o444 | (0o111 if file.get("executable") else 0)
            if file.get("secret"):
                info.mode &= 0o700
            info.uid = info.gid = uid
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


# What the libraries say is three exceptions deep and about their own inside.
_REASONS = {
    "FileNotFoundError": "no such socket - is Docker running there?",
    "PermissionError": "permission denied - the user who runs Pulumi must be in the group docker",
    "ConnectionRefusedError": "connection refused - is Docker running there?",
    "NameResolutionError": "no such host",
    "CERTIFICATE_VERIFY_FAILED": "its certificate was not issued by the given CA for this host",
}


def reason(error: Exception) -> str:
    """What went wrong with the engine, in one line."""
    if isinstance(error, APIError):
        return " ".join(str(error.explanation or error).split())
    text = str(error)
    for sign, meaning in _REASONS.items():
        if sign in text:
            return meaning
    return " ".join(text.removeprefix("Error while fetching server API version: ").split())
