"""Where the Docker target's engine is, and how to reach it."""

from __future__ import annotations

import os
import pwd
import re
import subprocess
from functools import cache
from pathlib import Path

from components.settings import DockerTarget
from components.targets.docker_resources import unreachable

# One SSH connection for all resources of an update; sshd refuses more than ten at once (MaxStartups).
_SSH_MULTIPLEX = (
    "-o",
    "ControlMaster=auto",
    "-o",
    "ControlPersist=60",
    "-o",
    "ControlPath=~/.ssh/millrace-%C",
    "-o",
    "ConnectTimeout=10",
)

# Who is refused nevertheless comes again. Relative: an absolute path would differ by checkout.
_SSH_DIAL = ("-o", "ProxyCommand=python3 provider/ssh_dial.py %h %p", "-o", "ProxyUseFdpass=yes")


def engine_problem(target: DockerTarget) -> str | None:
    """Why the target's engine does not answer, in one line, or None when it does."""
    return unreachable(target.host, materials(target), ssh_options(target))


def ssh_options(target: DockerTarget) -> tuple[str, ...]:
    """Arguments for ssh: shared connections, patience, and the user's own."""
    if not target.host.startswith("ssh://"):
        return ()
    # Without the folder ssh refuses to share its connection, and ends. It looks there whatever HOME says.
    Path(pwd.getpwuid(os.getuid()).pw_dir, ".ssh").mkdir(mode=0o700, exist_ok=True)
    own = target.ssh_options
    dial = () if _ssh_has_proxy(target.host, own) else _SSH_DIAL
    return (*_SSH_MULTIPLEX, *dial, "-o", "BatchMode=yes", *own)


@cache
def _ssh_has_proxy(host: str, options: tuple[str, ...]) -> bool:
    """Whether the user's own settings of ssh say how to get there."""
    command = ["ssh", *options, "-G", host]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=10, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return True
    return said.returncode != 0 or re.search(r"(?m)^proxy(command|jump) (?!none$)", said.stdout) is not None


def materials(target: DockerTarget) -> dict[str, str]:
    """PEM texts for an engine behind TLS, by the names the providers use."""
    files = {"caMaterial": target.ca, "certMaterial": target.certificate, "keyMaterial": target.key}
    return {name: Path(path).expanduser().read_text() for name, path in files.items() if path}
