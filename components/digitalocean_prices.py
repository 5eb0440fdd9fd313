"""What DigitalOcean offers and what it costs: list prices in USD a month, without tax.

Prices change. :data:`AS_OF` is the day the table was last compared with its sources, each named beside its
part. The invoice counts: DigitalOcean bills by the second, up to these prices a month.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from components.digitalocean_settings import DigitalOceanTarget
    from components.settings import Settings

AS_OF = datetime.date(2026, 11, 21)
"""When the table was last looked through."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """A size of Droplet: vCPUs, memory in MiB, local disk in GiB, USD a month."""

    slug: str
    vcpus: int
    memory_mib: int
    disk_gib: int
    monthly_usd: float


@dataclass(frozen=True, kw_only=True)
class CostLine:
    """A line of the estimate; ``monthly_usd`` is None where the table has no price."""

    what: str
    monthly_usd: float | None
    note: str = ""


# Slug, vCPUs, MiB, GiB, USD. Output of `doctl compute size list` as published by others in 2025 and 2026;
# the prices of the common sizes are the same in lists of September 2026. Droplets without a GPU, of up to
# 192 GiB.
_SIZES = """
s-1vcpu-1gb 1 1024 25 6
s-1vcpu-1gb-amd 1 1024 25 7
s-1vcpu-1gb-intel 1 1024 25 7
s-1vcpu-1gb-35gb-intel 1 1024 35 8
s-1vcpu-2gb 1 2048 50 12
s-1vcpu-2gb-amd 1 2048 50 14
s-1vcpu-2gb-intel 1 2048 50 14
s-1vcpu-2gb-70gb-intel 1 2048 70 16
s-2vcpu-2gb 2 2048 60 18
s-2vcpu-2gb-amd 2 2048 60 21
s-2vcpu-2gb-intel 2 2048 60 21
s-2vcpu-2gb-90gb-intel 2 2048 90 24
s-2vcpu-4gb 2 4096 80 24
s-2vcpu-4gb-amd 2 4096 80 28
s-2vcpu-4gb-intel 2 4096 80 28
s-2vcpu-4gb-120gb-intel 2 4096 120 32
s-2vcpu-8gb-amd 2 8192 100 42
s-2vcpu-8gb-160gb-intel 2 8192 160 48
s-4vcpu-8gb 4 8192 160 48
s-4vcpu-8gb-amd 4 8192 160 56
s-4vcpu-8gb-intel 4 8192 160 56
s-4vcpu-8gb-240gb-intel 4 8192 240 64
s-4vcpu-16gb-amd 4 16384 200 84
s-4vcpu-16gb-320gb-intel 4 16384 320 96
s-8vcpu-16gb 8 16384 320 96
s-8vcpu-16gb-amd 8 16384 320 112
s-8vcpu-16gb-intel 8 16384 320 112
s-8vcpu-16gb-480gb-intel 8 16384 480 128
s-8vcpu-32gb-amd 8 32768 400 168
s-8vcpu-32gb-640gb-intel 8 32768 640 192
c-2 2 4096 25 42
c-4 4 8192 50 84
c-4-intel 4 8192 50 109
c-8 8 16384 100 168
c-8-intel 8 16384 100 218
c-16 16 32768 200 336
c-16-intel 16 32768 200 437
c-32 32 65536 400 672
c-32-intel 32 65536 400 874
c-48 48 98304 600 1008
c-48-intel 48 98304 600 1310
c-60-intel 60 122880 750 1639
c2-2vcpu-4gb 2 4096 50 47
c2-4vcpu-8gb 4 8192 100 94
c2-4vcpu-8gb-intel 4 8192 100 122
c2-8vcpu-16gb 8 16384 200 188
c2-8vcpu-16gb-intel 8 16384 200 244
c2-16vcpu-32gb 16 32768 400 376
c2-16vcpu-32gb-intel 16 32768 400 489
c2-32vcpu-64gb 32 65536 800 752
c2-32vcpu-64gb-intel 32 65536 800 978
c2-48vcpu-96gb 48 98304 1200 1128
c2-48vcpu-96gb-intel 48 98304 1200 1466
g-2vcpu-8gb 2 8192 25 63
g-2vcpu-8gb-intel 2 8192 30 76
g-4vcpu-16gb 4 16384 50 126
g-4vcpu-16gb-intel 4 16384 60 151
g-8vcpu-32gb 8 32768 100 252
g-8vcpu-32gb-intel 8 32768 120 302
g-16vcpu-64gb 16 65536 200 504
g-16vcpu-64gb-intel 16 65536 240 605
g-32vcpu-128gb 32 131072 400 1008
g-32vcpu-128gb-intel 32 131072 480 1210
g-40vcpu-160gb 40 163840 500 1260
gd-2vcpu-8gb 2 8192 50 68
gd-2vcpu-8gb-intel 2 8192 60 79
gd-4vcpu-16gb 4 16384 100 136
gd-4vcpu-16gb-intel 4 16384 120 158
gd-8vcpu-32gb 8 32768 200 272
gd-8vcpu-32gb-intel 8 32768 240 317
gd-16vcpu-64gb 16 65536 400 544
gd-16vcpu-64gb-intel 16 65536 480 634
gd-32vcpu-128gb 32 131072 800 1088
gd-32vcpu-128gb-intel 32 131072 960 1268
gd-40vcpu-160gb 40 163840 1000 1360
m-2vcpu-16gb 2 16384 50 84
m-2vcpu-16gb-intel 2 16384 50 99
m-4vcpu-32gb 4 32768 100 168
m-4vcpu-32gb-intel 4 32768 100 198
m-8vcpu-64gb 8 65536 200 336
m-8vcpu-64gb-intel 8 65536 200 396
m-16vcpu-128gb 16 131072 400 672
m-16vcpu-128gb-intel 16 131072 400 792
m-24vcpu-192gb 24 196608 600 1008
m-24vcpu-192gb-intel 24 196608 600 1188
m3-2vcpu-16gb 2 16384 150 104
m3-2vcpu-16gb-intel 2 16384 150 110
m3-4vcpu-32gb 4 32768 300 208
m3-4vcpu-32gb-intel 4 32768 300 220
m3-8vcpu-64gb 8 65536 600 416
m3-8vcpu-64gb-intel 8 65536 600 440
m3-16vcpu-128gb 16 131072 1200 832
m3-16vcpu-128gb-intel 16 131072 1200 880
m3-24vcpu-192gb 24 196608 1800 1248
m3-24vcpu-192gb-intel 24 196608 1800 1320
m6-2vcpu-16gb 2 16384 300 131
m6-4vcpu-32gb 4 32768 600 262
m6-8vcpu-64gb 8 65536 1200 524
m6-16vcpu-128gb 16 131072 2400 1048
m6-24vcpu-192gb 24 196608 3600 1572
so-2vcpu-16gb 2 16384 300 131
so-2vcpu-16gb-intel 2 16384 300 131
so-4vcpu-32gb 4 32768 600 262
so-4vcpu-32gb-intel 4 32768 600 262
so-8vcpu-64gb 8 65536 1200 524
so-8vcpu-64gb-intel 8 65536 1200 524
so-16vcpu-128gb 16 131072 2400 1048
so-16vcpu-128gb-intel 16 131072 2400 1048
so-24vcpu-192gb 24 196608 3600 1572
so-24vcpu-192gb-intel 24 196608 3600 1572
so1_5-2vcpu-16gb 2 16384 450 163
so1_5-2vcpu-16gb-intel 2 16384 450 139
so1_5-4vcpu-32gb 4 32768 900 326
so1_5-4vcpu-32gb-intel 4 32768 900 278
so1_5-8vcpu-64gb 8 65536 1800 652
so1_5-8vcpu-64gb-intel 8 65536 1800 556
so1_5-16vcpu-128gb 16 131072 3600 1304
so1_5-16vcpu-128gb-intel 16 131072 3600 1112
so1_5-24vcpu-192gb-intel 24 196608 5400 1668
"""


def _sizes() -> Iterator[Size]:
    for line in _SIZES.split("\n"):
        if line:
            slug, vcpus, memory, disk, price = line.split()
            yield Size(
                slug=slug,
                vcpus=int(vcpus),
                memory_mib=int(memory),
                disk_gib=int(disk),
                monthly_usd=float(price),
            )


SIZES: dict[str, Size] = {size.slug: size for size in _sizes()}
"""Sizes of Droplets by slug."""

# docs.digitalocean.com, pricing pages of volumes and backups.
VOLUME_GIB_USD = 0.10
"""A GiB of block volume a month."""
WEEKLY_BACKUPS, DAILY_BACKUPS = 0.20, 0.30
"""Backups of a Droplet's own disk, as a part of the Droplet's price. They leave volumes out."""

# docs.digitalocean.com, pricing page of Spaces: once for all buckets of an account, whatever their number.
SPACES_USD = 5.0
"""The subscription to Spaces a month."""
SPACES_NOTE = "250 GiB and 1 TiB of transfer for the whole account; each GiB more 0.02"
"""What it includes."""

# A node a month. Postgres: the first plans, as lists of 2025 and 2026 have them; DigitalOcean's own page adds
# about 1.5 % for the storage that goes with each. Kafka: the price the service was announced with for its
# smallest plan; no list with the others was found.
POSTGRES_SIZES: dict[str, float | None] = {
    "db-s-1vcpu-1gb": 15.0,
    "db-s-1vcpu-2gb": 30.0,
    "db-s-2vcpu-4gb": 60.0,
    "db-s-4vcpu-8gb": 120.0,
    "db-s-6vcpu-16gb": 240.0,
    "db-s-8vcpu-32gb": 480.0,
}
"""Sizes of a managed Postgres node."""
KAFKA_SIZES: dict[str, float | None] = {
    "db-s-2vcpu-2gb": 49.0,
    "db-s-2vcpu-4gb": None,
    "gd-2vcpu-8gb": None,
    "gd-4vcpu-16gb": None,
}
"""Sizes of a managed Kafka node; a cluster has three or more."""


def monthly_cost(settings: Settings) -> list[CostLine]:
    """What a stack costs a month at DigitalOcean, line by line; nothing for other targets.

    Left out: transfer beyond what is included, and snapshots.
    """
    target = settings.target
    return list(_lines(target)) if target.kind == "digitalocean" else []


def _lines(target: DigitalOceanTarget) -> Iterator[CostLine]:
    size = SIZES[target.size]
    shape = f"{size.vcpus} vCPU, {size.memory_mib // 1024} GiB"
    yield CostLine(what=f"Droplet {size.slug}", monthly_usd=size.monthly_usd, note=shape)
    if target.backups is not None:
        part = DAILY_BACKUPS if target.backups == "daily" else WEEKLY_BACKUPS
        yield CostLine(what=f"Droplet backups, {target.backups}", monthly_usd=size.monthly_usd * part)
    yield CostLine(
        what=f"Volume of {target.volume_gib} GiB", monthly_usd=round(target.volume_gib * VOLUME_GIB_USD, 2)
    )
    yield CostLine(what="Reserved IP", monthly_usd=0.0, note="free while it is assigned to a Droplet")
    if (postgres := target.postgres) is not None:
        yield _nodes("Managed Postgres", postgres.size, postgres.nodes, POSTGRES_SIZES)
    if (kafka := target.kafka) is not None:
        yield _nodes("Managed Kafka", kafka.size, kafka.nodes, KAFKA_SIZES)
    if target.object_store is not None:
        yield CostLine(what="Spaces, all buckets", monthly_usd=SPACES_USD, note=SPACES_NOTE)


def _nodes(what: str, size: str, nodes: int, prices: dict[str, float | None]) -> CostLine:
    price = prices[size]
    return CostLine(
        what=f"{what}, {nodes} x {size}",
        monthly_usd=None if price is None else price * nodes,
        note="" if price is not None else "see digitalocean.com/pricing: not in the table",
    )
