"""Packages of the distribution, where the scripts may install them."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Sequence

from scripts.console import SetupError, run, say

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
"""Names of programs on PATH that can take screenshots and run the tests of the portal."""

_lock = threading.Lock()
_updated = False
_ENVIRONMENT = {"DEBIAN_FRONTEND": "noninteractive"}
# Another apt may be at work on a freshly booted machine: wait for it.
_APT = ("apt-get", "-q", "-o", "DPkg::Lock::Timeout=120")


def can_install() -> bool:
    """Whether the scripts may install packages: as root, on Debian and its relatives."""
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


def install(step: str, packages: Sequence[str]) -> None:
    """Install packages by apt, one installation at a time.

    Raises:
        SetupError: apt failed.
    """
    with _lock:
        say(step, f"installing {' '.join(packages)} from the distribution")
        _update(step)
        run(step, [*_APT, "install", "-y", "--no-install-recommends", *packages], env=_ENVIRONMENT)


def offered(step: str, package: str) -> bool:
    """Whether the distribution has a package; its lists are fetched first, a new machine has none.

    Raises:
        SetupError: apt failed.
    """
    with _lock:
        _update(step)
    return subprocess.run(["apt-cache", "show", package], capture_output=True).returncode == 0


def _update(step: str) -> None:
    global _updated
    if not _updated:
        run(step, [*_APT, "update"], env=_ENVIRONMENT)
        _updated = True


def require(step: str, command: str, package: str, instead: str) -> None:
    """Have a command on PATH, by installing its package where that is allowed.

    Raises:
        SetupError: it is missing and may not be installed; ``instead`` says what to do.
    """
    if shutil.which(command):
        return
    if not can_install():
        raise SetupError(f"{step}: `{command}` is missing: {instead}")
    install(step, [package])
    if not shutil.which(command):
        raise SetupError(f"{step}: package {package} brought no `{command}`: {instead}")
