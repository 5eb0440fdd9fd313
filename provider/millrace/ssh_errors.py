"""What ssh and the far end say when a connection does not come about, as one line that says what to do."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Sequence

LOST = "the SSH connection broke"
"""What is said when ssh itself says nothing: those that share a connection end without a word."""

# What ssh says of its own affairs, before or after the line that says why it gave up.
_CONSEQUENCES = ("mm_receive_fd:", "ControlSocket ", "mux_client_", "Shared connection to", "Connection to ")

# With ControlPersist, ssh silences the command that makes its connections: the cause is not told.
_NO_CONNECTION = "proxy dialer did not pass back a connection"
_TRY_S = 5.0

# A sign in the line that counts, and what it means; earlier ones count more. ssh's own words stay in front:
# they are what people search for.
_MEANINGS = (
    (
        "has changed and you have requested strict checking",
        "Host key verification failed: it is not the host's known key - another machine answers, or the host "
        "was set up anew; put its new key in place only when you know why",
    ),
    (
        "host key is known for",
        "Host key verification failed: the host's key is not known - log in once with ssh, or set "
        "target.host_key or target.known_hosts",
    ),
    (
        "Permission denied (",
        "{line} - no key is accepted: append the public key to ~/.ssh/authorized_keys of that user there; "
        "check target.key, or the keys in ssh-agent (one with a passphrase must be there)",
    ),
    (
        "Too many authentication failures",
        "{line} - ssh-agent offers too many keys: set target.key",
    ),
    (
        "permission denied",
        "the user who logs in may not use Docker there - run there: sudo usermod -aG docker USER",
    ),
    (
        "docker: command not found",
        "there is no docker command on the host - install Docker there",
    ),
    ("docker: not found", "there is no docker command on the host - install Docker there"),
    ("dial unix", "Docker does not answer on the host ({line}) - is it running there?"),
    ("Cannot connect to the Docker daemon", "Docker does not answer on the host - is it running there?"),
)
# Nothing that time mends: who asks again gets the same answer.
_FINAL = ("Host key verification failed", "Permission denied (", "may not use Docker", "no docker command")


def telling(lines: Sequence[str]) -> str:
    """The line that says why; empty when none does."""
    for sign, _ in _MEANINGS:
        for line in lines:
            if sign in line:
                return line
    rest = [line for line in lines if not line.startswith(_CONSEQUENCES)]
    return rest[-1] if rest else ""


def explain(line: str, arguments: Sequence[str]) -> str:
    """The line with its meaning, where it is known; ``arguments`` are those that ssh was given."""
    if line == _NO_CONNECTION:
        return _unreachable(arguments)
    for sign, meaning in _MEANINGS:
        if sign in line:
            return meaning.format(line=line.rstrip("."))
    return line


def final(reason: str) -> bool:
    """Whether it makes no sense to try again."""
    return any(sign in reason for sign in _FINAL)


def _unreachable(arguments: Sequence[str]) -> str:
    said = subprocess.run(["ssh", "-G", *arguments], capture_output=True, text=True).stdout
    names = dict(line.split(" ", 1) for line in said.splitlines() if " " in line)
    where = f"connect to host {names.get('hostname')} port {names.get('port')}"
    try:
        with socket.create_connection((names["hostname"], int(names["port"])), timeout=_TRY_S) as connection:
            mute = _is_mute(connection)
    except OSError as error:
        return f"{where}: {error.strerror or error}"
    except (KeyError, ValueError):
        return _NO_CONNECTION
    if mute:
        return f"{where}: Connection timed out during banner exchange - what listens there says nothing"
    return f"{where}: the server turned all attempts away (see MaxStartups in its sshd_config)"


def _is_mute(connection: socket.socket) -> bool:
    try:
        connection.recv(1)
    except OSError as error:
        return isinstance(error, TimeoutError)
    return False
