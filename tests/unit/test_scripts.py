"""The scripts that set a machine up: what they accept, what they refuse and with which words."""

from __future__ import annotations

import ast
import http.server
import importlib.metadata
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pulumi_docker
import pytest
from millrace import ssh_options

from scripts import console, data, engine, packages, pulumi_cli, stack, target, toolchain, urls, versions
from scripts.console import SetupError

ROOT = Path(__file__).resolve().parents[2]
SALT = "encryptionsalt: v1:c2FsdA==:v1:bm9uY2U=:Y2lwaGVy\n"


def command(folder: Path, name: str, body: str) -> Path:
    """A fake command in a folder."""
    folder.mkdir(exist_ok=True)
    file = folder / name
    file.write_text(f"#!/bin/sh\n{body}\n")
    file.chmod(0o755)
    return file


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH that holds nothing but sh, for a user without rights."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    return folder


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


# Missing prerequisites are one line that says what to do


def test_no_docker(bare: Path) -> None:
    with pytest.raises(SetupError, match=r"Docker: not found: install Docker .* or set DOCKER_HOST"):
        engine.ensure(target.Target())


def test_docker_refuses_the_user(bare: Path) -> None:
    command(bare, "docker", "echo 'permission denied while trying to connect' >&2; exit 1")
    with pytest.raises(SetupError, match="sudo usermod -aG docker"):
        engine.ensure(target.Target())


def test_docker_is_not_running(bare: Path) -> None:
    command(bare, "docker", "echo 'Cannot connect to the Docker daemon' >&2; exit 1")
    command(bare, "dockerd", "exit 1")
    with pytest.raises(SetupError, match="sudo systemctl start docker"):
        engine.ensure(target.Target())


def test_a_remote_engine_is_not_installed(bare: Path) -> None:
    command(bare, "docker", "echo 'no route to host' >&2; exit 1")
    with pytest.raises(SetupError, match=r"no engine answers at tcp://10\.0\.0\.9:2376: no route to host"):
        engine.ensure(target.Target(host="tcp://10.0.0.9:2376"))


def test_docker_is_too_old(bare: Path) -> None:
    command(bare, "docker", "echo 19.03.15")
    with pytest.raises(SetupError, match=r"engine 19\.03\.15 is too old, 20\.10 or newer"):
        engine.ensure(target.Target())


def test_docker_that_answers_is_used(bare: Path) -> None:
    command(bare, "docker", "echo 28.1.0")
    assert engine.ensure(target.Target()) == "28.1.0"


def test_a_missing_package_names_what_to_install(bare: Path) -> None:
    with pytest.raises(SetupError, match="base image: `mmdebstrap` is missing: install it"):
        packages.require("base image", "mmdebstrap", "mmdebstrap", "install it")


