"""What the proxy serves, in terms of neither engine: sites, who may open them, headers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import pulumi

from components.service import Published
from components.settings import PlatformSettings, TlsMode, User
from components.workload import Access, Group, Scheme

PORTAL = "portal"
"""Service key and host name of the portal, which is served at the domain itself."""

HTTP_PORT = 8080
HTTPS_PORT = 8443
"""Ports inside the container: a non-root process may not bind those below 1024."""

HEALTH_PORT = 8081
"""Answers the probe, on the container's loopback only."""

CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 3600
"""How long an upstream may be silent: long queries and idle websockets, on both engines alike."""

# Applications behind a proxy trust one or another of these to name the user. Only the proxy may set them.
_IDENTITY_HEADERS = (
    "X-Forwarded-User",
    "X-Forwarded-Email",
    "X-Forwarded-Groups",
    "X-Forwarded-Preferred-Username",
    "X-Auth-Request-User",
    "X-Auth-Request-Email",
    "X-Remote-User",
    "X-Webauth-User",
    "Remote-User",
    "Remote-Groups",
    "Remote-Email",
    "Remote-Name",
)
USER_HEADER = "X-Forwarded-User"
"""Carries the name of the authenticated user to the upstream."""

# What else a client must not tell an upstream: other forms of the forwarding headers, CGI's HTTP_PROXY, and
# what it takes to talk past the proxy in unencrypted HTTP/2.
_SPOOFABLE_HEADERS = ("Forwarded", "Proxy", "X-Original-Url", "X-Rewrite-Url", "Http2-Settings")

DROPPED_HEADERS = tuple(h for h in _IDENTITY_HEADERS if h != USER_HEADER) + _SPOOFABLE_HEADERS
"""Request headers no upstream gets from a client. :data:`USER_HEADER` is always replaced or removed."""

# Files may not be empty, and Traefik 3.6 ends with a panic when nobody is in one. The name is not a valid
# one for a user, the hash is of the right form but nobody knows a password that gives it.
_NOBODY = "-:$2a$10$" + "." * 53 + "\n"

_HSTS = "max-age=31536000"


@dataclass(frozen=True, kw_only=True)
class Site:
    """One host name the proxy serves: a published route and where it leads."""

    service: str
    host: str
    fqdn: str
    upstream_host: str
    upstream_port: int
    upstream_tls: bool
    access: Access
    own_login: bool
    body_limit_mib: int
    title: str
    purpose: str
    listed: bool
    url: str
    group: Group
    headers: Mapping[str, pulumi.Input[str]] = field(default_factory=dict)
    """Request headers for the upstream; values may be secret."""

    @property
    def name(self) -> str:
        """A label that is unique among the sites."""
        return self.host or PORTAL

    @property
    def login(self) -> Access | None:
        """The level the proxy itself checks, or None when it lets everybody through."""
        return None if self.own_login or self.access is Access.PUBLIC else self.access


def sites(published: Iterable[Published], settings: PlatformSettings) -> list[Site]:
    """All sites in a stable order: by service, then by host name.

    Raises:
        ValueError: when two routes have the same host, an endpoint does not speak HTTP, or a published
            endpoint has no route; each is a mistake in a service, not in the settings.
    """
    found = [_site(entry, settings) for entry in published]
    counts = Counter(site.name for site in found)
    for site in found:
        # The portal goes by a name of its own, which no other may take.
        if counts[site.name] > 1:
            raise ValueError(f"more than one route is named {site.name}")
    return sorted(found, key=lambda site: (site.service, site.host))


def _site(entry: Published, settings: PlatformSettings) -> Site:
    endpoint, route = entry.endpoint, entry.endpoint.route
    if route is None:
        raise ValueError(f"{entry.service}: endpoint {endpoint.name} has no route")
    if endpoint.scheme not in (Scheme.HTTP, Scheme.HTTPS):
        raise ValueError(f"{entry.service}: endpoint {endpoint.name} has a route but does not speak HTTP")
    fqdn = f"{route.host}.{settings.domain}" if route.host else settings.domain
    return Site(
        service=entry.service,
        host=route.host,
        fqdn=fqdn,
        upstream_host=entry.host,
        upstream_port=endpoint.port,
        upstream_tls=endpoint.scheme is Scheme.HTTPS,
        access=route.access,
        own_login=route.own_login,
        body_limit_mib=route.body_limit_mib,
        title=route.title,
        purpose=route.purpose,
        listed=route.listed,
        group=route.group,
        headers=route.headers,
        url=f"{settings.public_url(route.host)}/",
    )


def members(users: Sequence[User], level: Access) -> list[str]:
    """Names of the users whose role may open what has this access level, in the settings' order."""
    return [user.name for user in users if user.role.access.rank >= level.rank]


def levels(all_sites: Iterable[Site]) -> list[Access]:
    """The access levels that the proxy has to check, lowest first."""
    return sorted({site.login for site in all_sites if site.login is not None}, key=lambda level: level.rank)


def htpasswd(hashes: Mapping[str, str], names: Sequence[str]) -> str:
    """An htpasswd file of these users; where there are none, one entry that no password opens."""
    return "".join(f"{name}:{hashes[name]}\n" for name in names) or _NOBODY


def htpasswd_path(level: Access) -> str:
    """Where the proxy finds the users of a level."""
    return f"/run/millrace/htpasswd/{level}"


def realm(level: Access) -> str:
    """What a browser shows when it asks for a password."""
    return f"Millrace ({level})"


def security_headers(mode: TlsMode) -> dict[str, str]:
    """Response headers of every site, errors included; an upstream's own ones of these names are replaced.

    Strict-Transport-Security is sent only with a certificate that browsers trust by themselves: with the
    platform's own CA it would keep a browser from opening the site at all until the CA is imported, and it
    would outlive the stack on names such as data.localhost. It does not include subdomains, since each site
    sends its own and the domain may have others elsewhere.
    """
    headers = {
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "SAMEORIGIN",
        # The full address stays within a site: addresses may carry signatures, as presigned ones of S3 do.
        "Referrer-Policy": "same-origin",
        "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    }
    return headers if mode is TlsMode.SELF_SIGNED else {"Strict-Transport-Security": _HSTS} | headers


HIDDEN_HEADERS = ("X-Powered-By", "Strict-Transport-Security")
"""Response headers of upstreams that no client gets (the proxy itself decides on the second)."""
