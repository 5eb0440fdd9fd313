"""The scripts that set a machine up: versions, pins, what is shown of failures and of a stack."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pulumi_docker
import pytest
import yaml

from scripts import check, console, data, lock, pulumi_cli, toolchain, urls, versions
from scripts.console import SetupError

ROOT = Path(__file__).resolve().parents[2]


# Versions


@pytest.mark.parametrize(
    ("version", "minimum", "enough"),
    [
        ("v3.256.0", "3.256.0", True),
        ("3.255.9", "3.256.0", False),
        ("v3.272.0-alpha.1", "3.256.0", True),
        ("20.10.24+dfsg1", "20.10", True),
        ("19.03.15", "20.10", False),
        ("go1.26.8", "1.26", True),
        ("go1.9", "1.26", False),
        ("", "1", False),
    ],
)
def test_versions_compare_by_number(version: str, minimum: str, enough: bool) -> None:
    assert versions.at_least(version, minimum) is enough


def test_plugins_are_built_in_the_versions_of_the_sdks() -> None:
    assert pulumi_cli.sdk_matches()


def test_the_engine_is_as_new_as_the_compiled_cli() -> None:
    modules = (ROOT / "toolchain" / "cli" / "go.mod").read_text()
    assert f"github.com/pulumi/pulumi/pkg/v3 v{versions.PULUMI_MINIMUM}" in modules


def imported(folder: Path) -> set[str]:
    """Top-level names of everything a folder's Python files import."""
    names: set[str] = set()
    for file in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize(
    ("folders", "files"),
    [
        (("components", "provider"), ("requirements.txt",)),
        (("tests",), ("requirements.txt", "requirements-dev.txt")),
    ],
)
def test_imported_packages_are_pinned(folders: tuple[str, ...], files: tuple[str, ...]) -> None:
    names = set().union(*(imported(ROOT / folder) for folder in folders)) - sys.stdlib_module_names
    installed = importlib.metadata.packages_distributions()
    pinned = re.findall(r"^([\w.-]+)==", "\n".join((ROOT / file).read_text() for file in files), re.MULTILINE)
    canonical = {name.lower().replace("_", "-") for name in pinned}
    missing = {
        name
        for name in names
        if name in installed
        and not {other.lower().replace("_", "-") for other in installed[name]} & canonical
    }
    assert not missing, f"import without a pin: {sorted(missing)}"


def test_the_built_docker_plugin_has_what_the_sdk_offers() -> None:
    source = (ROOT / "toolchain" / "plugins" / "docker.go").read_text()
    built = set(re.findall(r'docker(?:Resource|Function)\("(\w+)"\)', source))
    offered = {
        token
        for file in Path(pulumi_docker.__file__).parent.glob("*.py")
        for token in re.findall(r"'docker:index/\w+:(\w+)'", file.read_text())
    }
    assert offered - built == {"Image"}, "Image is Pulumi's own code, not the upstream provider's"
    assert built <= offered


# Console


@pytest.mark.usefixtures("fresh_console")
def test_a_failing_command_shows_its_last_lines(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SetupError, match=r"step: `sh -c .*` failed \(exit code 3\).*: is it plugged in\?$"):
        console.run("step", ["sh", "-c", "seq 100; exit 3"], hint="is it plugged in?")
    lines = capfd.readouterr().err.splitlines()
    assert lines[-1] == "  | 100"
    assert len(lines) == 20


@pytest.mark.usefixtures("fresh_console")
def test_a_command_is_ended_at_its_time_limit() -> None:
    with pytest.raises(SetupError, match="exit code -15"):
        console.run("step", ["sleep", "30"], timeout=0.2)


@pytest.mark.usefixtures("fresh_console")
def test_one_failure_stops_the_other_steps() -> None:
    def fails() -> None:
        raise SetupError("first")

    with pytest.raises(SetupError, match="first"):
        console.together(fails, lambda: (console.run("other", ["sleep", "30"]), None)[1])


def test_errors_end_in_one_line_without_traceback() -> None:
    code = "from scripts.console import *\ndef f():\n    raise SetupError('Docker: not found')\nmain(f)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "error: Docker: not found\n")


def test_the_table_names_every_url_and_the_passwords() -> None:
    shown = urls.table(
        {
            "portal": {"url": "https://data.localhost", "access": "public", "purpose": "Start here"},
            "object_store": {"url": "https://s3.data.localhost", "access": "engineer", "purpose": "Files"},
        },
        "test",
    )
    assert shown.splitlines()[0].split() == ["SERVICE", "URL", "WHO", "WHAT", "FOR"]
    assert "object_store  https://s3.data.localhost  engineer  Files" in shown
    assert "pulumi stack output credentials --show-secrets --stack test" in shown


# Arguments

COMMANDS = sorted(
    file.stem for file in (ROOT / "scripts").glob("*.py") if '__name__ == "__main__"' in file.read_text()
)


