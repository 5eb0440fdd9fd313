"""The proxy's configuration for both engines, from the same sites."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pulumi
import pytest

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
