"""Mistakes of the target that only the whole of its settings shows."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from pathlib import Path

from components.problems import Problem, shown
from components.settings import DockerTarget
from components.settings_types import engine_address

_KEY = "PRIVATE KEY-----"


def problems(target: DockerTarget) -> Iterator[Problem]:
    """All of them, in a fixed order."""
    try:
        engine_address(target.host)
    except ValueError as error:
        # Only a default is not validated yet: it comes from the environment.
        yield Problem(("target", "host"), f"DOCKER_HOST is {shown(target.host)}: {error}")
        return
    yield from _tls(target)
    yield from _ssh(target)


def _tls(target: DockerTarget) -> Iterator[Problem]:
    tls, ssh = target.host.startswith("tcp://"), target.host.startswith("ssh://")
    for name in ("ca", "certificate", "key"):
        given = getattr(target, name) is not None
        if tls and not given:
            yield Problem(
                ("target", name), "missing - a tcp:// engine is used over TLS only; give its PEM file"
            )
        if given and not tls and not (ssh and name == "key"):
            yield Problem(
                ("target", name), f"has no meaning for {target.host} - remove it or use tcp://host:port"
            )


def _ssh(target: DockerTarget) -> Iterator[Problem]:
    if not target.host.startswith("ssh://"):
        for name in ("private_key", "host_key", "known_hosts", "ssh_options"):
            if getattr(target, name):
                yield Problem(("target", name), f"has no meaning for {target.host} - remove it or use ssh://")
        return
    if target.key is not None and target.private_key is not None:
        yield Problem(("target", "private_key"), "stands beside key - remove one of the two")
    if target.host_key is not None and target.known_hosts is not None:
        yield Problem(("target", "known_hosts"), "stands beside host_key - remove one of the two")
    if target.key is not None and _KEY not in Path(target.key).expanduser().read_text(errors="replace"):
        yield Problem(
            ("target", "key"),
            f"{shown(target.key)} holds no private key - give the file that ssh-keygen made, not its .pub",
        )
    if target.private_key is not None:
        text = target.private_key.get_secret_value()
        if _KEY not in text:
            yield Problem(("target", "private_key"), "no private key - give all of what ssh-keygen wrote")
        elif not text.isascii():
            yield Problem(
                ("target", "private_key"),
                "has characters that no key has - give all of what ssh-keygen wrote and nothing else",
            )
        elif _has_passphrase(text):
            # One in a file may have: ssh-agent can hold it.
            yield Problem(
                ("target", "private_key"),
                'has a passphrase, which nobody is there to type - make one without (ssh-keygen -N "")',
            )


def _has_passphrase(key: str) -> bool:
    if "ENCRYPTED" in key:
        return True
    body = "".join(line.strip() for line in key.splitlines() if line.strip() and "-----" not in line)
    try:
        # openssh/PROTOCOL.key: the magic, then the name of the cipher with its length before it.
        return (
            base64.b64decode(body).startswith(b"openssh-key-v1\0")
            and b"\0\0\0\x04none" not in (base64.b64decode(body)[:32])
        )
    except binascii.Error:
        return False
