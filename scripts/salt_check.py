"""Refuses a commit of a stack file whose salt would lock the next person out (see salt-filter)."""

from __future__ import annotations

import argparse
import subprocess

from scripts.console import SetupError, main
from scripts.versions import ROOT


def _committed(name: str) -> str:
    shown = subprocess.run(["git", "show", f":{name}"], cwd=ROOT, capture_output=True, text=True)
    return shown.stdout if shown.returncode == 0 else ""


def offenders() -> list[str]:
    """Stack files in git's index that hold a salt and no encrypted value."""
    listed = subprocess.run(["git", "ls-files", "Pulumi.*.yaml"], cwd=ROOT, capture_output=True, text=True)
    return [
        name
        for name in listed.stdout.split()
        if "encryptionsalt:" in (text := _committed(name)) and "secure:" not in text
    ]


def _main() -> int:
    argparse.ArgumentParser(description=__doc__).parse_args()
    found = offenders()
    if found:
        files = ", ".join(found)
        raise SetupError(
            f"{files}: the salt belongs to your passphrase: run `make setup`, then `git add` again"
        )
    return 0


if __name__ == "__main__":
    main(_main)
