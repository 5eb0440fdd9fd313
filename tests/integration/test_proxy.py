"""The proxy: whichever engine it has, the same requests get the same answers.

One stack, first with nginx, then with Traefik; so the change of the engine is tested as well. A service that
exists in this stack alone shows what reaches an upstream.
"""

from __future__ import annotations

import io
import json
import logging
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import urllib3
from minio import Minio
from websockets.exceptions import InvalidStatus

from tests.integration.clients import ca_file
from tests.integration.conftest import USERS
from tests.integration.stack import ANSWER_S, DOMAIN, Stack, proxy_ports, wait_until
from tests.integration.web import Web, add_service, local_names
from tests.integration.websocket import WebSocket

ECHO = Path(__file__).with_name("echo_service.py")
RANK = {"uma": 1, "erin": 2, "ada": 3}
LEVELS = {"echo-user": 1, "echo-engineer": 2, "echo-admin": 3, "": 1}
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def stack(new_stack: Callable[..., Stack]) -> Iterator[Stack]:
    """Every level, an object store, and a service that one more file adds."""
    stack = new_stack(
        {
            "proxy": proxy_ports(),
            "users": USERS,
            "object_store": {"buckets": [{"name": "raw"}]},
            "echo": {},
        },
        name="edge",
    )
    add_service(stack, ECHO, "echo")
    with local_names():
        yield stack
    stack.destroy()


@pytest.fixture(scope="module", params=["nginx", "traefik"])
def web(stack: Stack, request: pytest.FixtureRequest) -> Web:
    """The stack's sites, served by one engine."""
    stack.configure({**stack.config, "proxy": {**stack.config["proxy"], "engine": request.param}})
    stack.up()
    web = Web(stack)
    # Healthy is the proxy itself; its upstreams are found with the first requests.
    wait_until(lambda: web.get("echo").status_code == 200)
    return web


def engine(web: Web) -> str:
    return str(web.stack.config["proxy"]["engine"])


def seen(response: httpx.Response) -> dict[str, str]:
    """The headers that reached the upstream; those that did not are left out."""
    assert response.status_code == 200, response.text
    lines = (line.partition(": ") for line in response.text.splitlines())
    return {name.lower(): value for name, _, value in lines if value}


# -- who gets in


def test_the_engine_is_the_one_of_the_settings(web: Web) -> None:
    process = web.stack.container("proxy").top()["Processes"]
    assert engine(web) in json.dumps(process)


def test_public_site_over_http2(web: Web) -> None:
    response = web.get("echo", "/a/b?x=1&y=%20")
    assert response.http_version == "HTTP/2"
    assert seen(response)["request"] == "GET /a/b?x=1&y=%20"
    assert web.get("echo", http2=False).http_version == "HTTP/1.1"


@pytest.mark.parametrize("host", LEVELS)
def test_levels(web: Web, host: str) -> None:
    got = {user: web.get(host, user=user).status_code for user in RANK}
    assert got == {user: 200 if rank >= LEVELS[host] else 401 for user, rank in RANK.items()}


@pytest.mark.parametrize("host", LEVELS)
def test_without_the_right_password(web: Web, host: str) -> None:
    logins = [None, ("ada", "wrong"), ("ada", ""), ("nobody", "x"), ("", ""), ("-", "")]
    for auth in [*logins, ("ada", web.password("erin"))]:
        response = web.get(host, auth=auth)
        assert response.status_code == 401, auth and auth[0]
        assert response.headers["www-authenticate"].startswith('Basic realm="Millrace')
    for value in ("Basic", "Basic !!", "Bearer abc", "Basic " + "A" * 4000):
        assert web.get(host, headers={"Authorization": value}).status_code == 401


def test_portal_is_at_the_domain(web: Web) -> None:
    response = web.get("", user="uma")
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    for host in ("object-store", "s3", "echo", "echo-user", "echo-engineer", "echo-admin", "echo-own"):
        assert f'href="{web.url(host)}"' in response.text


def test_unknown_host(web: Web) -> None:
    for http2 in (True, False):
        for host in ("nothing", "portal", "proxy"):
            response = web.get(host, user="ada", http2=http2)
            assert response.status_code == 404
            assert "Echo" not in response.text
    # The name of the certificate, the name of the request: a header of another site opens nothing.
    other = web.get("echo", headers={"Host": web.authority("echo-admin")}, http2=False)
    assert other.status_code in (401, 404, 421)


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_http_leads_to_https(web: Web, method: str) -> None:
    for host, path in (("echo", "/a/b?x=1&y=%20z"), ("", "/"), ("nothing", "/")):
        response = web.plain(host, path, method)
        # Both are permanent; only 308 has the method kept, which makes no difference to GET.
        assert response.status_code in ((301, 308) if method == "GET" else (308,))
        assert response.headers["location"] == web.url(host, path)


