"""The estimate of a stack as a table: ``python -m components.estimate_table STACK [--json]``."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import yaml

from components.estimates import Estimate
from components.fit import judged
from components.problems import SettingsError
from components.stack_file import read

_FORM = "{:<16} {:>10} {:>11} {:>10} {:>11} {:>11}"


def table(found: Estimate) -> str:
    """A line for each service, the sums, the host, and the monthly costs where the host is rented."""
    lines = [_FORM.format("SERVICE", "CONTAINERS", "MEMORY MiB", "LIMIT MiB", "IMAGES MB", "VOLUMES MB")]
    for s in found.services:
        name = s.service if s.measured else f"{s.service} *"
        numbers = (s.containers, s.memory_mib, s.limit_mib, s.images_mb, s.volumes_mb)
        lines.append(_FORM.format(name, *numbers))
    if found.build_cache_mb:
        lines.append(_FORM.format("build cache", "", "", "", found.build_cache_mb, ""))
    images = sum(s.images_mb for s in found.services) + found.build_cache_mb
    volumes = sum(s.volumes_mb for s in found.services)
    containers = sum(s.containers for s in found.services)
    lines.append(_FORM.format("all", containers, found.memory_mib, found.limit_mib, images, volumes))
    if not all(s.measured for s in found.services):
        lines.append("* not measured: half of the memory limit")
    return "\n".join([*lines, "", *_host(found), *_costs(found)])


def _host(found: Estimate) -> list[str]:
    host = found.host
    if host is None:
        return ["Host: not reached, so nothing is compared"]
    memory = f"{host.memory_mib} MiB of memory" if host.memory_mib is not None else "unknown memory"
    cpus = "" if host.cpus is None else f", CPUs: {host.cpus}"
    disk = f"{host.disk_mb} MB of disk free" if host.disk_mb is not None else "free disk unknown"
    needed = f"{found.memory_mib} + {found.reserve_mib} MiB for itself"
    return [f"{host.name}: {memory}, {disk}{cpus}; needed: {needed}, {found.disk_mb} MB"]


def _costs(found: Estimate) -> list[str]:
    if not found.costs:
        return []
    lines = ["", "USD A MONTH"]
    for cost in found.costs:
        price = "?" if cost.monthly_usd is None else f"{cost.monthly_usd:.2f}"
        lines.append(f"{price:>10}  {cost.what}{f' ({cost.note})' if cost.note else ''}")
    return [*lines, f"{found.monthly_usd:>10.2f}  all"]


def document(found: Estimate) -> dict[str, Any]:
    """All of it for other programs, sums included; of the host only what it has to offer."""
    values = dataclasses.asdict(found)
    if found.host is not None:
        host = found.host
        values["host"] = {name: getattr(host, name) for name in ("name", "memory_mib", "cpus", "disk_mb")}
    sums = ("memory_mib", "limit_mib", "disk_mb", "monthly_usd")
    return values | {name: getattr(found, name) for name in sums}


def _main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stack")
    parser.add_argument("--json", action="store_true", help="for programs; problems are part of it")
    options = parser.parse_args()
    stack: str = options.stack
    project = str(yaml.safe_load(Path("Pulumi.yaml").read_text())["name"])
    try:
        settings = read(Path(f"Pulumi.{stack}.yaml"))
    except SettingsError as error:
        print(f"{error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: Pulumi.{stack}.yaml: {error.strerror}", file=sys.stderr)
        return 1
    found = judged(settings, project, stack)
    if options.json:
        print(json.dumps(document(found)))
        return 0
    print(table(found))
    for line in found.warnings:
        print(f"warning: {line}")
    for line in found.problems:
        print(f"error: {line}", file=sys.stderr)
    return 1 if found.problems else 0


if __name__ == "__main__":
    sys.exit(_main())
