"""What continuous integration hands over as environment variables, put where the tools look for it."""

from __future__ import annotations

import atexit
import os
import sys
import tempfile
from pathlib import Path

from scripts import environments
from scripts.versions import ROOT

sys.path.append(str(ROOT / "provider"))
# As in target.py: of the provider's modules, these take nothing but Python.
from millrace import ssh_key, ssh_options

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

_FOLDER = "~/.ssh"
_KEY_FILE = "MILLRACE_SSH_KEY_FILE"
_HOSTS_FILE = "MILLRACE_SSH_KNOWN_HOSTS_FILE"
# A job's machine may live on and serve others meanwhile: what ssh reads for everybody has no secret, and says
# nothing to a process that was given none. It is the same for all jobs, so that it is written once.
_CONFIGURATION = f"""\
Match exec "printenv {_KEY_FILE}"
    IdentityFile ${{{_KEY_FILE}}}
Match exec "printenv {_HOSTS_FILE}"
    UserKnownHostsFile ~/.ssh/known_hosts ${{{_HOSTS_FILE}}}
"""
_FORMER_KEY = "id_millrace"
"""Where the key was once left for all jobs to come."""


def settle() -> None:
    """Take variables that are empty out of the environment, and give ssh its key and known hosts.

    Both are in files for this process and those that it starts, and are removed when it ends. Those of one
    that was killed are removed here. Only in continuous integration: on one's own machine ssh is set up
    already, and an empty passphrase may be meant.
    """
    if not environments.in_ci():
        return
    for name in _GIVEN:
        if os.environ.get(name) == "":
            del os.environ[name]
    key, known = (_text(os.environ.pop(f"MILLRACE_SSH_{what}", "")) for what in ("KEY", "KNOWN_HOSTS"))
    folder = Path(ssh_options.expand(_FOLDER))
    ssh_key.sweep()
    _forget_former(folder)
    if key or known:
        ssh_options.make_folder()
        _add(folder / "config", _CONFIGURATION)
    if key:
        placed = ssh_key.PlacedKey(_lines(key))
        atexit.register(placed.release)
        os.environ[_KEY_FILE] = str(placed.path)
    if known:
        descriptor, name = tempfile.mkstemp(prefix="millrace-known-hosts-")
        atexit.register(Path(name).unlink, missing_ok=True)
        with os.fdopen(descriptor, "w") as file:
            file.write(_lines(known))
        os.environ[_HOSTS_FILE] = name


def _forget_former(folder: Path) -> None:
    """Remove a key that was left for all jobs to come, and what led ssh to it."""
    former = folder / _FORMER_KEY
    if former.is_file():
        former.unlink()
        config = folder / "config"
        if config.is_file():
            _write(config, config.read_text().replace(f"Host *\n    IdentityFile {former}\n", ""))


def _text(given: str) -> str:
    """The value of a variable; GitLab's variables of type File hold the path of a file with it."""
    return Path(given).read_text() if given.startswith("/") and "\n" not in given else given


def _lines(text: str) -> str:
    """With the last line's end, which ssh insists on and forms for variables take away."""
    return text.replace("\r\n", "\n").strip() + "\n"


def _write(file: Path, text: str) -> None:
    # Whole at any time: another job's ssh may be reading it.
    descriptor, name = tempfile.mkstemp(prefix=f".{file.name}-", dir=file.parent)
    with os.fdopen(descriptor, "w") as handle:
        handle.write(text)
    Path(name).replace(file)


def _add(file: Path, text: str) -> None:
    """Add to a file what it does not have yet, at its end."""
    before = file.read_text() if file.is_file() else ""
    if text in before:
        return
    _write(file, (before if before.endswith("\n") or not before else before + "\n") + text)
