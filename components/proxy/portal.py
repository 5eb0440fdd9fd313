"""The portal: a static page at the domain itself that lists what the platform offers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from components.proxy.nginx import UID, http_probe
from components.proxy.sites import HTTP_PORT, PORTAL, Site
from components.service import Published
from components.settings import PlatformSettings
from components.templates import render
from components.workload import Access, Endpoint, File, Group, Limits, Route, Scheme, Workload

_CONFIG = "/etc/millrace/portal/nginx.conf"
_ROOT = "/etc/millrace/portal/www"


@dataclass(frozen=True, kw_only=True)
class _Level:
    """How the page names who may open something; ``style`` is a class of the style sheet."""

    name: str
    style: str
    audience: str


_LEVELS = {
    Access.PUBLIC: _Level(name="public", style="public", audience="everyone, without a password"),
    Access.USER: _Level(name="user", style="user", audience="everyone with an account"),
    Access.ENGINEER: _Level(name="engineer", style="engineer", audience="engineers and administrators"),
    Access.ADMIN: _Level(name="admin", style="admin", audience="administrators"),
}
_OWN_LOGIN = _Level(name="own login", style="own", audience="accounts of the service itself")


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
    shown = [site for site in sites if site.listed and site.service != PORTAL]
    groups = [
        {
            "id": group.value,
            "name": group.value.capitalize(),
            "entries": [_entry(site) for site in shown if site.group is group],
        }
        for group in Group
        if any(site.group is group for site in shown)
    ]
    used = {_level(site) for site in shown}
    legend = [level for level in (*_LEVELS.values(), _OWN_LOGIN) if level in used]
    return render("portal/index.html.j2", domain=settings.domain, groups=groups, legend=legend)


def _entry(site: Site) -> dict[str, object]:
    return {
        "title": site.title,
        "purpose": site.purpose,
        "url": site.url,
        "address": site.url.removeprefix("https://").rstrip("/"),
        "level": _level(site),
    }


def _level(site: Site) -> _Level:
    return _OWN_LOGIN if site.own_login else _LEVELS[site.access]


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
