"""Servers that somebody else runs in place of a service's containers: the same requests, other addresses.

A target that offers them says so in its settings; a service asks :meth:`Platform.managed` and describes its
own containers when there is none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pulumi

from components.connection import Secret


@dataclass(frozen=True, kw_only=True)
class ManagedServer:
    """A server and its administrator.

    ``ca_certificate`` is what clients verify it with, ``ready`` what they wait for; ``instance`` is another
    value for another server. ``bootstrap`` is the address list of a Kafka cluster, ``passwords`` are those of
    users that the provider itself makes.
    """

    host: pulumi.Input[str]
    port: pulumi.Input[int]
    user: str
    password: Secret
    database: str = ""
    ca_certificate: pulumi.Input[str]
    ready: Sequence[pulumi.Resource] = ()
    instance: pulumi.Input[str] = ""
    passwords: Mapping[str, Secret] = field(default_factory=dict)


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