# -- what clients and upstreams are told


def test_security_headers_exactly_once(web: Web) -> None:
    answers = {
        200: web.get("echo"),
        401: web.get("echo-admin"),
        404: web.get("echo", "/missing"),
        308: web.plain("echo", method="POST"),
        413: web.get("echo-engineer", user="ada", method="PUT", content=b"x" * (MIB + 1), http2=False),
    }
    unknown = web.get("nothing")
    for status, response in [*answers.items(), (404, unknown), (200, web.get("", user="uma"))]:
        assert response.status_code == status
        for name, value in {
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "SAMEORIGIN",
            "Referrer-Policy": "same-origin",
            "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
        }.items():
            assert response.headers.get_list(name) == [value], f"{status} {response.url}"
        assert "x-powered-by" not in response.headers
        # A browser that once saw it would not open the sites of another self-signed stack.
        assert "strict-transport-security" not in response.headers
        assert not any(c.isdigit() for c in response.headers.get("server", ""))


SPOOFED = dict.fromkeys(
    (
        "X-Forwarded-User", "X_Forwarded_User", "X-Forwarded_User", "X-Forwarded-Email", "X-Remote-User",
        "X-Auth-Request-User", "X-WebAuth-User", "Remote-User", "Remote_User", "Remote-Groups",
        "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Forwarded-Port", "X-Real-IP",
        "Forwarded", "Proxy", "X-Original-Url",
    ),
    "root",
)  # fmt: skip


@pytest.mark.parametrize("http2", [True, False])
def test_no_client_says_who_it_is(web: Web, http2: bool) -> None:
    for host, user in (("echo", None), ("echo-user", "uma"), ("echo-own", None)):
        told = seen(web.get(host, user=user, headers=SPOOFED, http2=http2))
        assert "root" not in told.values()
        assert told.get("x-forwarded-user") == user
        assert told["host"] == told["x-forwarded-host"] == web.authority(host)
        assert told["x-forwarded-proto"] == "https"
        assert told["x-forwarded-port"] == str(web.https_port)


def test_passwords_stay_at_the_proxy(web: Web) -> None:
    assert "authorization" not in seen(web.get("echo-user", user="uma"))
    assert "authorization" not in seen(web.get("echo", user="uma"))
    own = "AWS4-HMAC-SHA256 Credential=key"
    assert seen(web.get("echo-own", headers={"Authorization": own}))["authorization"] == own


# -- bodies, websockets, TLS


def s3(web: Web) -> Minio:
    """An S3 client outside, with the administrator's keys."""
    return Minio(
        web.authority("s3"),
        access_key="root",
        secret_key=web.stack.outputs_once["credentials"]["object_store"]["root"],
        region="us-east-1",
        http_client=urllib3.PoolManager(ca_certs=ca_file(web.stack), retries=False, timeout=ANSWER_S),
    )


def test_uploads_of_any_size_where_the_route_says_so(web: Web) -> None:
    size = 64 * MIB
    s3(web).put_object("raw", "large", io.BytesIO(b"z" * size), size, part_size=size)
    assert s3(web).stat_object("raw", "large").size == size
    answer = s3(web).get_object("raw", "large")
    assert sum(len(part) for part in answer.stream(MIB)) == size
    for key in ("a/b c/ä;x=1%2F?&+.txt", "a;b=%20", "x" * 200):
        s3(web).put_object("raw", key, io.BytesIO(b"1"), 1)
        assert s3(web).get_object("raw", key).data == b"1"


