"""The platform: settings in, services in the order of their needs, proxy, outputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pulumi

from components.certificates import Certificate, CertificateAuthority
from components.checks import ROTATE_ALL, consumers_of, demands_of, needs_of, order
from components.connection import Connection
from components.credentials import Credential
from components.managed import (
    AccessKey,
    ManagedBucket,
    ManagedContent,
    ManagedServer,
    ManagedStore,
    ManagedStoreUser,
    ManagedTopic,
    ManagedUser,
    stand_in,
)
from components.object_store_connection import StoreConnection
from components.proxy import Edge
from components.service import Context, Login, Published, Service
from components.services import registry
from components.settings import Settings
from components.targets import Target
from components.targets.docker import DockerTarget
from components.targets.hosts import Host, host_of

_ANY_PORT = 65535


class Platform:
    """Everything of one stack. Creating it registers all resources; :meth:`export` sets the outputs.

    ``target`` is another one than the settings name: :mod:`components.plan` has one that deploys nothing.
    """

    def __init__(self, settings: Settings, target: Target | None = None) -> None:
        self.settings = settings
        self.host: Host | None = None if target else host_of(settings)
        self.target: Target = target or DockerTarget(settings, host=self.host.engine if self.host else None)
        self.authority = CertificateAuthority(
            "ca", common_name=f"Millrace {pulumi.get_project()}/{pulumi.get_stack()}"
        )
        self.users = {
            user.name: self.new_credential(f"users/{user.name}", pulumi.ResourceOptions())
            for user in settings.users
        }
        self._services: dict[str, Service] = {}
        self._demands = demands_of(settings)
        published: list[Published] = []
        for key in order(settings):
            context = self._context(key)
            self._services[key] = registry()[key](context)
            published += context.published
        self.edge = Edge(self, published)
        if self.host is not None:
            self.host.finish()

    def _context(self, key: str) -> Context:
        providers = sorted({need.service for need in needs_of(self.settings, key)})
        consumers = consumers_of(self.settings, key)
        return Context(
            platform=self,
            key=key,
            settings=self.settings.services[key],
            demands=tuple(self._demands[key]),
            links=tuple([(key, provider) for provider in providers] + [(c, key) for c in consumers]),
        )

    # -- for services

    def new_credential(self, id_: str, opts: pulumi.ResourceOptions) -> Credential:
        """A credential that the settings' ``rotation`` can replace."""
        return Credential(id_, rotation=self.rotation_of(id_), opts=opts)

    def rotation_of(self, id_: str) -> str:
        """Another text for another value of a credential."""
        rotation = self.settings.rotation
        return f"{rotation.get(id_, '')}/{rotation.get(ROTATE_ALL, '')}"

    def new_certificate(
        self, name: str, *, common_name: str, names: Sequence[str], client: bool, opts: pulumi.ResourceOptions
    ) -> Certificate:
        """A certificate of the platform's CA with the life time the settings give."""
        return Certificate(
            name,
            authority=self.authority,
            common_name=common_name,
            names=names,
            client=client,
            validity_days=self.settings.tls.validity_days,
            renew_days=self.settings.tls.renew_days,
            opts=opts,
        )

    def ready_before(self, key: str) -> list[pulumi.Resource]:
        """What a service waits for: everything of the services it needs."""
        if key not in self.settings.services:
            return []
        needs = sorted({n.service for n in needs_of(self.settings, key) if n.wait})
        return [resource for name in needs for resource in self._services[name].ready]

    def connect(self, consumer: str, service: str, request: Any) -> Connection:
        """The connection that ``service`` offers for a request its consumer declared among its needs.

        Raises:
            LookupError: when the consumer did not declare it.
        """
        if isinstance(request, Login):
            if any(n.service == service and n.request == request for n in needs_of(self.settings, consumer)):
                return self._services[service].login(request)
            raise LookupError(f"{consumer} does not declare the need {request!r} of {service}")
        for demand in self._demands[service]:
            if demand.consumer == consumer and demand.request == request:
                return self._services[service].connect(demand)
        raise LookupError(f"{consumer} does not declare the need {request!r} of {service}")

    def store(self, consumer: str, request: Any) -> StoreConnection:
        """The connection to the object store, likewise."""
        connection = self.connect(consumer, "object_store", request)
        assert isinstance(connection, StoreConnection)
        return connection

    def managed(self, key: str) -> ManagedServer | None:
        """The server that the target's provider runs in place of a service's containers, if it does."""
        if key not in self.settings.managed:
            return None
        return self.host.server(key) if self.host else stand_in(_ANY_PORT)

    def managed_kafka(self, topics: Sequence[ManagedTopic], users: Sequence[ManagedUser]) -> ManagedContent:
        """Make topics and users of a managed Kafka cluster."""
        if self.host is None:
            return ManagedContent(passwords={u.name: pulumi.Output.secret("") for u in users}, ready=[])
        return self.host.kafka(topics, users)

    def managed_store(
        self, buckets: Sequence[ManagedBucket], users: Sequence[ManagedStoreUser]
    ) -> ManagedStore:
        """Make buckets and users' keys of a managed object store."""
        if self.host is None:
            keys = {u.name: AccessKey(id=u.name, secret=pulumi.Output.secret("")) for u in users}
            return ManagedStore(host="managed.invalid", region="any", keys=keys, ready=[])
        return self.host.store(buckets, users)

    def trusted(self, key: str) -> pulumi.Output[str]:
        """CAs that a service's containers verify servers with: the platform's, then those of managed ones."""
        uses = sorted({need.service for need in needs_of(self.settings, key)})
        servers = [server for name in uses if (server := self.managed(name)) is not None]
        own = self.authority.certificate
        if not servers:
            return own
        return pulumi.Output.all(own, *(server.ca_certificate for server in servers)).apply(
            lambda found: "".join(f"{text.strip()}\n" for text in found)
        )

    # -- outputs

    def export(self) -> None:
        """Stack outputs: ``urls``, ``credentials``, ``connections``, ``ca_certificate``, ``host`` if made."""
        credentials: dict[str, Any] = {"users": {name: c.password for name, c in self.users.items()}}
        connections: dict[str, Any] = {}
        for key, service in self._services.items():
            if own := service.credential_outputs():
                credentials[key] = own
            if offered := service.connections():
                connections[key] = offered
        if self.host is not None:
            pulumi.export("host", self.host.outputs())
        pulumi.export("urls", self.edge.urls())
        pulumi.export("credentials", pulumi.Output.secret(credentials))
        pulumi.export("connections", pulumi.Output.secret(connections))
        pulumi.export("ca_certificate", self.authority.certificate)
