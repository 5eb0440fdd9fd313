"""``millrace:docker:Ready``: a container that really answers."""

from __future__ import annotations

import re
import time
from datetime import datetime
from typing import Any

from docker.models.containers import Container
from typing_extensions import override

from millrace.engine import LOG_LINES, tail
from millrace.resources import Call, Props, Resource, ResourceError

_POLL_S = 0.25


class Ready(Resource):
    """Waits until ``probe`` (argv, run inside ``container``) exits 0.

    Fails as soon as the container has exited or restarted, or after ``deadline`` seconds, with the service's
    name and the last log lines. ``read`` reports it gone when the container no longer runs or its health
    check fails, so that the next ``up`` waits and judges again instead of reporting success.
    """

    type_token = "millrace:docker:Ready"
    ignore = frozenset({"deadline"})  # counts from the next wait on

    @override
    def create(self, call: Call, props: Props) -> tuple[str, dict[str, Any]]:
        name, deadline = str(props["service"]), float(props["deadline"])
        started = time.monotonic()
        reason = "no answer yet"
        while True:
            container = call.engine.container(str(props["container"]))
            if container is None:
                raise ResourceError(f"{name}: its container is gone")
            _fail_if_down(container, name)
            code, output = call.engine.exit_of(container, props["probe"], float(props["timeout"]))
            if code == 0:
                return str(props["container"]), dict(props)
            reason = output.splitlines()[-1] if output else f"exit code {code}"
            waited = time.monotonic() - started
            if waited > deadline:
                container.reload()
                _fail_if_down(container, name)
                raise ResourceError(
                    f"{name}: not ready after {deadline:.0f} s; the probe says: {reason}\n"
                    f"last {LOG_LINES} log lines of {container.name}:\n{tail(container)}"
                )
            call.say(f"waiting for {name} ({waited:.0f} s): {reason}")
            call.pause(_POLL_S)

    @override
    def read(self, call: Call, id_: str, props: Props) -> dict[str, Any] | None:
        container = call.engine.container(str(props["container"]))
        if container is None or container.status != "running":
            return None
        if container.attrs["State"].get("Health", {}).get("Status") == "unhealthy":
            return None
        return dict(props)


def _fail_if_down(container: Container, name: str) -> None:
    state = container.attrs["State"]
    restarts = int(container.attrs.get("RestartCount", 0))
    if state["Running"] and not state.get("Restarting"):
        # One that restarted long ago (a reboot of the host) is as good as one that never did.
        if restarts == 0 or _up_seconds(container) > _STABLE_S:
            return
        state = _next_exit(container)
    if state["Status"] == "created":
        detail = f"did not start: {state.get('Error') or 'unknown reason'}"
    elif state.get("OOMKilled"):
        detail = "was killed for want of memory (raise its memory_mib)"
    elif state["Running"]:
        detail = f"has restarted {restarts} times"
    else:
        detail = f"exited with code {state['ExitCode']}"
    raise ResourceError(
        f"{name}: container {container.name} {detail}\nlast {LOG_LINES} log lines:\n{tail(container)}"
    )


_STABLE_S = 10.0
_EXIT_WAIT_S = 3.0


def _next_exit(container: Container) -> dict[str, Any]:
    """The state of a crashing container between two starts, which alone has the exit code."""
    deadline = time.monotonic() + _EXIT_WAIT_S
    while time.monotonic() < deadline:
        container.reload()
        state: dict[str, Any] = container.attrs["State"]
        if not state["Running"] or state.get("Restarting"):
            return {**state, "Running": False}
        time.sleep(0.02)
    return dict(container.attrs["State"])


def _up_seconds(container: Container) -> float:
    # By the engine's own clock: that of a remote host may differ from ours.
    now = _time(str(container.client.info()["SystemTime"]))
    return (now - _time(str(container.attrs["State"]["StartedAt"]))).total_seconds()


def _time(text: str) -> datetime:
    # The engine gives nanoseconds, which fromisoformat does not read.
    return datetime.fromisoformat(re.sub(r"\.\d+", "", text))
