"""What a rule is, and what it is shown."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter, ValidationError

from policies.values import Unknown, bare

CONTAINER = "docker:index/container:Container"
VOLUME = "docker:index/volume:Volume"
NETWORK = "docker:index/network:Network"
REMOTE_IMAGE = "docker:index/remoteImage:RemoteImage"
JOB = "millrace:docker:Job"
IMAGE = "millrace:docker:Image"

_NAMESPACE = "millrace"
_PRODUCTION = ("prod", "production")
_SECRET_NAME = re.compile(r"password|passphrase|secret|token|credential|(private|access|api)_?key", re.I)
_SHORTEST_SECRET = 8
_BOOL = TypeAdapter(bool)


@dataclass(frozen=True, kw_only=True)
class Resource:
    """A resource as the program wants it. ``props`` keep the marks of secret and unknown values."""

    type: str
    name: str
    props: Mapping[str, Any]
    urn: str = ""
    protect: bool = False

    def get(self, key: str) -> Any:
        """A property without secret marks; None where it is absent or nobody knows it yet."""
        value = bare(self.props.get(key))
        return None if isinstance(value, Unknown) else value

    def is_unknown(self, key: str) -> bool:
        """Whether a property is there, but nobody knows it yet."""
        return isinstance(bare(self.props.get(key)), Unknown)

    @property
    def labels(self) -> dict[str, str]:
        """Labels of the engine, from the list of docker's resources or the mapping of ours."""
        found = self.get("labels") or {}
        if isinstance(found, list):
            found = {entry.get("label"): entry.get("value") for entry in found if isinstance(entry, dict)}
        return {str(key): str(value) for key, value in found.items()}


@dataclass(frozen=True, kw_only=True)
class Stack:
    """What rules know of the stack besides its resources.

    ``digests``: whether pulled images need a digest. ``docker_socket``: services that may mount the engine's
    socket. ``secrets``: secret values of its configuration.
    """

    production: bool = False
    digests: bool = False
    docker_socket: frozenset[str] = frozenset()
    secrets: frozenset[str] = field(default=frozenset(), repr=False)


Check = Callable[[Resource, Stack], Iterator[str]]
"""Yields what is wrong with a resource: ``what - how to mend it``, without the resource's name."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A rule for single resources, of these ``types`` or of all (None)."""

    name: str
    description: str
    check: Check
    types: frozenset[str] | None


def stack_of(name: str, config: Mapping[str, str], secret_keys: frozenset[str]) -> Stack:
    """The facts of a stack, from its name and the raw configuration.

    The program says what is wrong with its settings; what cannot be read counts as absent here, or as yes
    where it would switch rules on.
    """
    own = _decoded(config.get(f"{_NAMESPACE}:policies"))
    own = own if isinstance(own, dict) else {}
    production = _chosen(own.get("production"), name in _PRODUCTION)
    allowed = own.get("docker_socket")
    return Stack(
        production=production,
        digests=_chosen(own.get("digests"), production),
        docker_socket=frozenset(map(str, allowed)) if isinstance(allowed, list) else frozenset(),
        secrets=frozenset(
            text
            for key in secret_keys
            for text in _secrets(_decoded(config.get(key)), key)
            if len(text) >= _SHORTEST_SECRET
        ),
    )


def _chosen(value: Any, default: bool) -> bool:
    """Read as the program's settings read it: `yes` and what `pulumi config set` wrote arrive as text."""
    if value is None:
        return default
    try:
        return _BOOL.validate_python(value)
    except ValidationError:
        return True


def _decoded(text: str | None) -> Any:
    if text is None or text[:1] not in ("{", "["):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _secrets(value: Any, name: str, *, whole: bool = True) -> Iterator[str]:
    """Of a structured value Pulumi says only that it holds a secret: there the keys' names have to tell."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _secrets(inner, str(key), whole=False)
    elif isinstance(value, list):
        for inner in value:
            yield from _secrets(inner, name, whole=False)
    elif isinstance(value, str) and (whole or _SECRET_NAME.search(name)):
        yield value
