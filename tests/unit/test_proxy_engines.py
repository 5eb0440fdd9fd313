"""What nginx and Traefik are configured to do; both from the same sites."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from test_proxy import LETSENCRYPT, PUBLISHED, all_sites, publish, route, settings

from components.proxy import nginx, sites, traefik

# -- nginx


def server(config: str, name: str) -> str:
    """The server block of a host name."""
    for block in config.split("\n    server {")[1:]:
        if f"server_name {name};" in block:
            return block
    raise AssertionError(f"no server {name}")


def nginx_config(**more: Any) -> str:
    platform = settings(**more)
    return nginx.config(all_sites(platform), platform)


@pytest.mark.parametrize(
    ("host", "level", "limit", "upstream"),
    [
        ("status.data.localhost", None, 16, "http://status:9000"),
        ("notebooks.data.localhost", "user", 64, "http://notebooks:9000"),
        ("pipelines.data.localhost", "engineer", 16, "http://pipelines:9000"),
        ("console.data.localhost", "admin", 0, "https://store:9001"),
        ("s3.data.localhost", None, 0, "https://store:9000"),
        ("data.localhost", "user", 16, "http://portal:8080"),
    ],
)
class TestSite:
    def test_nginx(self, host: str, level: str | None, limit: int, upstream: str) -> None:
        block = server(nginx_config(), host)
        scheme, address = upstream.split("://")
        assert f"set $upstream {address};" in block
        assert f"proxy_pass {scheme}://$upstream;" in block
        assert f"client_max_body_size {limit}m;" in block
        assert ("proxy_ssl_name store;" in block) == (scheme == "https")
        assert ("auth_request /.millrace/login;" in block) == (level is not None)
        if level:
            assert re.search(rf"proxy_pass http://127\.0\.0\.1:\d+/{level};", block)
            assert f'proxy_cache_key "{level} $http_authorization";' in block
        user = "$remote_user" if level else '""'
        assert f"proxy_set_header X-Forwarded-User {user};" in block
        dropped = 'proxy_set_header Authorization "";' in block
        assert dropped == (not host.startswith("s3."))
        assert 'proxy_set_header Remote-User "";' in block

    def test_traefik(self, host: str, level: str | None, limit: int, upstream: str) -> None:
        http = traefik_routes()["http"]
        name = host.removesuffix("data.localhost").rstrip(".") or "portal"
        router = http["routers"][f"site-{name}"]
        assert router["rule"] == f"Host(`{host}`)"
        assert router["entryPoints"] == ["websecure"]
        service = http["services"][router["service"]]["loadBalancer"]
        assert service == {"serversTransport": "upstream", "servers": [{"url": upstream}]}
        login = [m for m in router["middlewares"] if m.startswith("login-")]
        assert login == ([f"login-{level}"] if level else [])
        assert router["middlewares"][0] == "common"
        assert ("no-login" in router["middlewares"]) == (not level and name != "s3")
        limited = http["routers"].get(f"limited-{name}")
        assert (limited is None) == (limit == 0)
        if limited:
            assert limited["middlewares"] == [*router["middlewares"], f"limit-{limit}"]
            assert limited["rule"].startswith(f"{router['rule']} && (")
            middleware = http["middlewares"][f"limit-{limit}"]["buffering"]
            assert middleware == {"maxRequestBodyBytes": limit * 1024 * 1024}


def test_nginx_redirects_to_the_public_port() -> None:
    assert "return 308 https://$host$request_uri;" in nginx_config()
    assert "return 308 https://$host:8443$request_uri;" in nginx_config(proxy={"https_port": 8443})


def test_nginx_checks_passwords_after_the_rewrite_phase() -> None:
    """With ``return`` in place of ``try_files`` every password would be right."""
    config = nginx_config()
    for level in ("user", "engineer", "admin"):
        block = re.search(rf"location = /{level} \{{(.*?)\}}", config, re.DOTALL)
        assert block is not None
        assert f"auth_basic_user_file /run/millrace/htpasswd/{level};" in block[1]
        assert not re.search(r"^\s*return", block[1], re.MULTILINE)


def test_nginx_without_any_login() -> None:
    platform = settings(proxy={"portal_access": "public"})
    config = nginx.config(all_sites(platform, PUBLISHED[:1]), platform)
    assert "auth_basic" not in config
    assert "proxy_cache" not in config


def test_nginx_logs_neither_queries_nor_passwords() -> None:
    (log_format,) = re.findall(r"log_format access (.*?);\n", nginx_config(), re.DOTALL)
    for variable in ("$request_uri", "$args", "$query_string", "$request ", "$http_authorization", "$uri"):
        assert variable not in log_format


# -- Traefik


def traefik_routes(**more: Any) -> dict[str, Any]:
    platform = settings(proxy={"engine": "traefik"}, **more)
    loaded: dict[str, Any] = yaml.safe_load(traefik.routes(all_sites(platform), platform, {}))
    return loaded


def traefik_config(**more: Any) -> dict[str, Any]:
    platform = settings(proxy={"engine": "traefik"}, **more)
    loaded: dict[str, Any] = yaml.safe_load(traefik.config(all_sites(platform), platform))
    return loaded


def test_traefik_logins() -> None:
    middlewares = traefik_routes()["http"]["middlewares"]
    for level in ("user", "engineer", "admin"):
        assert middlewares[f"login-{level}"]["basicAuth"] == {
            "usersFile": f"/run/millrace/htpasswd/{level}",
            "realm": f"Millrace ({level})",
            "headerField": "X-Forwarded-User",
            "removeHeader": True,
        }


def test_traefik_drops_every_spelling() -> None:
    dropped = traefik_routes()["http"]["middlewares"]["common"]["headers"]["customRequestHeaders"]
    assert {"X-Forwarded-User", "X_Forwarded_User", "X-Forwarded_User", "Remote_User"} <= set(dropped)
    assert set(dropped.values()) == {""}


def test_both_engines_send_the_same_headers() -> None:
    for tls in ({"mode": "self-signed"}, LETSENCRYPT):
        wanted = sites.security_headers(settings(tls=tls).tls.mode)
        sent = re.findall(r'^    add_header (\S+) "(.*)" always;$', nginx_config(tls=tls), re.MULTILINE)
        assert dict(sent) == wanted
        response = traefik_routes(tls=tls)["http"]["middlewares"]["common"]["headers"][
            "customResponseHeaders"
        ]
        assert {name: value for name, value in response.items() if value} == wanted
        # What the other engine does by itself: nginx replaces Server.
        hidden = set(re.findall(r"proxy_hide_header (\S+);", nginx_config(tls=tls)))
        assert hidden == set(response) - {"Server"}


def test_traefik_certificates() -> None:
    assert "certResolver" not in traefik_config()["entryPoints"]["websecure"]["http"]["tls"]
    assert traefik_routes()["tls"]["stores"]["default"]["defaultCertificate"]["keyFile"].endswith("tls.key")
    tls = traefik_config(tls=LETSENCRYPT)
    entry = tls["entryPoints"]["websecure"]["http"]["tls"]
    assert entry["certResolver"] == "acme"
    assert entry["domains"][0]["main"] == "data.localhost"
    assert len(entry["domains"][0]["sans"]) == len(PUBLISHED)
    # A default certificate for the same names would keep Traefik from asking for one.
    assert "stores" not in traefik_routes(tls=LETSENCRYPT)["tls"]
    resolver = tls["certificatesResolvers"]["acme"]["acme"]
    assert resolver["httpChallenge"] == {"entryPoint": "web"}
    assert resolver["storage"] == "/certificates/acme.json"


def test_traefik_logs_no_request_line() -> None:
    fields = traefik_config()["accessLog"]["fields"]
    assert fields["defaultMode"] == fields["headers"]["defaultMode"] == "drop"
    assert not {"RequestPath", "RequestLine"} & set(fields["names"])


@pytest.mark.parametrize("limit", [0, 1, 9, 10, 99, 1024, 16777216, 19999999, 99999999])
def test_more_than(limit: int) -> None:
    pattern = re.compile(f"^0*({traefik.more_than(limit)})$")
    near = range(max(0, limit - 120), limit + 120)
    for number in [*near, *(10**digits for digits in range(15)), limit * 10, limit // 10]:
        assert bool(pattern.match(str(number))) == (number > limit), number


def test_names_are_unique_for_traefik() -> None:
    """A route host that looks like a generated name must not replace another router."""
    platform = settings()
    hosts = ("x", "x-limited", "limited-x", "site-x", "to-https", "unknown-host")
    extra = [publish("a", route(host)) for host in hosts]
    found = traefik.routes(all_sites(platform, extra), platform, {})
    routers = re.findall(r"^    (\S+):\n      entryPoints", found, re.MULTILINE)
    assert len(routers) == len(set(routers))
