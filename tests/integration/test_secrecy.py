"""No secret is anywhere but in the encrypted state, in files for one process, and in its memory."""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.stack import ROOT, Stack

_SECRET_MARK = "4dabf18193072939515e22adb298388d"  # Pulumi's signature key, the same in every state
_SECRET_VALUE = "1b47061264138c4ac30d75fd1eb44270"
# Random: written out, the value would stand in this very file.
PLANTED = f"planted-{uuid.uuid4().hex}"

BY_ENVIRONMENT = frozenset({"_SPARK_AUTH_SECRET", "MB_DB_PASS", "MB_ENCRYPTION_SECRET_KEY"})
"""Variables by which a server takes a secret because it takes it no other way: its start script reads the
file and sets them for the server's own process. docs/security.md names each."""


@pytest.fixture(scope="module")
def stack(everything: Stack) -> Iterator[Stack]:
    """The platform of all services, with a secret of the user's own in its settings."""
    for path, value in (
        ("password", PLANTED),
        ("username", "somebody"),
        ("mirror", "registry.example:5000"),
    ):
        options = ["--secret"] if value == PLANTED else []
        everything.pulumi("config", "set", *options, "--path", f"millrace:registry.{path}", value)
    everything.up_log = everything.up().output  # type: ignore[attr-defined]
    yield everything
    everything.configure(everything.config)
    everything.up()


@pytest.fixture(scope="module")
def secrets(stack: Stack) -> set[str]:
    """Every password, every hash of one, and the telling line of every private key."""
    exported = stack.pulumi("stack", "export", "--show-secrets", "--stack", stack.name).output
    found: set[str] = {PLANTED}
    for text in _texts(_marked(json.loads(exported))):
        # The first line holds the key's number; later ones repeat the public key, as certificates do.
        found.update(re.findall(r"-----BEGIN (?:EC )?PRIVATE KEY-----\n(\S{60,})\n", text))
        found.update(re.findall(r"SCRAM-SHA-256\$\S{20,}|\$2[aby]\$\d\d\$\S{53}", text))
        if re.fullmatch(r"[A-Za-z0-9]{32}", text):
            found.add(text)
    passwords = set(_texts(stack.outputs()["credentials"]))
    assert min(map(len, passwords)) >= 32
    found |= passwords
    assert len(found) > 20
    return found


