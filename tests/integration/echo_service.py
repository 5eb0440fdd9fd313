"""A service for tests alone: it answers with the request headers that reached it.

Tests put this file into ``components/services/`` of a stack's own copy of the project: nothing else has to
know of it. It runs in the proxy's nginx image.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from components.proxy.nginx import UID, http_probe
from components.service import Service
from components.settings import Int, MiB, ServiceSettings
from components.workload import Access, Endpoint, File, Route, Scheme, Workload

_CONFIG = "/etc/millrace/echo.conf"
_PORT = 8000

# Host name, level, whether it has a login of its own, limit of bodies in MiB.
_ROUTES = (
    ("echo", Access.PUBLIC, False, 16),
    ("echo-user", Access.USER, False, 16),
    ("echo-engineer", Access.ENGINEER, False, 1),
    ("echo-admin", Access.ADMIN, False, 16),
    ("echo-own", Access.PUBLIC, True, 16),
)
# An application behind CGI sees a header's underscores and dashes as the same; so do nginx's variables.
_SHOWN = (
    "Host", "Authorization", "X-Forwarded-User", "X-Forwarded-Email", "X-Remote-User", "X-Auth-Request-User",
    "X-Webauth-User", "Remote-User", "Remote-Groups", "X-Forwarded-For", "X-Forwarded-Proto",
    "X-Forwarded-Host", "X-Forwarded-Port", "X-Real-IP", "Forwarded", "Proxy", "X-Original-Url",
)  # fmt: skip


class EchoSettings(ServiceSettings):
    """An HTTP server that shows what it was asked."""

    memory_mib: MiB = 32
    """Memory limit, in MiB."""
    sites: Annotated[Int, Field(ge=1, le=len(_ROUTES))] = len(_ROUTES)
    """How many of the sites it has."""


class Echo(Service):
    """An HTTP server that shows what it was asked, at a host name for each access level."""

    key = "echo"
    settings_model = EchoSettings
    settings: EchoSettings

    def build(self) -> None:
        """One container with a port for each route."""
        self.deploy(
            Workload(
                name=self.key,
                image="nginx",
                command=("nginx", "-e", "stderr", "-c", _CONFIG, "-g", "daemon off;"),
                user=UID,
                files=(File(path=_CONFIG, content=_config()),),
                endpoints=tuple(
                    Endpoint(
                        name=host,
                        port=_PORT + number,
                        scheme=Scheme.HTTP,
                        route=Route(
                            host=host,
                            access=access,
                            title=host,
                            purpose=f"Shows requests, route {number}",
                            own_login=own_login,
                            body_limit_mib=limit,
                        ),
                    )
                    for number, (host, access, own_login, limit) in enumerate(_ROUTES[: self.settings.sites])
                ),
                probe=http_probe(_PORT),
                limits=self.settings.limits,
            )
        )


def _config() -> str:
    lines = "".join(f"{name}: $http_{name.lower().replace('-', '_')}\\n" for name in _SHOWN)
    listen = "".join(f"listen {_PORT + number}; " for number in range(len(_ROUTES)))
    # Some of the headers that an application sends and the proxy decides on.
    return f"""
worker_processes 1;
pid /tmp/nginx.pid;
error_log stderr warn;
events {{ worker_connections 64; }}
http {{
    underscores_in_headers on;
    client_max_body_size 0;
    client_body_temp_path /tmp/body;
    proxy_temp_path /tmp/proxy;
    fastcgi_temp_path /tmp/fastcgi;
    uwsgi_temp_path /tmp/uwsgi;
    scgi_temp_path /tmp/scgi;
    access_log off;
    default_type text/plain;
    add_header X-Frame-Options DENY always;
    add_header X-Powered-By "Echo/1.2.3" always;
    add_header Strict-Transport-Security "max-age=1" always;
    server {{
        {listen}
        location / {{ return 200 "Request: $request_method $request_uri\\n{lines}"; }}
        # Answers once it has all of the body; the others do not wait for one.
        location /read {{ proxy_pass http://127.0.0.1:{_PORT}/; }}
        location /missing {{ return 404 "missing\\n"; }}
    }}
}}
"""
