"""Whether a stack fits its host: the estimate with the host asked, as the program and the commands use it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from components.estimates import Estimate, Host, estimate
from components.problems import Problem
from components.settings import NAMESPACE, Settings
from components.stack_file import SECRET
from components.targets.docker_capacity import engine_capacity

if TYPE_CHECKING:
    from components.digitalocean_prices import Size
    from components.digitalocean_settings import DigitalOceanTarget

# Of a new ext4 volume: what its own tables and the reserve for root leave.
_USABLE_DISK = 0.93


def judged(settings: Settings, project: str, stack: str, *, alone: bool = False) -> Estimate:
    """The estimate of a stack, compared with its host as far as that can be reached; ``alone`` asks no host.

    ``problems`` and ``warnings`` are whole lines, with the stack file and the key.
    """
    alone = alone and settings.target.kind == "docker"
    found = estimate(settings, None if alone else host_of(settings, project, stack))
    return found.with_lines(lambda text: Problem(("target",), text).line(f"Pulumi.{stack}.yaml", NAMESPACE))


def host_of(settings: Settings, project: str, stack: str) -> Host | None:
    """What the host of a stack has; None when that cannot be found out."""
    target = settings.target
    if target.kind == "digitalocean":
        return droplet(target)
    if target.private_key is not None and target.private_key.get_secret_value() == SECRET:
        return None  # nobody can log in with what stands for the key
    return engine_capacity(target, project, stack)


def droplet(target: DigitalOceanTarget) -> Host:
    """What a Droplet of the wanted size has; Docker keeps its data on the volume.

    Nobody asks what is on it already: a new one, or one that was replaced, has to hold all of it.
    """
    from components.digitalocean_prices import SIZES

    by_price = sorted(SIZES.values(), key=lambda size: size.monthly_usd)
    return Host(
        name=f"Droplet {target.size}",
        memory_mib=_usable(SIZES[target.size]),
        disk_mb=int(target.volume_gib * 2**30 * _USABLE_DISK / 10**6),
        cpus=SIZES[target.size].vcpus,
        larger=tuple((f"target.size {size.slug}", _usable(size), size.vcpus) for size in by_price),
        more_disk="raise target.volume_gib",
    )


def _usable(size: Size) -> int:
    # The kernel keeps some for itself before it counts: 2 to 4 %.
    return size.memory_mib * 96 // 100
