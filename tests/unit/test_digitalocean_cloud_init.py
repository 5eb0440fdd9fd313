"""What a Droplet is told to make of itself: valid, locked down, and without a way to lose data."""

from __future__ import annotations

import configparser
import json
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.digitalocean_settings import DigitalOceanTarget
from components.targets.digitalocean_cloud_init import DATA, device_name, user_data

ROOT = Path(__file__).resolve().parents[2]
REMOTE = ROOT / "provider" / "millrace" / "remote"
HOST_KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n"


def text(**target: Any) -> str:
    settings = DigitalOceanTarget(
        kind="digitalocean", region="fra1", ssh_networks=("203.0.113.7/32",), **target
    )
    return user_data(
        settings,
        volume="millrace-prod",
        login_key="ssh-ed25519 AAAAlogin\n",
        host_key=HOST_KEY,
        host_public_key="ssh-ed25519 AAAAhost\n",
    )


@cache
def config(**target: Any) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(text(**target))
    return found


def file(path: str, **target: Any) -> str:
    (content,) = [f["content"] for f in config(**target)["write_files"] if f["path"] == path]
    return str(content)


def options(content: str) -> dict[str, str]:
    lines = [line for line in content.splitlines() if line and not line.startswith("#")]
    return {name: value for name, _, value in (line.partition(" ") for line in lines)}


def test_it_is_cloud_config() -> None:
    assert text().splitlines()[0] == "#cloud-config"
    # The metadata service takes 64 KiB.
    assert len(text().encode()) < 32 * 1024
    # As JSON it says the same in every version of YAML.
    assert json.loads(text().partition("\n")[2]) == config()


def test_it_has_keys_that_cloud_init_knows() -> None:
    # cloudinit/config/schemas/schema-cloud-config-v1.json, 22.4 (Debian 12) to 25.
    known = {
        "groups", "users", "disable_root", "ssh_pwauth", "ssh_deletekeys", "ssh_keys", "timezone",
        "package_update", "package_upgrade", "packages", "write_files", "runcmd",
    }  # fmt: skip
    assert config().keys() <= known
    for entry in config()["write_files"]:
        assert entry.keys() <= {"path", "content", "permissions", "owner"}
        assert entry["path"].startswith("/")
        assert entry["permissions"] in ("0644", "0755")
    assert len({entry["path"] for entry in config()["write_files"]}) == len(config()["write_files"])


def test_ssh_takes_keys_of_one_user_only() -> None:
    (user,) = config()["users"]
    assert user["name"] == "millrace"
    assert user["lock_passwd"] is True
    assert user["ssh_authorized_keys"] == ["ssh-ed25519 AAAAlogin"]
    assert config()["disable_root"] is True
    assert config()["ssh_pwauth"] is False
    found = options(file("/etc/ssh/sshd_config.d/00-millrace.conf"))
    assert found["PermitRootLogin"] == "no"
    assert found["PasswordAuthentication"] == "no"
    assert found["KbdInteractiveAuthentication"] == "no"
    assert found["AllowUsers"] == "millrace"
    # Docker-over-SSH opens a session for each call.
    assert int(found["MaxSessions"]) >= 64


def test_the_user_may_use_the_engine_from_the_first_login() -> None:
    assert "docker" in config()["groups"]
    assert "docker" in config()["users"][0]["groups"]


def test_the_host_key_is_the_one_that_is_known() -> None:
    assert config()["ssh_keys"] == {"ed25519_private": HOST_KEY, "ed25519_public": "ssh-ed25519 AAAAhost"}
    assert config()["ssh_deletekeys"] is True


def test_sshd_accepts_its_configuration(tmp_path: Path) -> None:
    sshd = Path("/usr/sbin/sshd")
    if not sshd.exists():
        pytest.skip("no sshd on this machine")
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    own = tmp_path / "sshd_config"
    own.write_text(file("/etc/ssh/sshd_config.d/00-millrace.conf") + f"HostKey {key}\n")
    Path("/run/sshd").mkdir(exist_ok=True)
    tested = subprocess.run([str(sshd), "-t", "-f", str(own)], capture_output=True, text=True)
    assert tested.returncode == 0, tested.stderr


