"""A clone of the project as a new user has it, with a stack like `dev` on other ports."""

from __future__ import annotations

import copy
import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import docker
import yaml

from tests.integration.stack import ROOT, Run, Stack, free_port, proxy_ports

STACK = "e2e"
PREFIX = f"millrace-{STACK}-"
EVERYONE = "everyone"
"""A recipient of all shares."""
LOOPBACK = ("postgres", "object_store", "kafka")
"""Services that get a port on the host's loopback, for the tests' clients."""


class Checkout(Stack):
    """Its stack, driven by the commands that the documentation names."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.name, self.project = folder, STACK, "millrace"
        self.prefix = PREFIX.removesuffix("-")
        self.docker = docker.from_env(timeout=120)
        self.address = "127.0.0.1"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
        # The tests' own file, for their clients; everything else that is new there shows.
        (folder / ".git" / "info" / "exclude").write_text("/ca.crt\n")
        # As in a new shell: nothing of this checkout's own environment.
        self.environment = {
            k: v for k, v in os.environ.items() if not k.startswith(("PULUMI_", "VIRTUAL_ENV", "PYTHONPATH"))
        }
        self.environment["PATH"] = ":".join(
            entry for entry in os.environ["PATH"].split(":") if not entry.startswith(str(ROOT))
        )
        document = yaml.safe_load((folder / "Pulumi.dev.yaml").read_text())
        config = {key.removeprefix("millrace:"): value for key, value in document["config"].items()}
        config["proxy"] = proxy_ports()
        for service in LOOPBACK:
            config[service] = {**(config[service] or {}), "loopback_port": free_port()}
        # Pipelines run when a test says so; what they write is seen at once.
        config["demo"] = {**(config.get("demo") or {}), "schedule": "none"}
        config["delta_sharing"]["recipients"].append({"name": EVERYONE})
        config["presto"] = {**(config["presto"] or {}), "lake_refresh_s": 5}
        self.configure(config)

    def configure(self, config: Mapping[str, Any]) -> None:
        """Replace the settings; what Pulumi itself wrote into the file stays."""
        known = yaml.safe_load(self.file.read_text()) if self.file.exists() else {}
        self.config = copy.deepcopy(dict(config))
        document = {**known, "config": {f"millrace:{key}": value for key, value in self.config.items()}}
        self.file.write_text(yaml.safe_dump(document, sort_keys=False))

    def run(self, *command: str, code: int = 0) -> str:
        """Output of a command that ends with ``code``; errors included."""
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert done.returncode == code, f"{' '.join(command)} ended with {done.returncode}\n{done.stdout}"
        return done.stdout

    def make(self, target: str, *, code: int = 0) -> str:
        """Output of one of the Makefile's targets for the stack."""
        return self.run("make", target, f"STACK={STACK}", code=code)

    def pulumi(self, *arguments: str, check: bool = True, timeout: float = 0) -> Run:
        """Plain Pulumi, as the documentation says: no option or variable of Millrace's own."""
        chosen = [] if "--stack" in arguments else ["--stack", STACK]
        return Run(0, self.run(".millrace/bin/pulumi", *arguments, *chosen, "--non-interactive"))

    def outputs(self) -> dict[str, Any]:
        """Stack outputs with secrets in plain."""
        return dict(json.loads(self.pulumi("stack", "output", "--json", "--show-secrets").output))

    def destroy(self) -> None:
        """Remove everything, and see that nothing remains."""
        self.make("down")
        assert self.remains() == []
