"""What a stack will need, before anything of it is created: memory, CPUs, disk and, of a rented host, money.

Memory is what its containers are expected to use when idle (:mod:`components.footprints`), not the sum of
their limits. CPUs are those of the largest limit: an engine makes no container that may use more than there
are. Disk is for images that the host does not have yet and for new volumes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from components.digitalocean_prices import CostLine, monthly_cost
from components.footprints import (
    BUILD_CACHE,
    BUILT_MB,
    UNKNOWN_IMAGE_MB,
    UNMEASURED,
    UPSTREAM_MB,
    VOLUME_MB,
    memory,
)
from components.images import CATALOGUE, built_reference, pulled_reference
from components.plan import Plan, PlannedJob, PlannedWorkload, plan
from components.settings import ImageSource, Settings

TIGHT = 0.85
"""A host that is fuller than this part is tight."""


@dataclass(frozen=True, kw_only=True)
class Host:
    """What a host has. None stands for what cannot be known from here.

    ``memory_mib`` is all of its memory, ``disk_mb`` what is free where Docker keeps its data. ``images`` are
    the references it has, ``volumes`` the names, without the stack's prefix, of this stack's volumes there.
    ``larger`` are other hosts one could have, as name, memory and CPUs, the cheapest first.
    """

    name: str
    memory_mib: int | None
    disk_mb: int | None
    cpus: int | None = None
    images: frozenset[str] = frozenset()
    volumes: frozenset[str] = frozenset()
    larger: tuple[tuple[str, int, int], ...] = ()
    more_disk: str = "free some there"


@dataclass(frozen=True, kw_only=True)
class ServiceEstimate:
    """One service. ``images_mb`` are its images and volumes that are still to be made; layers it shares with
    a service listed before count there. ``measured`` is False where a figure is assumed.
    """

    service: str
    containers: int
    memory_mib: int
    limit_mib: int
    images_mb: int
    volumes_mb: int
    measured: bool


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """All of a stack. ``problems``: why it cannot fit its host, ``warnings``: what is tight; a line each."""

    services: tuple[ServiceEstimate, ...]
    reserve_mib: int
    build_cache_mb: int
    host: Host | None
    costs: tuple[CostLine, ...]
    problems: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def memory_mib(self) -> int:
        """What all containers are expected to use together."""
        return sum(s.memory_mib for s in self.services)

    @property
    def limit_mib(self) -> int:
        """What all containers may use together."""
        return sum(s.limit_mib for s in self.services)

    @property
    def disk_mb(self) -> int:
        """What is still to be stored: images, what their builds leave, and volumes."""
        return sum(s.images_mb + s.volumes_mb for s in self.services) + self.build_cache_mb

    @property
    def monthly_usd(self) -> float:
        """All costs whose price is known."""
        return sum(cost.monthly_usd or 0.0 for cost in self.costs)

    def with_lines(self, form: Callable[[str], str]) -> Estimate:
        """The same with each problem and warning in another form."""
        return replace(
            self, problems=tuple(map(form, self.problems)), warnings=tuple(map(form, self.warnings))
        )


def estimate(settings: Settings, host: Host | None = None) -> Estimate:
    """What a platform with these settings needs, compared with ``host`` when there is one."""
    planned = plan(settings)
    services, cache = _services(settings, planned, host)
    found = Estimate(
        services=services,
        reserve_mib=settings.capacity.reserve_mib,
        build_cache_mb=cache,
        host=host,
        costs=tuple(monthly_cost(settings)),
        problems=(),
        warnings=(),
    )
    return _judged(found, _cpu_limits(planned), enforce=settings.capacity.enforce)


def _services(
    settings: Settings, planned: Plan, host: Host | None
) -> tuple[tuple[ServiceEstimate, ...], int]:
    there = host or Host(name="", memory_mib=None, disk_mb=None)
    seen: set[str] = set()
    found: list[ServiceEstimate] = []
    built = 0
    for service in sorted({w.service for w in planned.workloads} | {j.service for j in planned.jobs}):
        workloads = [w for w in planned.workloads if w.service == service]
        jobs = [j for j in planned.jobs if j.service == service]
        images_mb = 0
        for reference, size, is_built in _images(settings, [*workloads, *jobs]):
            if reference not in seen and not {reference, _by_digest(reference)} & there.images:
                images_mb += size
                built += size if is_built else 0
            seen.add(reference)
        found.append(
            ServiceEstimate(
                service=service,
                containers=sum(len(w.hosts) for w in workloads),
                memory_mib=round(sum(_memory(w) for w in workloads)),
                limit_mib=sum(w.workload.limits.memory_mib * len(w.hosts) for w in workloads),
                images_mb=images_mb,
                volumes_mb=sum(size for name, size in _volumes(workloads) if name not in there.volumes),
                measured=all(_is_measured(w) for w in workloads),
            )
        )
    return tuple(found), round(built * BUILD_CACHE)


def _memory(planned: PlannedWorkload) -> float:
    workload = planned.workload
    known = memory(workload.image, workload.name) or UNMEASURED
    return known.expected(workload.limits.memory_mib) * len(planned.hosts)


def _is_measured(planned: PlannedWorkload) -> bool:
    return memory(planned.workload.image, planned.workload.name) is not None


def _images(
    settings: Settings, parts: Iterable[PlannedWorkload | PlannedJob]
) -> Iterator[tuple[str, int, bool]]:
    """Reference and size of each image and, of those that are built, of their bases; whether it is built."""
    mirror = settings.registry.mirror if settings.registry else None
    for part in parts:
        name = part.workload.image if isinstance(part, PlannedWorkload) else part.job.image
        upstream = part.source is ImageSource.UPSTREAM
        pulled = pulled_reference(name, upstream=upstream, override=part.image_override, mirror=mirror)
        if pulled is not None:
            own = pulled == part.image_override
            yield pulled, UNKNOWN_IMAGE_MB if own else UPSTREAM_MB.get(name, UNKNOWN_IMAGE_MB), False
        else:
            yield from _built(name)


def _built(name: str) -> Iterator[tuple[str, int, bool]]:
    for base in CATALOGUE[name].bases.values():
        yield from _built(base)
    yield built_reference(name), BUILT_MB.get(name, UNKNOWN_IMAGE_MB), True


def _by_digest(reference: str) -> str:
    """``name@digest`` of ``name:tag@digest``: the engine lists what it pulled by both without the tag."""
    name, at, digest = reference.partition("@")
    folder, slash, last = name.rpartition("/")
    return f"{folder}{slash}{last.partition(':')[0]}{at}{digest}" if at else reference


def _volumes(workloads: Iterable[PlannedWorkload]) -> Iterator[tuple[str, int]]:
    for planned in workloads:
        for volume in planned.workload.volumes:
            if volume.of is None:
                size = VOLUME_MB.get((planned.workload.image, volume.name), 1)
                yield from ((f"{host}-{volume.name}", size) for host in planned.hosts)


def _cpu_limits(planned: Plan) -> dict[str, float]:
    """The CPU limit of a container or job by the key of the setting it comes from."""
    found: dict[str, float] = {}
    workloads = [(w.service, w.workload.limits) for w in planned.workloads]
    jobs = [(j.service, j.job.limits) for j in planned.jobs]
    for service, limits in (*workloads, *jobs):
        key = f"{service}.{limits.cpus_key}"
        found[key] = max(limits.cpus, found.get(key, 0))
    return found


def _judged(found: Estimate, cpu_limits: Mapping[str, float], *, enforce: bool) -> Estimate:
    """The estimate with what is wrong; without ``enforce`` all of it only warns."""
    cpus = math.ceil(max(cpu_limits.values(), default=0))
    problems = (
        *_memory_problems(found, cpus),
        *_cpu_problems(found, cpu_limits, cpus),
        *_disk_problems(found),
    )
    if problems:
        return replace(found, problems=problems) if enforce else replace(found, warnings=problems)
    return replace(found, warnings=(*_tight(found), *_overcommitted(found)))


def _memory_problems(found: Estimate, cpus: int) -> Iterator[str]:
    host, needed = found.host, found.memory_mib + found.reserve_mib
    if host is None or host.memory_mib is None or needed <= host.memory_mib:
        return
    largest = _largest({s.service: s.memory_mib for s in found.services})
    yield (
        f"{host.name} has {host.memory_mib} MiB of memory, too little for {found.memory_mib} MiB that the "
        f"services use when idle and {found.reserve_mib} MiB kept for the host - switch off a service "
        f"(largest: {largest}), or choose {_larger(host, needed, cpus) or f'a host with {needed} MiB'}"
    )


def _cpu_problems(found: Estimate, limits: Mapping[str, float], cpus: int) -> Iterator[str]:
    host, needed = found.host, found.memory_mib + found.reserve_mib
    if host is None or host.cpus is None:
        return
    has = f"{host.cpus} CPU" if host.cpus == 1 else f"{host.cpus} CPUs"
    larger = _larger(host, needed, cpus) or f"a host with {cpus} CPUs"
    for key, limit in limits.items():
        if limit > host.cpus:
            service = key.partition(".")[0]
            yield (
                f"{host.name} has {has}, its engine makes no container of {service} with a limit of "
                f"{limit:g} - set {key} to {host.cpus} or less, or choose {larger}"
            )


def _larger(host: Host, memory_mib: int, cpus: int) -> str | None:
    """The cheapest of the other hosts that has enough of both."""
    fitting = (name for name, memory, there in host.larger if memory >= memory_mib and there >= cpus)
    return next(fitting, None)


def _disk_problems(found: Estimate) -> Iterator[str]:
    host = found.host
    if host is None or host.disk_mb is None or found.disk_mb <= host.disk_mb:
        return
    largest = _largest({s.service: s.images_mb + s.volumes_mb for s in found.services})
    yield (
        f"{host.name} has {host.disk_mb} MB of free disk, too little for {found.disk_mb} MB of images, "
        f"builds and volumes that are still to be made - {host.more_disk}, or switch off a service "
        f"(largest: {largest})"
    )


def _tight(found: Estimate) -> Iterator[str]:
    host, needed = found.host, found.memory_mib + found.reserve_mib
    if host is None:
        return
    if host.memory_mib is not None and needed > TIGHT * host.memory_mib:
        yield (
            f"memory will be tight: {needed} of {host.memory_mib} MiB of {host.name} are taken while the "
            f"services are idle - queries and tasks have the rest"
        )
    if host.disk_mb is not None and found.disk_mb > TIGHT * host.disk_mb:
        yield (
            f"disk will be tight: {found.disk_mb} of {host.disk_mb} MB that {host.name} has free are for "
            f"images, builds and empty volumes - data has the rest"
        )


def _overcommitted(found: Estimate) -> Iterator[str]:
    host = found.host
    if host is None or host.memory_mib is None or found.limit_mib <= host.memory_mib:
        return
    largest = _largest({s.service: s.limit_mib for s in found.services})
    yield (
        f"all memory limits together are {found.limit_mib} MiB, {host.name} has {host.memory_mib}: when all "
        f"services are busy at once it may run out - lower memory_mib (largest: {largest})"
    )


def _largest(sizes: Mapping[str, int]) -> str:
    """The three largest, as ``a 300, b 200, c 100``."""
    top = sorted(sizes.items(), key=lambda item: -item[1])[:3]
    return ", ".join(f"{name} {size}" for name, size in top)
