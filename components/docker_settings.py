"""Settings of a target that is a Docker engine, here or elsewhere."""

from __future__ import annotations

import os
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, SecretStr

from components.problems import nearest
from components.settings_types import EngineAddress, ExistingFile, HostKey, Line, Model


def _default_host() -> str:
    return os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"


def _kind(value: object) -> object:
    if isinstance(value, str) and value not in _KINDS:
        near = nearest(value, _KINDS)
        raise ValueError('must be "docker" or "digitalocean"' + (near if "did you mean" in near else ""))
    return value


_KINDS = ("digitalocean", "docker")


class DockerTarget(Model):
    """Containers on a Docker engine, here or elsewhere."""

    kind: Annotated[Literal["docker"], BeforeValidator(_kind)] = "docker"
    """docker: on an engine that is there already."""
    host: EngineAddress = Field(default_factory=_default_host)
    """unix:///path, tcp://host:port (with TLS) or ssh://user@host[:port]; without it DOCKER_HOST, else
    unix:///var/run/docker.sock."""
    ca: ExistingFile | None = None
    """PEM file of the CA that signed the engine's certificate (tcp)."""
    certificate: ExistingFile | None = None
    """PEM file of the client certificate (tcp)."""
    key: ExistingFile | None = None
    """File of the private key: the client certificate's in PEM form (tcp), or the one to log in with (ssh).
    Without it ssh takes what its agent and its configuration have."""
    private_key: SecretStr | None = None
    """The private key itself instead of a file (ssh), for machines that have none:
    `pulumi config set --secret --path millrace:target.private_key --stack NAME < FILE`."""
    host_key: HostKey | None = None
    """Public key of the host (ssh), the only one that is accepted: a line of `ssh-keyscan HOST` without its
    first word."""
    known_hosts: ExistingFile | None = None
    """File of known host keys (ssh), instead of those that the user and the machine have."""
    ssh_options: tuple[Line, ...] = ()
    """More arguments for ssh, such as ["-J", "jump.example.com"]."""
