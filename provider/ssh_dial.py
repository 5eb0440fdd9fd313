#!/usr/bin/env python3
"""Connects to an SSH server and hands the connection to ssh (its ProxyCommand with ProxyUseFdpass).

    ssh_dial.py HOST PORT [KEY]

sshd lets ten sessions share a connection (MaxSessions) and, while ten connections have not logged in yet,
turns away others at random (MaxStartups). An update of many resources exceeds both at once: who is turned
away has to come again, which ssh itself does not do. Only the standard library: it runs with any Python.

KEY is the file of a key that Millrace's provider puts there while it runs. The provider that runs this may be
a moment ahead of it; ssh reads the file after it has the connection.

MILLRACE_SSH_PATIENCE_S in the environment is for who asks once whether the host is there at all.
"""

from __future__ import annotations

import os
import pwd
import random
import socket
import sys
import time
from pathlib import Path

_PATIENCE_S = float(os.environ.get("MILLRACE_SSH_PATIENCE_S") or 60.0)
_ATTEMPT_S = min(20.0, _PATIENCE_S)
_KEY_S = 30.0


def dial(host: str, port: int) -> socket.socket:
    """A connection on which the server has begun to speak SSH, with all it said still to be read.

    Raises:
        OSError: nobody there, or turned away until patience ended.
    """
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        connection = socket.create_connection((host, port), timeout=_ATTEMPT_S)
        if _welcome(connection):
            connection.settimeout(None)
            return connection
        connection.close()
        if time.monotonic() > deadline:
            raise ConnectionRefusedError(f"turned away for {_PATIENCE_S:.0f} s (see MaxStartups of sshd)")
        time.sleep(random.uniform(0.05, 0.4))  # noqa: S311 - no secret, only not all at once


def _welcome(connection: socket.socket) -> bool:
    try:
        first = connection.recv(4, socket.MSG_PEEK | socket.MSG_WAITALL)
    except ConnectionResetError:
        return False
    except TimeoutError:
        raise TimeoutError("Connection timed out during banner exchange") from None
    # Newer servers say why they hang up: "Exceeded MaxStartups", "Not allowed at this time".
    return first not in (b"", b"Exce", b"Not ")


def await_key(path: str) -> None:
    """Return when the file is there.

    Raises:
        OSError: it does not come.
    """
    if path.startswith("~/"):
        # What ssh takes for the home, whatever HOME says.
        path = pwd.getpwuid(os.getuid()).pw_dir + path[1:]
    deadline = time.monotonic() + _KEY_S
    while not Path(path).exists():
        if time.monotonic() > deadline:
            raise FileNotFoundError(f"the stack's key has not come to {path}")
        time.sleep(0.05)


def _main(host: str, port: str, key: str = "") -> int:
    try:
        if key:
            await_key(key)
        connection = dial(host, int(port))
    except OSError as error:
        print(f"connect to host {host} port {port}: {error.strerror or error}", file=sys.stderr)
        return 1
    with socket.socket(fileno=sys.stdout.fileno()) as ssh:
        socket.send_fds(ssh, [b"\0"], [connection.fileno()])
    return 0


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
