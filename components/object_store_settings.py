"""Settings of the object store, what services may request of it, and mistakes a single value doesn't show."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from components.checks import duplicates
from components.problems import PathPart, Problem, nearest
from components.service import Demand
from components.settings import ServiceSettings
from components.settings_types import Int, MiB, Model, Name, Port
from components.workload import Access

ROOT = "root"
"""Access key of the administrator."""

_SHORTEST_USER = 3
"""MinIO refuses shorter access keys."""


class BucketPrivilege(StrEnum):
    """What a user may do in a bucket."""

    READ_ONLY = "read-only"
    READ_WRITE = "read-write"
    WRITE_ONLY = "write-only"


@dataclass(frozen=True, kw_only=True)
class Bucket:
    """Request of a service: a bucket, made when no one declares it, and a user that may use it.

    All requests of a service get the same user, which is named after the service.
    """

    name: str
    privilege: BucketPrivilege = BucketPrivilege.READ_WRITE


def _bucket_name(value: str) -> str:
    """The rules of S3 for general purpose buckets; "minio" is the server's own."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", value):
        raise ValueError(
            "not a bucket name - use 3 to 63 lower-case letters, digits, hyphens and dots, "
            "with a letter or digit at both ends"
        )
    if any(pair in value for pair in ("..", ".-", "-.")):
        raise ValueError("not a bucket name - put letters or digits on both sides of each dot")
    if _is_address(value):
        raise ValueError("not a bucket name but an IP address - choose another")
    reserved_start = value.startswith(("xn--", "sthree-", "amzn-s3-demo-"))
    reserved_end = value.endswith(("-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3"))
    if value == "minio" or reserved_start or reserved_end:
        raise ValueError("a bucket name that S3 or the server reserves - choose another")
    return value


def _is_address(value: str) -> bool:
    try:
        ipaddress.IPv4Address(value)
    except ValueError:
        return bool(re.fullmatch(r"\d+\.\d+\.\d+\.\d+", value))
    return True


BucketName = Annotated[str, AfterValidator(_bucket_name)]
Days = Annotated[Int, Field(ge=1, le=36500)]


class BucketSettings(Model):
    """A bucket. Taken out of the settings, one of MinIO stays with all that is in it."""

    name: BucketName
    """3 to 63 lower-case letters, digits, hyphens and dots."""
    versioning: bool = False
    """Keep the former versions of overwritten and deleted objects."""
    expire_days: Days | None = None
    """Delete objects that are older, in days."""
    noncurrent_expire_days: Days | None = None
    """Delete versions that were replaced or deleted longer ago, in days (with versioning)."""


class BucketAccess(Model):
    """What a user may do in one bucket."""

    bucket: BucketName
    """One of `buckets`, or a bucket of a service."""
    privilege: BucketPrivilege = BucketPrivilege.READ_ONLY
    """read-only, read-write or write-only."""


class ObjectStoreUser(Model):
    """A user: its name is the access key, the secret key is generated (stack output `credentials`)."""

    name: Name
    """The access key, of at least three characters."""
    buckets: tuple[BucketAccess, ...] = ()
    """Its buckets; it reaches no others."""


class ObjectStoreSettings(ServiceSettings):
    """S3 object store: buckets with versioning and lifecycle, users with policies, a web console."""

    engine: Literal["minio"] = "minio"
    """minio: the only engine there is so far."""
    memory_mib: Annotated[MiB, Field(ge=256)] = 512
    """Memory limit of the server, in MiB."""
    buckets: tuple[BucketSettings, ...] = ()
    """Buckets to have."""
    users: tuple[ObjectStoreUser, ...] = ()
    """Users besides the administrator `root`."""
    console_access: Access = Access.ENGINEER
    """Who may open the console at https://object-store.<domain>, which then asks for an access key too."""
    api_route: bool = True
    """Offer the S3 API at https://s3.<domain>; its clients authenticate with access keys."""
    loopback_port: Port | None = None
    """Port on 127.0.0.1 of the host for the S3 API, for clients there."""


