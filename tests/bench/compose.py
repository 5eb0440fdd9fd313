"""The same containers as a compose file: for comparison only.

Compose gets the better deal wherever the two differ: the volumes are there beforehand with the right owner,
the files lie on the disk, and health checks run every two seconds instead of every fifteen. Who waits for
whom is what the stack's own state says. ``--wait`` accepts that a set-up job ends only when a service depends
on it: where none does, the portal, the quickest to start, is that service.
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
_CONTAINER = "docker:index/container:Container"
_JOB = "millrace:docker:Job"
_HEALTHY, _ENDED = "service_healthy", "service_completed_successfully"


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
        self._resources = {r["urn"]: r for r in resources}
        self._uploads = {r["inputs"]["name"]: r["inputs"].get("uploads") or [] for r in self._of(_CONTAINER)}
        self._waits = {
            r["inputs"]["name"]: self._awaited(r) for r in [*self._of(_CONTAINER), *self._of(_JOB)]
        }
        jobs = [r["inputs"] for r in self._of(_JOB)]
        idle = {job["name"] for job in jobs} - {name for waits in self._waits.values() for name in waits}
        self._waits[f"{stack.prefix}-portal"] |= dict.fromkeys(idle, _ENDED)
        services: dict[str, Any] = {c.name: self._service(c.attrs) for c in stack.containers()}
        networks = sorted({n for s in services.values() for n in s["networks"]})
        services |= {job["name"]: self._job(job) for job in jobs}
        document = {
            "services": services,
            "networks": {n: self._network(n, index) for index, n in enumerate(networks)},
            "volumes": {name: {"name": f"{_PROJECT}-{name}", "external": True} for name in self._volumes},
        }
        # A dollar sign would be the start of a variable.
        (folder / "compose.yaml").write_text(yaml.safe_dump(document).replace("$", "$$"))

    def _of(self, type_: str) -> list[dict[str, Any]]:
        return [r for r in self._resources.values() if r["type"] == type_]

    def _awaited(self, resource: dict[str, Any]) -> dict[str, str]:
        """Names of the containers and jobs that come first, and in what state they have to be."""
        found: dict[str, str] = {}
        seen: set[str] = set()
        todo = [*resource.get("dependencies", ())]
        while todo:
            urn = todo.pop()
            if urn in seen:
                continue
            seen.add(urn)
            other = self._resources[urn]
            if other["type"] in (_CONTAINER, _JOB):
                found[other["inputs"]["name"]] = _HEALTHY if other["type"] == _CONTAINER else _ENDED
            todo += other.get("dependencies", ())
        return found

    def _depends_on(self, name: str) -> dict[str, dict[str, str]]:
        return {other: {"condition": state} for other, state in sorted(self._waits[name].items())}

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
            volumes.append(f"{mount['Name']}:{mount['Destination']}" + ("" if mount["RW"] else ":ro"))
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
                "interval": "2s",
                "timeout": f"{config['Healthcheck']['Timeout'] // 10**9}s",
                "retries": 300,
            },
            "shm_size": host["ShmSize"],
            "depends_on": self._depends_on(name),
            "networks": aliases,
            "volumes": volumes,
            "ports": [
                f"{binding['HostIp']}:{binding['HostPort']}:{port}"
                for port, bindings in (host["PortBindings"] or {}).items()
                for binding in bindings
            ],
        }

    def _job(self, job: dict[str, Any]) -> dict[str, Any]:
        volumes = [f"{volume}:{path}" for path, volume in job.get("volumes", {}).items()]
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
            "memswap_limit": f"{int(job['memoryMib'])}m",
            "cpus": job["cpus"],
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges:true"],
            "tmpfs": [f"{path}:{options}" for path, options in job["tmpfs"].items()],
            "networks": job["networks"],
            "volumes": volumes,
            "depends_on": self._depends_on(job["name"]),
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
