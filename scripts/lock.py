"""Pins the Python packages anew: requirements*.in to requirements*.txt, with hashes."""

from __future__ import annotations

import argparse

from scripts import python_env
from scripts.console import Step, main, run
from scripts.setup import packages_only
from scripts.versions import ROOT


def _main() -> int:
    argparse.ArgumentParser(description=__doc__).parse_args()
    packages_only(development=True)  # uv is one of them
    for name in ("requirements", "requirements-dev"):
        options = [
            "--universal",
            "--python-version",
            "3.11",
            "--generate-hashes",
            "--no-header",
            "--no-annotate",
        ]
        with Step("lock", f"{name}.txt"):
            run(
                "lock",
                [
                    python_env.command("uv"),
                    "pip",
                    "compile",
                    "--upgrade",
                    *options,
                    f"{name}.in",
                    "-o",
                    f"{name}.txt",
                ],
                cwd=ROOT,
            )
    return 0


if __name__ == "__main__":
    main(_main)
