"""Types of single settings, each with the sentence that says how to mend a wrong one.

A validator's message is ``what is wrong - how to fix it``; :mod:`components.problems` adds the value.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit
from zoneinfo import available_timezones

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import CoreSchema, core_schema

_PORTS = 65535


class Model(BaseModel):
    """Base of all settings: unknown keys are mistakes, nothing changes after loading.

    A key with nothing below it means its default where that is a mapping, a list or nothing: YAML reads a
    heading whose entries are commented out that way.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
        hide_input_in_errors=True,
    )

    @model_validator(mode="before")
    @classmethod
    def _empty_means_default(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        return {
            key: value for key, value in values.items() if value is not None or not cls._may_be_empty(key)
        }

    @classmethod
    def _may_be_empty(cls, key: object) -> bool:
        field = cls.model_fields.get(str(key))
        if field is None or field.is_required():
            return False
        return isinstance(
            field.get_default(call_default_factory=True), BaseModel | tuple | list | dict | None
        )


@dataclass(frozen=True)
class Form:
    """Text of a form: ``pattern`` matches all of it, ``says`` tells a person the same."""

    pattern: str
    says: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        # A field's own description replaces this one.
        return {**handler(schema), "pattern": f"^(?:{self.pattern})$", "description": _sentence(self.says)}

    def _check(self, value: str) -> str:
        if not re.fullmatch(self.pattern, value):
            raise ValueError(f"has the wrong form - {self.says}")
        return value


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _no_bool(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("expected a number")
    return value


def _text(value: object) -> object:
    # YAML reads 5, 1.5 and true as something else than text; the stack file means what it shows.
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and value.bit_length() > 1024:
        raise ValueError("expected text - put it in quotes")
    return str(value) if isinstance(value, int | float) else value


def _domain(value: str) -> str:
    labels = value.split(".")
    if len(value) > 253 or not all(re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", x) for x in labels):
        raise ValueError(
            "not a domain name - use lower-case letters, digits and hyphens in labels joined by dots, "
            "such as data.localhost"
        )
    if len(labels) < 2:
        # OpenSSL, and all that is built on it, refuses a wildcard such as *.localhost.
        raise ValueError("no wildcard certificate is valid for a single label - write data.localhost")
    if labels[-1].isdigit():
        raise ValueError("an address, not a domain name - services need names below a domain")
    return value


@cache
def _time_zones() -> frozenset[str]:
    return frozenset(available_timezones())


def _time_zone(value: str) -> str:
    # A machine without the database cannot judge; the containers have their own.
    if value not in (_time_zones() or {value}):
        close = difflib.get_close_matches(value[:60], _time_zones(), n=1) or ["Europe/Berlin"]
        raise ValueError(f"not a time zone of the IANA database - write one such as UTC or {close[0]}")
    return value


def _file(value: str) -> str:
    try:
        path = Path(value).expanduser()
        found = path.is_file()
    except (OSError, RuntimeError, ValueError):
        # A name too long, an unknown ~user, a NUL: no such file either.
        found = False
    if not found:
        raise ValueError("no such file - give a path relative to Pulumi.yaml, or an absolute one")
    if not os.access(path, os.R_OK):
        raise ValueError("not readable - give the user who runs Pulumi read access to it")
    return value


def _pool(value: str) -> str:
    try:
        network = ipaddress.IPv4Network(value)
    except ValueError:
        raise ValueError("not an IPv4 range - write one such as 10.213.0.0/16") from None
    if not network.is_private or network.prefixlen > 22:
        raise ValueError("must be a private IPv4 range of /22 or larger - write one such as 10.213.0.0/16")
    return value


def engine_address(value: str) -> str:
    """The address itself, when it is one that all clients of the engine understand.

    Raises:
        ValueError: when it is not.
    """
    wrong = "not the address of an engine - write unix:///path, tcp://host:port or ssh://user@host[:port]"
    if not re.fullmatch(r"unix:///[!-~]+|(tcp|ssh)://[!-~]+", value):
        raise ValueError(wrong)
    if value.startswith("unix:"):
        return value
    try:
        url = urlsplit(value)
        host, port = url.hostname, url.port
    except ValueError:
        raise ValueError(wrong) from None
    user_allowed = url.scheme == "ssh" and url.password is None
    named = host and re.fullmatch(r"[A-Za-z0-9_:][A-Za-z0-9._:%-]*", host)
    if not named or port == 0 or url.path or url.query or url.fragment or (url.username and not user_allowed):
        raise ValueError(wrong)
    if url.scheme == "tcp" and port is None:
        raise ValueError("lacks the port - write tcp://host:2376")
    return value


def _https(value: str) -> str:
    try:
        url = urlsplit(value)
        good = url.scheme == "https" and bool(url.hostname) and not url.username and (url.port or 1) <= _PORTS
    except ValueError:
        good = False
    if not good or not re.fullmatch(r"[!-~]+", value):
        raise ValueError("not an https:// address - write one such as https://acme.example.com/directory")
    return value


def _line(value: str) -> str:
    if not value.isprintable() or not value.strip():
        raise ValueError("holds a control character or nothing but blanks - write plain text")
    return value


_SCALAR = WithJsonSchema({"type": ["string", "number", "boolean"]})

Int = Annotated[int, BeforeValidator(_no_bool)]
Float = Annotated[float, BeforeValidator(_no_bool)]
Text = Annotated[str, BeforeValidator(_text), _SCALAR]
Line = Annotated[Text, AfterValidator(_line)]
Port = Annotated[Int, Field(ge=1, le=_PORTS)]
MiB = Annotated[Int, Field(ge=16, le=4 * 1024 * 1024)]
# The engine takes no less: a CPU's period is 100 ms, and the kernel counts whole milliseconds.
Cpus = Annotated[Float, Field(ge=0.01, le=256)]

# Names become parts of DNS labels, SQL identifiers, S3 access keys: the common subset.
NAME_PATTERN = r"[a-z][a-z0-9_-]{0,40}"
Name = Annotated[
    str,
    Form(
        NAME_PATTERN, "start with a lower-case letter, then lower-case letters, digits, _ and -, 41 at most"
    ),
]

# What the Docker CLI accepts, without its rarer forms.
_REFERENCE = r"[a-z0-9][a-z0-9.-]*(:\d+)?(/[a-z0-9._-]+)*(:[\w][\w.-]{0,127})?(@sha256:[0-9a-f]{64})?"
ImageReference = Annotated[str, Form(_REFERENCE, "write an image as registry.example.com/name:tag")]
Mirror = Annotated[
    str,
    Form(r"[a-z0-9][a-z0-9.-]*(:\d{1,5})?(/[a-z0-9._-]+)*", "write host[:port][/prefix], without https://"),
]
# An address with a password would be in the image's history.
MirrorUrl = Annotated[
    str, Form(r"https?://[^@\s,|]+", "write one http(s):// address without user and password")
]
# As ssh-keygen and ssh-keyscan write them; a comment may follow.
HostKey = Annotated[
    str,
    Form(
        r"(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(256|384|521)) AAAA[A-Za-z0-9+/]+={0,3}( [!-~]+)?",
        "write a public key such as ssh-ed25519 AAAAC3...",
    ),
]
Email = Annotated[str, Form(r"[^@\s]+@[^@\s]+\.[^@\s]+", "write one such as ops@example.com")]

Domain = Annotated[str, AfterValidator(_domain)]
TimeZone = Annotated[str, AfterValidator(_time_zone)]
ExistingFile = Annotated[str, AfterValidator(_file)]
Pool = Annotated[str, AfterValidator(_pool)]
EngineAddress = Annotated[str, AfterValidator(engine_address)]
HttpsAddress = Annotated[str, AfterValidator(_https)]
