"""Measures the platform against docker compose; builds compose where there is none."""

from __future__ import annotations

import os
import subprocess
import sys

from scripts import python_env, toolchain
from scripts.console import main
from scripts.setup import locked, setup
from scripts.versions import ROOT, at_least

_COMPOSE_MINIMUM = "2.20"


def compose() -> str:
    """A docker compose v2 command: the engine's own plugin, else one built from its Go module.

    Raises:
        SetupError: the build failed.
    """
    answer = subprocess.run(["docker", "compose", "version", "--short"], capture_output=True, text=True)
    if answer.returncode == 0 and at_least(answer.stdout, _COMPOSE_MINIMUM):
        return "docker compose"
    with locked():
        toolchain.build([toolchain.COMPOSE_PLUGIN])
    return str(toolchain.COMPOSE)


def _main() -> int:
    setup("dev", development=True)
    environment = {**os.environ, "MILLRACE_COMPOSE": compose()}
    command = [str(python_env.PYTHON), "-m", "tests.bench", *sys.argv[1:]]
    return subprocess.run(command, cwd=ROOT, env=environment).returncode


if __name__ == "__main__":
    main(_main)
