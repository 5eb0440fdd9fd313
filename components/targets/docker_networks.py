"""Networks of the Docker target: one for each pair of services, so that none reaches more than it needs."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import pulumi

from components.options import child_opts
from components.targets import Scope
from components.targets.docker_resources import Network

PREFIX_BITS = 27
"""Size of a network: 30 addresses are enough for the replicas on both sides of a pair."""


class DockerNetworks:
    """Makes each network once, when the first of its members is deployed.

    Internal networks have no way out, but for those to a service that runs elsewhere (``managed``). A service
    with a published port or with egress also gets a network of its own that has one; without egress it has no
    address translation, so that replies leave and nothing else does.
    """

    def __init__(
        self,
        *,
        parent: pulumi.Resource,
        millrace_provider: pulumi.ProviderResource,
        prefix: str,
        pool: str,
        labels: Mapping[str, pulumi.Input[str]],
        managed: Collection[str] = (),
    ) -> None:
        self._managed = {_dns(key) for key in managed}
        self._parent = parent
        self._millrace = millrace_provider
        self._prefix = prefix
        self._pool = pool
        self._labels = labels
        self._made: dict[str, Network] = {}

    def of(self, scope: Scope, *, outside: bool, egress: bool) -> Sequence[pulumi.Input[str]]:
        """Names of all networks a container of this service joins."""
        names = [scope.hostname]
        # Two hyphens, which no service has in its name: a pair never looks like a third service.
        names += [f"{_dns(consumer)}--{_dns(provider)}" for consumer, provider in scope.links]
        networks = [self._between(name) for name in names]
        if outside:
            kind = "egress" if egress else "publish"
            networks.append(self._network(f"net-{scope.hostname}--{kind}", internal=False, masquerade=egress))
        return [network.name for network in networks]

    def _between(self, name: str) -> Network:
        # Its provider is outside: for who consumes it, the network is the way there.
        elsewhere = name.partition("--")[2] in self._managed
        return self._network(f"net-{name}", internal=not elsewhere, masquerade=elsewhere)

    def _network(self, name: str, *, internal: bool, masquerade: bool = False) -> Network:
        if name not in self._made:
            self._made[name] = Network(
                name,
                network_name=f"{self._prefix}-{name.removeprefix('net-')}",
                pool=self._pool,
                prefix=PREFIX_BITS,
                internal=internal,
                masquerade=masquerade,
                labels=self._labels,
                opts=child_opts(self._parent, provider=self._millrace, delete_before_replace=True),
            )
        return self._made[name]


def _dns(key: str) -> str:
    return key.replace("_", "-")
