"""Versions: what the scripts accept, and how they compare them."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".millrace"

PULUMI_MINIMUM = "3.256.0"
"""The oldest CLI the tests have run with; the Python SDK in requirements.txt is newer."""

DOCKER_MINIMUM = "20.10"
"""The first engine API (1.41) the docker provider's client and BuildKit's cache mounts work with."""

PLUGINS = ("docker", "random", "tls")

POLICIES = ("--policy-pack", "policies/run")
"""Options of `pulumi preview` and `up` with which the project's rules are checked."""


def parse(text: str) -> tuple[int, ...]:
    """The leading dotted number of a version: ``v3.256.0-alpha`` is (3, 256, 0); () when there is none."""
    match = re.search(r"\d+(\.\d+)*", text)
    return tuple(int(part) for part in match.group().split(".")) if match else ()


def at_least(version: str, minimum: str) -> bool:
    """Whether a version is recent enough: 20.10.24 is at least 20.10."""
    return parse(version) >= parse(minimum)


def pinned(package: str) -> str:
    """The version requirements.txt pins for a package."""
    match = re.search(rf"^{re.escape(package)}==(\S+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    if match is None:
        raise KeyError(package)
    return match.group(1)
