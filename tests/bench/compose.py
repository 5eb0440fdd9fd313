"""The same containers as a compose file: for comparison only.

Compose gets the better deal wherever the two differ: the volumes are there beforehand with the right owner,
the files lie on the disk, and health checks run every second instead of every fifteen. Its ``--wait`` accepts
that a set-up job ends only when a service depends on it; the portal, the quickest to start, does.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests.integration.stack import Stack

_PROJECT = "mrbenchcompose"


class ComposeCopy:
    """Reads a running stack from the engine and its state, and writes a compose file like it."""

    def __init__(self, stack: Stack, folder: Path) -> None:
        folder.mkdir(parents=True)
        folder.chmod(0o700)
        self._stack, self._folder = stack, folder
        self._command = [*shlex.split(os.environ.get("MILLRACE_COMPOSE", "docker compose"))]
        self._volumes: dict[str, int] = {}
        exported = stack.pulumi("stack", "export", "--show-secrets", "--stack", stack.name).output
        resources = _unwrap(json.loads(exported)["deployment"]["resources"])
        self._uploads = {
            r["inputs"]["name"]: r["inputs"].get("uploads") or []
            for r in resources
            if r["type"] == "docker:index/container:Container"
        }
        services: dict[str, Any] = {c.name: self._service(c.attrs) for c in stack.containers()}
        networks = sorted({n for s in services.values() for n in s["networks"]})
        jobs = [r["inputs"] for r in resources if r["type"] == "millrace:docker:Job"]
        services |= {job["name"]: self._job(job) for job in jobs}
        services[f"{stack.prefix}-portal"]["depends_on"] = {
            job["name"]: {"condition": "service_completed_successfully"} for job in jobs
        }
        document = {
            "services": services,
            "networks": {n: self._network(n, index) for index, n in enumerate(networks)},
            "volumes": {name: {"name": f"{_PROJECT}-{name}", "external": True} for name in self._volumes},
        }
        # A dollar sign would be the start of a variable.
        (folder / "compose.yaml").write_text(yaml.safe_dump(document).replace("$", "$$"))

    def up(self) -> None:
        """Bring everything up and wait until it is healthy."""
        self._compose("up", "--detach", "--wait", "--quiet-pull")

    def down(self) -> None:
        """Remove everything."""
        self._compose("down", "--volumes", "--timeout", "10")
        for name in self._volumes:
            subprocess.run(
                ["docker", "volume", "rm", "-f", f"{_PROJECT}-{name}"], check=True, capture_output=True
            )

    def reset(self) -> None:
        """Nothing up, fresh volumes with the owners their services need."""
        self.down()
        for name, uid in self._volumes.items():
            volume = self._stack.docker.volumes.create(f"{_PROJECT}-{name}")
            os.chown(volume.attrs["Mountpoint"], uid, uid)

    def _compose(self, *arguments: str) -> None:
        command = [*self._command, "-p", _PROJECT, "-f", str(self._folder / "compose.yaml"), *arguments]
        done = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}\n{done.stdout}")

    def _service(self, attrs: dict[str, Any]) -> dict[str, Any]:
        config, host, name = attrs["Config"], attrs["HostConfig"], attrs["Name"].lstrip("/")
        aliases = {
            network: {"aliases": [a for a in (settings["Aliases"] or []) if a != attrs["Id"][:12]]}
            for network, settings in attrs["NetworkSettings"]["Networks"].items()
        }
        volumes: list[Any] = []
        for mount in attrs["Mounts"]:
            self._volumes[mount["Name"]] = int(config["User"])
            volumes.append(f"{mount['Name']}:{mount['Destination']}")
        volumes += [f"{self._file(name, upload)}:{upload['file']}:ro" for upload in self._uploads[name]]
        return {
            "image": attrs["Image"],
            "entrypoint": config["Entrypoint"],
            "environment": config["Env"],
            "user": config["User"],
            "group_add": host["GroupAdd"],
            "hostname": config["Hostname"],
            "init": True,
            "restart": host["RestartPolicy"]["Name"],
            "mem_limit": host["Memory"],
            "memswap_limit": host["MemorySwap"],
            "cpus": host["NanoCpus"] / 1e9,
            "cap_drop": host["CapDrop"],
            "security_opt": host["SecurityOpt"],
            "tmpfs": [f"{path}:{options}" for path, options in (host["Tmpfs"] or {}).items()],
            "stop_grace_period": "10s",
            **({"stop_signal": config["StopSignal"]} if config.get("StopSignal") else {}),
            "healthcheck": {
                "test": config["Healthcheck"]["Test"],
                "interval": "1s",
                "timeout": "5s",
                "retries": 60,
            },
            "networks": aliases,
            "volumes": volumes,
            "ports": [
                f"{binding['HostIp']}:{binding['HostPort']}:{port}"
                for port, bindings in (host["PortBindings"] or {}).items()
                for binding in bindings
            ],
        }

    def _job(self, job: dict[str, Any]) -> dict[str, Any]:
        server = f"{self._stack.prefix}-{job['service']}"
        volumes = []
        for file in job["files"]:
            secret = bool(file["secret"])
            upload = {
                "file": file["path"],
                "content": file["content"],
                "permissions": "0400" if secret else "0444",
            }
            path = self._file(job["name"], upload)
            if secret:
                os.chown(path, int(job["uid"]), int(job["uid"]))
            volumes.append(f"{path}:{file['path']}:ro")
        return {
            "image": job["image"],
            "entrypoint": job["command"],
            "environment": job["env"],
            "user": str(int(job["uid"])),
            "init": True,
            "restart": "no",
            "mem_limit": f"{int(job['memoryMib'])}m",
            "cpus": job["cpus"],
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges:true"],
            "tmpfs": [f"{path}:{options}" for path, options in job["tmpfs"].items()],
            "networks": job["networks"],
            "volumes": volumes,
            "depends_on": {server: {"condition": "service_healthy"}},
        }

    def _file(self, container: str, upload: dict[str, Any]) -> Path:
        path = self._folder / container / upload["file"].lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(upload["content"])
        path.chmod(int(upload["permissions"], 8))
        return path

    def _network(self, name: str, index: int) -> dict[str, Any]:
        network = self._stack.docker.networks.get(name).attrs
        # Ranges of its own: the engine has some thirty by default.
        subnet = f"10.222.{index // 8}.{index % 8 * 32}/27"
        return {
            "internal": network["Internal"],
            "driver_opts": network["Options"] or {},
            "ipam": {"config": [{"subnet": subnet}]},
        }


def _unwrap(value: Any) -> Any:
    if isinstance(value, dict):
        if "plaintext" in value:
            return _unwrap(json.loads(value["plaintext"]))
        return {key: _unwrap(child) for key, child in value.items()}
    if isinstance(value, list):
        return [_unwrap(child) for child in value]
    return value
