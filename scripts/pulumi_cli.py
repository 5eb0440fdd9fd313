"""The Pulumi CLI and its plugins: found, installed the official way, or built from toolchain/."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from scripts import packages, toolchain
from scripts.console import SetupError, Step, run, say
from scripts.versions import CACHE, PLUGINS, PULUMI_MINIMUM, ROOT, at_least, pinned

WRAPPER = ROOT / "scripts" / "pulumi"
COMMAND = CACHE / "bin" / "pulumi"
CHOICE = CACHE / "cli"
"""Names the CLI that the wrapper runs."""

_INSTALLER = "https://get.pulumi.com"
_REACH_SECONDS = 3
_LINK = Path("/usr/local/bin/pulumi")


def home() -> Path:
    """Pulumi's own folder; the CLI goes by the user database, not by HOME."""
    return Path(os.environ.get("PULUMI_HOME") or Path(pwd.getpwuid(os.getuid()).pw_dir) / ".pulumi")


def is_wrapper(path: Path) -> bool:
    """Whether a `pulumi` is this project's wrapper, of this or another checkout."""
    resolved = path.resolve()
    return resolved.name == "pulumi" and resolved.parent.name == "scripts"


def on_path(path: str) -> Iterator[Path]:
    """Every `pulumi` of a PATH that is a CLI, not a wrapper."""
    for folder in path.split(os.pathsep):
        candidate = Path(folder or ".") / "pulumi"
        if os.access(candidate, os.X_OK) and candidate.is_file() and not is_wrapper(candidate):
            yield candidate


def version(cli: Path) -> str:
    """What `pulumi version` prints; empty when it doesn't run."""
    environment = {**os.environ, "PULUMI_SKIP_UPDATE_CHECK": "true"}
    try:
        answer = subprocess.run([cli, "version"], capture_output=True, text=True, env=environment)
    except OSError:
        return ""
    return answer.stdout.strip() if answer.returncode == 0 else ""


def find() -> Path | None:
    """A CLI that is there and recent enough: on PATH, in Pulumi's folder, or built before."""
    installed = home() / "bin" / "pulumi"
    candidates = [*on_path(os.environ.get("PATH", "")), *([installed] if installed.is_file() else [])]
    for candidate in candidates:
        if at_least(version(candidate), PULUMI_MINIMUM):
            return candidate
    built = (toolchain.CLI, toolchain.LANGHOST)
    return toolchain.PULUMI if all(part.current() for part in built) else None


def reachable() -> bool:
    """Whether Pulumi's installer can be had, asked for at most three seconds."""
    # A process of its own: name resolution takes no time limit.
    ask = [
        "import sys, urllib.request",
        f"answer = urllib.request.urlopen(sys.argv[1], timeout={_REACH_SECONDS})",
        "sys.exit(not answer.read(2) == b'#!')",
    ]
    command = [sys.executable, "-c", "\n".join(ask), _INSTALLER]
    try:
        return subprocess.run(command, capture_output=True, timeout=_REACH_SECONDS).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def ensure() -> Path:
    """Have a CLI that is recent enough and the three plugins; returns the CLI.

    Raises:
        SetupError: there is none, and neither the installer nor the build works.
    """
    cli = find()
    online: bool | None = None
    if cli is None:
        online = reachable()
        cli = _install_official() if online else None
    missing = missing_plugins()
    parts: list[toolchain.Part] = []
    if cli is None:
        say("pulumi", "no CLI and no way to its download site: building it from Go modules, once")
        parts += [toolchain.LANGHOST, toolchain.CLI]
        cli = toolchain.PULUMI
    if missing and cli != toolchain.PULUMI:
        missing = _official_plugins(cli, missing) if online or reachable() else missing
    if missing or (cli == toolchain.PULUMI and _bridge_is_used() and not toolchain.PLUGINS.current()):
        # The plugins before the CLI: they hold most of its packages.
        parts.insert(1 if parts else 0, toolchain.PLUGINS)
    rebuilt = toolchain.build(parts)
    for name in PLUGINS:
        if name in missing or toolchain.PLUGINS in rebuilt:
            install_bridge(cli, name)
    _write_choice(cli)
    return cli


def ensure_plugin(name: str) -> None:
    """Try to have a plugin that only some stacks use; one that can't be had is Pulumi's to name.

    An official CLI gets it by itself. A self-built one does not try: see the wrapper ``scripts/pulumi``.
    """
    cli = Path(CHOICE.read_text().strip())
    if cli == toolchain.PULUMI and not _has_plugin(name) and reachable():
        _official_plugins(cli, [name])


