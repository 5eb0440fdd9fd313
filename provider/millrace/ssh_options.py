"""Arguments of ``ssh`` for everything that talks to one engine: both providers and the scripts.

They are alike to the last character, so that all of them share one connection. Only the standard library: the
scripts run before anything is installed.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import re
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path

_FOLDER = "~/.ssh"
# Whoever is refused (MaxStartups) comes again. Relative: an absolute path would differ by checkout.
_DIAL = "python3 provider/ssh_dial.py %h %p"


def arguments(
    host: str,
    *,
    key_file: str | None = None,
    key_is_placed: bool = False,
    host_key: str | None = None,
    known_hosts: str | None = None,
    own: Sequence[str] = (),
) -> tuple[str, ...]:
    """Arguments for ``host`` (``ssh://[user@]host[:port]``): one shared connection, strict checks, patience.

    Args:
        host: The engine's address.
        key_file: Private key to log in with, and no other. Without it ssh chooses: its configuration, agent,
            default keys.
        key_is_placed: The file is one that :mod:`millrace.ssh_key` makes while it is needed: wait for it.
        host_key: The host's public key, ``type base64``: the only one that is accepted.
        known_hosts: File with the keys of hosts, instead of the user's own and the machine's.
        own: The user's further arguments; they win over the checks here.
    """
    chosen: list[str] = ["ConnectTimeout=10", "ServerAliveInterval=15", "ServerAliveCountMax=3"]
    chosen += ["BatchMode=yes"]
    if not _has_proxy(host, tuple(own)):
        # In quotes, or the shell would look for the home where HOME says.
        dial = f"{_DIAL} '{key_file}'" if key_file and key_is_placed else _DIAL
        chosen += [f"ProxyCommand={dial}", "ProxyUseFdpass=yes"]
    checks = ["StrictHostKeyChecking=yes"]
    if key_file:
        checks += [f"IdentityFile={_path(key_file)}", "IdentitiesOnly=yes"]
    if host_key:
        # No file to make and to keep. The name is no question: whoever has the key is the host.
        checks += [f"KnownHostsCommand=/usr/bin/env echo * {host_key}"]
        checks += ["UserKnownHostsFile=/dev/null", "GlobalKnownHostsFile=/dev/null", "UpdateHostKeys=no"]
    elif known_hosts:
        checks += [f"UserKnownHostsFile={_path(known_hosts)}", "GlobalKnownHostsFile=/dev/null"]
        # The file may be the team's, under version control: ssh must not add to it.
        checks += ["UpdateHostKeys=no"]
    # ssh takes the first value that it is given of each option.
    rest = [*_as_options(chosen), *own, *_as_options(checks)]
    shared = ["ControlMaster=auto", "ControlPersist=60", f"ControlPath={_socket(host, rest)}"]
    return (*_as_options(shared), *rest)


def control_path(options: Sequence[str]) -> str:
    """The socket of the shared connection among :func:`arguments`, with ``~``."""
    return next(text.partition("=")[2] for text in options if text.startswith("ControlPath="))


def make_folder() -> None:
    """Have the folder of the shared connection's socket.

    Without it ssh refuses to share, and ends. It looks there whatever HOME says.
    """
    Path(expand(_FOLDER)).mkdir(mode=0o700, exist_ok=True)


def expand(path: str) -> str:
    """``path`` with ``~`` as ssh reads it: the home of the user's account, whatever HOME says."""
    return pwd.getpwuid(os.getuid()).pw_dir + path[1:] if path.startswith("~/") else path


def destination(host: str) -> list[str]:
    """Arguments that say where to and as whom.

    Raises:
        ValueError: when ``host`` is not ``ssh://[user@]host[:port]``.
    """
    found = re.fullmatch(r"ssh://(?:([^@/:]+)@)?(\[[^\]]+\]|[^@/:\[\]]+)(?::(\d+))?/?", host)
    if not found:
        raise ValueError(f"{host}: expected ssh://[user@]host[:port]")
    user, name, port = found.groups()
    options = ["-l", user] if user else []
    options += ["-p", port] if port else []
    return [*options, "--", name.strip("[]")]


def _socket(host: str, rest: Sequence[str]) -> str:
    # A connection that was made under other checks, or with another key, must not serve this one. Short: the
    # name of a socket may have 104 characters, and ssh adds 17 while it makes it.
    digest = hashlib.sha256("\0".join([host, *rest]).encode()).hexdigest()[:12]
    return f"{_FOLDER}/millrace-{digest}"


def _as_options(settings: Sequence[str]) -> list[str]:
    return [text for setting in settings for text in ("-o", setting)]


def _path(path: str) -> str:
    escaped = path.replace("%", "%%")
    return f'"{escaped}"' if " " in path else escaped


@cache
def _has_proxy(host: str, own: tuple[str, ...]) -> bool:
    """Whether the user's own settings of ssh say how to get there."""
    command = ["ssh", *own, "-G", *destination(host)]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=10, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return True
    return said.returncode != 0 or re.search(r"(?m)^proxy(command|jump) (?!none$)", said.stdout) is not None
