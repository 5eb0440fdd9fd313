"""A resource's change in words: what kind of thing it is, whose, and which of its settings differ.

Secret values never get as far as here (Pulumi masks them), but what is meant to be secret by its name, or
looks like a key, is masked once more: what somebody forgot to mark must not end up in a comment.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from scripts.events import SECRET, UNKNOWN, Step

KINDS = {
    "docker:index/container:Container": "container",
    "docker:index/volume:Volume": "volume",
    "docker:index/network:Network": "network",
    "millrace:core:Former": "former values of a key",
    "millrace:core:Kept": "kept value",
    "millrace:docker:Image": "image",
    "millrace:docker:Job": "job",
    "millrace:docker:Network": "network",
    "millrace:docker:Ready": "readiness check",
    "millrace:docker:VolumeOwner": "owner of a volume",
    "millrace:host:Ready": "readiness check",
    "random:index/randomId:RandomId": "random id",
    "random:index/randomPassword:RandomPassword": "password",
    "tls:index/certRequest:CertRequest": "certificate request",
    "tls:index/locallySignedCert:LocallySignedCert": "certificate",
    "tls:index/privateKey:PrivateKey": "private key",
    "tls:index/selfSignedCert:SelfSignedCert": "certificate",
    "digitalocean:index/databaseCluster:DatabaseCluster": "managed database",
    "digitalocean:index/droplet:Droplet": "Droplet",
    "digitalocean:index/dnsRecord:DnsRecord": "DNS record",
    "digitalocean:index/reservedIp:ReservedIp": "reserved IP",
    "digitalocean:index/sshKey:SshKey": "SSH key",
    "digitalocean:index/vpc:Vpc": "VPC",
    "digitalocean:index/spacesBucket:SpacesBucket": "Spaces bucket",
    "digitalocean:index/spacesKey:SpacesKey": "Spaces key",
    "digitalocean:index/volume:Volume": "block volume",
}
"""What a reader calls the types; others are called by the last part of their token."""

MINOR = ("readiness check", "owner of a volume", "certificate request", "former values of a key")
"""Follow from something else that is listed: not worth a line of their own."""

_PROPERTIES = {
    "memory": "memory limit (MiB)",
    "memoryMib": "memory limit (MiB)",
    "memorySwap": "memory and swap limit (MiB)",
    "cpus": "CPU limit (cores)",
    "envs": "environment",
    "env": "environment",
    "uploads": "configuration files",
    "files": "configuration files",
    "healthcheck": "probe",
    "networksAdvanced": "networks",
    "volumes": "volumes",
    "ports": "published ports",
    "keepers": "rotation",
    "shmSize": "shared memory (MiB)",
    "tmpfs": "temporary files",
    "user": "user id",
    "dnsNames": "host names",
}

_SENSITIVE = re.compile(
    r"passw|secret|token|credential|passphrase|authorization|(private|access|api|client|encryption)_?key"
    r"|key_?(pem|material)",
    re.IGNORECASE,
)
_KEY_BLOCK = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|$)", re.DOTALL
)
_USER_INFO = re.compile(r"(://[^/\s:@]*:)[^@/\s]+@")
_LENGTH = 80
_ENVIRONMENT_MINIMUM = 6

# Names of list elements, by which two versions of a list are compared.
_IDENTITIES = ("label", "name", "path", "containerPath", "file", "internal", "url")


def kind_of(step: Step) -> str:
    """What the resource is, in a word or two."""
    if step.type in KINDS:
        return KINDS[step.type]
    last = step.type.rsplit(":", 1)[-1]
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", last).lower()


def service_of(step: Step, parents: Mapping[str, str]) -> str:
    """The service, or the part of the platform, that a resource belongs to."""
    parent = step.parent or parents.get(step.urn, "")
    chain = [step.urn]
    seen: set[str] = set()
    while parent and parent not in seen:
        seen.add(parent)
        chain.append(parent)
        parent = parents.get(parent, "")
    # The outermost component of a known kind; types of all parents are in the URN when their names are not.
    for urn in reversed(chain):
        type_ = urn.split("::")[2].rsplit("$", 1)[-1]
        name = urn.split("::", 3)[3]
        if type_.startswith("millrace:services:"):
            return name
        if type_ == "millrace:proxy:Edge":
            return "proxy"
        if type_ == "millrace:docker:Target":
            return "engine"
        if type_.startswith("millrace:digitalocean:"):
            return "DigitalOcean"
        if type_ in ("millrace:core:CertificateAuthority", "millrace:core:Credential"):
            return "users" if name.startswith("credential-users-") else "certificates"
    types = step.urn.split("::")[2].split("$")
    for type_ in types:
        if type_.startswith("millrace:services:"):
            return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", type_.rsplit(":", 1)[-1]).lower()
    return "platform"


def masked(text: str) -> str:
    """A text without what must not be shown: keys, passwords in addresses, secrets of the environment."""
    text = _KEY_BLOCK.sub(SECRET, text)
    text = _USER_INFO.sub(rf"\1{SECRET}@", text)
    for secret in _environment_secrets():
        text = text.replace(secret, SECRET)
    return text


def _environment_secrets() -> Iterator[str]:
    for name, value in os.environ.items():
        if _SENSITIVE.search(name) and len(value) >= _ENVIRONMENT_MINIMUM and not os.path.exists(value):  # noqa: PTH110
            yield value


def differences(step: Step) -> list[str]:
    """One phrase for each setting that differs."""
    names = dict.fromkeys([*step.changed, *step.forcing])
    if not names and step.kind == "changed":
        names = dict.fromkeys(
            key for key in {**step.before, **step.after} if step.before.get(key) != step.after.get(key)
        )
    phrases: list[str] = []
    for name in names:
        # The swap limit follows the memory limit.
        if name in ("networkDatas", "id", "memorySwap") or name.startswith("__"):
            continue
        phrases += _property(name, step.before.get(name), step.after.get(name))
    return list(dict.fromkeys(phrases))


def _property(name: str, before: Any, after: Any) -> Iterator[str]:
    title = _PROPERTIES.get(name, name)
    if name == "keepers":
        yield "a new value, asked for by `rotation`"
        return
    found = list(_leaves((), before, after))
    if not found:
        # Equal as far as one may see: it is secret, or what depends on it is not known yet.
        yield f"{title} {'(secret) ' if _has_secret(after) else ''}changes"
        return
    for path, old, new in found[:_MOST]:
        where = " ".join([title, *map(_part, path)])
        if path and {} in (old, new) and _SENSITIVE.search(path[-1]):
            yield f"{title}: secret value changes"  # an element such as --password=...: its name is its value
        elif old == SECRET or new == SECRET or _SENSITIVE.search(" ".join([title, *path])):
            yield f"{where}: secret value changes"
        elif name == "image" and UNKNOWN in (old, new):
            yield "the image that is built anew"
        elif isinstance(old, str) and re.fullmatch(r"(sha256:)?[0-9a-f]{64}", old):
            yield f"another {title}"
        elif path and (old is None or new is None) and not isinstance(old or new, _TEXT):
            above = " ".join([title, *map(_part, path[:-1])])
            yield f"{above}: {code(masked(path[-1]))} {'added' if old is None else 'removed'}"
        elif old is None:
            yield f"{where}: {value(new)} added"
        elif new is None:
            yield f"{where}: {value(old)} removed"
        else:
            yield f"{where}: {value(old)} → {value(new)}"
    if len(found) > _MOST:
        yield f"{title}: {len(found) - _MOST} more"


_MOST = 8
"""Leaves of one property that are shown."""

_TEXT = (str, int, float)


def _part(name: str) -> str:
    """A part of a path: as it is when it is a plain name, else as code."""
    return name if re.fullmatch(r"[\w./:+-]{1,80}", name) else code(masked(name))


def _has_secret(item: Any) -> bool:
    if isinstance(item, dict):
        return any(_has_secret(inner) for inner in item.values())
    if isinstance(item, list):
        return any(_has_secret(inner) for inner in item)
    return bool(item == SECRET)


def value(item: Any) -> str:
    """A value to read: short, on one line, harmless in Markdown."""
    if item == UNKNOWN:
        return "(known after `up`)"
    if isinstance(item, bool) or item is None:
        text = "unset" if item is None else str(item).lower()
    elif isinstance(item, str):
        lines = item.strip().splitlines()
        text = item if len(lines) < 2 else f"text of {len(lines)} lines"
    elif isinstance(item, int | float):
        text = f"{item:g}" if isinstance(item, float) else str(item)
    else:
        text = json.dumps(item, ensure_ascii=False)
        text = text.replace(UNKNOWN, "?")
    return code(masked(text))


def code(text: str) -> str:
    """The text as Markdown's code span."""
    text = " ".join(text.replace("`", "'").split())
    if len(text) > _LENGTH:
        text = text[: _LENGTH - 1] + "…"
    return f"`{text}`" if text else "(empty)"


