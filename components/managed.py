"""Servers that somebody else runs in place of a service's containers: the same requests, other addresses.

A target that offers them says so in its settings; a service asks :meth:`Platform.managed` and describes its
own containers when there is none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pulumi

from components.connection import Secret


@dataclass(frozen=True, kw_only=True)
class ManagedServer:
    """A server and its administrator.

    ``ca_certificate`` is what clients verify it with, ``ready`` what they wait for; ``instance`` is another
    value for another server.
    """

    host: pulumi.Input[str]
    port: pulumi.Input[int]
    user: str
    password: Secret
    database: str = ""
    ca_certificate: pulumi.Input[str]
    ready: Sequence[pulumi.Resource] = ()
    instance: pulumi.Input[str] = ""


@dataclass(frozen=True, kw_only=True)
class ManagedTopic:
    """A topic of a managed Kafka cluster; ``config`` in Kafka's own words."""

    name: str
    partitions: int
    replication: int
    config: Mapping[str, str | float | bool]


@dataclass(frozen=True, kw_only=True)
class ManagedUser:
    """A user of a managed Kafka cluster: topic (or pattern) -> consume, produce or produceconsume."""

    name: str
    permissions: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class ManagedContent:
    """What was made on a Kafka cluster: the passwords that its provider chose, and what to wait for."""

    passwords: Mapping[str, Secret]
    ready: Sequence[pulumi.Resource]


@dataclass(frozen=True, kw_only=True)
class ManagedBucket:
    """A bucket of a managed object store: ``name`` there, ``declared`` in the settings.

    ``versioning`` None leaves it as it is; ``rules`` are the lifecycle's, as S3 has them.
    """

    name: str
    declared: str
    versioning: bool | None
    rules: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class ManagedStoreUser:
    """A user of a managed object store: bucket, as declared -> read or readwrite.

    Another ``rotation`` asks for another key.
    """

    name: str
    rotation: str
    permissions: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class AccessKey:
    """What a user of an object store logs in with."""

    id: pulumi.Input[str]
    secret: Secret


@dataclass(frozen=True, kw_only=True)
class ManagedStore:
    """A managed object store with HTTPS at ``host``: the users' keys, which its provider chose, and what to
    wait for.
    """

    host: str
    region: str
    keys: Mapping[str, AccessKey]
    ready: Sequence[pulumi.Resource]


def stand_in(port: int) -> ManagedServer:
    """For plans, when nothing is made: an address that leads nowhere."""
    return ManagedServer(
        host="managed.invalid",
        port=port,
        user="admin",
        password=pulumi.Output.secret(""),
        database="admin",
        ca_certificate="",
    )
