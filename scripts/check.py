"""Runs the checks: format, lint, types, shell, then the tests."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import time
from pathlib import Path

from scripts import packages, python_env
from scripts.console import main, say
from scripts.setup import locked, setup
from scripts.versions import ROOT

_SUITES = ("unit", "integration", "e2e")
_WORKERS = 2
"""Processes for tests on containers; each brings stacks of its own up."""


def _shell_scripts() -> list[str]:
    if not shutil.which("git"):
        return []
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True)
    files = [Path(name) for name in listed.stdout.splitlines()]
    return [str(file) for file in files if file.suffix in ("", ".sh") and _is_shell(ROOT / file)]


def _is_shell(file: Path) -> bool:
    if not file.is_file():
        return False
    with file.open("rb") as handle:
        first = handle.readline(80)
    return first.startswith(b"#!") and first.split()[-1].rsplit(b"/", 1)[-1] in (b"sh", b"bash", b"dash")


def lint() -> bool:
    """Format, lint, types and shell scripts; all are run, whatever the first one says."""
    folders = [name for name in ("components", "provider", "scripts") if (ROOT / name).is_dir()]
    checks = {
        "format": ["ruff", "format", "--check", "--quiet", "--output-format=concise", "."],
        "lint": ["ruff", "check", "--quiet", "--output-format=concise", "."],
        "types": ["mypy", "--no-error-summary", *folders],
    }
    scripts = _shell_scripts()
    if scripts:
        checks["shell"] = ["shellcheck", "--severity=style", "--external-sources", *scripts]
    results = [_check(name, command) for name, command in checks.items()]
    return all(results)


def _check(name: str, command: list[str]) -> bool:
    start = time.monotonic()
    code = subprocess.run([python_env.command(command[0]), *command[1:]], cwd=ROOT).returncode
    say(name, f"{'ok' if code == 0 else 'FAILED'} ({time.monotonic() - start:.1f} s)")
    return code == 0


def _browser() -> None:
    """A browser for the tests of the portal, which are skipped where there is none and it can't be had."""
    if packages.can_install() and not any(shutil.which(name) for name in packages.BROWSERS):
        packages.install("chromium", ["chromium"])


def tests(suites: list[str], extra: list[str]) -> int:
    """Run test suites in one pytest session; its summary is the last line.

    Tests on containers mostly wait: they run side by side, a line for each that ends. ``-n 0`` among
    ``extra`` runs them one after the other.
    """
    folders = [f"tests/{suite}" for suite in suites if (ROOT / "tests" / suite).is_dir()]
    options: list[str] = []
    if suites != ["unit"]:
        images = [str(python_env.PYTHON), "-m", "tests.integration.images"]
        if code := subprocess.run(images, cwd=ROOT).returncode:
            return code
        options = ["-v", f"--numprocesses={_WORKERS}", "--dist=loadfile", "--no-loadscope-reorder"]
    say("tests", " ".join(folders))
    command = [str(python_env.PYTHON), "-m", "pytest", *options, *folders, *extra]
    return subprocess.run(command, cwd=ROOT).returncode


def _main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("all", "lint", *_SUITES))
    options, extra = parser.parse_known_args()
    if options.what in ("lint", "unit"):  # no engine and no CLI needed
        with locked():
            requirements = python_env.missing(development=True)
            if requirements:
                python_env.create()
                python_env.install(requirements)
    else:
        setup("dev", development=True)
        _browser()
    if options.what in ("all", "lint") and not lint():
        return 1
    if options.what == "lint":
        return 0
    return tests(list(_SUITES) if options.what == "all" else [options.what], extra)


if __name__ == "__main__":
    main(_main)
