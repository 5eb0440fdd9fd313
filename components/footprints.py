"""What containers, images and volumes take, as measured: the one place with such figures.

Memory: the working set of a container's cgroup (usage without page cache that can be dropped), as `docker
stats` shows it, of the idle ``dev`` stack some minutes after it came up from nothing, on Docker 20.10 with
cgroup v1, 2 cores, 24 GiB. It varies by a tenth from run to run; the object store's by more, since its
buffers stay for a while. `tests/integration/test_new_stack.py` measures a stack of all services again.

Disk: what `docker images` and `docker system df -v` show on the same machine, in MB (a million bytes, as
Docker counts).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """Idle memory of one container in MiB: ``idle`` and a part ``of_limit`` of its memory limit."""

    idle: float
    of_limit: float = 0.0

    def expected(self, limit_mib: int) -> float:
        """MiB that a container with this limit uses; never more than the limit."""
        return min(self.idle + self.of_limit * limit_mib, limit_mib)


MEMORY: Mapping[tuple[str, str], Footprint] = {
    ("airflow", "airflow"): Footprint(idle=281),
    ("airflow", "scheduler"): Footprint(idle=255),
    ("airflow", "dag_processor"): Footprint(idle=177),
    ("airflow", "triggerer"): Footprint(idle=185),
    ("delta-sharing", "delta_sharing"): Footprint(idle=45),
    ("demo", "shop_simulator"): Footprint(idle=28),
    ("jupyter", "jupyter"): Footprint(idle=72),
    # Half of the limit is Java's heap, of which a young broker has used a part.
    ("kafka", ""): Footprint(idle=180, of_limit=0.09),
    ("minio", "object_store"): Footprint(idle=180),
    ("nginx", "portal"): Footprint(idle=3),
    ("nginx", "proxy"): Footprint(idle=7),
    # A quarter of the limit is for shared buffers, which fill as data is read.
    ("postgres", "postgres"): Footprint(idle=72, of_limit=0.05),
    ("python", "lake"): Footprint(idle=12),
    ("spark", "spark"): Footprint(idle=187),
    ("spark", "history"): Footprint(idle=203),
    ("spark", ""): Footprint(idle=142),
    # A worker process for each 200 MiB above 300.
    ("superset", "bi"): Footprint(idle=130, of_limit=0.16),
    ("trino", ""): Footprint(idle=430, of_limit=0.08),
}
"""By image and workload; ``""`` stands for all other workloads of the image (brokers, workers)."""

UNMEASURED = Footprint(idle=0, of_limit=0.5)
"""What has no entry counts with half of its limit."""


def memory(image: str, workload: str) -> Footprint | None:
    """The measured figures of a workload, or None when there are none."""
    return MEMORY.get((image, workload)) or MEMORY.get((image, ""))


BUILT_MB: Mapping[str, int] = {
    "base": 83,
    "python": 38,
    "java": 213,
    "fetch": 64,
    "go-build": 216,
    "postgres": 291,
    "minio": 142,
    "nginx": 9,
    "kafka": 57,
    "kafka-setup": 5,
    "delta-sharing": 186,
    "airflow": 513,
    "demo": 57,
    "trino": 489,
    "superset": 582,
    "spark": 462,
    "jupyter": 854,
}
"""Layers that a built image has on top of the one it is FROM, which counts by itself."""

UPSTREAM_MB: Mapping[str, int] = {
    "python": 130,
    "postgres": 440,
    "minio": 180,
    "nginx": 190,
    "traefik": 180,
    "kafka": 400,
    "redpanda-console": 200,
    "delta-sharing": 400,
    "airflow": 1900,
    "trino": 1300,
    "presto": 2500,
    "metabase": 750,
    "superset": 2500,
    "jupyter": 4500,
    "acme": 100,
    "spark": 1300,
}
"""Official images, unpacked: round figures, not measured here, and none shares layers with another."""

UNKNOWN_IMAGE_MB = 500
"""An image that has no entry: of a service of your own, or given by a setting."""

BUILD_CACHE = 1.0
"""What a build leaves in the builder's cache (packages, stages), for each MB of image."""

VOLUME_MB: Mapping[tuple[str, str], int] = {
    ("kafka", "data"): 84,
    ("postgres", "data"): 87,
}
"""Volumes of a stack that has just come up, by image and volume; others hold less than one MB."""
