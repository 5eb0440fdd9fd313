"""How long the platform takes to come up, against docker compose with the same containers, and what it takes.

What is measured are the settings of ``Pulumi.dev.yaml``, in a stack of its own, on ports of its own, which is
removed afterwards. The demo's pipeline of flights runs on it once; ``--pipeline`` measures nothing else.
``--minimal`` adds the memory of ``Pulumi.minimal.yaml``. ``--cold`` adds `make up` of a fresh clone with
empty caches: it removes Millrace's images and the engine's build cache first, takes up to half an hour and
refuses while a container uses those images. Compose is built where there is none.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

from scripts import python_env, toolchain
from scripts.console import main
from scripts.setup import locked, setup
from scripts.versions import ROOT, at_least

_COMPOSE_MINIMUM = "2.20"


def arguments() -> argparse.Namespace:
    """What is asked for; :mod:`tests.bench`, which measures, is given the same arguments."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="runs of each measurement (default 3)")
    parser.add_argument("--cold", action="store_true", help="also from nothing; removes images and caches")
    parser.add_argument("--minimal", action="store_true", help="also the memory of Pulumi.minimal.yaml")
    parser.add_argument("--no-compose", action="store_true", help="without the comparison")
    parser.add_argument("--pipeline", action="store_true", help="nothing but the demo's pipeline of flights")
    return parser.parse_args()


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
    arguments()  # before anything is installed or started for them
    setup("dev", development=True)
    environment = {**os.environ, "MILLRACE_COMPOSE": compose()}
    command = [str(python_env.PYTHON), "-m", "tests.bench", *sys.argv[1:]]
    return subprocess.run(command, cwd=ROOT, env=environment).returncode


if __name__ == "__main__":
    main(_main)
