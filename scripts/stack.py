"""The stack's passphrase, state and entry in Pulumi, made on first use."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import subprocess
from pathlib import Path
from typing import Any

from scripts import pulumi_cli
from scripts.console import SetupError, say
from scripts.versions import CACHE, ROOT

STATE = CACHE / "state"
PASSPHRASE = CACHE / "passphrase"
_SALTS = CACHE / "salts"
LOCAL_BACKEND = "file://./.millrace/state"
"""The backend in Pulumi.yaml; the scripts make its folder and passphrase."""
_PASSPHRASE_VARIABLES = ("PULUMI_CONFIG_PASSPHRASE", "PULUMI_CONFIG_PASSPHRASE_FILE")


def _project() -> str:
    return (ROOT / "Pulumi.yaml").read_text()


def uses_local_state() -> bool:
    """Whether the stacks live in this checkout, not in a backend of the user's choice."""
    return "PULUMI_BACKEND_URL" not in os.environ and LOCAL_BACKEND in _project()


def file_of(stack: str) -> Path:
    """The stack's configuration file."""
    return ROOT / f"Pulumi.{stack}.yaml"


def prepare(stack: str) -> None:
    """Have the stack: its passphrase, its state, its selection for plain `pulumi` commands.

    Raises:
        SetupError: there is no such configuration, or Pulumi can't make the stack.
    """
    if not file_of(stack).is_file():
        known = ", ".join(sorted(path.name.split(".")[1] for path in ROOT.glob("Pulumi.*.yaml")))
        raise SetupError(f"stack {stack}: there is no Pulumi.{stack}.yaml (there is: {known or 'none'})")
    install_filter()
    if not uses_local_state():
        _open(stack)
        return
    STATE.mkdir(parents=True, exist_ok=True)
    STATE.chmod(0o700)
    if secrets_provider(stack) in ("", "passphrase"):
        _make_passphrase()
    if not _exists(stack):
        _init(stack, select=stack == "dev")
    elif stack == "dev" and not _selected():
        _pulumi("stack", "select", stack)
    _save_salt(stack)
    _settle_index(stack)


def secrets_provider(stack: str) -> str:
    """Who encrypts the stack's secrets, by its file: a key service's address, or nothing for the default."""
    found = re.search(r"^secretsprovider:\s*[\"']?([^\s\"'#]+)", file_of(stack).read_text(), re.MULTILINE)
    return found.group(1) if found else ""


def _provider_options(stack: str) -> list[str]:
    # Pulumi takes the provider of a stack that it makes from this option, not from the stack's file.
    provider = secrets_provider(stack)
    return ["--secrets-provider", provider] if provider else []


def _open(stack: str) -> None:
    """Have a stack in a backend of the user's choice: made when it is not there yet.

    Which one is selected stays as it is: the user may have another one in mind for plain `pulumi` commands.

    Raises:
        SetupError: Pulumi can't, in its own words.
    """
    asked = ("stack", "--show-name", "--non-interactive")
    done = _run(*asked, "--stack", stack)
    missing = done.returncode != 0 and f"no stack named '{stack}' found" in done.stderr
    if done.returncode and not missing:
        lines = [line for line in done.stderr.strip().splitlines() if line.strip()] or ["no message"]
        raise SetupError(f"stack {stack}: Pulumi could not open it: {lines[-1].removeprefix('error: ')}")
    select = stack == "dev" and _run(*asked).returncode != 0
    if missing:
        _init(stack, select=select)
    elif select:
        _pulumi("stack", "select", stack)


def _make_passphrase() -> None:
    if PASSPHRASE.is_file() or any(name in os.environ for name in _PASSPHRASE_VARIABLES):
        return
    if any((STATE / ".pulumi" / "stacks").rglob("*.json")):
        raise SetupError(
            f"{PASSPHRASE.relative_to(ROOT)} is missing but the state was encrypted with it: "
            "bring it back or set PULUMI_CONFIG_PASSPHRASE_FILE"
        )
    forget_salts()
    descriptor = os.open(PASSPHRASE, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_urlsafe(32) + "\n")
    say("stack", f"passphrase generated in {PASSPHRASE.relative_to(ROOT)}: keep a copy, the state needs it")


