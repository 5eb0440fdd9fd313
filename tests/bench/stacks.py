"""The stacks that are measured: those of the stack files, on ports that are free."""

from __future__ import annotations

from typing import Any

import yaml

from tests.integration.stack import ROOT, free_port, proxy_ports

PROJECT = "mrbench"


def config_of(name: str) -> dict[str, Any]:
    """Settings of ``Pulumi.<name>.yaml``, with another port in place of each one on the host."""
    document = yaml.safe_load((ROOT / f"Pulumi.{name}.yaml").read_text())
    config = {key.removeprefix("millrace:"): value for key, value in document["config"].items()}
    moved: dict[str, Any] = _moved(config)
    ports = proxy_ports()
    if "demo" in moved:
        # A pipeline that starts by itself would be measured along with everything else.
        moved["demo"] = {**(moved["demo"] or {}), "schedule": "none"}
    return {**moved, "proxy": {**(moved.get("proxy") or {}), **ports}}


def _moved(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: free_port() if key.endswith("loopback_port") and child else _moved(child)
            for key, child in value.items()
        }
    return [_moved(child) for child in value] if isinstance(value, list) else value
