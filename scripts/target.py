"""The Docker engine a stack targets, as far as the scripts must know it before Pulumi runs."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from scripts.versions import ROOT

sys.path.append(str(ROOT / "provider"))
# The provider is a program of its own, not installed; of its modules, these take nothing but Python.
from millrace import ssh_options
from millrace.ssh_errors import explain, telling

_READ = (
    "import json,sys,yaml; print(json.dumps((yaml.safe_load(open(sys.argv[1])) or {}).get('config') or {}))"
)


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where containers run: an engine's address and how to talk to it."""

    host: str | None = None
    """unix://, tcp:// or ssh://; None is the machine's own engine."""
    options: tuple[str, ...] = ()
    """Further arguments of the docker command (TLS)."""
    ssh_options: tuple[str, ...] = ()
    """All arguments for ssh: those of the providers, so that the connection is already there for them."""
    key_is_secret: bool = False
    """Whether the key is in the stack file, encrypted: only Pulumi can use it."""
    builds_images: bool = True
    made_by_program: bool = False
    """There is no host before Pulumi has made it (target digitalocean)."""

    @property
    def local(self) -> bool:
        """Whether it is the machine's own engine, which the scripts may install."""
        here = (None, "unix:///var/run/docker.sock", "unix:///run/docker.sock")
        return self.host in here and not self.made_by_program

    def docker(self, *arguments: str) -> list[str]:
        """The command line of a docker command on this engine."""
        if self.host and self.ssh_options:
            # The docker command itself can't pass arguments on to ssh.
            remote = shlex.join(["docker", *arguments])
            return ["ssh", "-T", *self.ssh_options, *ssh_options.destination(self.host), remote]
        where = ["--host", self.host] if self.host else []
        return ["docker", *where, *self.options, *arguments]

    def reason(self, lines: list[str]) -> str:
        """Why a docker command failed, of what it wrote."""
        if self.host and self.ssh_options:
            return explain(telling(lines), [*self.ssh_options, *ssh_options.destination(self.host)])
        return lines[-1]


def from_config(config: dict[str, object], environment: dict[str, str]) -> Target:
    """The target of a stack's configuration, else DOCKER_HOST, else the machine's own engine."""
    settings = config.get("millrace:target")
    target: dict[str, object] = settings if isinstance(settings, dict) else {}
    if target.get("kind") == "digitalocean":
        return Target(made_by_program=True, builds_images=False)
    host = target.get("host") or environment.get("DOCKER_HOST") or None
    flags = {"ca": "--tlscacert", "certificate": "--tlscert", "key": "--tlskey"}
    # No shell is between here and docker to expand a `~`.
    ssh = str(host).startswith("ssh://")
    options = tuple(
        f"{flag}={Path(str(target[key])).expanduser()}"
        for key, flag in flags.items()
        if target.get(key) and not ssh
    )
    return Target(
        host=str(host) if host else None,
        options=("--tlsverify", *options) if options else (),
        ssh_options=_ssh_options(str(host), target) if ssh else (),
        key_is_secret=ssh and bool(target.get("private_key")),
        builds_images=config.get("millrace:images", "build") != "upstream" or _one_service_builds(config),
    )


def _ssh_options(host: str, target: dict[str, object]) -> tuple[str, ...]:
    listed = target.get("ssh_options")
    pinned, key, known = (
        str(target[name]) if target.get(name) else None for name in ("host_key", "key", "known_hosts")
    )
    try:
        ssh_options.make_folder()
        return ssh_options.arguments(
            host,
            key_file=key,
            host_key=" ".join(pinned.split()[:2]) if pinned else None,
            known_hosts=known,
            own=[str(option) for option in listed] if isinstance(listed, list) else [],
        )
    except ValueError:
        return ()  # no address at all: the program says so


def _one_service_builds(config: dict[str, object]) -> bool:
    return any(isinstance(own, dict) and own.get("images") == "build" for own in config.values())


def is_configured(stack: str) -> bool:
    """Whether the stack's file says anything about its target."""
    file = ROOT / f"Pulumi.{stack}.yaml"
    return file.exists() and any(key in file.read_text() for key in ("millrace:target", "millrace:images"))


def of_stack(stack: str, python: Path) -> Target:
    """The target of a stack; ``python`` is an interpreter that has PyYAML.

    A stack file that can't be read counts as empty here: the program reports its mistakes far better.
    """
    return from_config(config_of(stack, python), dict(os.environ))


def config_of(stack: str, python: Path) -> dict[str, object]:
    """What the stack's file has under ``config``; nothing when it can't be read."""
    file = ROOT / f"Pulumi.{stack}.yaml"
    if file.exists() and python.exists():
        read = subprocess.run([python, "-c", _READ, file], capture_output=True, text=True)
        if read.returncode == 0:
            found: dict[str, object] = json.loads(read.stdout)
            return found
    return {}