def prose(text: str, *, length: int = 600) -> str:
    """A message from elsewhere as one line of plain Markdown: no markup, no mentions, no images."""
    text = masked(" ".join(text.split()))
    if len(text) > length:
        text = text[: length - 1] + "…"
    text = re.sub(r"([\\`*_{}\[\]<>#|~])", r"\\\1", text)
    return text.replace("@", "@\u200b")


def _leaves(path: tuple[str, ...], before: Any, after: Any) -> Iterator[tuple[tuple[str, ...], Any, Any]]:
    """The innermost values that differ, with their paths."""
    if before == after:
        return
    old, new = _mapping(before), _mapping(after)
    if old is None or new is None:
        yield path, before, after
        return
    for key in dict.fromkeys([*old, *new]):
        yield from _leaves((*path, key), old.get(key), new.get(key))


def _mapping(item: Any) -> Mapping[str, Any] | None:
    """A value's parts by name, where it has any."""
    if isinstance(item, dict):
        return item
    if not isinstance(item, list) or not item:
        return {} if item == [] else None
    if all(isinstance(entry, dict) for entry in item):
        for identity in _IDENTITIES:
            names = [str(entry.get(identity)) for entry in item if identity in entry]
            if len(set(names)) == len(item):
                return {name: _rest(entry, identity) for name, entry in zip(names, item, strict=True)}
    if all(isinstance(entry, str) and re.match(r"[A-Za-z_]\w*=", entry) for entry in item):
        return dict(entry.split("=", 1) for entry in item)
    if all(isinstance(entry, str) for entry in item) and len(set(item)) == len(item):
        return {entry: {} for entry in item}
    return None


def _rest(entry: Mapping[str, Any], identity: str) -> Any:
    """An element without its name; a label's or a variable's value alone."""
    rest = {key: item for key, item in entry.items() if key != identity}
    return rest["value"] if set(rest) == {"value"} else rest


def listed(names: Iterable[str], most: int = 6) -> str:
    """Names one after the other, the first few of many."""
    names = list(names)
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown
