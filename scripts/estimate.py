"""Prints what a stack needs of its host, before anything of it is created."""

from __future__ import annotations

import argparse
import subprocess

from scripts import environments, python_env
from scripts.console import SetupError, main
from scripts.setup import packages_only
from scripts.versions import ROOT


def _main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stack", default="dev")
    parser.add_argument("--json", action="store_true", help="for programs; problems are part of it")
    options = parser.parse_args()
    chosen = environments.chosen(options.stack)
    if len(chosen) != 1:
        raise SetupError("estimate: name one stack")
    packages_only()
    command = [str(python_env.PYTHON), "-m", "components.estimate_table", *chosen]
    if options.json:
        command.append("--json")
    return subprocess.run(command, cwd=ROOT).returncode


if __name__ == "__main__":
    main(_main)
