"""Access to a Docker engine over ``unix://``, ``tcp://`` with TLS or ``ssh://``."""

from __future__ import annotations

import contextlib
import io
import json
import os
import tarfile
import tempfile
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
from docker.errors import APIError, DockerException, NotFound
from docker.models.containers import Container

from millrace.ssh import SSHForwarder

LOG_LINES = 30
_TIMEOUT_S = 60


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
        )


class Engine:
    """A lazily connected client, shared by all calls of one provider process."""

    def __init__(self, settings: HostSettings) -> None:
        self.settings = settings
        self._client: docker.DockerClient | None = None
        self._lock = threading.Lock()
        self._forwarder: SSHForwarder | None = None

    @property
    def client(self) -> docker.DockerClient:
        """The client.

        Raises:
            EngineError: when the engine cannot be reached.
        """
        with self._lock:
            if self._client is None:
                try:
                    self._client = self._connect()
                except (DockerException, ValueError) as error:
                    reason = self._forwarder.last_error if self._forwarder else ""
                    raise EngineError(f"Docker engine {self.settings.host}: {reason or error}") from None
            return self._client

    def _connect(self) -> docker.DockerClient:
        settings = self.settings
        host, tls = settings.host, None
        if host.startswith("ssh://"):
            self._forwarder = SSHForwarder(host, settings.ssh_options)
            host = f"unix://{self._forwarder.path}"
        if settings.cert_material and settings.key_material:
            tls = docker.tls.TLSConfig(
                client_cert=(_pem_file(settings.cert_material), _pem_file(settings.key_material)),
                ca_cert=_pem_file(settings.ca_material) if settings.ca_material else None,
                verify=True,
            )
        # More connections than requests' default of ten: every waiting resource holds one.
        return docker.DockerClient(
            base_url=host, tls=tls or False, timeout=_TIMEOUT_S, max_pool_size=64, version="auto"
        )

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
            with contextlib.suppress(NotFound):
                container.remove(force=True, v=True)

    def ensure_image(self, image: str) -> None:
        """Nothing is pulled here: images are resources of their own.

        Raises:
            EngineError: when the engine does not have it.
        """
        try:
            self.client.images.get(image)
        except NotFound:
            raise EngineError(f"image {image} is not on the engine {self.settings.host}") from None

    def exit_of(self, container: Container, command: Iterable[str]) -> tuple[int | None, str]:
        """Run a command in a container: exit code and output; (None, reason) when it could not be started."""
        try:
            result = container.exec_run(list(command), demux=False)
        except APIError as error:
            return None, str(error.explanation or error)
        return result.exit_code, result.output.decode(errors="replace").strip()


def tail(container: Container, lines: int = LOG_LINES) -> str:
    """The last lines a container wrote, indented for an error message."""
    try:
        text = container.logs(tail=lines, stdout=True, stderr=True).decode(errors="replace").rstrip()
    except DockerException as error:
        return f"  (no logs: {error})"
    return "\n".join(f"  {line}" for line in text.splitlines()) or "  (it wrote no logs)"


def archive(files: Iterable[Mapping[str, Any]], uid: int) -> bytes:
    """A tar of ``{path, content, secret, executable}``, owned by ``uid``; secret ones are for it alone."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for file in files:
            content = str(file["content"]).encode()
            info = tarfile.TarInfo(str(file["path"]).lstrip("/"))
            info.size = len(content)
            info.mode = (0o400 if file.get("secret") else 0o444) | (0o111 if file.get("executable") else 0)
            info.uid = info.gid = uid
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def _pem_file(text: str) -> str:
    # The TLS library takes paths only; the file is private and lives as long as this process's folder.
    folder = Path(tempfile.mkdtemp(prefix="millrace-tls-"))
    path = folder / "pem"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(fd, "w") as handle:
        handle.write(text)
    return str(path)
