"""The Pulumi CLI: found, installed or built, and its wrapper."""

from __future__ import annotations

import http.server
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_command import command

from scripts import packages, pulumi_cli, toolchain, versions

ROOT = Path(__file__).resolve().parents[2]
NO_DOWNLOADS = "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION"

# The CLI


def test_wrappers_are_not_taken_for_a_cli(tmp_path: Path) -> None:
    command(tmp_path / "scripts", "pulumi", "")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "pulumi").symlink_to(tmp_path / "scripts" / "pulumi")
    real = command(tmp_path / "real", "pulumi", "echo v3.300.0")
    path = os.pathsep.join(str(tmp_path / name) for name in ("scripts", "linked", "real"))
    assert list(pulumi_cli.on_path(path)) == [real]


@pytest.mark.parametrize(("version", "taken"), [("v3.300.0", True), ("v3.100.0", False)])
def test_a_cli_on_path_is_used_when_recent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, taken: bool
) -> None:
    cli = command(tmp_path / "bin", "pulumi", f"echo {version}")
    monkeypatch.setenv("PATH", f"{cli.parent}:/usr/bin:/bin")
    monkeypatch.setenv("PULUMI_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(toolchain.Part, "current", lambda self: False)
    assert pulumi_cli.find() == (cli if taken else None)


@pytest.fixture
def installer(tmp_path: Path) -> Iterator[str]:
    """The official installer, as far as the scripts see it; its CLI records what it is asked to install."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(INSTALLER.encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


INSTALLER = """#!/bin/sh
mkdir -p "$4/bin"
cat > "$4/bin/pulumi" <<'END'
#!/bin/sh
if [ "$1" = version ]; then echo v__VERSION__; else mkdir -p "$PULUMI_HOME/plugins/resource-$4-v$5"; fi
END
sed -i "s/__VERSION__/$2/" "$4/bin/pulumi"
chmod +x "$4/bin/pulumi"
"""


@pytest.mark.usefixtures("fresh_console")
def test_the_official_installer_comes_before_the_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installer: str
) -> None:
    built: list[toolchain.Part] = []
    (tmp_path / "cache").mkdir()
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setenv("PULUMI_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(pulumi_cli, "_INSTALLER", installer)
    monkeypatch.setattr(pulumi_cli, "_LINK", tmp_path / "link" / "pulumi")
    for name, path in {"CACHE": "cache", "CHOICE": "cache/cli", "COMMAND": "cache/bin/pulumi"}.items():
        monkeypatch.setattr(pulumi_cli, name, tmp_path / path)
    monkeypatch.setattr(packages, "require", lambda *_: None)
    monkeypatch.setattr(toolchain.Part, "current", lambda self: False)
    monkeypatch.setattr(toolchain, "build", lambda parts: built.extend(parts) or [])
    cli = pulumi_cli.ensure()
    assert cli == tmp_path / "home" / "bin" / "pulumi"
    assert pulumi_cli.version(cli) == f"v{versions.pinned('pulumi')}"
    assert built == []
    assert (tmp_path / "home" / "plugins" / "resource-docker-v5.2.0").is_dir()
    assert (tmp_path / "cache" / "cli").read_text() == f"{cli}\n"


def test_a_closed_network_costs_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, never answers
        monkeypatch.setattr(pulumi_cli, "_INSTALLER", f"http://127.0.0.1:{silent.getsockname()[1]}")
        start = time.monotonic()
        assert not pulumi_cli.reachable()
        assert time.monotonic() - start < 4


@pytest.mark.parametrize(
    ("self_built", "there", "online", "asked"),
    [
        (True, False, True, ["plugin install resource digitalocean"]),
        (True, False, False, []),
        (True, True, True, []),
        (False, False, True, []),  # Pulumi's own business
    ],
)
@pytest.mark.usefixtures("fresh_console")
def test_the_plugin_of_some_stacks_is_installed_where_pulumi_does_not_do_it_itself(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    self_built: bool,
    there: bool,
    online: bool,
    asked: list[str],
) -> None:
    log = tmp_path / "log"
    log.touch()
    cli = command(tmp_path / "cli", "pulumi", f'echo "$1 $2 $3 $4" >> {log}')
    choice = tmp_path / "choice"
    choice.write_text(f"{cli}\n")
    monkeypatch.setattr(pulumi_cli, "CHOICE", choice)
    monkeypatch.setattr(pulumi_cli, "reachable", lambda: online)
    monkeypatch.setenv("PULUMI_HOME", str(tmp_path / "home"))
    if self_built:
        monkeypatch.setattr(toolchain, "PULUMI", cli)
    if there:
        folder = pulumi_cli.plugin_folder("digitalocean")
        folder.mkdir(parents=True)
        (folder / "pulumi-resource-digitalocean").touch()
    pulumi_cli.ensure_plugin("digitalocean")
    assert log.read_text().splitlines() == asked


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A set-up checkout whose CLI prints the environment it gets."""
    shown = f"PULUMI_CONFIG_PASSPHRASE_FILE PULUMI_BACKEND_URL PULUMI_SKIP_UPDATE_CHECK {NO_DOWNLOADS}"
    cli = command(
        tmp_path / "cli", "pulumi", f'for n in {shown}; do eval echo "$n=\\$$n"; done; echo "$PATH $*"'
    )
    folder = tmp_path / "checkout"
    (folder / "scripts").mkdir(parents=True)
    (folder / ".millrace").mkdir()
    shutil.copy(ROOT / "scripts" / "pulumi", folder / "scripts" / "pulumi")
    (folder / ".millrace" / "cli").write_text(f"{cli}\n")
    (folder / ".millrace" / "passphrase").write_text("x")
    (folder / "Pulumi.yaml").write_text("name: x\nbackend:\n  url: file://./.millrace/state?metadata=skip\n")
    (folder / "sub").mkdir()
    return folder


def wrapper(checkout: Path, cwd: Path, **environment: str) -> list[str]:
    done = subprocess.run(
        [checkout / "scripts" / "pulumi", "preview"],
        cwd=cwd,
        env={"PATH": "/usr/bin:/bin", **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


def test_wrapper_gives_the_passphrase_and_the_environment(checkout: Path) -> None:
    passphrase, backend, skip, downloads, last = wrapper(checkout, checkout)
    assert passphrase == f"PULUMI_CONFIG_PASSPHRASE_FILE={checkout}/.millrace/passphrase"
    assert backend == "PULUMI_BACKEND_URL="
    assert skip == "PULUMI_SKIP_UPDATE_CHECK=true"
    assert downloads == f"{NO_DOWNLOADS}="
    assert last.startswith(f"{checkout}/.venv/bin:")
    assert last.endswith(" preview")


def test_a_self_built_cli_looks_for_no_plugins_in_the_internet(checkout: Path) -> None:
    choice = checkout / ".millrace" / "cli"
    built = checkout / ".millrace" / "toolchain" / "bin" / "pulumi"
    built.parent.mkdir(parents=True)
    shutil.copy(choice.read_text().strip(), built)
    choice.write_text(f"{built}\n")
    assert f"{NO_DOWNLOADS}=true" in wrapper(checkout, checkout)
    assert f"{NO_DOWNLOADS}=false" in wrapper(checkout, checkout, **{NO_DOWNLOADS: "false"})


def test_wrapper_finds_the_state_from_a_subfolder(checkout: Path) -> None:
    url = f"file://{checkout}/.millrace/state?metadata=skip"
    assert wrapper(checkout, checkout / "sub")[1] == f"PULUMI_BACKEND_URL={url}"


@pytest.mark.parametrize(
    ("variable", "expected"),
    [
        ({"PULUMI_CONFIG_PASSPHRASE": ""}, "PULUMI_CONFIG_PASSPHRASE_FILE="),
        ({"PULUMI_CONFIG_PASSPHRASE_FILE": "/mine"}, "PULUMI_CONFIG_PASSPHRASE_FILE=/mine"),
    ],
)
def test_wrapper_leaves_a_passphrase_of_the_users_own(
    checkout: Path, variable: dict[str, str], expected: str
) -> None:
    assert wrapper(checkout, checkout, **variable)[0] == expected


def test_a_build_that_has_compiled_nothing_yet_does_not_look_stuck() -> None:
    assert toolchain._progress("pulumi", []) == "pulumi: Go is loading its packages"
    assert toolchain._progress("pulumi", ["a", "b"]) == "pulumi: 2 packages compiled"


# The toolchain's stamps


def test_a_part_is_built_again_when_its_sources_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toolchain, "SOURCES", tmp_path / "sources")
    monkeypatch.setattr(toolchain, "FOLDER", tmp_path)
    source = tmp_path / "sources" / "cli" / "go.mod"
    source.parent.mkdir(parents=True)
    source.write_text("module x\n")
    part = toolchain.Part(name="cli", package="x", output=tmp_path / "pulumi")
    assert not part.current()
    part.stamp.write_text(part.digest())
    assert not part.current(), "the program is missing"
    part.output.touch()
    assert part.current()
    source.write_text("module y\n")
    assert not part.current()


def test_the_digest_sees_renamed_and_moved_content(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    (tmp_path / "b").write_text("")
    first = toolchain.tree_digest(tmp_path)
    (tmp_path / "a").rename(tmp_path / "c")
    second = toolchain.tree_digest(tmp_path)
    (tmp_path / "c").write_text("")
    (tmp_path / "b").write_text("1")
    assert len({first, second, toolchain.tree_digest(tmp_path), toolchain.tree_digest(tmp_path, ["x"])}) == 4
