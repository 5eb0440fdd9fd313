"""What continuous integration hands over as environment variables, put where the tools look for it."""

from __future__ import annotations

import os
from pathlib import Path

from scripts import environments

_GIVEN = (
    "PULUMI_BACKEND_URL",
    "PULUMI_ACCESS_TOKEN",
    "PULUMI_CONFIG_PASSPHRASE",
    "AWS_REGION",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "DIGITALOCEAN_TOKEN",
    "SPACES_ACCESS_KEY_ID",
    "SPACES_SECRET_ACCESS_KEY",
    "MILLRACE_SSH_KEY",
    "MILLRACE_SSH_KNOWN_HOSTS",
)
"""Variables that a job names whether or not somebody has set them."""

_KEY = "id_millrace"


def settle(home: Path | None = None) -> None:
    """Take variables that are empty out of the environment, and write ssh's key and known hosts.

    Only in continuous integration: on one's own machine ssh is set up already, and an empty passphrase may be
    meant.
    """
    if not environments.in_ci():
        return
    for name in _GIVEN:
        if os.environ.get(name) == "":
            del os.environ[name]
    key, known = (_text(os.environ.pop(f"MILLRACE_SSH_{what}", "")) for what in ("KEY", "KNOWN_HOSTS"))
    folder = (home or Path.home()) / ".ssh"
    if key or known:
        folder.mkdir(mode=0o700, exist_ok=True)
    if key:
        _write(folder / _KEY, _lines(key))
        _add(folder / "config", f"Host *\n    IdentityFile {folder / _KEY}\n")
    if known:
        _add(folder / "known_hosts", _lines(known))


def _text(given: str) -> str:
    """The value of a variable; GitLab's variables of type File hold the path of a file with it."""
    return Path(given).read_text() if given.startswith("/") and "\n" not in given else given


def _lines(text: str) -> str:
    """With the last line's end, which ssh insists on and forms for variables take away."""
    return text.replace("\r\n", "\n").strip() + "\n"


def _write(file: Path, text: str) -> None:
    file.unlink(missing_ok=True)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as handle:
        handle.write(text)


def _add(file: Path, text: str) -> None:
    """Add to a file what it does not have yet, at its end."""
    before = file.read_text() if file.is_file() else ""
    if text in before:
        return
    _write(file, (before if before.endswith("\n") or not before else before + "\n") + text)