@pytest.fixture(scope="module")
def bare_checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of this checkout, without an environment or anything else that is installed."""
    folder = tmp_path_factory.mktemp("checkout") / "millrace"
    return Path(shutil.copytree(ROOT, folder, ignore=_all_but_programs))


def _all_but_programs(folder: str, names: list[str]) -> set[str]:
    kept = {"components", "policies", "provider", "requirements.txt", "scripts", "toolchain", "Pulumi.yaml"}
    return {".venv", "__pycache__"} | (set(names) - kept if Path(folder) == ROOT else set())


@pytest.mark.parametrize(
    ("arguments", "code"), [(["--help"], 0), (["lint", "--no-such-argument"], 2)], ids=["help", "wrong"]
)
@pytest.mark.parametrize("name", COMMANDS)
def test_arguments_are_looked_at_before_anything_is_done(
    name: str, arguments: list[str], code: int, bare_checkout: Path
) -> None:
    before = set(bare_checkout.iterdir())
    asked = [sys.executable, "-m", f"scripts.{name}", *arguments]
    # Without PATH: what it would start is not found.
    done = subprocess.run(asked, cwd=bare_checkout, capture_output=True, text=True, env={"PATH": ""})
    assert done.returncode == code, done.stderr
    assert "usage: " in (done.stdout if code == 0 else done.stderr)
    assert set(bare_checkout.iterdir()) == before, "nothing was installed"


def test_a_hook_gives_a_command_no_arguments_that_it_does_not_take() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    ours = [hook for hook in hooks if hook["entry"].startswith("scripts/run ")]
    assert ours and all(hook["pass_filenames"] is False for hook in ours)


def _target(name: str) -> str:
    """The command of a target of the Makefile."""
    # Below a make that runs the tests it would write where it is as well.
    asked = ["make", "--no-print-directory", "--dry-run", name]
    return subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize("name", ["lint", "format", "lock"])
def test_what_needs_development_packages_has_them_first(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clone that has seen `make setup` alone."""
    program, module, *arguments = _target(name).split()
    assert program == "scripts/run"
    done: list[str] = []

    def installed(*, development: bool = False) -> None:
        done.append(f"packages, development: {development}")

    def ran(*command: object, **_: object) -> subprocess.CompletedProcess[str]:
        done.append("a tool")
        return subprocess.CompletedProcess([], 0, "", "")

    monkeypatch.setattr("sys.argv", [module, *arguments])
    monkeypatch.setattr(f"scripts.{module}.packages_only", installed, raising=False)
    monkeypatch.setattr(toolchain, "build", lambda parts: [])
    monkeypatch.setattr(subprocess, "run", ran)
    monkeypatch.setattr(lock, "run", ran)
    assert {"check": check, "lock": lock}[module]._main() == 0
    assert done[0] == "packages, development: True" and set(done[1:]) == {"a tool"}


# What `make up` must not delete


def _state(*volumes: tuple[str, str]) -> dict[str, Any]:
    resources: list[dict[str, Any]] = [{"type": "pulumi:pulumi:Stack"}]
    resources += [
        {
            "type": "docker:index/volume:Volume",
            "inputs": {"name": name, "labels": [{"label": "dev.millrace.service", "value": service}]},
        }
        for name, service in volumes
    ]
    return {"deployment": {"resources": resources}}


SERVICE = "config:\n  millrace:postgres: {}\n"


@pytest.mark.parametrize(
    ("stack_file", "lost"),
    [
        ("config:\n  millrace:postgres: {}\n", {}),
        ('config:\n  "millrace:postgres":\n    databases: []\n', {}),
        ("config:\n  # millrace:postgres: {}\n", {"postgres": ["m-dev-postgres-data"]}),
        ("config:\n  millrace:postgres_other: {}\n", {"postgres": ["m-dev-postgres-data"]}),
        ("", {"postgres": ["m-dev-postgres-data"]}),
        (f"{SERVICE}  millrace:target:\n    kind: docker\n", {}),
        (f"config:\n  millrace:target:\n    # postgres: {{}}\n    kafka: {{}}\n\n{SERVICE[8:]}", {}),
        (
            f"config:\n  millrace:target:\n    kind: digitalocean\n\n    postgres: {{}}\n{SERVICE[8:]}",
            {"postgres": ["m-dev-postgres-data"]},
        ),
        (
            f'{SERVICE}  "millrace:target": {{kind: digitalocean, "postgres": {{nodes: 1}}}}\n',
            {"postgres": ["m-dev-postgres-data"]},
        ),
    ],
)
def test_data_of_a_service_that_is_switched_off_is_noticed(
    stack_file: str, lost: dict[str, list[str]]
) -> None:
    state = _state(("m-dev-postgres-data", "postgres"), ("m-dev-proxy-acme", "proxy"))
    configured = data.in_target((yaml.safe_load(stack_file) or {}).get("config") or {})
    assert data.orphans(state, stack_file, configured) == lost
    assert data.orphans({"deployment": None}, stack_file, configured) == {}
