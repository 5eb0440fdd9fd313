"""What a fresh Droplet is told to make of itself: cloud-init's user data."""

from __future__ import annotations

import json
from typing import Any

from components.settings import DigitalOceanTarget
from components.templates import render

USER = "millrace"
"""Who logs in by SSH, with a key only; may use the engine and sudo."""
DATA = "/mnt/millrace"
"""Where the data volume is mounted."""

_SSHD = """\
# Before the distribution's own files: the first value of an option counts.
PermitRootLogin no
PasswordAuthentication no
KbdInteractiveAuthentication no
AllowUsers {user}
AllowAgentForwarding no
X11Forwarding no
# An update of many resources asks for many sessions at once.
MaxSessions 100
MaxStartups 100:30:200
"""

_UPGRADES = """\
APT::Periodic::Update-Package-Lists "1";
APT::Periodic::Unattended-Upgrade "1";
Unattended-Upgrade::Remove-Unused-Dependencies "true";
Unattended-Upgrade::Automatic-Reboot "{reboot}";
Unattended-Upgrade::Automatic-Reboot-WithUsers "true";
Unattended-Upgrade::Automatic-Reboot-Time "{time}";
"""

# The metadata service hands this very user data, host key and all, to whoever asks from the Droplet.
_FIREWALL = """\
add table inet millrace
delete table inet millrace
table inet millrace {
    chain forward {
        type filter hook forward priority -10; policy accept;
        ip daddr 169.254.0.0/16 drop
    }
}
"""

_FIREWALL_UNIT = """\
[Unit]
Description=Containers may not ask the metadata service
Before=docker.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/sbin/nft -f /etc/millrace/firewall.nft

[Install]
WantedBy=multi-user.target
"""

# Without its volume the engine would start empty, on the Droplet's own disk.
_NEEDS_VOLUME = """\
[Unit]
RequiresMountsFor=/var/lib/docker /var/lib/containerd
"""

_DOCKER = {
    # An update of the engine leaves containers running.
    "live-restore": True,
    "log-driver": "json-file",
    "log-opts": {"max-size": "10m", "max-file": "3"},
    "builder": {"gc": {"enabled": True, "defaultKeepStorage": "20GB"}},
}


def device_name(volume: str) -> str:
    """Name of a volume's device below /dev/disk/by-id."""
    return f"scsi-0DO_Volume_{volume}"


def user_data(
    target: DigitalOceanTarget, *, volume: str, login_key: str, host_key: str, host_public_key: str
) -> str:
    """The user data, as JSON, which is YAML too. It holds the host's private key: a secret.

    Args:
        target: The target's settings.
        volume: Name of the data volume.
        login_key: Public key that logs in.
        host_key: The SSH server's private key, so that it is known before the first connection.
        host_public_key: The same one's public part.
    """
    config: dict[str, Any] = {
        # The user is to be in it from the first login on.
        "groups": ["docker"],
        "users": [
            {
                "name": USER,
                "gecos": "Millrace",
                "groups": ["adm", "docker"],
                "shell": "/bin/bash",
                "lock_passwd": True,
                "sudo": "ALL=(ALL) NOPASSWD:ALL",
                "ssh_authorized_keys": [login_key.strip()],
            }
        ],
        "disable_root": True,
        "ssh_pwauth": False,
        "ssh_deletekeys": True,
        "ssh_keys": {"ed25519_private": host_key, "ed25519_public": host_public_key.strip()},
        "timezone": "UTC",
        "package_update": True,
        "package_upgrade": True,
        "packages": ["nftables", "unattended-upgrades"],
        "write_files": [
            _file("/etc/ssh/sshd_config.d/00-millrace.conf", _SSHD.format(user=USER)),
            _file(
                "/etc/apt/apt.conf.d/52millrace",
                _UPGRADES.format(
                    reboot=str(target.reboot_at is not None).lower(), time=target.reboot_at or "04:00"
                ),
            ),
            _file("/etc/docker/daemon.json", json.dumps(_DOCKER, indent=2) + "\n"),
            _file("/etc/systemd/system/docker.service.d/millrace.conf", _NEEDS_VOLUME),
            _file("/etc/systemd/system/containerd.service.d/millrace.conf", _NEEDS_VOLUME),
            _file("/etc/millrace/firewall.nft", _FIREWALL),
            _file("/etc/systemd/system/millrace-firewall.service", _FIREWALL_UNIT),
            _file("/etc/systemd/journald.conf.d/millrace.conf", "[Journal]\nSystemMaxUse=500M\n"),
            _file(
                "/usr/local/sbin/millrace-setup",
                render("digitalocean/setup.sh.j2", device=device_name(volume), data=DATA),
                mode="0755",
            ),
        ],
        "runcmd": [["/usr/local/sbin/millrace-setup"]],
    }
    return "#cloud-config\n" + json.dumps(config, indent=1) + "\n"


def _file(path: str, content: str, mode: str = "0644") -> dict[str, str]:
    return {"path": path, "content": content, "permissions": mode, "owner": "root:root"}
