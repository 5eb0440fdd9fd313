"""The object store as S3 clients see it: what each user may do, directly or by the proxy, and changes."""

from __future__ import annotations

import contextlib
import io
import os
import socket
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
import urllib3
from minio import Minio, MinioAdmin
from minio.credentials import AssumeRoleProvider, StaticProvider
from minio.error import MinioAdminException, S3Error

from tests.integration.clients import ca_file, object_store
from tests.integration.conftest import USERS
from tests.integration.stack import ANSWER_S, DOMAIN, Stack, free_port, proxy_ports

LEAVER = {"name": "leaver", "buckets": [{"bucket": "gone", "privilege": "read-write"}]}
USERS_OF_STORE: list[dict[str, Any]] = [
    {
        "name": "loader",
        "buckets": [
            {"bucket": "raw", "privilege": "read-write"},
            {"bucket": "lake", "privilege": "read-write"},
        ],
    },
    {"name": "viewer", "buckets": [{"bucket": "lake", "privilege": "read-only"}]},
    {"name": "sender", "buckets": [{"bucket": "dropbox", "privilege": "write-only"}]},
    {"name": "rotated", "buckets": [{"bucket": "raw", "privilege": "read-write"}]},
    {"name": "idle"},
]
BUCKETS: list[dict[str, Any]] = [
    {"name": "raw"},
    {"name": "dropbox"},
    {"name": "lake", "versioning": True, "noncurrent_expire_days": 7},
    {"name": "changing", "expire_days": 10},
    {"name": "unruled", "expire_days": 5},
]
ODD_KEYS = [
    "a folder/with blanks and more.txt",
    "plus+and%20percent%2Fencoded",
    "umlaut-ü-snowman-☃-emoji-😀",
    "punctuation !\"#$&'()*,:;=?@[]^_`{|}~",
    "semi;colon&amp;=",
    "no-suffix.",
    "k" * 200 + "/" + "l" * 200,
]


@pytest.fixture(scope="module")
def stack(new_stack: Callable[..., Stack]) -> Iterator[Stack]:
    """The object store behind the proxy, with an object in each bucket."""
    stack = new_stack(
        {
            "proxy": proxy_ports(),
            "users": USERS[:1],
            "object_store": {
                "loopback_port": free_port(),
                "buckets": [*BUCKETS, {"name": "gone"}],
                "users": [*USERS_OF_STORE, LEAVER],
            },
        },
        name="store",
    )
    stack.up()
    root = object_store(stack, "root")
    for bucket in ("raw", "dropbox", "lake", "changing", "gone"):
        put(root, bucket, "kept.txt", b"an object")
    yield stack
    stack.destroy()


def put(client: Minio, bucket: str, key: str, data: bytes = b"x") -> str | None:
    """Write an object; the version it became."""
    return client.put_object(bucket, key, io.BytesIO(data), len(data)).version_id


def get(client: Minio, bucket: str, key: str) -> bytes:
    """Read an object."""
    response = client.get_object(bucket, key)
    try:
        return response.read()
    finally:
        response.close()
        response.release_conn()


def keys(client: Minio, bucket: str) -> list[str]:
    """The keys of a bucket."""
    return [str(o.object_name) for o in client.list_objects(bucket, recursive=True)]


def trust(stack: Stack) -> ssl.SSLContext:
    """What httpx verifies servers by."""
    return ssl.create_default_context(cafile=ca_file(stack))


@contextlib.contextmanager
def refused(code: str = "AccessDenied") -> Iterator[None]:
    """The server answers with this S3 error."""
    with pytest.raises(S3Error) as caught:
        yield
    assert caught.value.code == code


def lifecycle(stack: Stack, bucket: str) -> dict[str, Any]:
    """The bucket's rules by id: days until objects and former versions expire."""
    found = object_store(stack, "root").get_bucket_lifecycle(bucket)
    return {
        str(rule.rule_id): (
            (rule.expiration.days if rule.expiration else None)
            or (rule.noncurrent_version_expiration and rule.noncurrent_version_expiration.noncurrent_days)
            or "markers"
        )
        for rule in (found.rules if found else [])
    }