def _install_official() -> Path | None:
    """Run Pulumi's installer; None when it fails, the build is left then."""
    wanted = pinned("pulumi")
    try:
        with Step("pulumi", f"installing {wanted} with the official installer into {home()}"):
            packages.require("pulumi", "curl", "curl", "the installer needs it: sudo apt-get install curl")
            script = CACHE / "install-pulumi.sh"
            with urllib.request.urlopen(_INSTALLER, timeout=30) as answer:
                script.write_bytes(answer.read())
            options = ["--version", wanted, "--install-root", str(home()), "--no-edit-path"]
            run("pulumi", ["sh", script, *options])
    except (OSError, SetupError) as error:
        say("pulumi", f"the official installer failed ({error})")
        return None
    cli = home() / "bin" / "pulumi"
    return cli if at_least(version(cli), PULUMI_MINIMUM) else None


def plugin_folder(name: str) -> Path:
    """Where Pulumi keeps the plugin of the SDK that requirements.txt pins."""
    return home() / "plugins" / f"resource-{name}-v{pinned(f'pulumi-{name}')}"


def missing_plugins() -> list[str]:
    """The plugins that are not installed in the version of their SDK."""
    return [name for name in PLUGINS if not _has_plugin(name)]


def _has_plugin(name: str) -> bool:
    return (plugin_folder(name) / f"pulumi-resource-{name}").is_file()


def _bridge_is_used() -> bool:
    """Whether an installed plugin is the built one (hard link or copy), not an official one."""
    if not toolchain.BRIDGE.is_file():
        return False
    size = toolchain.BRIDGE.stat().st_size
    installed = (plugin_folder(name) / f"pulumi-resource-{name}" for name in PLUGINS)
    return any(path.is_file() and path.stat().st_size == size for path in installed)


def _official_plugins(cli: Path, missing: list[str]) -> list[str]:
    """Install plugins the official way; returns those that can't be had."""
    left = []
    for name in missing:
        try:
            with Step("pulumi", f"installing plugin {name}"):
                command = [str(cli), "plugin", "install", "resource", name, pinned(f"pulumi-{name}")]
                run("pulumi", command, timeout=300)
        except SetupError:
            left.append(name)
    return left


def install_bridge(cli: Path, name: str) -> None:
    """Install the built provider program as a plugin."""
    wanted = pinned(f"pulumi-{name}")
    command = [str(cli), "plugin", "install", "resource", name, wanted, "--reinstall"]
    run("pulumi", [*command, "--file", str(toolchain.BRIDGE)], env={"PULUMI_SKIP_UPDATE_CHECK": "true"})
    installed = plugin_folder(name) / f"pulumi-resource-{name}"
    try:  # one file on disk for the three, where the file system allows
        new = installed.with_suffix(".new")
        new.unlink(missing_ok=True)
        os.link(toolchain.BRIDGE, new)
        new.replace(installed)
    except OSError:
        pass
    say("pulumi", f"plugin {name} {wanted} installed")


def _write_choice(cli: Path) -> None:
    COMMAND.parent.mkdir(parents=True, exist_ok=True)
    if not (CHOICE.is_file() and CHOICE.read_text().strip() == str(cli)):
        CHOICE.write_text(f"{cli}\n")
    if not COMMAND.exists():
        COMMAND.unlink(missing_ok=True)
        COMMAND.symlink_to(os.path.relpath(WRAPPER, COMMAND.parent))
    _link(cli)


def _link(cli: Path) -> None:
    """Make plain `pulumi` work where nothing else does, as root."""
    if os.geteuid() != 0 or any(on_path(os.environ.get("PATH", ""))):
        return
    dangling = _LINK.is_symlink() and not _LINK.exists()
    if _LINK.exists() or not _LINK.parent.is_dir():
        return
    if dangling:
        _LINK.unlink()
    _LINK.symlink_to(COMMAND)
    say("pulumi", f"{_LINK} now runs it")


def plain_command_works() -> bool:
    """Whether `pulumi` typed in this shell finds the CLI and the passphrase."""
    found = shutil.which("pulumi")
    if found is None:
        return False
    variables = ("PULUMI_CONFIG_PASSPHRASE", "PULUMI_CONFIG_PASSPHRASE_FILE")
    return is_wrapper(Path(found)) or any(name in os.environ for name in variables)


def sdk_matches() -> bool:
    """Whether the pinned versions in the plugins' sources are those of requirements.txt."""
    text = "".join(path.read_text() for path in (toolchain.SOURCES / "plugins").glob("*.go"))
    return all(
        re.search(rf'{name}Version\s*=\s*"{re.escape(pinned(f"pulumi-{name}"))}"', text) for name in PLUGINS
    )
