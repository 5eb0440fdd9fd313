"""Buckets and access keys in Spaces, DigitalOcean's object store.

What the provider does with them: terraform-provider-digitalocean, resource_spaces_bucket.go and
resource_spaces_key.go.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import pulumi
import pulumi_digitalocean as do

from components.digitalocean_settings import DigitalOceanTarget
from components.managed import AccessKey, ManagedBucket, ManagedStore, ManagedStoreUser
from components.options import child_opts
from components.targets.names import name_prefix


def spaces(
    parent: pulumi.Resource,
    target: DigitalOceanTarget,
    buckets: Sequence[ManagedBucket],
    users: Sequence[ManagedStoreUser],
) -> tuple[ManagedStore, list[pulumi.Output[str]]]:
    """The object store, and the names by which a DigitalOcean project knows its buckets."""
    made = {bucket.declared: _bucket(parent, target, bucket) for bucket in buckets}
    keys = {user.name: _key(parent, user, made) for user in users}
    store = ManagedStore(
        host=f"{target.spaces_region}.digitaloceanspaces.com",
        region=target.spaces_region,
        keys={
            name: AccessKey(id=key.access_key, secret=pulumi.Output.secret(key.secret_key))
            for name, key in keys.items()
        },
        ready=[*made.values(), *keys.values()],
    )
    return store, [bucket.bucket_urn for bucket in made.values()]


def _bucket(parent: pulumi.Resource, target: DigitalOceanTarget, bucket: ManagedBucket) -> do.SpacesBucket:
    return do.SpacesBucket(
        f"bucket-{bucket.declared}",
        name=bucket.name,
        region=target.spaces_region,
        acl="private",
        # Off is "suspended" for a bucket that never had it: deletes would leave markers behind.
        versioning=(
            None if bucket.versioning is None else do.SpacesBucketVersioningArgs(enabled=bucket.versioning)
        ),
        lifecycle_rules=[_rule(rule) for rule in bucket.rules] or None,
        force_destroy=not target.protect,
        opts=child_opts(
            parent,
            protect=target.protect,
            # The provider would note another name and rename nothing.
            replace_on_changes=["name"],
            # A bucket that is not empty is not deleted: it stops the update before all move to an empty one.
            delete_before_replace=True,
        ),
    )


def _rule(rule: Mapping[str, Any]) -> do.SpacesBucketLifecycleRuleArgs:
    """A rule of S3 in the provider's words."""
    expiration, former = rule.get("Expiration"), rule.get("NoncurrentVersionExpiration")
    return do.SpacesBucketLifecycleRuleArgs(
        id=rule["ID"],
        enabled=True,
        expiration=None
        if expiration is None
        else do.SpacesBucketLifecycleRuleExpirationArgs(
            days=expiration.get("Days"),
            expired_object_delete_marker=expiration.get("ExpiredObjectDeleteMarker"),
        ),
        noncurrent_version_expiration=None
        if former is None
        else do.SpacesBucketLifecycleRuleNoncurrentVersionExpirationArgs(days=former["NoncurrentDays"]),
    )


def _key(
    parent: pulumi.Resource, user: ManagedStoreUser, made: Mapping[str, do.SpacesBucket]
) -> do.SpacesKey:
    # A secret is told once, when its key is made: another one is another key, which the name asks for.
    mark = hashlib.sha256(user.rotation.encode()).hexdigest()[:8]
    return do.SpacesKey(
        f"credential-object-store-{user.name}-key",
        name=f"{name_prefix(pulumi.get_project(), pulumi.get_stack())}-{user.name}-{mark}",
        grants=[
            do.SpacesKeyGrantArgs(bucket=made[bucket].name, permission=permission)
            for bucket, permission in sorted(user.permissions.items())
        ],
        opts=child_opts(parent, replace_on_changes=["name"], additional_secret_outputs=["secretKey"]),
    )