def versioning(stack: Stack, bucket: str) -> str:
    """Enabled, Suspended, or nothing where it never was on."""
    return object_store(stack, "root").get_bucket_versioning(bucket).status or ""


# -- what each user may do


@pytest.mark.parametrize(
    ("user", "buckets"),
    [
        ("loader", {"raw", "lake"}),
        ("viewer", {"lake"}),
        ("rotated", {"raw"}),
        ("root", {"raw", "dropbox", "lake", "changing", "unruled", "gone"}),
    ],
)
def test_users_list_their_buckets_only(stack: Stack, user: str, buckets: set[str]) -> None:
    assert {bucket.name for bucket in object_store(stack, user).list_buckets()} == buckets


def test_a_user_without_buckets_sees_none(stack: Stack) -> None:
    with refused():
        object_store(stack, "idle").list_buckets()


@pytest.mark.parametrize("user", ["loader", "viewer", "sender", "idle"])
def test_users_reach_no_other_bucket_and_create_none(stack: Stack, user: str) -> None:
    client = object_store(stack, user)
    with refused():
        client.make_bucket("mine")
    with refused():
        keys(client, "gone")
    with refused():
        get(client, "gone", "kept.txt")
    with refused():
        put(client, "gone", "more.txt")
    with refused():
        client.remove_object("gone", "kept.txt")


def test_read_write(stack: Stack) -> None:
    client = object_store(stack, "loader")
    put(client, "raw", "folder/new.txt", b"new")
    assert get(client, "raw", "folder/new.txt") == b"new"
    assert "folder/new.txt" in keys(client, "raw")
    client.remove_object("raw", "folder/new.txt")
    assert "folder/new.txt" not in keys(client, "raw")
    with refused():
        client.remove_bucket("raw")
    with refused():
        client.delete_bucket_lifecycle("lake")
    with refused():
        client.set_bucket_policy("raw", '{"Version": "2012-10-17", "Statement": []}')


def test_read_only(stack: Stack) -> None:
    client = object_store(stack, "viewer")
    assert keys(client, "lake") == ["kept.txt"]
    assert get(client, "lake", "kept.txt") == b"an object"
    with refused():
        put(client, "lake", "more.txt")
    with refused():
        put(client, "lake", "kept.txt", b"other")
    with refused():
        client.remove_object("lake", "kept.txt")


def test_write_only(stack: Stack) -> None:
    client = object_store(stack, "sender")
    put(client, "dropbox", "sent.txt", b"sent")
    put(client, "dropbox", "in-parts.bin", os.urandom(11 * 2**20))
    with refused():
        get(client, "dropbox", "sent.txt")
    with refused():
        keys(client, "dropbox")
    with refused():
        client.remove_object("dropbox", "sent.txt")
    assert get(object_store(stack, "root"), "dropbox", "sent.txt") == b"sent"


def test_wrong_keys(stack: Stack) -> None:
    with refused("SignatureDoesNotMatch"):
        object_store(stack, "loader", secret="not-the-secret-of-loader").list_buckets()
    with refused("InvalidAccessKeyId"):
        object_store(stack, "stranger", secret="whatever-it-may-be").list_buckets()
    # The server's default administrator.
    with refused("InvalidAccessKeyId"):
        object_store(stack, "minioadmin", secret="minioadmin").list_buckets()


@pytest.mark.parametrize("user", ["loader", "viewer", "idle"])
def test_users_make_no_keys_of_their_own(stack: Stack, user: str) -> None:
    """More access keys, or a secret they chose themselves, would outlive a rotation."""
    secret = stack.outputs_once["credentials"]["object_store"][user]
    admin = MinioAdmin(
        endpoint=f"localhost:{stack.config['object_store']['loopback_port']}",
        credentials=StaticProvider(user, secret),
        region="us-east-1",
        http_client=urllib3.PoolManager(
            cert_reqs="CERT_REQUIRED",
            ca_certs=ca_file(stack),
            retries=False,
            timeout=urllib3.Timeout(ANSWER_S),
        ),
    )
    with pytest.raises(MinioAdminException, match="AccessDenied"):
        admin.add_service_account(access_key=f"more-{user}", secret_key="chosen-by-themselves", name="more")
    with pytest.raises(MinioAdminException, match="AccessDenied"):
        admin.user_add(user, "chosen-by-themselves")
    with pytest.raises(MinioAdminException, match="AccessDenied"):
        admin.user_list()
    with refused("InvalidAccessKeyId"):
        object_store(stack, f"more-{user}", secret="chosen-by-themselves").list_buckets()


