"""The proxy's workload with nginx."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from components.proxy.files import (
    TLS_FOLDER,
    Material,
    header_files,
    headers_path,
    login_files,
    tls_files,
)
from components.proxy.sites import (
    CONNECT_TIMEOUT_S,
    DROPPED_HEADERS,
    HEALTH_PORT,
    HIDDEN_HEADERS,
    HTTP_PORT,
    HTTPS_PORT,
    READ_TIMEOUT_S,
    USER_HEADER,
    Site,
    htpasswd_path,
    levels,
    realm,
    security_headers,
)
from components.settings import PlatformSettings
from components.templates import render
from components.workload import Endpoint, File, Probe, Scheme, Volume, Workload

UID = 101
"""Uid of nginx in the official image and in the built one."""

CONFIG = "/etc/millrace/nginx.conf"
_START = "/etc/millrace/start-nginx"
_LOGIN_PORT = 8082

# The container engine's own resolver, the same in every network of its making.
_RESOLVER = "127.0.0.11"

# Certificate and key in one file: they cannot fall apart while one of them is being replaced.
_LIVE_CERTIFICATE = "/tmp/tls/proxy.pem"
CERTIFICATES = Volume(name="certificates", path="/certificates", data=False)
"""Where the ACME client leaves its certificates, in :data:`ISSUED`. They can be had again: protected, the
volume would fail every `up` after a change of engine or mode."""
ISSUED = "current.pem"

# Mozilla's intermediate set without DHE; nginx negotiates TLS 1.3's own by itself.
CIPHERS = (
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-CHACHA20-POLY1305",
)


def http_probe(port: int, *, deadline_s: int = 120) -> Probe:
    """A request that has to be answered with 2xx; the images have bash but no HTTP client in common."""
    script = (
        f"exec 3<>/dev/tcp/127.0.0.1/{port} && printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3 && "
        "read -r _ status _ <&3 && [[ $status == 2* ]]"
    )
    return Probe(command=("bash", "-c", script), deadline_s=deadline_s)


def config(sites: Sequence[Site], settings: PlatformSettings, *, acme: str | None = None) -> str:
    """nginx.conf. ``acme`` is host:port of the ACME client that answers challenges."""
    live = {"certificate": _LIVE_CERTIFICATE, "key": _LIVE_CERTIFICATE}
    given = {"certificate": f"{TLS_FOLDER}/tls.crt", "key": f"{TLS_FOLDER}/tls.key"}
    return render(
        "proxy/nginx.conf.j2",
        **(live if acme else given),
        ca=f"{TLS_FOLDER}/ca.crt",
        sites=sites,
        headers_path=headers_path,
        replaced={site.name: {name.lower() for name in site.headers} for site in sites},
        levels=[
            {"name": level, "realm": realm(level), "file": htpasswd_path(level)} for level in levels(sites)
        ],
        acme=acme,
        workers=max(2, math.ceil(settings.proxy.cpus)),
        ciphers=CIPHERS,
        resolver=_RESOLVER,
        hidden=[h for h in HIDDEN_HEADERS if h not in security_headers(settings.tls.mode)]
        + list(security_headers(settings.tls.mode)),
        security=security_headers(settings.tls.mode),
        dropped=DROPPED_HEADERS,
        user_header=USER_HEADER,
        connect_timeout_s=CONNECT_TIMEOUT_S,
        read_timeout_s=READ_TIMEOUT_S,
        http_port=HTTP_PORT,
        https_port=HTTPS_PORT,
        health_port=HEALTH_PORT,
        login_port=_LOGIN_PORT,
        public_port=settings.proxy.https_port,
        port_suffix=settings.port_suffix,
    )


def proxy_endpoints(settings: PlatformSettings) -> tuple[Endpoint, ...]:
    """The two ports of the platform that are open to all."""
    http, https = settings.proxy.http_port, settings.proxy.https_port
    return (
        Endpoint(name="http", port=HTTP_PORT, scheme=Scheme.HTTP, public_port=http),
        Endpoint(name="https", port=HTTPS_PORT, scheme=Scheme.HTTPS, public_port=https),
    )


def workload(
    sites: Sequence[Site], settings: PlatformSettings, material: Material, *, acme: str | None = None
) -> Workload:
    """The proxy's workload; with ``acme`` it takes its certificate from the volume once one is there."""
    start: tuple[str, ...] = ("nginx", "-e", "stderr", "-c", CONFIG, "-g", "daemon off;")
    files = [
        File(path=CONFIG, content=config(sites, settings, acme=acme)),
        *tls_files(material),
        *login_files(sites, settings, material),
        *header_files(sites),
    ]
    if acme:
        files.append(File(path=_START, content=render("proxy/start-nginx.sh"), executable=True))
        start = ("sh", _START, f"{CERTIFICATES.path}/{ISSUED}", _LIVE_CERTIFICATE, *start)
    return Workload(
        name="proxy",
        image="nginx",
        command=start,
        user=UID,
        probe=http_probe(HEALTH_PORT),
        limits=settings.proxy.limits,
        files=tuple(files),
        volumes=(replace(CERTIFICATES, read_only=True),) if acme else (),
        endpoints=proxy_endpoints(settings),
        # Requests in flight are answered; SIGTERM would cut them off.
        stop_signal="SIGQUIT",
        stop_grace_s=15,
    )