def test_body_limit(web: Web) -> None:
    def put(size: int, **more: Any) -> int:
        content = (b"x" * 65536 for _ in range(size // 65536)) if more else b"x" * size
        return web.get(
            "echo-engineer", "/read", user="erin", method="PUT", content=content, http2=False, **more
        ).status_code

    assert put(MIB) == 200
    assert put(MIB + 1) == 413
    # Of unknown size.
    assert put(MIB // 2, headers={"Transfer-Encoding": "chunked"}) == 200
    assert put(2 * MIB, headers={"Transfer-Encoding": "chunked"}) == 413


def test_websockets(web: Web) -> None:
    """The console of the object store lists a bucket over one."""
    keys = {
        "accessKey": "root",
        "secretKey": web.stack.outputs_once["credentials"]["object_store"]["root"],
    }
    answer = web.get("object-store", "/api/v1/login", user="erin", method="POST", json=keys)
    assert answer.status_code == 204
    s3(web).put_object("raw", "listed", io.BytesIO(b"1"), 1)
    cookie = f"token={answer.cookies['token']}"
    login = httpx.BasicAuth("erin", web.password("erin"))._auth_header
    address = web.url("object-store", "/ws/objectManager").replace("https", "wss", 1)
    options: dict[str, Any] = {"ssl": web.context(), "logger": logging.getLogger("quiet")}
    headers = {"Cookie": cookie, "Origin": web.url("object-store").rstrip("/")}
    with WebSocket(address, additional_headers={**headers, "Authorization": login}, **options) as socket:
        socket.send(json.dumps({"request_id": 7, "mode": "objects", "bucket_name": "raw", "prefix": ""}))
        assert "listed" in str(socket.receive())
    refusal = WebSocket(address, additional_headers=headers, **options)
    with pytest.raises(InvalidStatus) as refused, refusal:
        pass
    assert refused.value.response.status_code == 401


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_tls_versions(web: Web) -> None:
    def get(version: ssl.TLSVersion) -> httpx.Response:
        context = web.context()
        context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, version
        # Otherwise OpenSSL itself refuses what is old.
        context.set_ciphers("DEFAULT@SECLEVEL=0")
        with httpx.Client(verify=context, trust_env=False, timeout=ANSWER_S) as client:
            return client.get(web.url("echo"))

    with pytest.raises(httpx.ConnectError, match=r"(?i)alert.protocol.version"):
        get(ssl.TLSVersion.TLSv1_1)
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        assert get(version).status_code == 200


# -- what changes while it runs


def test_upstream_at_another_address(web: Web) -> None:
    container = web.stack.container("echo")
    shared = web.stack.container("proxy").attrs["NetworkSettings"]["Networks"]
    attachments = container.attrs["NetworkSettings"]["Networks"]
    ((name, attached),) = ((name, entry) for name, entry in attachments.items() if name in shared)
    network = web.stack.docker.networks.get(name)

    def answers() -> bool:
        """Several times over: each process of the proxy remembers addresses by itself."""
        return all(web.get("echo").status_code == 200 for _ in range(10))

    assert answers()
    # Somebody else has its address by the time it starts again.
    engine = web.stack.docker
    other = engine.containers.create(container.image, ["sleep", "300"], entrypoint=[], network=name)
    try:
        network.disconnect(other)
        container.stop(timeout=5)
        network.connect(other, ipv4_address=attached["IPAddress"])
        other.start()
        container.start()
        container.reload()
        moved = container.attrs["NetworkSettings"]["Networks"][name]
        assert moved["IPAddress"] not in ("", attached["IPAddress"])
        wait_until(answers)
    finally:
        other.remove(force=True)


def test_stopped_upstream_and_what_is_logged(web: Web) -> None:
    """Its own sites fail, no others; signed addresses are in no log, whether they work or not."""
    s3(web).put_object("raw", "signed", io.BytesIO(b"1"), 1)
    signed = s3(web).presigned_get_object("raw", "signed")
    signature = httpx.URL(signed).params["X-Amz-Signature"]
    path = signed.partition(web.authority("s3"))[2]
    assert len(signature) == 64
    assert web.get("s3", path).status_code == 200
    store = web.stack.container("object-store")
    store.stop(timeout=10)
    try:
        assert 502 <= wait_until(lambda: (code := web.get("s3", path).status_code) >= 500 and code) <= 504
        assert web.get("object-store", user="ada").status_code in (502, 503, 504)
        assert web.get("echo").status_code == 200
        assert web.get("", user="uma").status_code == 200
    finally:
        store.start()
    wait_until(lambda: web.get("s3", path).status_code == 200)
    log = web.stack.container("proxy").logs().decode()
    assert log.count(f"s3.{DOMAIN}") >= 3
    assert signature not in log
    assert "X-Amz" not in log
    assert web.password("ada") not in log


def test_rotated_password(web: Web) -> None:
    old = web.password("uma")
    with web.stack.changed(rotation={"users/uma": engine(web)}):
        web.stack.up()
        new = web.password("uma")
        assert new != old
        wait_until(lambda: web.get("echo-user", auth=("uma", new)).status_code == 200)
        assert web.get("echo-user", auth=("uma", old)).status_code == 401
        assert web.get("echo-user", user="ada").status_code == 200