def test_temporary_keys_do_not_last(stack: Stack) -> None:
    """A rotation does not end them."""
    provider = AssumeRoleProvider(
        sts_endpoint=f"https://localhost:{stack.config['object_store']['loopback_port']}",
        access_key="viewer",
        secret_key=stack.outputs_once["credentials"]["object_store"]["viewer"],
        duration_seconds=int(timedelta(days=300).total_seconds()),
        region="us-east-1",
        http_client=urllib3.PoolManager(cert_reqs="CERT_REQUIRED", ca_certs=ca_file(stack)),
    )
    expiration = provider.retrieve().expiration
    assert expiration is not None
    # The client gives it in UTC without saying so.
    assert expiration.replace(tzinfo=UTC) - datetime.now(UTC) < timedelta(hours=1, minutes=1)


def test_without_keys_nothing_is_there(stack: Stack) -> None:
    url = f"https://localhost:{stack.config['object_store']['loopback_port']}"
    with httpx.Client(verify=trust(stack), trust_env=False, timeout=ANSWER_S) as client:
        for path in ("/", "/raw/", "/raw/kept.txt"):
            assert client.get(url + path).status_code == 403


def test_former_versions_are_beyond_the_users(stack: Stack) -> None:
    client = object_store(stack, "loader")
    first = put(client, "lake", "versions.txt", b"first")
    put(client, "lake", "versions.txt", b"second")
    client.remove_object("lake", "versions.txt")
    assert "versions.txt" not in keys(client, "lake")
    with refused():
        client.remove_object("lake", "versions.txt", version_id=first)
    response = client.get_object("lake", "versions.txt", version_id=first)
    assert response.read() == b"first"
    response.close()


def test_buckets_follow_the_settings(stack: Stack) -> None:
    assert versioning(stack, "lake") == "Enabled"
    assert versioning(stack, "raw") == ""
    assert lifecycle(stack, "raw") == {}
    assert lifecycle(stack, "changing") == {"millrace-expire": 10}
    assert lifecycle(stack, "unruled") == {"millrace-expire": 5}
    assert lifecycle(stack, "lake") == {
        "millrace-expire-noncurrent": 7,
        "millrace-delete-markers": "markers",
    }


# -- through the proxy


