"""The object store run by a cloud provider: what becomes of buckets and users, and what it can't do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from components.managed import ManagedBucket, ManagedStoreUser
from components.object_store_settings import (
    ROOT,
    BucketPrivilege,
    ObjectStoreSettings,
    PlannedUser,
    lifecycle_rules,
    planned_buckets,
)
from components.problems import Problem
from components.service import Demand

if TYPE_CHECKING:
    from components.digitalocean_settings import DigitalOceanTarget
    from components.settings import Settings

KEY = "object_store"

_LONGEST = 63
"""Characters of a bucket's name."""
_LONGEST_START = 32
"""Characters of what the target puts in front of it, at most."""

# There is none for writing alone: see problems().
_PERMISSIONS = {BucketPrivilege.READ_ONLY: "read", BucketPrivilege.READ_WRITE: "readwrite"}


def buckets(settings: ObjectStoreSettings, demands: Sequence[Demand], start: str) -> list[ManagedBucket]:
    """All buckets; their names are shared with strangers and begin with ``start``."""
    return [
        ManagedBucket(
            name=f"{start}-{bucket.name}",
            declared=bucket.name,
            versioning=bucket.versioning if "versioning" in bucket.model_fields_set else None,
            rules=lifecycle_rules(bucket),
        )
        for bucket in planned_buckets(settings, demands)
    ]


def users(planned: Sequence[PlannedUser], rotations: Mapping[str, str]) -> list[ManagedStoreUser]:
    """All users, with what they may do in which buckets."""
    return [
        ManagedStoreUser(
            name=user.name,
            rotation=rotations[user.name],
            permissions={name: _PERMISSIONS[privilege] for name, privilege in user.buckets.items()},
        )
        for user in planned
    ]


def problems(settings: Settings, target: DigitalOceanTarget) -> Iterator[Problem]:
    """What Spaces has no means for, or not in this region."""
    from components.checks import demands_of
    from components.digitalocean_settings import SPACES_REGIONS

    wanted = target.object_store
    assert wanted is not None
    if target.spaces_region not in SPACES_REGIONS:
        yield Problem(
            ("target", KEY, "region"),
            f"missing - there are no Spaces in {target.region}: name another region",
        )
    if f"{KEY}/{ROOT}" in settings.rotation:
        yield Problem(("rotation", f"{KEY}/{ROOT}"), "Spaces has no administrator's key here - remove it")
    own = settings.services.get(KEY)
    if not isinstance(own, ObjectStoreSettings):
        return
    demands = demands_of(settings)[KEY]
    yield from _names(own, demands, wanted.prefix)
    for index, user in enumerate(own.users):
        for place, access in enumerate(user.buckets):
            if access.privilege is BucketPrivilege.WRITE_ONLY:
                yield Problem(
                    (KEY, "users", index, "buckets", place, "privilege"),
                    "keys of Spaces cannot be limited to writing - write read-write, or leave the bucket out",
                )
    for demand in demands:
        if demand.request.privilege is BucketPrivilege.WRITE_ONLY:
            yield Problem(
                (demand.consumer,),
                f'asks to only write bucket "{demand.request.name}", to which keys of Spaces cannot be '
                "limited - let it read, too",
            )


def _names(own: ObjectStoreSettings, demands: Sequence[Demand], prefix: str | None) -> Iterator[Problem]:
    room = _LONGEST - 1 - (_LONGEST_START if prefix is None else len(prefix))
    for bucket in planned_buckets(own, demands):
        if len(bucket.name) > room:
            yield Problem(
                ("target", KEY, "prefix"),
                f'leaves {room} of the {_LONGEST} characters of a name in Spaces, bucket "{bucket.name}" has '
                f"{len(bucket.name)} - give a shorter one",
            )
