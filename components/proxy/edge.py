"""The edge: portal and proxy of a platform."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pulumi

from components.options import child_opts
from components.proxy import acme, nginx, portal, traefik
from components.proxy.files import Material
from components.proxy.sites import PORTAL, Site, sites
from components.service import PROXY, Published
from components.settings import TlsMode
from components.targets import Scope
from components.workload import Workload

if TYPE_CHECKING:
    from components.platform import Platform


class Edge(pulumi.ComponentResource):
    """Publishes every route of ``published`` at ``https://<host>.<domain>``, and the portal at the domain.

    nginx or Traefik serves the same sites alike. Both reach only the services they publish, and only the
    proxy has ports on the host. It starts without waiting for the services: a site answers 502 until its
    service is there.
    """

    def __init__(
        self,
        platform: Platform,
        published: Sequence[Published],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__("millrace:proxy:Edge", "edge", None, opts)
        self._platform = platform
        self._settings = platform.settings
        self.sites = sites([*published, portal.published(self._settings)], self._settings)
        self._deploy(portal.workload(self.sites, self._settings), key=PORTAL, links=[(PROXY, PORTAL)])
        services = sorted({site.service for site in self.sites})
        links = [(PROXY, service) for service in services]
        material = self._material()
        if self._settings.proxy.engine == "traefik":
            self._deploy(traefik.workload(self.sites, self._settings, material), links=links)
        elif self._settings.tls.mode is TlsMode.LETSENCRYPT:
            responder = f"{PROXY}-{acme.NAME}:{acme.CHALLENGE_PORT}"
            proxy = self._deploy(
                nginx.workload(self.sites, self._settings, material, acme=responder), links=links
            )
            # After the proxy, which has to be there to pass the first challenge on.
            self._deploy(acme.workload(self.sites, self._settings), after=proxy)
        else:
            self._deploy(nginx.workload(self.sites, self._settings, material), links=links)
        self.register_outputs({})

    def urls(self) -> dict[str, dict[str, str]]:
        """Stack output ``urls``."""
        return urls(self.sites)

    def _deploy(
        self,
        workload: Workload,
        *,
        key: str = PROXY,
        links: Sequence[tuple[str, str]] = (),
        after: Sequence[pulumi.Resource] = (),
    ) -> Sequence[pulumi.Resource]:
        own = self._settings.proxy
        scope = Scope(
            key=key,
            hostname=key,
            parent=self,
            links=links,
            source=own.images or self._settings.images,
            # The exact image one may give is that of the engine.
            image=own.image if workload.image == own.engine and key == PROXY else None,
        )
        return self._platform.target.deploy(scope, workload, after).ready

    def _material(self) -> Material:
        tls = self._settings.tls
        certificate: pulumi.Input[str]
        if tls.mode is TlsMode.PROVIDED and tls.certificate and tls.key:
            certificate = Path(tls.certificate).expanduser().read_text()
            key = pulumi.Output.secret(Path(tls.key).expanduser().read_text())
        else:
            domain = self._settings.domain
            own = self._platform.new_certificate(
                "proxy-server",
                common_name=domain,
                names=[domain, f"*.{domain}"],
                client=False,
                opts=child_opts(self),
            )
            certificate, key = own.certificate, own.key
        return Material(
            certificate=certificate,
            key=key,
            ca=self._platform.authority.certificate,
            hashes={name: user.bcrypt_hash for name, user in self._platform.users.items()},
        )


def urls(all_sites: Sequence[Site]) -> dict[str, dict[str, str]]:
    """For each listed site its address, who may open it, and what it is for, by host name."""
    return {
        site.name: {
            "url": site.url,
            "access": site.access.value,
            "title": site.title,
            "purpose": site.purpose,
            "group": site.group.value,
        }
        for site in all_sites
        if site.listed
    }