@pytest.fixture
def _domain_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names below the domain lead to this machine, as browsers have it; few resolvers do."""
    resolve = socket.getaddrinfo

    def here(host: Any, *rest: Any, **more: Any) -> Any:
        return resolve("127.0.0.1" if str(host).endswith(DOMAIN) else host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", here)


def through_proxy(stack: Stack, user: str) -> Minio:
    """A client of the public address."""
    return Minio(
        f"s3.{DOMAIN}:{stack.config['proxy']['https_port']}",
        access_key=user,
        secret_key=stack.outputs_once["credentials"]["object_store"][user],
        secure=True,
        region="us-east-1",
        http_client=urllib3.PoolManager(
            cert_reqs="CERT_REQUIRED",
            ca_certs=ca_file(stack),
            retries=False,
            timeout=urllib3.Timeout(ANSWER_S),
        ),
    )


def check_proxied(stack: Stack) -> None:
    """Large objects, odd keys, presigned addresses."""
    client = through_proxy(stack, "loader")
    assert {bucket.name for bucket in client.list_buckets()} == {"raw", "lake"}
    large = os.urandom(20 * 2**20)
    # One request for all of it, then one for each part.
    for part_size in (64 * 2**20, 5 * 2**20):
        client.put_object("raw", "large", io.BytesIO(large), len(large), part_size=part_size)
        assert get(client, "raw", "large") == large
    part = client.get_object("raw", "large", offset=1000, length=10)
    assert part.read() == large[1000:1010]
    part.close()
    client.remove_object("raw", "large")
    for key in ODD_KEYS:
        put(client, "raw", f"odd/{key}", key.encode())
    # The server's own list, not the proxy's.
    direct = object_store(stack, "loader")
    assert {k for k in keys(direct, "raw") if k.startswith("odd/")} == {f"odd/{k}" for k in ODD_KEYS}
    with httpx.Client(verify=trust(stack), trust_env=False, timeout=ANSWER_S) as browser:
        for key in ODD_KEYS:
            assert get(client, "raw", f"odd/{key}") == key.encode()
            url = client.presigned_get_object("raw", f"odd/{key}", expires=timedelta(minutes=10))
            answer = browser.get(url)
            assert (answer.status_code, answer.content) == (200, key.encode())
            client.remove_object("raw", f"odd/{key}")
        url = client.presigned_put_object("raw", "presigned.txt", expires=timedelta(minutes=10))
        assert browser.put(url, content=b"by address").status_code == 200
        assert get(client, "raw", "presigned.txt") == b"by address"
        assert browser.get(url).status_code == 403
        assert browser.put(url.replace("presigned.txt", "other.txt"), content=b"").status_code == 403
    client.remove_object("raw", "presigned.txt")
    with refused():
        put(through_proxy(stack, "viewer"), "lake", "more.txt")


@pytest.mark.usefixtures("_domain_is_here")
def test_s3_through_nginx(stack: Stack) -> None:
    check_proxied(stack)


# -- changed settings: one `up` with all of them, then one test for each


@dataclass(frozen=True)
class Change:
    """What was there before the `up`."""

    secrets: dict[str, str] = field(repr=False)


@pytest.fixture(scope="module")
def change(stack: Stack) -> Change:
    """Bucket and user removed, versioning and rules changed, root and a user rotated, the other proxy."""
    before = Change(stack.outputs()["credentials"]["object_store"])
    client = object_store(stack, "loader")
    put(client, "lake", "before.txt", b"first")
    put(client, "lake", "before.txt", b"second")
    config = stack.config
    config["proxy"]["engine"] = "traefik"
    config["object_store"]["buckets"] = [
        {"name": "raw"},
        {"name": "dropbox"},
        {"name": "lake"},
        {"name": "changing", "expire_days": 20},
        {"name": "unruled"},
    ]
    config["object_store"]["users"] = USERS_OF_STORE
    config["rotation"] = {"object_store/rotated": "1", "object_store/root": "1"}
    stack.configure(config)
    stack.up()
    return before


def test_versioning_is_suspended_and_versions_stay(stack: Stack, change: Change) -> None:
    assert versioning(stack, "lake") == "Suspended"
    assert versioning(stack, "raw") == ""
    found = object_store(stack, "root").list_objects("lake", prefix="before.txt", include_version=True)
    assert len(list(found)) == 2


def test_rules_are_changed_and_removed(stack: Stack, change: Change) -> None:
    assert lifecycle(stack, "changing") == {"millrace-expire": 20}
    assert lifecycle(stack, "unruled") == {}
    assert lifecycle(stack, "lake") == {}


def test_removed_user_is_out_and_its_bucket_stays(stack: Stack, change: Change) -> None:
    with refused("InvalidAccessKeyId"):
        object_store(stack, "leaver", secret=change.secrets["leaver"]).list_buckets()
    assert "leaver" not in stack.outputs_once["credentials"]["object_store"]
    assert get(object_store(stack, "root"), "gone", "kept.txt") == b"an object"


@pytest.mark.parametrize("user", ["root", "rotated"])
def test_rotated_secret_is_dead(stack: Stack, change: Change, user: str) -> None:
    with refused("SignatureDoesNotMatch"):
        object_store(stack, user, secret=change.secrets[user]).list_buckets()
    assert get(object_store(stack, user), "raw", "kept.txt") == b"an object"


def test_other_secrets_stay_as_they_are(stack: Stack, change: Change) -> None:
    now = stack.outputs_once["credentials"]["object_store"]
    assert {u for u in now if now[u] != change.secrets[u]} == {"root", "rotated"}
    assert get(object_store(stack, "viewer", secret=change.secrets["viewer"]), "lake", "kept.txt")


@pytest.mark.usefixtures("_domain_is_here")
def test_s3_through_traefik(stack: Stack, change: Change) -> None:
    check_proxied(stack)


def test_nothing_more_to_change(stack: Stack, change: Change) -> None:
    stack.no_change()
