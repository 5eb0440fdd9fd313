"""Mistakes in the settings, each one line: stack file, key path, what is wrong, how to fix it.

What stands here is shown on a terminal: it is printable, short, and never a secret.
"""

from __future__ import annotations

import difflib
import json
import re
import types
import typing
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from pydantic import BaseModel, SecretBytes, SecretStr, ValidationError
from pydantic_core import ErrorDetails

PathPart = str | int

_SHOWN = 60
"""Longest part of a value or key in a message."""
_KNOWN = 24
"""Most names in a list of known ones."""
_LINE = 600
"""Longest line; only a list of long names gets there."""

# user:password@ of an address, and everything before it.
_USERINFO = re.compile(r"\S*:\S*@")


@dataclass(frozen=True)
class Problem:
    """One mistake. ``path`` starts at the settings' top; ``text`` says what is wrong and the fix.

    A first part of ``path`` that holds a colon has its own namespace.
    """

    path: tuple[PathPart, ...]
    text: str

    def line(self, stack_file: str, namespace: str) -> str:
        """``Pulumi.dev.yaml: millrace:postgres.roles[0].name: …`` on one line."""
        key = dotted(self.path)
        if not (self.path and ":" in str(self.path[0])):
            key = f"{namespace}:{key}" if key else namespace
        text = printable(" ".join(self.text.split())) or "cannot be used - compare with docs/settings.md"
        line = f"{stack_file}: {key}: {text}"
        return line if len(line) <= _LINE else line[: _LINE - 1] + "…"


class SettingsError(Exception):
    """The settings cannot be used; ``lines`` has one line for each mistake."""

    def __init__(self, lines: Sequence[str]) -> None:
        self.lines = list(lines)
        super().__init__("\n".join(self.lines))


def printable(text: str) -> str:
    """``text`` with control characters, line ends and lone surrogates escaped."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )


def dotted(path: Iterable[PathPart]) -> str:
    """``("roles", 0, "name")`` as ``roles[0].name``, the form ``pulumi config set --path`` takes.

    A key that is no plain word is quoted: ``rotation["a b"]``.
    """
    out = ""
    for part in path:
        if isinstance(part, int):
            out += f"[{part}]"
        elif re.fullmatch(r"[\w/:-]+", part) and part.isprintable():
            out += f".{_short(part)}" if out else _short(part)
        else:
            out += f"[{printable(json.dumps(_short(part), ensure_ascii=False))}]"
    return out


def nearest(word: str, known: Iterable[str]) -> str:
    """`` - did you mean "x"?`` for a near miss, else the known names (or nothing when there are none)."""
    names = sorted(known)
    if close := _close(word, names):
        return close
    listed = ", ".join(names[:_KNOWN]) + (", …" if len(names) > _KNOWN else "")
    return f" - known: {listed}" if names else " - remove it"


def shown(value: object) -> str:
    """A value for a message: short, on one line, without a container's content or an address's password."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    if value is None:
        return "nothing"
    # The cut comes first: the text may be of any length.
    text = str(value).lower() if isinstance(value, bool) else _digits(value)
    return f'"{_short(printable(_USERINFO.sub("***@", text[:1000])))}"'


def from_validation(
    error: ValidationError, model: type[BaseModel], secret_keys: Collection[str] = ()
) -> list[Problem]:
    """Pydantic's errors as problems: known keys in the order the models declare them, then unknown ones.

    Values below a key of ``secret_keys`` stay out of the messages, as do those of secret fields.
    """
    return [Problem(*_describe(d, model, secret_keys)) for d in error.errors(include_url=False)]


