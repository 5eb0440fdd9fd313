"""What the program itself does on the engine while Pulumi runs: clear leftovers, await a lost connection."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pulumi

if TYPE_CHECKING:
    from millrace.engine import Engine

_LEFTOVER, _CONNECTION = "remove-leftover-container", "await-connection"
# How the Docker provider reports that ssh ended (docker/cli, commandconn.go) or a connection with it. The
# engine's own answers, about a network of a container say, never read like that.
_LOST = (
    "has exited with exit status 255",
    "error during connect",
    "Error pinging Docker server",
    "broken pipe",
    "unexpected EOF",
    "connection reset by peer",
)
_BREAKS = 4
_CONTAINER = "docker:index/container:Container"


class DockerHooks:
    """Hooks of the containers and volumes of an engine.

    ``props`` are the inputs of Millrace's provider; they are known before anything is made on the engine.
    """

    def __init__(self, props: Mapping[str, pulumi.Input[str]]) -> None:
        self._props: dict[str, str] = {}
        pulumi.Output.all(**props).apply(self._props.update)
        leftover = pulumi.ResourceHook(_LEFTOVER, self._before_create)
        host = props["host"]
        # A local engine's socket does not break.
        breaks = not isinstance(host, str) or host.startswith("ssh://")
        again = [pulumi.ErrorHook(_CONNECTION, self._after_error)] if breaks else None
        self.of_container = pulumi.ResourceHookBinding(before_create=[leftover], on_error=again)
        """Before one is made, what an update that was killed left under its name is removed, when it has this
        stack's labels; and what a broken connection stopped is tried again."""
        self.of_volume = pulumi.ResourceHookBinding(on_error=again) if again else None
        """What a broken connection stopped is tried again."""

    async def _before_create(self, args: pulumi.ResourceHookArgs) -> None:
        # Not in the program's own thread: it has other resources to register meanwhile.
        await asyncio.to_thread(self._remove_leftover, args.new_inputs or {})

    async def _after_error(self, args: pulumi.ErrorHookArgs) -> bool:
        """Whether to try again: the connection broke, and is there again."""
        lost = any(sign in args.errors[0] for sign in _LOST)
        return lost and len(args.errors) <= _BREAKS and await asyncio.to_thread(self._again, args)

    def _again(self, args: pulumi.ErrorHookArgs) -> bool:
        try:
            engine(self._props).await_back()
            if args.failed_operation == "create" and args.type == _CONTAINER:
                # The engine may have made it, and only its answer was lost.
                self._remove_leftover(args.new_inputs or {})
        except Exception as error:
            # Pulumi would show this instead of what had gone wrong.
            pulumi.log.warn(f"not tried again: {error}")
            return False
        return True

    def _remove_leftover(self, inputs: Mapping[str, Any]) -> None:
        labels = {label["label"]: label["value"] for label in inputs.get("labels") or []}
        engine(self._props).remove_leftover(str(inputs["name"]), labels)


def unreachable(props: Mapping[str, str]) -> str | None:
    """Why the engine does not answer, or None: one line instead of one for each resource."""
    reached = engine(props)
    from millrace.engine import EngineError

    try:
        reached.client  # noqa: B018  # connects
    except EngineError as error:
        return str(error)
    return None


_engines: dict[str, Engine] = {}


def engine(props: Mapping[str, str]) -> Engine:
    """A client of an engine, lazily connected; one for all who give the same ``props`` of the provider."""
    folder = str(Path(__file__).resolve().parents[2] / "provider")
    if folder not in sys.path:
        sys.path.append(folder)
    from millrace.engine import Engine, HostSettings

    key = json.dumps(dict(props), sort_keys=True)
    if key not in _engines:
        _engines[key] = Engine(HostSettings.from_props(props))
    return _engines[key]
