"""A checkout of its own: what `make` and the scripts do there is what they do for a user."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.integration.stack import PROJECT, ROOT, UP_TIMEOUT_S, Run

_COPIED = ("scripts", "Makefile", "requirements.txt", "requirements-dev.txt")
_LINKED = ("components", "policies", "configs", "images", "provider", "__main__.py", ".venv", "toolchain")


class Checkout:
    """A folder with the project's files, another project name, and no git."""

    def __init__(self, folder: Path, project: str = PROJECT) -> None:
        self.folder, self.project = folder, project
        folder.mkdir(parents=True)
        for name in _COPIED:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / name, folder / name)
        for name in _LINKED:
            (folder / name).symlink_to(ROOT / name)
        text = (ROOT / "Pulumi.yaml").read_text()
        (folder / "Pulumi.yaml").write_text(re.sub(r"^name:.*", f"name: {project}", text, flags=re.MULTILINE))
        # The CLI of the checkout under test, found on PATH like a user's own.
        home = (ROOT / ".millrace" / "bin" / "pulumi").resolve().parents[1]
        cli = Path((home / ".millrace" / "cli").read_text().strip())
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("PULUMI_", "AWS_")) and k != "CI"},
            "PATH": f"{cli.parent}:{os.environ['PATH']}",
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def configure(self, stack: str, config: Mapping[str, Any]) -> None:
        """Write a stack's file (keys without namespace); what Pulumi added to it stays."""
        file = self.folder / f"Pulumi.{stack}.yaml"
        kept = yaml.safe_load(file.read_text()) if file.exists() else {}
        kept["config"] = {f"millrace:{key}": value for key, value in config.items()}
        file.write_text(yaml.safe_dump(kept, sort_keys=False))

    def run(self, *command: str, check: bool = True, **environment: str) -> Run:
        """Run a command there; what it wrote, both streams together."""
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment | environment, text=True, timeout=UP_TIMEOUT_S,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        if check:
            assert done.returncode == 0, f"{' '.join(command)} ended with {done.returncode}\n{done.stdout}"
        return Run(done.returncode, done.stdout)

    def pulumi(self, *arguments: str, check: bool = True, **environment: str) -> Run:
        """Run the CLI as the scripts set it up."""
        return self.run(".millrace/bin/pulumi", *arguments, "--non-interactive", check=check, **environment)