@dataclass(frozen=True, kw_only=True)
class PlannedUser:
    """A user and its buckets."""

    name: str
    buckets: Mapping[str, BucketPrivilege]

    @property
    def policy(self) -> str:
        """Name of its policy, by which the setup job recognises users it made."""
        return f"millrace-{self.name}"


def consumer_user(consumer: str) -> str:
    """Access key of a service: long enough for MinIO whatever the service's name."""
    name = consumer.replace("_", "-")
    return name if len(name) >= _SHORTEST_USER else f"{name}-service"


def planned_users(settings: ObjectStoreSettings, demands: Sequence[Demand]) -> list[PlannedUser]:
    """Declared users and one for each service with requests."""
    users = {user.name: {b.bucket: b.privilege for b in user.buckets} for user in settings.users}
    for demand in demands:
        request: Bucket = demand.request
        users.setdefault(consumer_user(demand.consumer), {})[request.name] = request.privilege
    return [PlannedUser(name=name, buckets=buckets) for name, buckets in users.items()]


def planned_buckets(settings: ObjectStoreSettings, demands: Sequence[Demand]) -> list[BucketSettings]:
    """Declared buckets and those that services request."""
    buckets = {bucket.name: bucket for bucket in settings.buckets}
    for demand in demands:
        buckets.setdefault(demand.request.name, BucketSettings(name=demand.request.name))
    return list(buckets.values())


def problems(settings: ObjectStoreSettings, demands: Sequence[Demand]) -> Iterator[Problem]:
    """Duplicates, unknown buckets, reserved and clashing users, rules without effect."""
    yield from duplicates([b.name for b in settings.buckets], ("buckets",), "bucket")
    yield from duplicates([u.name for u in settings.users], ("users",), "user")
    for index, bucket in enumerate(settings.buckets):
        if bucket.noncurrent_expire_days is not None and not bucket.versioning:
            yield Problem(
                ("buckets", index, "noncurrent_expire_days"),
                "has no meaning without versioning - add `versioning: true` or remove it",
            )
    known = [bucket.name for bucket in planned_buckets(settings, demands)]
    services = {consumer_user(demand.consumer): demand.consumer for demand in demands}
    for index, user in enumerate(settings.users):
        yield from _user(user, ("users", index), known, services)
    yield from _requests(demands)


def _user(
    user: ObjectStoreUser, path: tuple[PathPart, ...], known: Sequence[str], services: Mapping[str, str]
) -> Iterator[Problem]:
    name = (*path, "name")
    if user.name == ROOT:
        yield Problem(name, f'"{ROOT}" is the administrator - choose another name')
    if len(user.name) < _SHORTEST_USER:
        yield Problem(
            name, f'"{user.name}" is too short for an access key - use {_SHORTEST_USER} letters or more'
        )
    if user.name in services:
        yield Problem(
            name, f'"{user.name}" is the user of service {services[user.name]} - choose another name'
        )
    yield from duplicates([b.bucket for b in user.buckets], (*path, "buckets"), "bucket", "bucket")
    for place, access in enumerate(user.buckets):
        if access.bucket not in known:
            yield Problem(
                (*path, "buckets", place, "bucket"),
                f'no bucket "{access.bucket}" among buckets{nearest(access.bucket, known)}',
            )


def _requests(demands: Sequence[Demand]) -> Iterator[Problem]:
    asked: dict[tuple[str, str], BucketPrivilege] = {}
    for demand in demands:
        request: Bucket = demand.request
        first = asked.setdefault((demand.consumer, request.name), request.privilege)
        if first is not request.privilege:
            yield Problem(
                (), f'service {demand.consumer} wants bucket "{request.name}" {first} and {request.privilege}'
            )


