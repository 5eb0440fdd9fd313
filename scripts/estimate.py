"""Prints what a stack needs of its host, before anything of it is created."""

from __future__ import annotations

import argparse
import subprocess

from scripts import python_env
from scripts.console import main
from scripts.setup import packages_only
from scripts.versions import ROOT


def _main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stack", default="dev")
    parser.add_argument("--json", action="store_true", help="for programs; problems are part of it")
    options = parser.parse_args()
    packages_only()
    command = [str(python_env.PYTHON), "-m", "components.estimate_table", options.stack]
    if options.json:
        command.append("--json")
    return subprocess.run(command, cwd=ROOT).returncode


if __name__ == "__main__":
    main(_main)
