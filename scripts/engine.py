"""The Docker engine: found, started or installed."""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
import time
from pathlib import Path

from scripts import packages
from scripts.console import SetupError, Step, run, say
from scripts.target import Target
from scripts.versions import DOCKER_MINIMUM, at_least

_LOG = Path("/var/log/millrace-dockerd.log")
_START_SECONDS = 60
_SSH_PATIENCE_SECONDS = 10
"""How long a server may be silent, or turn away: nobody else of this stack asks it meanwhile."""
_INSTALL_HINT = (
    "install Docker (Debian, Ubuntu: sudo apt-get install docker.io iptables), "
    "or set DOCKER_HOST to an engine you may use"
)


def _version(target: Target) -> tuple[str, str]:
    """The engine's version and, when it doesn't answer, why."""
    try:
        answer = subprocess.run(
            target.docker("version", "--format", "{{.Server.Version}}"),
            capture_output=True,
            text=True,
            timeout=90 if target.ssh_options else 30,
            env={**os.environ, "MILLRACE_SSH_PATIENCE_S": str(_SSH_PATIENCE_SECONDS)},
            stdin=subprocess.DEVNULL,
        )
    except FileNotFoundError:
        return "", f"the {'ssh' if target.ssh_options else 'docker'} command is missing"
    except subprocess.TimeoutExpired:
        return "", "no answer in time"
    if answer.returncode == 0 and answer.stdout.strip():
        return answer.stdout.strip(), ""
    lines = answer.stderr.strip().splitlines() or ["no answer"]
    return "", target.reason(lines)


def ensure(target: Target) -> str:
    """Have an engine that answers and is recent enough; returns its version.

    Raises:
        SetupError: none answers and the scripts may not install or start one.
    """
    if target.key_is_secret:
        return "as it is there"  # nobody here can log in; the program says when it does not answer
    if not target.local:
        say("docker", f"asking the engine at {target.host}")
    version, reason = _version(target)
    if not version and target.local:
        _bring_up(reason)
        version, reason = _version(target)
    if not version:
        raise SetupError(f"Docker: no engine answers at {target.host or 'the default socket'}: {reason}")
    if not at_least(version, DOCKER_MINIMUM):
        raise SetupError(f"Docker: engine {version} is too old, {DOCKER_MINIMUM} or newer is needed")
    return version


def _bring_up(reason: str) -> None:
    if "permission denied" in reason.lower():
        raise SetupError(
            f"Docker: this user may not use the engine: run `sudo usermod -aG docker {getpass.getuser()}`, "
            "then log in again"
        )
    if not shutil.which("docker") or not shutil.which("dockerd", path=_sbin_path()):
        if not packages.can_install():
            raise SetupError(f"Docker: not found: {_INSTALL_HINT}")
        _install()
    if os.geteuid() != 0:
        raise SetupError("Docker: the engine is not running: start it (`sudo systemctl start docker`)")
    _start()


def _install() -> None:
    with Step("docker", "not found"):
        wanted = ["docker.io", "iptables"]
        # Newer releases ship the command in a package of its own.
        if packages.offered("docker", "docker-cli"):
            wanted.append("docker-cli")
        packages.install("docker", wanted)


def _start() -> None:
    if Path("/run/systemd/system").is_dir():
        say("docker", "starting the service")
        run("docker", ["systemctl", "start", "docker"])
    elif _version(Target())[0]:
        return  # the package started it
    else:
        say("docker", f"starting the engine, log in {_LOG}")
        with _LOG.open("ab") as log:
            subprocess.Popen(
                ["dockerd"],
                env={**os.environ, "PATH": _sbin_path()},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd="/",
            )
    end = time.monotonic() + _START_SECONDS
    while time.monotonic() < end:
        if _version(Target())[0]:
            return
        time.sleep(0.5)
    where = "journalctl -u docker" if Path("/run/systemd/system").is_dir() else str(_LOG)
    raise SetupError(f"Docker: the engine did not start within {_START_SECONDS} s, see {where}")


def _sbin_path() -> str:
    return os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin"
