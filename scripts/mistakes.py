"""Mistakes in a stack's file, found before anything is installed for it or asked of its host."""

from __future__ import annotations

import json
import subprocess

from scripts import python_env
from scripts.console import SetupError
from scripts.versions import ROOT


class MistakesError(SetupError):
    """The stack's file has mistakes: one line for each."""


def refuse(stack: str) -> None:
    """Return when the stack's file has no mistake that can be seen without Pulumi.

    Raises:
        MistakesError: it has.
    """
    done = subprocess.run(
        [python_env.PYTHON, "-m", "components.stack_file", stack], cwd=ROOT, capture_output=True, text=True
    )
    # One that could not look is no judgement: the program reads the settings again.
    lines: list[str] = json.loads(done.stdout) if done.returncode == 0 else []
    if lines:
        raise MistakesError("\n".join(lines))
