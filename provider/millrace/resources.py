"""What every resource of this provider has in common."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from millrace.engine import Engine

Props = Mapping[str, Any]


_PROGRESS_S = 5.0


class ResourceError(Exception):
    """A failure the user can read as it is: one message, no traceback."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """What a resource may use during one call: the Docker engine, progress, warnings, the cancel signal."""

    engine: Engine
    progress: Callable[[str], None]
    cancelled: threading.Event
    warn: Callable[[str], None] = lambda text: None
    """Shows a line that stays, among the warnings of the update."""
    _said: list[float] = field(default_factory=list)

    def say(self, text: str) -> None:
        """Show a progress line, at most one every five seconds: without a terminal each stays on the page."""
        now = time.monotonic()
        if not self._said:
            self._said.append(now)  # a wait of a moment needs no line
        elif now - self._said[-1] >= _PROGRESS_S:
            self._said[-1] = now
            self.progress(text)

    def pause(self, seconds: float) -> None:
        """Sleep, unless the update is cancelled meanwhile.

        Raises:
            ResourceError: when the update is cancelled.
        """
        if self.cancelled.wait(seconds):
            raise ResourceError("cancelled")


class _Every(frozenset[str]):
    """A set that holds every name."""

    def __contains__(self, name: object) -> bool:
        return True


EVERY_INPUT: frozenset[str] = _Every()


class Resource(ABC):
    """One resource type. A change of an input in ``replace_on`` replaces instead of updating; one of an input
    in ``ignore`` is no change at all.
    """

    type_token: ClassVar[str]
    replace_on: ClassVar[frozenset[str]] = frozenset()
    ignore: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def create(self, call: Call, props: Props) -> tuple[str, dict[str, Any]]:
        """Make it so and return id and outputs; raising leaves the resource out of the state."""

    def update(self, call: Call, id_: str, props: Props, olds: Props) -> dict[str, Any]:
        """The inputs changed: by default, do again what ``create`` does. ``olds`` are the outputs so far."""
        return self.create(call, props)[1]

    def read(self, call: Call, id_: str, props: Props) -> dict[str, Any] | None:
        """Current outputs, or None when it is gone and the next ``up`` must create it again."""
        return dict(props)

    def delete(self, call: Call, id_: str, props: Props) -> None:  # noqa: B027 - optional: some leave nothing behind
        """Remove it; must succeed when it is gone already."""
