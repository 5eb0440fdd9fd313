"""The project's Python environment, .venv."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from scripts import packages
from scripts.console import SetupError, Step, run
from scripts.versions import ROOT

VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
RUNTIME = ROOT / "requirements.txt"
DEVELOPMENT = ROOT / "requirements-dev.txt"


def _stamp(requirements: Path) -> Path:
    return VENV / f".{requirements.stem}.sha256"


def _digest(requirements: Path) -> str:
    return hashlib.sha256(requirements.read_bytes()).hexdigest()


def missing(*, development: bool) -> list[Path]:
    """The requirement files that are not installed as they stand."""
    wanted = [RUNTIME, DEVELOPMENT] if development else [RUNTIME]
    return [
        file
        for file in wanted
        if not (PYTHON.exists() and _stamp(file).exists() and _stamp(file).read_text() == _digest(file))
    ]


def create() -> None:
    """Have an environment with pip in it.

    Raises:
        SetupError: the interpreter can't make one and the scripts may not install what it lacks.
    """
    if (
        PYTHON.exists()
        and subprocess.run([PYTHON, "-m", "pip", "--version"], capture_output=True).returncode == 0
    ):
        return
    with Step("python", f"making .venv with Python {sys.version.split()[0]}"):
        base = Path(getattr(sys, "_base_executable", sys.executable))
        if subprocess.run([base, "-c", "import ensurepip, venv"], capture_output=True).returncode:
            package = f"python{sys.version_info.major}.{sys.version_info.minor}-venv"
            if not packages.can_install():
                raise SetupError(f"Python: the venv module is missing: sudo apt-get install {package}")
            packages.install("python", [package])
        run("python", [base, "-m", "venv", "--clear", VENV])


def install(requirements: list[Path]) -> None:
    """Install the pinned packages of requirement files, verified by their hashes.

    Raises:
        SetupError: pip failed.
    """
    for file in requirements:
        with Step("python", f"installing {file.name}"):
            run(
                "python",
                [
                    PYTHON,
                    "-m",
                    "pip",
                    "install",
                    "--disable-pip-version-check",
                    "--require-hashes",
                    "-r",
                    file,
                ],
                progress=lambda lines: (
                    f"{sum(line.startswith('Collecting') for line in lines)} packages so far"
                ),
            )
            _stamp(file).write_text(_digest(file))


def command(name: str) -> str:
    """A command of the environment, else the one on PATH."""
    own = VENV / "bin" / name
    found = str(own) if own.exists() else shutil.which(name)
    if found is None:
        raise SetupError(f"{name} is missing: run `make setup`")
    return found