@pytest.mark.parametrize(("at", "reboots"), [(None, "false"), ("02:15", "true")])
def test_security_updates(at: str | None, reboots: str) -> None:
    found = options(file("/etc/apt/apt.conf.d/52millrace", reboot_at=at).replace(";", ""))
    assert found["APT::Periodic::Unattended-Upgrade"] == '"1"'
    assert found["Unattended-Upgrade::Automatic-Reboot"] == f'"{reboots}"'
    if at:
        assert found["Unattended-Upgrade::Automatic-Reboot-Time"] == f'"{at}"'
    assert "unattended-upgrades" in config()["packages"]


def test_apt_accepts_its_configuration(tmp_path: Path) -> None:
    own = tmp_path / "apt.conf"
    own.write_text(file("/etc/apt/apt.conf.d/52millrace"))
    try:
        shown = subprocess.run(["apt-config", "-c", str(own), "dump"], capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("no apt on this machine")
    assert shown.returncode == 0, shown.stderr
    assert 'Unattended-Upgrade::Automatic-Reboot "false";' in shown.stdout


def test_docker_has_its_settings_before_it_is_installed() -> None:
    found = json.loads(file("/etc/docker/daemon.json"))
    assert found["live-restore"] is True
    # Installed by the script, after the volume is mounted: a package would start it at once.
    assert not [package for package in config()["packages"] if "docker" in package]
    script = file("/usr/local/sbin/millrace-setup")
    assert script.index("mount /var/lib/docker") < script.index("apt-get")


@pytest.mark.parametrize("unit", ["docker", "containerd"])
def test_the_engine_never_starts_without_its_volume(unit: str) -> None:
    parser = configparser.ConfigParser()
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(file(f"/etc/systemd/system/{unit}.service.d/millrace.conf"))
    assert parser["Unit"]["RequiresMountsFor"].split() == ["/var/lib/docker", "/var/lib/containerd"]


def test_nothing_ever_formats_the_volume() -> None:
    scripts = file("/usr/local/sbin/millrace-setup") + "".join(p.read_text() for p in REMOTE.glob("*.sh"))
    for word in ("mkfs", "wipefs", "parted", "fdisk", "dd ", "rm -r"):
        assert word not in scripts


def test_containers_do_not_reach_the_metadata_service() -> None:
    # It hands out the user data, the host's private key among it.
    rules = file("/etc/millrace/firewall.nft")
    assert "hook forward" in rules
    assert "ip daddr 169.254.0.0/16 drop" in rules
    unit = file("/etc/systemd/system/millrace-firewall.service")
    assert "Before=docker.service" in unit
    assert "ExecStart=/usr/sbin/nft -f /etc/millrace/firewall.nft" in unit
    assert "nftables" in config()["packages"]
    assert "millrace-firewall.service" in file("/usr/local/sbin/millrace-setup")


def test_the_setup_knows_its_volume() -> None:
    script = file("/usr/local/sbin/millrace-setup")
    assert f"device=/dev/disk/by-id/{device_name('millrace-prod')}" in script
    assert f"data={DATA}" in script
    assert config()["runcmd"] == [["/usr/local/sbin/millrace-setup"]]


SCRIPTS = ["setup", *sorted(path.name for path in REMOTE.glob("*.sh"))]


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_are_sound(name: str, tmp_path: Path) -> None:
    script = file("/usr/local/sbin/millrace-setup") if name == "setup" else (REMOTE / name).read_text()
    path = tmp_path / "script.sh"
    path.write_text(script)
    for command in (["sh", "-n"], ["bash", "-n"], [str(ROOT / ".venv/bin/shellcheck"), "--severity=style"]):
        done = subprocess.run([*command, str(path)], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_setup_stops_at_the_first_failure() -> None:
    assert "set -eu" in file("/usr/local/sbin/millrace-setup")
