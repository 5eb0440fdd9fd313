"""Rules for what must not be lost."""

from __future__ import annotations

from collections.abc import Iterator

from policies.rules import VOLUME, Resource, Rule, Stack

LABEL_DATA = "dev.millrace.data"
"""Label of volumes; ``false`` marks what can be made again. What has no such label counts as data."""

_HOW = {
    VOLUME: "set millrace:protect_data",
    "digitalocean:index/volume:Volume": "set target.protect",
    "digitalocean:index/spacesBucket:SpacesBucket": "set target.protect",
    "digitalocean:index/databaseCluster:DatabaseCluster": "set target.protect",
}


def protected_data(resource: Resource, stack: Stack) -> Iterator[str]:
    """In production nothing that holds data can be deleted by a mere `up` or `destroy`."""
    if stack.production and not resource.protect and resource.labels.get(LABEL_DATA) != "false":
        yield f"holds data and is not protected - {_HOW[resource.type]}"


RULES = (
    Rule(
        name="protected-data",
        description="In production, volumes, buckets and databases are protected from deletion.",
        check=protected_data,
        types=frozenset(_HOW),
    ),
)