def test_no_python(tmp_path: Path) -> None:
    folder = tmp_path / "bin"
    for name in ("bash", "dirname", "readlink"):
        real = shutil.which(name)
        assert real
        folder.mkdir(exist_ok=True)
        (folder / name).symlink_to(real)
    command(folder, "python3", "exit 1")
    checkout = tmp_path / "checkout"
    (checkout / "scripts").mkdir(parents=True)
    shutil.copy(ROOT / "scripts" / "run", checkout / "scripts" / "run")
    done = subprocess.run(
        ["bash", checkout / "scripts" / "run", "setup"],
        env={"PATH": str(folder)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "Python 3.11 or newer is needed" in done.stderr


def test_an_unknown_stack_names_the_known_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack, "ROOT", tmp_path)
    (tmp_path / "Pulumi.dev.yaml").touch()
    with pytest.raises(SetupError, match=r"no Pulumi\.prod\.yaml \(there is: dev\)"):
        stack.prepare("prod")


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


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A set-up checkout whose CLI prints the environment it gets."""
    shown = "PULUMI_CONFIG_PASSPHRASE_FILE PULUMI_BACKEND_URL PULUMI_SKIP_UPDATE_CHECK"
    cli = command(
        tmp_path / "cli", "pulumi", f'for n in {shown}; do eval echo "$n=\\$$n"; done; echo "$PATH $*"'
    )
    folder = tmp_path / "checkout"
    (folder / "scripts").mkdir(parents=True)
    (folder / ".millrace").mkdir()
    shutil.copy(ROOT / "scripts" / "pulumi", folder / "scripts" / "pulumi")
    (folder / ".millrace" / "cli").write_text(f"{cli}\n")
    (folder / ".millrace" / "passphrase").write_text("x")
    (folder / "Pulumi.yaml").write_text("name: x\nbackend:\n  url: file://./.millrace/state\n")
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
    passphrase, backend, skip, last = wrapper(checkout, checkout)
    assert passphrase == f"PULUMI_CONFIG_PASSPHRASE_FILE={checkout}/.millrace/passphrase"
    assert backend == "PULUMI_BACKEND_URL="
    assert skip == "PULUMI_SKIP_UPDATE_CHECK=true"
    assert last.startswith(f"{checkout}/.venv/bin:")
    assert last.endswith(" preview")


def test_wrapper_finds_the_state_from_a_subfolder(checkout: Path) -> None:
    assert wrapper(checkout, checkout / "sub")[1] == f"PULUMI_BACKEND_URL=file://{checkout}/.millrace/state"


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


# The engine a stack targets


def test_the_stack_comes_before_docker_host() -> None:
    config: dict[str, object] = {"millrace:target": {"kind": "docker", "host": "ssh://root@box"}}
    chosen = target.from_config(config, {"DOCKER_HOST": "tcp://1.2.3.4:1"})
    assert chosen.host == "ssh://root@box"
    assert not chosen.local
    assert target.from_config({}, {"DOCKER_HOST": "tcp://1.2.3.4:1"}).host == "tcp://1.2.3.4:1"
    assert target.from_config({}, {}).local


def test_the_scripts_log_in_as_the_providers_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh_options, "make_folder", lambda: None)
    settings = {"host": "ssh://root@box:2222", "ssh_options": ["-J", "jump"], "key": "key file"}
    settings["host_key"] = "ssh-ed25519 AAAA root@box"
    chosen = target.from_config({"millrace:target": settings}, {})
    expected = ssh_options.arguments(
        "ssh://root@box:2222", own=["-J", "jump"], key_file="key file", host_key="ssh-ed25519 AAAA"
    )
    assert chosen.docker("import", "--change", 'CMD ["sh"]', "-") == [
        "ssh", "-T", *expected, "-l", "root", "-p", "2222", "--", "box",
        "docker import --change 'CMD [\"sh\"]' -",
    ]  # fmt: skip
    assert "is not known" in chosen.reason(["No RSA host key is known for box and", "Host key verification"])
    local = {"host": "unix:///run/docker.sock", "ssh_options": ["-v"]}
    assert target.from_config({"millrace:target": local}, {}).docker("version")[0] == "docker"
    assert target.from_config({"millrace:target": {"host": "ssh://"}}, {}).docker("version")[0] == "docker"


def test_a_key_that_only_pulumi_can_read_is_left_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh_options, "make_folder", lambda: None)
    chosen = target.from_config(
        {"millrace:target": {"host": "ssh://root@box", "private_key": {"secure": "v1:x"}}}, {}
    )
    # Nobody logs in: there is no ssh at this address.
    assert engine.ensure(chosen) == "as it is there"


def test_tls_files_reach_the_docker_command() -> None:
    files = {"host": "tcp://box:2376", "ca": "ca.pem", "certificate": "c.pem", "key": "~/k.pem"}
    chosen = target.from_config({"millrace:target": files}, {})
    assert chosen.docker("version")[3:] == [
        "--tlsverify",
        "--tlscacert=ca.pem",
        "--tlscert=c.pem",
        f"--tlskey={Path.home()}/k.pem",
        "version",
    ]


def test_upstream_images_need_no_base_image() -> None:
    upstream = {"millrace:images": "upstream", "millrace:postgres": {"memory_mib": 512}}
    assert not target.from_config(upstream, {}).builds_images
    assert target.from_config({**upstream, "millrace:proxy": {"images": "build"}}, {}).builds_images
    assert target.from_config({}, {}).builds_images


def test_a_host_that_pulumi_makes_is_not_looked_for() -> None:
    chosen = target.from_config({"millrace:target": {"kind": "digitalocean"}}, {"DOCKER_HOST": "tcp://x:1"})
    assert chosen.made_by_program
    assert not chosen.local
    assert not chosen.builds_images
    assert not target.from_config({}, {}).made_by_program


# The salt filter


def salt_filter(way: str, text: str, cwd: Path) -> str:
    done = subprocess.run(
        ["sh", ROOT / "scripts" / "salt-filter", way, "Pulumi.dev.yaml"],
        input=text,
        cwd=cwd,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_clean_drops_the_salt_and_nothing_else(tmp_path: Path) -> None:
    text = "# note\nconfig:\n\n  millrace:domain: x  # why\n"
    assert salt_filter("clean", text + SALT, tmp_path) == text
    assert salt_filter("clean", text, tmp_path) == text


def test_clean_keeps_the_salt_that_encrypted_values_need(tmp_path: Path) -> None:
    text = f"{SALT}config:\n  millrace:key:\n    secure: v1:abc\n"
    assert salt_filter("clean", text, tmp_path) == text


def test_smudge_puts_this_checkouts_salt_back(tmp_path: Path) -> None:
    text = "config: {}\n"
    assert salt_filter("smudge", text, tmp_path) == text
    saved = tmp_path / ".millrace" / "salts" / "Pulumi.dev.yaml"
    saved.parent.mkdir(parents=True)
    saved.write_text(SALT)
    assert salt_filter("smudge", text, tmp_path) == text + SALT
    assert salt_filter("smudge", text + SALT, tmp_path) == text + SALT


def test_checkout_without_the_filter_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commits from before the filter, and trees where Git writes the stack file before the script."""

    def git(*arguments: str, folder: Path = tmp_path / "clone") -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.com"]
        done = subprocess.run(
            ["git", *identity, *arguments], cwd=folder, check=True, text=True, capture_output=True
        )
        assert done.stderr == "" or arguments[0] == "worktree", done.stderr
        return done.stdout + done.stderr

    clone = tmp_path / "clone"
    (clone / "scripts").mkdir(parents=True)
    git("init", "--quiet", "--initial-branch=main")
    monkeypatch.setattr(stack, "ROOT", clone)
    git("config", "filter.pulumi-salt.smudge", "sh scripts/salt-filter smudge %f")
    stack.install_filter()
    (clone / ".gitattributes").write_text("Pulumi.*.yaml filter=pulumi-salt\n")
    (clone / "Pulumi.dev.yaml").write_text("config: {}\n")
    git("add", ".")
    git("commit", "--quiet", "--message=before the filter")
    shutil.copy(ROOT / "scripts" / "salt-filter", clone / "scripts")
    with (clone / "Pulumi.dev.yaml").open("a") as file:
        file.write(SALT)
    git("add", ".")
    git("commit", "--quiet", "--message=with it")
    assert git("show", "HEAD:Pulumi.dev.yaml") == "config: {}\n"
    for commit in ("HEAD", "HEAD~"):
        said = git("worktree", "add", "--detach", str(tmp_path / commit), commit)
        assert "salt-filter" not in said
        assert (tmp_path / commit / "Pulumi.dev.yaml").read_text() == "config: {}\n"
        assert git("status", "--porcelain", folder=tmp_path / commit) == ""


def test_a_new_passphrase_is_not_made_for_an_existing_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PULUMI_CONFIG_PASSPHRASE", "PULUMI_CONFIG_PASSPHRASE_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(stack, "ROOT", tmp_path)
    monkeypatch.setattr(stack, "STATE", tmp_path / "state")
    monkeypatch.setattr(stack, "PASSPHRASE", tmp_path / "passphrase")
    state = tmp_path / "state" / ".pulumi" / "stacks" / "millrace" / "dev.json"
    state.parent.mkdir(parents=True)
    state.touch()
    with pytest.raises(SetupError, match="passphrase is missing but the state was encrypted with it"):
        stack._make_passphrase()
    state.unlink()
    stack._make_passphrase()
    assert (tmp_path / "passphrase").stat().st_mode & 0o777 == 0o600
    assert len((tmp_path / "passphrase").read_text()) > 40


# Console


@pytest.fixture
def fresh_console(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "_cancelled", threading.Event())


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


@pytest.mark.parametrize(
    ("stack_file", "lost"),
    [
        ("config:\n  millrace:postgres: {}\n", {}),
        ('config:\n  "millrace:postgres":\n    databases: []\n', {}),
        ("config:\n  # millrace:postgres: {}\n", {"postgres": ["m-dev-postgres-data"]}),
        ("config:\n  millrace:postgres_other: {}\n", {"postgres": ["m-dev-postgres-data"]}),
        ("", {"postgres": ["m-dev-postgres-data"]}),
    ],
)
def test_data_of_a_service_that_is_switched_off_is_noticed(
    stack_file: str, lost: dict[str, list[str]]
) -> None:
    state = _state(("m-dev-postgres-data", "postgres"), ("m-dev-proxy-acme", "proxy"))
    assert data.orphans(state, stack_file) == lost
    assert data.orphans({"deployment": None}, stack_file) == {}