_READ_BUCKET = ("s3:GetBucketLocation", "s3:GetBucketVersioning", "s3:ListBucket", "s3:ListBucketVersions")
_READ_OBJECT = ("s3:GetObject", "s3:GetObjectTagging", "s3:GetObjectVersion", "s3:GetObjectVersionTagging")
_WRITE_BUCKET = ("s3:GetBucketLocation", "s3:ListBucketMultipartUploads")
_WRITE_OBJECT = ("s3:AbortMultipartUpload", "s3:ListMultipartUploadParts", "s3:PutObject")
_CHANGE_OBJECT = ("s3:DeleteObject", "s3:DeleteObjectTagging", "s3:PutObjectTagging")

_ACTIONS: Mapping[BucketPrivilege, tuple[tuple[str, ...], tuple[str, ...]]] = {
    BucketPrivilege.READ_ONLY: (_READ_BUCKET, _READ_OBJECT),
    BucketPrivilege.READ_WRITE: (
        (*_READ_BUCKET, *_WRITE_BUCKET),
        (*_READ_OBJECT, *_WRITE_OBJECT, *_CHANGE_OBJECT),
    ),
    BucketPrivilege.WRITE_ONLY: (_WRITE_BUCKET, _WRITE_OBJECT),
}


def policy_json(user: PlannedUser) -> str:
    """The user's policy. It may not be empty: a user without buckets is denied everything."""
    statements: list[dict[str, Any]] = []
    for bucket, privilege in sorted(user.buckets.items()):
        on_bucket, on_objects = _ACTIONS[privilege]
        statements.append(_allow(on_bucket, f"arn:aws:s3:::{bucket}"))
        statements.append(_allow(on_objects, f"arn:aws:s3:::{bucket}/*"))
        if privilege is BucketPrivilege.READ_WRITE:
            # Versioning is there to undo what users do. MinIO takes leave to delete for leave to delete
            # versions, unless it is denied.
            statements.append(_statement("Deny", ("s3:DeleteObjectVersion",), f"arn:aws:s3:::{bucket}/*"))
    if not statements:
        # Leave to list would show the names of all buckets.
        statements.append(_statement("Deny", ("s3:*",), "arn:aws:s3:::*"))
    # MinIO lets users make more access keys and change their own secret unless it is denied: both would
    # outlive a rotation.
    statements.append({"Effect": "Deny", "Action": ["admin:CreateServiceAccount", "admin:CreateUser"]})
    return json.dumps({"Version": "2012-10-17", "Statement": statements}, indent=2) + "\n"


def _allow(actions: Sequence[str], resource: str) -> dict[str, Any]:
    return _statement("Allow", actions, resource)


def _statement(effect: str, actions: Sequence[str], resource: str) -> dict[str, Any]:
    return {"Effect": effect, "Action": sorted(set(actions)), "Resource": [resource]}


def lifecycle_rules(bucket: BucketSettings) -> list[dict[str, Any]]:
    """The bucket's lifecycle rules, as S3 has them."""
    rules: list[dict[str, Any]] = []
    if bucket.expire_days is not None:
        rules.append(_rule("millrace-expire", Expiration={"Days": bucket.expire_days}))
    if bucket.noncurrent_expire_days is not None:
        days = {"NoncurrentDays": bucket.noncurrent_expire_days}
        rules.append(_rule("millrace-expire-noncurrent", NoncurrentVersionExpiration=days))
        # What remains of a deleted object when its versions are gone.
        rules.append(_rule("millrace-delete-markers", Expiration={"ExpiredObjectDeleteMarker": True}))
    return rules


def lifecycle_json(bucket: BucketSettings) -> str | None:
    """The rules as `mc ilm rule import` reads them, or None when there are none."""
    rules = lifecycle_rules(bucket)
    return json.dumps({"Rules": rules}, indent=2) + "\n" if rules else None


def _rule(name: str, **action: Mapping[str, Any]) -> dict[str, Any]:
    return {"ID": name, "Status": "Enabled", "Filter": {"Prefix": ""}, **action}
