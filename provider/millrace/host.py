"""``millrace:host:Ready``: a host that the program made and that is set up, with an engine that answers."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from typing_extensions import override

from millrace.engine import Engine, EngineError
from millrace.resources import Call, Props, Resource, ResourceError
from millrace.ssh_options import destination

_REMOTE = Path(__file__).parent / "remote"
_POLL_S = 3.0
_ASK_S = 60.0
_STOP_S = 180.0
_GRACE_S = 120.0
"""How long another host key, or a setup that ended without an engine, may be a thing of the moment."""

# ssh's words when the program that connects for it failed: the cause is not told.
_NO_CONNECTION = "proxy dialer did not pass back a connection"
_TRY_S = 5.0
_OTHER_KEY = "Host key verification failed"
_CANNOT_CONNECT = 255


class HostReady(Resource):
    """Waits until a host is reached by SSH with the pinned key, set up by cloud-init, and its engine answers.

    ``hostId`` is the machine: another one is waited for anew. Any other changed input (size, volume) asks
    again, and grows the file system with its volume. Fails with what was seen last after ``deadline``
    seconds, at once when cloud-init failed, then with the last lines of its log.

    Deleting it (another machine is to take over, or nothing is left) stops the containers and the engine and
    unmounts the volume, so that it is whole when it is detached.
    """

    type_token = "millrace:host:Ready"
    replace_on = frozenset({"hostId"})

    @override
    def create(self, call: Call, props: Props) -> tuple[str, dict[str, Any]]:
        deadline = float(props["deadline"])
        started = time.monotonic()
        suspicious: float | None = None
        while True:
            seen = _look(call.engine, str(props["data"]))
            now = time.monotonic()
            if seen.final:
                raise ResourceError(f"host {_address(call)}: {seen.what}{_lines(seen.log)}")
            if seen.ready:
                return str(props["hostId"]), dict(props)
            if not seen.suspicious:
                suspicious = None
            elif suspicious is None:
                suspicious = now
            elif now - suspicious > _GRACE_S:
                raise ResourceError(f"host {_address(call)}: {seen.what}{_lines(seen.log)}")
            if now - started > deadline:
                raise ResourceError(
                    f"host {_address(call)}: not ready after {deadline:.0f} s: {seen.what}{_lines(seen.log)}"
                )
            call.say(f"waiting for host {_address(call)} ({now - started:.0f} s): {seen.what}")
            call.pause(_POLL_S)

    @override
    def read(self, call: Call, id_: str, props: Props) -> dict[str, Any] | None:
        return dict(props) if _look(call.engine, str(props["data"])).ready else None

    @override
    def delete(self, call: Call, id_: str, props: Props) -> None:
        try:
            stop(call.engine, str(props["data"]), str(props["device"]))
        except EngineError as error:
            call.warn(f"{error}; its volume will be detached as by a power cut")


class _Seen:
    """What one look at a host showed."""

    def __init__(self, what: str, log: Sequence[str] = (), **kind: bool) -> None:
        self.what, self.log = what, list(log)
        self.ready, self.final = kind.get("ready", False), kind.get("final", False)
        self.suspicious = kind.get("suspicious", False)


def _look(engine: Engine, data: str) -> _Seen:
    try:
        code, out, said = _run(engine, "state.sh", [data], _ASK_S)
    except subprocess.TimeoutExpired:
        return _Seen("SSH connects but does not answer")
    if code == _CANNOT_CONNECT:
        if _OTHER_KEY in said:
            return _Seen(
                "another machine answers at this address: its host key is not the one the program made",
                suspicious=True,
            )
        return _Seen(f"no SSH connection: {_unreachable(engine) if _NO_CONNECTION in said else _last(said)}")
    if code != 0:
        return _Seen(f"the user may not use sudo yet: {_last(said)}")
    return _judge(out)


def _judge(out: str) -> _Seen:
    pairs = [line.partition(" ") for line in out.splitlines()]
    found = {name: value for name, _, value in pairs if name != "log"}
    log = [value for name, _, value in pairs if name == "log"]
    state = found.get("cloud-init", "unknown")
    if state.startswith("error"):
        return _Seen("cloud-init failed", log, final=True)
    if not state.startswith(("done", "degraded done")):
        return _Seen(f"cloud-init is {state}")
    if "data" not in found:
        return _Seen("cloud-init is done, but the data volume is not mounted", log, suspicious=True)
    if "engine" not in found:
        return _Seen("cloud-init is done, but the Docker engine does not answer", log, suspicious=True)
    return _Seen(f"Docker {found['engine']}", ready=True)


def stop(engine: Engine, data: str, device: str) -> None:
    """Stop everything on a host and unmount its data volume; the shared SSH connection ends.

    Raises:
        EngineError: when that cannot be done.
    """
    try:
        code, _, said = _run(engine, "stop.sh", [data, device], _STOP_S)
        if code != 0:
            raise EngineError(f"host {engine.settings.host} could not be stopped: {_last(said)}")
    except subprocess.TimeoutExpired:
        raise EngineError(f"host {engine.settings.host} did not stop within {_STOP_S:.0f} s") from None
    finally:
        # The next machine at this address must not be looked for at the end of this connection.
        with contextlib.suppress(subprocess.TimeoutExpired):
            _ssh(engine, ["-O", "exit"], "", 10)


def _run(engine: Engine, script: str, arguments: Sequence[str], timeout: float) -> tuple[int, str, str]:
    # The script comes from here, not from the host: a host made by an older program is asked the same.
    command = ["sudo", "-n", "sh", "-s", "--", *arguments]
    return _ssh(engine, [], (_REMOTE / script).read_text(encoding="utf-8"), timeout, command)


def _ssh(
    engine: Engine, flags: Sequence[str], stdin: str, timeout: float, command: Sequence[str] = ()
) -> tuple[int, str, str]:
    engine.place_key()
    settings = engine.settings
    ssh = shutil.which("ssh")
    if ssh is None:
        raise EngineError("ssh is not installed on this machine")
    done = subprocess.run(
        [ssh, "-T", *flags, *settings.ssh_options, *destination(settings.host), *command],
        input=stdin,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=timeout,
        # Ctrl-C is for the Pulumi engine: it decides what becomes of calls that are under way.
        start_new_session=True,
    )
    return done.returncode, done.stdout, done.stderr


def _unreachable(engine: Engine) -> str:
    url = urlsplit(engine.settings.host)
    try:
        socket.create_connection((str(url.hostname), url.port or 22), timeout=_TRY_S).close()
    except OSError as error:
        return str(error.strerror or error)
    return "the SSH server hangs up"


def _address(call: Call) -> str:
    return call.engine.settings.host.removeprefix("ssh://")


def _last(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"


def _lines(log: Sequence[str]) -> str:
    return "".join(f"\n  {line}" for line in ["last lines of its log:", *log]) if log else ""
