"""Hosts that the program makes before the Docker target uses them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from components.managed import (
    ManagedBucket,
    ManagedContent,
    ManagedServer,
    ManagedStore,
    ManagedStoreUser,
    ManagedTopic,
    ManagedUser,
)
from components.settings import DigitalOceanTarget, Settings
from components.targets.docker_host import EngineHost


class Host(Protocol):
    """A host with a Docker engine."""

    engine: EngineHost

    def outputs(self) -> Mapping[str, Any]:
        """The stack output ``host``."""

    def server(self, key: str) -> ManagedServer | None:
        """What runs in place of a service's containers."""

    def kafka(self, topics: Sequence[ManagedTopic], users: Sequence[ManagedUser]) -> ManagedContent:
        """Make topics and users of the managed Kafka cluster."""

    def store(self, buckets: Sequence[ManagedBucket], users: Sequence[ManagedStoreUser]) -> ManagedStore:
        """Make buckets and keys of the managed object store."""

    def finish(self) -> None:
        """What comes once all services are there."""


def host_of(settings: Settings) -> Host | None:
    """The host that the target asks for; None where it names an engine that is there."""
    target = settings.target
    if isinstance(target, DigitalOceanTarget):
        # Its SDK is loaded for those who use it.
        from components.targets.digitalocean import DigitalOceanHost

        return DigitalOceanHost(settings, target)
    return None