def _exists(stack: str) -> bool:
    name = re.search(r"^name:\s*(\S+)", _project(), re.MULTILINE)
    folder = STATE / ".pulumi" / "stacks" / (name.group(1) if name else "")
    return any((folder / f"{stack}{ending}").is_file() for ending in (".json", ".json.gz"))


def _selected() -> bool:
    """Whether some stack is selected here; Pulumi keeps that in its own folder."""
    digest = hashlib.sha1(str(ROOT / "Pulumi.yaml").encode(), usedforsecurity=False).hexdigest()
    return any((pulumi_cli.home() / "workspaces").glob(f"*-{digest}-workspace.json"))


def _init(stack: str, *, select: bool) -> None:
    file = file_of(stack)
    before = file.read_text()
    selection = [] if select else ["--no-select"]
    _pulumi("stack", "init", stack, *selection, *_provider_options(stack))
    # Pulumi also reformats the file: keep the text, add only its salt or its encrypted key.
    lines = [line for key in _WRITTEN if (line := _line(file.read_text(), key)) and not _line(before, key)]
    if lines:
        file.write_text(before if before.endswith("\n") or not before else before + "\n")
        with file.open("a") as handle:
            handle.writelines(lines)
    say("stack", f"{stack} created")


def outputs(stack: str) -> dict[str, Any] | None:
    """All outputs of a stack, secrets in plain; None when Pulumi has none to tell."""
    done = _run("stack", "output", "--json", "--show-secrets", "--stack", stack)
    if done.returncode:
        return None
    found: dict[str, Any] = json.loads(done.stdout or "{}")
    return found


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [pulumi_cli.COMMAND, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )


def _pulumi(*arguments: str) -> None:
    done = _run(*arguments)
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
        raise SetupError(f"pulumi {' '.join(arguments)}: {lines[-1].removeprefix('error: ')}")


_WRITTEN = ("encryptedkey", "encryptionsalt")
"""What Pulumi adds to a stack's file when it makes the stack."""


def _line(text: str, key: str) -> str:
    found = re.search(rf"^{key}:.*", text, re.MULTILINE)
    return found.group() + "\n" if found else ""


def _save_salt(stack: str) -> None:
    """Remember the salt for git's smudge filter, which puts it back after a checkout."""
    salt = _line(file_of(stack).read_text(), "encryptionsalt")
    saved = _SALTS / file_of(stack).name
    if salt and not (saved.is_file() and saved.read_text() == salt):
        _SALTS.mkdir(exist_ok=True)
        saved.write_text(salt)


def _settle_index(stack: str) -> None:
    """Tell git that the stack file is unchanged when the salt is all it got.

    Git takes a file whose size differs for changed before it asks the filter. Adding it again records the
    new size; it is done only when that stages nothing.
    """
    name = file_of(stack).name
    if not _git("status", "--porcelain", "--", name).startswith(" M"):
        return
    if _git("hash-object", f"--path={name}", name) == _git("rev-parse", "--verify", f":{name}"):
        _git("add", "--", name)


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    except FileNotFoundError:
        return ""
    return done.stdout.rstrip() if done.returncode == 0 else ""


def forget_salts() -> None:
    """Drop salts that no encrypted value needs: the passphrase they were made with is gone."""
    for file in ROOT.glob("Pulumi.*.yaml"):
        text = file.read_text()
        command = ["sh", str(ROOT / "scripts" / "salt-filter"), "clean", file.name]
        cleaned = subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout
        if cleaned != text:
            file.write_text(cleaned)
    for saved in _SALTS.glob("Pulumi.*.yaml"):
        saved.unlink()


# Git runs it in the work tree's root. Another commit's tree, or one that is just being checked out, may be
# without the script: then what goes in comes out.
_FILTER = "test -f scripts/salt-filter && exec sh scripts/salt-filter {way} %f || exec cat"


def install_filter() -> None:
    """Turn the salt filter on in this clone, for good."""
    if not (ROOT / ".git").exists():
        return
    config = ROOT / ".git" / "config"
    wanted = {way: _FILTER.format(way=way) for way in ("clean", "smudge")}
    if config.is_file() and all(command in config.read_text() for command in wanted.values()):
        return
    for way, command in wanted.items():
        _git("config", "--local", f"filter.pulumi-salt.{way}", command)
