"""What the scripts want of a machine, and the engine a stack targets."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from fake_command import command
from millrace import ssh_options

from scripts import engine, packages, target
from scripts.console import SetupError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH that holds nothing but sh, for a user without rights."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    return folder


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


def test_a_remote_engine_is_not_installed(bare: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command(bare, "docker", "echo 'no route to host' >&2; exit 1")
    with pytest.raises(SetupError, match=r"no engine answers at tcp://10\.0\.0\.9:2376: no route to host"):
        engine.ensure(target.Target(host="tcp://10.0.0.9:2376"))
    assert "asking the engine at tcp://10.0.0.9:2376" in capsys.readouterr().out, "it may take a while"


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


@pytest.mark.usefixtures("fresh_console")
@pytest.mark.parametrize("release", ["bookworm", "trixie"])
def test_docker_is_installed_where_no_package_lists_were_fetched_yet(
    bare: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, release: str
) -> None:
    """Debian 13 has the command in a package of its own, which only the lists tell."""
    lists, log = tmp_path / "lists", tmp_path / "log"
    command(bare, "apt-get", f'echo "$*" >> {log}; case "$*" in *update*) echo {release} > {lists};; esac')
    command(bare, "apt-cache", f'read -r found < {lists} && [ "$found" = trixie ]')
    monkeypatch.setattr(packages, "_updated", False)
    engine._install()
    update, install = log.read_text().splitlines()
    assert update.endswith(" update")
    wanted = "docker.io iptables" + (" docker-cli" if release == "trixie" else "")
    assert install.endswith(f" install -y --no-install-recommends {wanted}")


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
