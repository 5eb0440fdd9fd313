"""The Docker engine a stack targets, as far as the scripts must know it before Pulumi runs."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from scripts.versions import ROOT

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
    """Further arguments for ssh, which the docker command itself can't pass on."""
    builds_images: bool = True

    @property
    def local(self) -> bool:
        """Whether it is the machine's own engine, which the scripts may install."""
        return self.host in (None, "unix:///var/run/docker.sock", "unix:///run/docker.sock")

    def docker(self, *arguments: str) -> list[str]:
        """The command line of a docker command on this engine."""
        if self.host and self.ssh_options:
            url = urlsplit(self.host)
            user = ["-l", url.username] if url.username else []
            port = ["-p", str(url.port)] if url.port else []
            remote = shlex.join(["docker", *arguments])
            return ["ssh", *self.ssh_options, *user, *port, "--", str(url.hostname), remote]
        where = ["--host", self.host] if self.host else []
        return ["docker", *where, *self.options, *arguments]


def from_config(config: dict[str, object], environment: dict[str, str]) -> Target:
    """The target of a stack's configuration, else DOCKER_HOST, else the machine's own engine."""
    settings = config.get("millrace:target")
    target: dict[str, object] = settings if isinstance(settings, dict) else {}
    host = target.get("host") or environment.get("DOCKER_HOST") or None
    flags = {"ca": "--tlscacert", "certificate": "--tlscert", "key": "--tlskey"}
    listed = target.get("ssh_options")
    ssh_options = tuple(str(option) for option in listed) if isinstance(listed, list) else ()
    # No shell is between here and docker to expand a `~`.
    options = tuple(
        f"{flag}={Path(str(target[key])).expanduser()}" for key, flag in flags.items() if target.get(key)
    )
    return Target(
        host=str(host) if host else None,
        options=("--tlsverify", *options) if options else (),
        ssh_options=ssh_options if str(host).startswith("ssh://") else (),
        builds_images=config.get("millrace:images", "build") != "upstream" or _one_service_builds(config),
    )


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
    file = ROOT / f"Pulumi.{stack}.yaml"
    config: dict[str, object] = {}
    if file.exists() and python.exists():
        read = subprocess.run([python, "-c", _READ, file], capture_output=True, text=True)
        if read.returncode == 0:
            config = json.loads(read.stdout)
    return from_config(config, dict(os.environ))
