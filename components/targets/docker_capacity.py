"""What the machine of a Docker engine has, as far as its API tells."""

from __future__ import annotations

import shlex
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

from components.estimates import Host
from components.settings import DockerTarget
from components.targets.docker_host import engine_of, ssh_arguments
from components.targets.docker_resources import LABEL_STACK
from components.targets.names import name_prefix

_TIMEOUT_S = 20


def engine_capacity(target: DockerTarget, project: str, stack: str) -> Host | None:
    """What the engine's machine has, and what of this stack is there; None when the engine does not answer.

    The API does not tell the free disk: it is looked up on this machine where the engine is here, and over
    SSH where that is the way to it. Over TCP it stays unknown.
    """
    from docker.errors import DockerException
    from millrace.engine import EngineError
    from requests.exceptions import RequestException

    try:
        api = engine_of(target).client.api
        info: dict[str, Any] = api.info()
        images: list[dict[str, Any]] = api.images()
        volumes: dict[str, Any] = api.volumes(filters={"label": f"{LABEL_STACK}={project}/{stack}"})
    except (EngineError, DockerException, RequestException, OSError):
        return None
    prefix = f"{name_prefix(project, stack)}-"
    return Host(
        name=f"Docker engine {info.get('Name') or target.host}",
        memory_mib=int(info["MemTotal"]) // 2**20 or None,
        disk_mb=_free_mb(target, info),
        cpus=int(info.get("NCPU") or 0) or None,
        images=frozenset(reference for image in images for reference in _references(image)),
        volumes=frozenset(
            str(volume["Name"]).removeprefix(prefix) for volume in volumes.get("Volumes") or ()
        ),
    )


def _references(image: dict[str, Any]) -> list[str]:
    """Full references of an image: the engine leaves out Docker Hub's own names."""
    found = []
    for reference in [*(image.get("RepoTags") or ()), *(image.get("RepoDigests") or ())]:
        first, _, rest = reference.partition("/")
        found.append(reference)
        if not rest:
            found.append(f"docker.io/library/{reference}")
        elif "." not in first and ":" not in first:
            found.append(f"docker.io/{reference}")
    return found


def _free_mb(target: DockerTarget, info: dict[str, Any]) -> int | None:
    host = target.host
    root = str(info.get("DockerRootDir") or "")
    if not root:
        return None
    if host.startswith("ssh://"):
        return _free_over_ssh(host, ssh_arguments(target), root)
    # A socket may lead elsewhere: into a virtual machine, or to a host by a tunnel.
    if host.startswith("unix://") and info.get("Name") == socket.gethostname() and Path(root).exists():
        return shutil.disk_usage(root).free // 10**6
    return None


def _free_over_ssh(host: str, options: tuple[str, ...], root: str) -> int | None:
    from millrace.ssh_options import destination

    command = ["ssh", *options, *destination(host), "df", "-Pk", shlex.quote(root)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT_S, stdin=subprocess.DEVNULL
        )
        return int(done.stdout.splitlines()[1].split()[3]) * 1024 // 10**6
    except (OSError, subprocess.TimeoutExpired, ValueError, IndexError):
        return None
