"""Runs the checks: format, lint, types, shell, then the tests; or formats the Python code."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from scripts import gitlab, packages, python_env, toolchain
from scripts.console import main, say
from scripts.setup import packages_only, setup
from scripts.versions import ROOT

_SUITES = ("unit", "integration", "e2e")
_DEMO = "demo"
"""Marks the tests of the demo's pipelines: half an hour on two cores, so they run when asked for by name."""

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
    """Format, lint, types, shell scripts and workflows; all are run, whatever the first one says."""
    folders = [name for name in ("components", "policies", "provider", "scripts") if (ROOT / name).is_dir()]
    checks = {
        "format": ["ruff", "format", "--check", "--quiet", "--output-format=concise", "."],
        "lint": ["ruff", "check", "--quiet", "--output-format=concise", "."],
        "types": ["mypy", "--no-error-summary", *folders],
    }
    scripts = _shell_scripts()
    if scripts:
        checks["shell"] = ["shellcheck", "--severity=style", "--external-sources", *scripts]
    results = [_check(name, command) for name, command in checks.items()]
    return all([*results, workflows()])


def workflows() -> bool:
    """GitHub's workflows by actionlint, GitLab's pipelines by their JSON schema, the written one too."""
    files = sorted(str(file) for file in (ROOT / ".github" / "workflows").glob("*.yml"))
    if files:
        # Built once from its Go module, in seconds.
        toolchain.build([toolchain.ACTIONLINT])
    shellcheck = python_env.command("shellcheck")
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "environments.yml"
        written.write_text(gitlab.pipeline(["one", "two"], ["two"], {"CI_PIPELINE_SOURCE": "push"}))
        schema = [
            "check-jsonschema",
            "--quiet",
            "--builtin-schema=vendor.gitlab-ci",
            "--data-transform=gitlab-ci",
        ]
        return all(
            [
                _check(
                    "workflows",
                    [str(toolchain.ACTIONLINT.output), "-no-color", "-shellcheck", shellcheck, *files],
                ),
                _check("pipelines", [*schema, str(ROOT / ".gitlab-ci.yml"), str(written)]),
            ]
        )


def _check(name: str, command: list[str]) -> bool:
    start = time.monotonic()
    program = command[0] if "/" in command[0] else python_env.command(command[0])
    code = subprocess.run([program, *command[1:]], cwd=ROOT).returncode
    say(name, f"{'ok' if code == 0 else 'FAILED'} ({time.monotonic() - start:.1f} s)")
    return code == 0


def rewrite() -> int:
    """Mend what ruff can mend by itself, and format the Python code; ruff's exit code."""
    ruff = python_env.command("ruff")
    subprocess.run([ruff, "check", "--fix", "--quiet", "."], cwd=ROOT)  # what is left is for `make lint`
    return subprocess.run([ruff, "format", "."], cwd=ROOT).returncode


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
    parser.add_argument("what", choices=("all", "format", "lint", _DEMO, *_SUITES))
    options, extra = parser.parse_known_args()
    if options.what in ("format", "lint") and extra:  # elsewhere the rest is for pytest
        parser.error(f"unrecognized arguments: {' '.join(extra)}")
    if options.what in ("format", "lint", "unit"):
        packages_only(development=True)
    else:
        setup("dev", development=True)
        _browser()
    if options.what == "format":
        return rewrite()
    if options.what in ("all", "lint") and not lint():
        return 1
    if options.what == "lint":
        return 0
    if options.what == _DEMO:
        return tests(["integration", "e2e"], ["-m", _DEMO, *extra])
    suites = list(_SUITES) if options.what == "all" else [options.what]
    return tests(suites, ["-m", f"not {_DEMO}", *extra])


if __name__ == "__main__":
    main(_main)
