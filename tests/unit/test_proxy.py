"""The proxy's configuration for both engines, from the same sites."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pulumi
import pytest
import yaml

from components.proxy import acme, nginx, sites, traefik
from components.proxy.files import Material, login_files, tls_files
from components.proxy.portal import published as portal_route
from components.proxy.sites import Site
from components.service import Published
from components.settings import PlatformSettings, TlsMode
from components.workload import Access, Endpoint, File, Route, Scheme, Workload

USERS = [
    {"name": "una", "role": "user"},
    {"name": "eng", "role": "engineer"},
    {"name": "adm", "role": "admin"},
]
MATERIAL = Material(
    certificate="CERT", key="KEY", ca="CA", hashes={user["name"]: f"hash-of-{user['name']}" for user in USERS}
)
LETSENCRYPT = {"mode": "letsencrypt", "email": "ops@example.com"}


def settings(**more: Any) -> PlatformSettings:
    return PlatformSettings.model_validate({"domain": "data.localhost", "users": USERS} | more)


def route(host: str, access: Access = Access.USER, **more: Any) -> Route:
    return Route(host=host, access=access, title=host.title(), purpose=f"For {host}", **more)


def publish(service: str, given: Route, *, port: int = 9000, scheme: Scheme = Scheme.HTTP) -> Published:
    endpoint = Endpoint(name=given.host, port=port, scheme=scheme, route=given)
    return Published(service=service, host=service, endpoint=endpoint)


PUBLISHED = [
    publish("status", route("status", Access.PUBLIC)),
    publish("notebooks", route("notebooks", body_limit_mib=64)),
    publish("pipelines", route("pipelines", Access.ENGINEER)),
    publish("store", route("console", Access.ADMIN, body_limit_mib=0), port=9001, scheme=Scheme.HTTPS),
    publish("store", route("s3", Access.PUBLIC, body_limit_mib=0, own_login=True), scheme=Scheme.HTTPS),
]


def all_sites(platform: PlatformSettings, published: list[Published] = PUBLISHED) -> list[Site]:
    return sites.sites([*published, portal_route(platform)], platform)


def by_name(platform: PlatformSettings) -> dict[str, Site]:
    return {site.name: site for site in all_sites(platform)}


# -- sites


def test_sites_have_their_urls_and_upstreams() -> None:
    found = by_name(settings(proxy={"https_port": 8443}))
    assert set(found) == {"status", "notebooks", "pipelines", "console", "s3", "portal"}
    assert found["s3"].url == "https://s3.data.localhost:8443/"
    assert found["portal"].url == "https://data.localhost:8443/"
    assert (found["console"].upstream_host, found["console"].upstream_port) == ("store", 9001)
    assert found["console"].upstream_tls
    assert not found["status"].upstream_tls


def test_default_port_is_not_in_urls() -> None:
    assert by_name(settings())["status"].url == "https://status.data.localhost/"


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (publish("other", route("status")), "more than one route is named status"),
        (publish("other", route("")), "more than one route is named portal"),
        (publish("other", route("portal")), "more than one route is named portal"),
        (publish("other", route("other"), scheme=Scheme.TCP), "does not speak HTTP"),
    ],
)
def test_mistakes_of_services(extra: Published, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        all_sites(settings(), [*PUBLISHED, extra])


@pytest.mark.parametrize(
    ("level", "names"),
    [
        (Access.PUBLIC, ["una", "eng", "adm"]),
        (Access.USER, ["una", "eng", "adm"]),
        (Access.ENGINEER, ["eng", "adm"]),
        (Access.ADMIN, ["adm"]),
    ],
)
def test_members_rank_high_enough(level: Access, names: list[str]) -> None:
    assert sites.members(settings().users, level) == names


def test_htpasswd() -> None:
    assert sites.htpasswd({"a": "$2a$x", "b": "$2a$y"}, ["b"]) == "b:$2a$y\n"


def test_a_level_for_nobody_has_an_entry_that_opens_nothing() -> None:
    text = sites.htpasswd({}, [])
    # Traefik panics without an entry; this is a whole bcrypt hash (60 characters), of no known password.
    assert re.fullmatch(r"-:\$2a\$10\$\.{53}\n", text)


def test_public_and_own_login_are_not_checked() -> None:
    found = by_name(settings(proxy={"portal_access": "public"}))
    assert {name: site.login for name, site in found.items()} == {
        "status": None,
        "s3": None,
        "portal": None,
        "notebooks": Access.USER,
        "pipelines": Access.ENGINEER,
        "console": Access.ADMIN,
    }
    assert sites.levels(found.values()) == [Access.USER, Access.ENGINEER, Access.ADMIN]


@pytest.mark.parametrize("mode", list(TlsMode))
def test_strict_transport_security_needs_a_trusted_certificate(mode: TlsMode) -> None:
    sent = "Strict-Transport-Security" in sites.security_headers(mode)
    assert sent == (mode is not TlsMode.SELF_SIGNED)


# -- files


def resolved(file: File) -> str:
    async def wait(output: pulumi.Output[str]) -> str:
        text = await output.future()
        assert text is not None
        assert await output.is_secret()
        return text

    assert isinstance(file.content, pulumi.Output)
    return asyncio.get_event_loop().run_until_complete(wait(file.content))


@pytest.fixture
def loop() -> Any:
    own = asyncio.new_event_loop()
    asyncio.set_event_loop(own)
    yield own
    own.close()
    asyncio.set_event_loop(asyncio.new_event_loop())


@pytest.mark.usefixtures("loop")
def test_login_files_hold_who_may_and_nobody_else() -> None:
    platform = settings()
    files = {file.path: file for file in login_files(all_sites(platform), platform, MATERIAL)}
    assert {path: resolved(file) for path, file in files.items()} == {
        "/run/millrace/htpasswd/user": "una:hash-of-una\neng:hash-of-eng\nadm:hash-of-adm\n",
        "/run/millrace/htpasswd/engineer": "eng:hash-of-eng\nadm:hash-of-adm\n",
        "/run/millrace/htpasswd/admin": "adm:hash-of-adm\n",
    }
    assert all(file.secret for file in files.values())


def test_only_the_key_of_the_certificate_is_secret() -> None:
    secret = {file.path: file.secret for file in tls_files(MATERIAL)}
    assert secret == {
        "/run/millrace/tls/tls.crt": False,
        "/run/millrace/tls/tls.key": True,
        "/run/millrace/tls/ca.crt": False,
    }


# -- workloads of both engines


def workload(engine: str, **more: Any) -> Workload:
    platform = settings(proxy={"engine": engine, "http_port": 8000, "https_port": 8443}, **more)
    found = all_sites(platform)
    if engine == "traefik":
        return traefik.workload(found, platform, MATERIAL)
    responder = "proxy-acme:8080" if platform.tls.mode is TlsMode.LETSENCRYPT else None
    return nginx.workload(found, platform, MATERIAL, acme=responder)


@pytest.mark.usefixtures("loop")
@pytest.mark.parametrize("tls", [{"mode": "self-signed"}, LETSENCRYPT])
@pytest.mark.parametrize("engine", ["nginx", "traefik"])
def test_workload(engine: str, tls: dict[str, str]) -> None:
    made = workload(engine, tls=tls)
    assert made.user != 0
    assert [(e.port, e.public_port) for e in made.endpoints] == [(8080, 8000), (8443, 8443)]
    assert made.egress == (engine == "traefik" and tls is LETSENCRYPT)
    for file in made.files:
        if isinstance(file.content, str):
            assert file.content, file.path
            assert "hash-of-" not in file.content
            assert file.content != "KEY" or file.secret
    assert not any("hash-of-" in str(value) for value in made.env.values())


def test_the_certificate_volume_belongs_to_both() -> None:
    proxy = nginx.workload([], settings(tls=LETSENCRYPT), MATERIAL, acme="proxy-acme:8080")
    client = acme.workload(all_sites(settings(tls=LETSENCRYPT)), settings(tls=LETSENCRYPT))
    (own,), (shared,) = proxy.volumes, client.volumes
    assert (own.of, own.read_only) == (None, True)
    assert (shared.of, shared.read_only, shared.name) == ("proxy", False, own.name)
    assert proxy.user == client.user


def test_acme_names_the_domain_first() -> None:
    made = acme.workload(all_sites(settings(tls=LETSENCRYPT)), settings(tls=LETSENCRYPT))
    first, *others = str(made.env["ACME_DOMAINS"]).split()
    assert first == "data.localhost"
    assert others == sorted(f"{p.endpoint.route.host}.data.localhost" for p in PUBLISHED if p.endpoint.route)


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
    loaded: dict[str, Any] = yaml.safe_load(traefik.routes(all_sites(platform), platform))
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


@pytest.mark.usefixtures("loop")
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
    (volume,) = workload("traefik", tls=LETSENCRYPT).volumes
    assert resolver["storage"].startswith(volume.path)


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
    found = traefik.routes(all_sites(platform, extra), platform)
    routers = re.findall(r"^    (\S+):\n      entryPoints", found, re.MULTILINE)
    assert len(routers) == len(set(routers))
