"""The portal: a static page at the domain itself that lists what the platform offers."""

from __future__ import annotations

from collections.abc import Sequence

from components.proxy.nginx import UID, http_probe
from components.proxy.sites import HTTP_PORT, PORTAL, Site
from components.service import Published
from components.settings import PlatformSettings
from components.templates import render
from components.workload import Access, Endpoint, File, Limits, Route, Scheme, Workload

_CONFIG = "/etc/millrace/portal/nginx.conf"
_ROOT = "/etc/millrace/portal/www"

_AUDIENCE = {
    Access.PUBLIC: "everyone",
    Access.USER: "every user",
    Access.ENGINEER: "engineers and administrators",
    Access.ADMIN: "administrators",
}


def published(settings: PlatformSettings) -> Published:
    """The portal's own route."""
    route = Route(
        host="",
        access=settings.proxy.portal_access,
        title="Portal",
        purpose="All services of this platform at a glance",
    )
    endpoint = Endpoint(name="http", port=HTTP_PORT, scheme=Scheme.HTTP, route=route)
    return Published(service=PORTAL, host=PORTAL, endpoint=endpoint)


def page(sites: Sequence[Site], settings: PlatformSettings) -> str:
    """The page as HTML; whatever comes from settings or services is escaped."""
    entries = [
        {
            "title": site.title,
            "purpose": site.purpose,
            "url": site.url,
            "address": site.url.removeprefix("https://").rstrip("/"),
            "access": str(site.access),
            "audience": "its own login" if site.own_login else _AUDIENCE[site.access],
            "own_login": site.own_login,
        }
        for site in sites
        if site.listed and site.service != PORTAL
    ]
    return render("portal/index.html.j2", domain=settings.domain, entries=entries)


def workload(sites: Sequence[Site], settings: PlatformSettings) -> Workload:
    """A web server with the page and its style sheet."""
    return Workload(
        name=PORTAL,
        image="nginx",
        command=("nginx", "-e", "stderr", "-c", _CONFIG, "-g", "daemon off;"),
        user=UID,
        probe=http_probe(HTTP_PORT),
        limits=Limits(memory_mib=32, cpus=0.25),
        files=(
            File(path=_CONFIG, content=render("portal/nginx.conf.j2", root=_ROOT, port=HTTP_PORT)),
            File(path=f"{_ROOT}/index.html", content=page(sites, settings)),
            File(path=f"{_ROOT}/portal.css", content=render("portal/portal.css")),
        ),
        endpoints=(published(settings).endpoint,),
        stop_signal="SIGQUIT",
        stop_grace_s=5,
    )
