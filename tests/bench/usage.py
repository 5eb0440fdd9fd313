"""Memory and disk that a running stack takes, per service and in all."""

from __future__ import annotations

import json
import statistics
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from docker.models.containers import Container

from tests.integration.stack import Stack

_SERVICE = "dev.millrace.service"
_SETTLE_S = 60
_SAMPLES = 3
_BETWEEN_S = 10
_SHARED = "(shared)"


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What one service takes, in MiB; ``own`` is the part of its images that no other service uses."""

    service: str
    containers: int
    memory: float
    limit: float
    image: float
    own: float


def measure(stack: Stack) -> list[Usage]:
    """Every service of an idle stack, a minute after it came up; last a line for what several share."""
    time.sleep(_SETTLE_S)
    containers = stack.containers()
    used = memory(containers)
    layers = _layers(stack, containers)
    sizes = {layer: _disk(layer) for layer in {layer for own in layers.values() for layer in own}}
    users: defaultdict[str, set[str]] = defaultdict(set)
    for service, own in layers.items():
        for layer in own:
            users[layer].add(service)
    found = []
    for service in sorted({c.labels[_SERVICE] for c in containers}):
        mine = [c for c in containers if c.labels[_SERVICE] == service]
        found.append(
            Usage(
                service=service,
                containers=len(mine),
                memory=sum(used[c.name] for c in mine),
                limit=sum(c.attrs["HostConfig"]["Memory"] for c in mine) / 2**20,
                image=sum(sizes[layer] for layer in layers[service]),
                own=sum(sizes[layer] for layer in layers[service] if users[layer] == {service}),
            )
        )
    shared = sum(size for layer, size in sizes.items() if users[layer] not in [{u.service} for u in found])
    return [*found, Usage(service=_SHARED, containers=0, memory=0, limit=0, image=shared, own=shared)]


def table(usages: Iterable[Usage]) -> str:
    """The usages as a table with a total; each layer on the disk is counted once in ``disk``."""
    form = "{:16} {:>10} {:>10} {:>10} {:>9} {:>8}"
    lines = [form.format("service", "containers", "memory MiB", "limit MiB", "image MB", "disk MB")]
    own = list(usages)
    for u in own:
        numbers = [f"{n:.0f}" for n in (u.memory, u.limit, u.image, u.own)]
        lines.append(form.format(u.service, u.containers, *numbers))
    sums = [f"{sum(n):.0f}" for n in zip(*((u.memory, u.limit, u.own) for u in own), strict=True)]
    lines.append(form.format("all", sum(u.containers for u in own), *sums[:2], "", sums[2]))
    return "\n".join(lines)


def total_memory(usages: Iterable[Usage]) -> float:
    """Memory of all services, in MiB."""
    return sum(u.memory for u in usages)


def total_disk(usages: Iterable[Usage]) -> float:
    """Disk that all images take, in MB."""
    return sum(u.own for u in usages)


def memory(containers: list[Container]) -> dict[str, float]:
    """Memory of each container by name, in MiB: the median of some samples."""
    samples: defaultdict[str, list[float]] = defaultdict(list)
    for number in range(_SAMPLES):
        if number:
            time.sleep(_BETWEEN_S)
        with ThreadPoolExecutor(8) as pool:
            for container, used in zip(containers, pool.map(_used, containers), strict=True):
                samples[container.name].append(used)
    return {name: statistics.median(values) for name, values in samples.items()}


def _used(container: Container) -> float:
    stats = container.stats(stream=False)["memory_stats"]
    # As `docker stats` counts: page cache that can be dropped is not in use.
    cache = stats["stats"].get("total_inactive_file", stats["stats"].get("inactive_file", 0))
    return float(stats["usage"] - cache) / 2**20


def _layers(stack: Stack, containers: Iterable[Container]) -> Mapping[str, set[str]]:
    """Folders with the layers of each service's images; build stages and bases belong to no service."""
    used: defaultdict[str, set[str]] = defaultdict(set)
    resources = json.loads(stack.state())["deployment"]["resources"]
    for resource in resources:
        match resource["type"]:
            case "millrace:docker:Image":
                used[_SHARED] |= _folders(stack, resource["outputs"]["image"])
            case "millrace:docker:Job":
                used[resource["inputs"]["labels"][_SERVICE]] |= _folders(stack, resource["inputs"]["image"])
    for container in containers:
        used[container.labels[_SERVICE]] |= _folders(stack, container.attrs["Image"])
    used[_SHARED] -= {layer for service, own in used.items() if service != _SHARED for layer in own}
    return used


def _folders(stack: Stack, image: str) -> set[str]:
    driver: dict[str, Any] = stack.docker.images.get(image).attrs["GraphDriver"]
    if driver["Name"] != "overlay2":
        raise SystemExit(
            f"bench: disk use of images is measured with the engine's overlay2, not {driver['Name']}"
        )
    return {driver["Data"]["UpperDir"], *filter(None, driver["Data"].get("LowerDir", "").split(":"))}


def _disk(folder: str) -> float:
    """What a folder takes on the disk, in MB (a million bytes, as Docker counts)."""
    if not Path(folder).is_dir():
        raise SystemExit(f"bench: {folder} is not readable: run it on the engine's machine, as root")
    done = subprocess.run(["du", "-s", "-B1", folder], capture_output=True, text=True, check=True)
    return int(done.stdout.split()[0]) / 1e6