def _marked(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        if value.get(_SECRET_MARK) == _SECRET_VALUE:
            yield json.loads(value["plaintext"])
            return
        for child in value.values():
            yield from _marked(child)
    elif isinstance(value, list):
        for child in value:
            yield from _marked(child)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for child in value.values():
            yield from _texts(child)
    elif isinstance(value, Iterable):
        for child in value:
            yield from _texts(child)


def absent(secrets: set[str], text: str, where: str) -> None:
    """Fail when the text holds one of the secrets."""
    for secret in secrets:
        assert secret not in text, f"a secret ({secret[:4]}…) is in {where}"


def test_state_and_stack_file(stack: Stack, secrets: set[str]) -> None:
    for path in (stack.folder / ".millrace" / "state").rglob("*"):
        if path.is_file():
            absent(secrets, path.read_text(errors="replace"), str(path))
    absent(secrets, stack.file.read_text(), "the stack file")


def test_output_of_commands(stack: Stack, secrets: set[str]) -> None:
    absent(secrets, stack.first_up, "the output of the first up")
    absent(secrets, stack.up_log, "the output of up")  # type: ignore[attr-defined]
    for arguments in (
        ["preview", "--diff", "--refresh"],
        ["stack", "output"],
        ["stack"],
        ["preview", "--json"],
    ):
        absent(secrets, stack.pulumi(*arguments, "--stack", stack.name).output, " ".join(arguments))
    config = {**stack.config, "rotation": {"all": "now"}, "time_zone": "Europe/Berlin"}
    before, document = stack.config, stack.file.read_text()
    try:
        stack.configure(config)
        # Every credential and every container changes: the longest diff there is.
        absent(secrets, stack.pulumi("preview", "--diff", "--stack", stack.name).output, "preview --diff")
    finally:
        # Not by `configure`, which does not know the planted value.
        stack.config = before
        stack.file.write_text(document)


def test_docker_inspect(stack: Stack, secrets: set[str]) -> None:
    for container in stack.containers():
        absent(secrets, json.dumps(container.attrs), f"inspect of {container.name}")
        image = stack.docker.api.inspect_image(container.attrs["Image"])
        absent(secrets, json.dumps(image), f"inspect of the image of {container.name}")
        history = stack.docker.api.history(container.attrs["Image"])
        absent(secrets, json.dumps(history), f"history of the image of {container.name}")


def test_logs(stack: Stack, secrets: set[str]) -> None:
    """After logins that are right and some that are not, at every address."""
    for name, entry in stack.outputs_once["urls"].items():
        host = "" if name == "portal" else entry["url"].removeprefix("https://").partition(".")[0]
        for user in ("ada", "uma"):
            stack.http(host, user=user)
            stack.http(host, user=user, password="wrong")
    for container in stack.containers():
        absent(secrets, container.logs().decode(errors="replace"), f"the log of {container.name}")


def test_command_lines_and_environments(stack: Stack, secrets: set[str]) -> None:
    """Also while an `up` with all its jobs runs.

    Pulumi itself hands a program its decrypted configuration in the environment, which other users cannot
    read: of processes outside containers only the command lines count.
    """
    seen: set[str] = set()
    done = threading.Event()
    outside = Path("/proc/self/ns/mnt").readlink()

    def watch() -> None:
        since: dict[Path, float] = {}
        looked = 0.0
        while not done.wait(0.01):
            now = time.monotonic()
            since = {process: since.get(process, now) for process in Path("/proc").glob("[0-9]*")}
            # Another program takes a process over in its first moments, or at the end of a start script.
            old = now - looked > 1
            looked = now if old else looked
            for process in (process for process, first in since.items() if old or now - first < 1):
                with contextlib.suppress(OSError):
                    seen.add((process / "cmdline").read_bytes().decode(errors="replace"))
                    if (process / "ns" / "mnt").readlink() != outside:
                        seen.update(_variables((process / "environ").read_bytes().decode(errors="replace")))

    jobs = _urns(stack, "millrace:docker:Job")
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        stack.up(*(argument for urn in jobs for argument in ("--replace", urn)))
    finally:
        done.set()
        watcher.join()
    assert any("postgres" in text for text in seen)
    for text in seen:
        absent(secrets, text, f"a command line or environment: {text[:80]!r}")


def _variables(environment: str) -> Iterator[str]:
    """Variables of a process, but for those by which alone a server takes a secret."""
    for variable in environment.split("\0"):
        if variable.partition("=")[0] not in BY_ENVIRONMENT:
            yield variable


def test_secrets_in_variables_are_documented() -> None:
    text = (ROOT / "docs" / "security.md").read_text()
    assert [name for name in sorted(BY_ENVIRONMENT) if f"`{name}`" not in text] == []


def _urns(stack: Stack, type_: str) -> list[str]:
    resources = json.loads(stack.state())["deployment"]["resources"]
    return [str(r["urn"]) for r in resources if r["type"] == type_]


def test_world_readable_files_in_containers(stack: Stack, secrets: set[str]) -> None:
    """All that is not the image's own: what was put in, what has been written since, volumes, memory."""
    for container in stack.containers():
        looked_at = 0
        root = Path(f"/proc/{container.attrs['State']['Pid']}/root")
        mounted = [mount["Destination"] for mount in container.attrs["Mounts"]]
        mounted += container.attrs["HostConfig"]["Tmpfs"] or {}
        layer = Path(container.attrs["GraphDriver"]["Data"]["UpperDir"])
        for folder in (layer, *(root / path.lstrip("/") for path in mounted)):
            for path in _world_readable(folder):
                looked_at += 1
                absent(secrets, _content(path), f"{container.name}: {path}")
        # Its configuration or the CA at least; this would also pass if nothing were found.
        assert looked_at > 0, container.name


def _content(path: Path) -> str:
    try:
        return path.read_bytes().decode(errors="replace")
    except OSError:  # gone by now
        return ""


def test_world_readable_files_on_the_host(stack: Stack, secrets: set[str]) -> None:
    # What others had in /tmp before this stack was made is not of it.
    made = (stack.folder / "Pulumi.yaml").stat().st_ctime
    for folder in (stack.folder, Path("/tmp")):
        for path in _world_readable(folder, largest=2**20, since=made):
            absent(secrets, _content(path), str(path))


def _world_readable(folder: Path, largest: int = 2**24, since: float = 0) -> Iterator[Path]:
    """Regular files below a folder that another user could open: every folder on the way lets them in."""
    if not folder.is_dir() or not folder.stat().st_mode & stat.S_IXOTH:
        return
    for parent, folders, files in os.walk(folder):
        with contextlib.suppress(OSError):
            folders[:] = [f for f in folders if (Path(parent) / f).lstat().st_mode & stat.S_IXOTH]
        for name in files:
            path = Path(parent) / name
            try:
                found = path.lstat()
            except OSError:
                continue
            open_to_all = stat.S_ISREG(found.st_mode) and found.st_mode & stat.S_IROTH
            if open_to_all and found.st_size < largest and found.st_ctime >= since:
                yield path


def test_secret_files_are_there_and_private(stack: Stack) -> None:
    """The walk above would also pass if nothing had been put into the containers."""
    container = stack.container("postgres")
    key = Path(f"/proc/{container.attrs['State']['Pid']}/root/run/millrace/tls/tls.key")
    assert "PRIVATE KEY" in key.read_text()
    assert stat.S_IMODE(key.stat().st_mode) == 0o440
