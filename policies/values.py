"""A resource's properties as the engine sends them, with the marks of secret and unknown values kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.struct_pb2 import Struct, Value
from pulumi_policy import proxy

# sdk/go/common/resource/properties.go of Pulumi.
_SIGNATURE = "4dabf18193072939515e22adb298388d"
_SECRET = "1b47061264138c4ac30d75fd1eb44270"
_UNKNOWN = frozenset(
    value for name, value in vars(proxy).items() if name.startswith("UNKNOWN_") and name.endswith("_VALUE")
)

Path = tuple[str | int, ...]


class Unknown:
    """A value that only the update will know; see :data:`UNKNOWN`."""

    def __repr__(self) -> str:
        return "unknown"


UNKNOWN = Unknown()


@dataclass(frozen=True)
class Secret:
    """A value that Pulumi encrypts in the state and hides in its output."""

    value: Any

    def __repr__(self) -> str:
        return "Secret(…)"


def from_struct(struct: Struct) -> dict[str, Any]:
    """Properties of a message as Python values."""
    return {key: _python(value) for key, value in struct.fields.items()}


def _python(value: Value) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "string_value":
        return UNKNOWN if value.string_value in _UNKNOWN else value.string_value
    if kind == "struct_value":
        fields = value.struct_value.fields
        if _SIGNATURE in fields and fields[_SIGNATURE].string_value == _SECRET:
            return Secret(_python(fields["value"]))
        return from_struct(value.struct_value)
    if kind == "list_value":
        return [_python(item) for item in value.list_value.values]
    return None if kind in (None, "null_value") else getattr(value, kind)


def bare(value: Any) -> Any:
    """``value`` without secret marks; unknown parts stay unknown."""
    if isinstance(value, Secret):
        return bare(value.value)
    if isinstance(value, Mapping):
        return {key: bare(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [bare(inner) for inner in value]
    return value


def has_secret(value: Any) -> bool:
    """Whether any part of ``value`` is marked."""
    if isinstance(value, Secret):
        return True
    if isinstance(value, Mapping):
        return any(has_secret(inner) for inner in value.values())
    return isinstance(value, list | tuple) and any(has_secret(inner) for inner in value)


def plain_texts(value: Any, path: Path = ()) -> Iterator[tuple[Path, str]]:
    """All texts below ``value`` that are not marked, with where they are."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from plain_texts(inner, (*path, key))
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from plain_texts(inner, (*path, index))


def secret_texts(value: Any) -> Iterator[str]:
    """Texts that are marked themselves. Of a marked list or mapping nobody knows which part is the secret."""
    if isinstance(value, Secret):
        if isinstance(value.value, str):
            yield value.value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from secret_texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from secret_texts(inner)


def dotted(path: Path) -> str:
    """``("envs", 0)`` as ``envs[0]``."""
    out = ""
    for part in path:
        out += f"[{part}]" if isinstance(part, int) else f".{part}" if out else part
    return out
