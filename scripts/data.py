"""What `make up`, which does not ask, must not delete."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Collection
from typing import Any

from scripts import pulumi_cli, python_env
from scripts.console import SetupError
from scripts.stack import file_of
from scripts.target import config_of
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
    configured = in_target(config_of(stack, python_env.PYTHON))
    lost = orphans(json.loads(exported.stdout), file_of(stack).read_text(), configured)
    for service, volumes in lost.items():
        named = ", ".join(volumes)
        if service in configured:
            raise SetupError(
                f"stack {stack}: with millrace:target.{service} the data of its container would be deleted "
                f"({named}) - take that key out until it is dumped, then run `pulumi up --stack {stack}`, "
                "which asks"
            )
        raise SetupError(
            f"stack {stack}: without the key millrace:{service} its data would be deleted "
            f"({named}) - put the key back, or run `pulumi up --stack {stack}`, which asks"
        )


def orphans(state: dict[str, Any], stack_file: str, configured: Collection[str]) -> dict[str, list[str]]:
    """Volumes in a state, by service, whose service the stack file does not switch on, or is a managed one.

    The cloud's own service is among the keys of ``millrace:target``, which are ``configured``.
    """
    found: dict[str, list[str]] = {}
    for resource in (state.get("deployment") or {}).get("resources") or []:
        if resource["type"] != "docker:index/volume:Volume":
            continue
        inputs = resource["inputs"]
        labels = {label["label"]: label["value"] for label in inputs.get("labels") or []}
        service = labels.get(_SERVICE, "")
        # The proxy has no switch: it is always there, and its volumes hold nothing but certificates.
        if service in ("", "proxy"):
            continue
        if switched_on(service, stack_file) and service not in configured:
            continue
        found.setdefault(service, []).append(inputs["name"])
    return found


def switched_on(service: str, stack_file: str) -> bool:
    """Whether the text of a stack file has a service's key."""
    return (
        re.search(rf"^\s*[\"']?millrace:{re.escape(service)}[\"']?\s*:", stack_file, re.MULTILINE) is not None
    )


def in_target(config: dict[str, object]) -> set[str]:
    """The keys that ``millrace:target`` has in a stack's configuration."""
    target = config.get("millrace:target")
    return {key for key, own in target.items() if own is not None} if isinstance(target, dict) else set()
