"""What `make up`, which does not ask, must not delete."""

from __future__ import annotations

import json
import re
import subprocess
from typing import Any

from scripts import pulumi_cli
from scripts.console import SetupError
from scripts.stack import file_of
from scripts.versions import ROOT

_SERVICE = "dev.millrace.service"


def refuse_loss(stack: str) -> None:
    """Refuse to bring up a stack whose file no longer names a service that has data.

    Raises:
        SetupError: with the service, its volumes and the ways out.
    """
    exported = subprocess.run(
        [pulumi_cli.COMMAND, "stack", "export", "--stack", stack], cwd=ROOT, capture_output=True, text=True
    )
    if exported.returncode:
        return  # Pulumi says by itself what is wrong with the stack
    lost = orphans(json.loads(exported.stdout), file_of(stack).read_text())
    for service, volumes in lost.items():
        raise SetupError(
            f"stack {stack}: without the key millrace:{service} its data would be deleted "
            f"({', '.join(volumes)}) - put the key back, or run `pulumi up --stack {stack}`, which asks"
        )


def orphans(state: dict[str, Any], stack_file: str) -> dict[str, list[str]]:
    """Volumes in a state, by service, whose service the stack file does not switch on."""
    found: dict[str, list[str]] = {}
    for resource in (state.get("deployment") or {}).get("resources") or []:
        if resource["type"] != "docker:index/volume:Volume":
            continue
        inputs = resource["inputs"]
        labels = {label["label"]: label["value"] for label in inputs.get("labels") or []}
        service = labels.get(_SERVICE, "")
        # The proxy has no switch: it is always there, and its volumes hold nothing but certificates.
        if service in ("", "proxy") or switched_on(service, stack_file):
            continue
        found.setdefault(service, []).append(inputs["name"])
    return found


def switched_on(service: str, stack_file: str) -> bool:
    """Whether the text of a stack file has a service's key."""
    return (
        re.search(rf"^\s*[\"']?millrace:{re.escape(service)}[\"']?\s*:", stack_file, re.MULTILINE) is not None
    )