def _describe(
    detail: ErrorDetails, model: type[BaseModel], secret_keys: Collection[str]
) -> tuple[tuple[PathPart, ...], str]:
    path, annotation = _resolve(detail["loc"], model)
    kind, value, context = detail["type"], detail["input"], detail.get("ctx") or {}
    # A value at or above a secret key must not reach the terminal: it may be the secret, misplaced.
    hidden = _holds_secret(annotation) or bool(path and path[0] in secret_keys)
    got = "" if hidden else f", got {shown(value)}"
    match kind:
        case "extra_forbidden":
            owner = _resolve(detail["loc"][:-1], model)[1]
            return path, f"unknown key{nearest(str(path[-1]), _fields(owner))}"
        case "missing":
            return path, "missing - add it" + _hint(annotation)
        case "enum" | "literal_error":
            wanted = str(context.get("expected", "")).replace("'", '"')
            names = [w.strip(' "') for w in wanted.replace(" or ", ",").split(",")]
            return path, f"must be {wanted}{got}" + (
                "" if hidden or not isinstance(value, str) else _close(value, names)
            )
        case "value_error":
            text, _, fix = str(context.get("error", detail["msg"])).partition(" - ")
            return path, f"{text}{got}" + (f" - {fix}" if fix else "")
        case "model_type" | "dict_type" | "model_attributes_type" | "dataclass_type" | "mapping_type":
            defaults = ", or {} for the defaults" if _all_optional(annotation) else ""
            return path, f"expected a mapping{got} - write `key: value` lines below it{defaults}"
        case "list_type" | "tuple_type" | "set_type" | "frozen_set_type":
            return path, f"expected a list{got} - write each entry as `- …`"
        case "string_type":
            return path, f"expected text{got}" + (
                " - put it in quotes" if isinstance(value, int | float) else ""
            )
        case "string_unicode":
            return path, f"not valid Unicode text{got} - remove what is not a character"
        case "int_type" | "int_parsing" | "int_from_float" | "int_parsing_size":
            return path, f"expected a whole number{got}"
        case "float_type" | "float_parsing" | "finite_number":
            return path, f"expected a number{got}"
        case "bool_type" | "bool_parsing":
            return path, f"expected true or false{got}"
        case "greater_than_equal" | "greater_than" | "less_than_equal" | "less_than":
            return path, detail["msg"].replace("Input should be", "must be") + got
        case "string_pattern_mismatch":
            return path, f"must have the form {context.get('pattern')}{got}"
        case _:
            message = detail["msg"]
            return path, message[:1].lower() + message[1:] + got


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def _digits(value: object) -> str:
    try:
        return str(value)
    except ValueError:
        # Python refuses to print an integer of more than 4300 digits.
        return "a number of thousands of digits"


def _close(word: str, names: Sequence[str]) -> str:
    close = difflib.get_close_matches(word[:_SHOWN], names, n=1, cutoff=0.6)
    return f' - did you mean "{close[0]}"?' if close else ""


def _hint(annotation: Any) -> str:
    words = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
    for candidate in _flatten(annotation):
        if candidate in words:
            return f" ({words[candidate]})"
        if isinstance(candidate, type) and issubclass(candidate, Enum):
            return f" ({', '.join(str(member.value) for member in candidate)})"
    return ""


def _holds_secret(annotation: Any) -> bool:
    return any(_secret_type(candidate) for candidate in _flatten(annotation))


def _secret_type(candidate: Any) -> bool:
    if not isinstance(candidate, type):
        return any(_holds_secret(argument) for argument in typing.get_args(candidate))
    if issubclass(candidate, BaseModel):
        return any(_holds_secret(field.annotation) for field in candidate.model_fields.values())
    return issubclass(candidate, SecretStr | SecretBytes)


def _fields(annotation: Any) -> list[str]:
    model = _model_of(annotation)
    return list(model.model_fields) if model else []


def _all_optional(annotation: Any) -> bool:
    model = _model_of(annotation)
    return model is not None and not any(field.is_required() for field in model.model_fields.values())


def _model_of(annotation: Any) -> type[BaseModel] | None:
    for candidate in _flatten(annotation):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _member(annotation: Any, name: object) -> type[BaseModel] | None:
    """The model of that name among those that a value may be."""
    for candidate in _flatten(annotation):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel) and candidate.__name__ == name:
            return candidate
    return None


def _flatten(annotation: Any) -> Iterable[Any]:
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        yield from _flatten(typing.get_args(annotation)[0])
    elif origin in (typing.Union, types.UnionType):
        for argument in typing.get_args(annotation):
            yield from _flatten(argument)
    else:
        yield annotation


def _resolve(loc: Iterable[PathPart], model: type[BaseModel]) -> tuple[tuple[PathPart, ...], Any]:
    """The path as the file has it and the annotation found there.

    Pydantic adds parts the file does not have: names of union members and ``[key]`` for a mapping's key.
    """
    path: list[PathPart] = []
    current: Any = model
    for part in loc:
        owner = _model_of(current)
        arguments = [a for c in _flatten(current) for a in typing.get_args(c)]
        if part == "[key]" or (isinstance(part, str) and part.startswith(("function-", "lax-or-strict"))):
            continue
        if owner is not None and part in owner.model_fields:
            current = owner.model_fields[str(part)].annotation
        elif (member := _member(current, part)) is not None:
            current = member
            continue
        elif arguments and (isinstance(part, int) or owner is None):
            # Values of a list come first among its type's arguments, values of a mapping last.
            current = arguments[0] if isinstance(part, int) else arguments[-1]
        else:
            current = None
        path.append(part)
    return tuple(path), current
