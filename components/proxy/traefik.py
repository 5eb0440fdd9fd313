"""The proxy's workload with Traefik."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pulumi

from components.proxy.acme import domains
from components.proxy.files import Material, login_files, tls_files
from components.proxy.nginx import proxy_endpoints
from components.proxy.sites import (
    CONNECT_TIMEOUT_S,
    DROPPED_HEADERS,
    HEALTH_PORT,
    HIDDEN_HEADERS,
    HTTP_PORT,
    HTTPS_PORT,
    PORTAL,
    READ_TIMEOUT_S,
    USER_HEADER,
    Site,
    htpasswd_path,
    levels,
    realm,
    security_headers,
)
from components.service import TLS_FOLDER
from components.settings import PlatformSettings, TlsMode
from components.templates import render
from components.workload import File, Probe, Volume, Workload

UID = 65532
"""Any number but root's: the official image has no account of its own."""

CONFIG = "/etc/millrace/traefik.yaml"
ROUTES = "/etc/millrace/traefik-routes.yaml"
# Account and certificates of the ACME server: its limits make them worth keeping from one container to the
# next. They can be had again, so they are no data to protect: a protected volume would fail every `up` after
# a change of engine or mode.
_STATE = Volume(name="acme", path="/certificates", data=False)

# The same set as nginx's, by the names of Go; TLS 1.3's own are fixed.
_CIPHERS = (
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305",
)
_MIB = 1024 * 1024
# Part of the heap's limit, so that the collector works harder before the container's own limit ends it.
_HEAP_SHARE = 0.75


def config(sites: Sequence[Site], settings: PlatformSettings) -> str:
    """Traefik's static configuration."""
    tls = settings.tls
    acme = {"email": tls.email, "server": tls.server, "storage": f"{_STATE.path}/acme.json"}
    return render(
        "proxy/traefik.yaml.j2",
        acme=acme if tls.mode is TlsMode.LETSENCRYPT else None,
        domains=domains(sites),
        routes=ROUTES,
        read_timeout_s=READ_TIMEOUT_S,
        http_port=HTTP_PORT,
        https_port=HTTPS_PORT,
        health_port=HEALTH_PORT,
    )


def routes(
    sites: Sequence[Site], settings: PlatformSettings, headers: Mapping[str, Mapping[str, str]]
) -> str:
    """Traefik's dynamic configuration: sites, logins, headers, limits.

    ``headers`` are the values of the sites' own request headers, by site.
    """
    security = security_headers(settings.tls.mode)
    return render(
        "proxy/traefik-routes.yaml.j2",
        acme=settings.tls.mode is TlsMode.LETSENCRYPT,
        certificate=f"{TLS_FOLDER}/tls.crt",
        key=f"{TLS_FOLDER}/tls.key",
        ca=f"{TLS_FOLDER}/ca.crt",
        ciphers=_CIPHERS,
        security=security,
        hidden=["Server", *(name for name in HIDDEN_HEADERS if name not in security)],
        dropped=list(_spellings((USER_HEADER, "X-Forwarded-Server", *DROPPED_HEADERS))),
        user_header=USER_HEADER,
        levels=[
            {"name": level, "realm": realm(level), "file": htpasswd_path(level)} for level in levels(sites)
        ],
        headers={site: dict(sorted(values.items())) for site, values in headers.items()},
        limits=sorted({site.body_limit_mib for site in sites} - {0}),
        sites=[_router(site) for site in sites],
        portal=PORTAL,
        public_port=settings.proxy.https_port,
        connect_timeout_s=CONNECT_TIMEOUT_S,
        read_timeout_s=READ_TIMEOUT_S,
    )


def workload(sites: Sequence[Site], settings: PlatformSettings, material: Material) -> Workload:
    """The proxy's workload; with tls mode letsencrypt Traefik itself is the ACME client."""
    acme = settings.tls.mode is TlsMode.LETSENCRYPT
    command = ("traefik", f"--configFile={CONFIG}")
    return Workload(
        name="proxy",
        image="traefik",
        command=command,
        user=UID,
        probe=Probe(command=("traefik", "healthcheck", f"--configFile={CONFIG}"), deadline_s=120),
        limits=settings.proxy.limits,
        env={"GOMEMLIMIT": f"{int(settings.proxy.memory_mib * _HEAP_SHARE)}MiB"},
        files=(
            File(path=CONFIG, content=config(sites, settings)),
            _routes_file(sites, settings),
            *tls_files(material),
            *login_files(sites, settings, material),
        ),
        volumes=(_STATE,) if acme else (),
        endpoints=proxy_endpoints(settings),
        egress=acme,
        stop_grace_s=15,
    )


def _routes_file(sites: Sequence[Site], settings: PlatformSettings) -> File:
    own = {site.name: site.headers for site in sites if site.headers}
    if not own:
        return File(path=ROUTES, content=routes(sites, settings, {}))
    known = {name: pulumi.Output.all(**headers) for name, headers in own.items()}
    text = pulumi.Output.all(**known).apply(lambda values: routes(sites, settings, values))
    return File(path=ROUTES, content=pulumi.Output.secret(text), secret=True)


def _router(site: Site) -> dict[str, Any]:
    middlewares = ["common"]
    if site.login is not None:
        middlewares.append(f"login-{site.login}")
    elif not site.own_login:
        middlewares.append("no-login")
    if site.headers:
        middlewares.append(f"headers-{site.name}")
    scheme = "https" if site.upstream_tls else "http"
    return {
        "name": site.name,
        "service": site.service,
        "access": site.access,
        "fqdn": site.fqdn,
        "middlewares": middlewares,
        "body_limit_mib": site.body_limit_mib,
        "limited_rule": limited_rule(site.fqdn, site.body_limit_mib * _MIB),
        "upstream_url": f"{scheme}://{site.upstream_host}:{site.upstream_port}",
    }


def limited_rule(fqdn: str, limit: int) -> str:
    """Rule for requests to ``fqdn`` with a body of more than ``limit`` bytes, or of unknown size."""
    too_long = f"HeaderRegexp(`Content-Length`, `^0*({more_than(limit)})$`)"
    unknown = "!HeaderRegexp(`Content-Length`, `.`)"
    bodyless = " && ".join(f"!Method(`{method}`)" for method in ("GET", "HEAD", "OPTIONS"))
    return f"Host(`{fqdn}`) && ({too_long} || ({unknown} && {bodyless}))"


def more_than(limit: int) -> str:
    """A regular expression for the decimal numbers above ``limit``, without leading zeros."""
    digits = str(limit)
    found = [f"[1-9][0-9]{{{len(digits)},}}"]
    for index, digit in enumerate(digits):
        if digit != "9":
            rest = len(digits) - index - 1
            found.append(f"{digits[:index]}[{int(digit) + 1}-9]" + (f"[0-9]{{{rest}}}" if rest else ""))
    return "|".join(found)


def _spellings(names: Sequence[str]) -> Iterator[str]:
    # Applications behind CGI or WSGI cannot tell the two apart; Traefik, other than nginx, passes both on.
    for name in names:
        parts = name.split("-")
        for separators in itertools.product("-_", repeat=len(parts) - 1):
            yield parts[0] + "".join(s + p for s, p in zip(separators, parts[1:], strict=True))
