"""Certificates by ACME, from a real server on this machine, with either engine of the proxy."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from cryptography import x509

from tests.integration.acme_server import Pebble, build_image
from tests.integration.conftest import USERS
from tests.integration.stack import ANSWER_S, DOMAIN, Stack, free_port, wait_until
from tests.integration.web import Web, add_service, local_names

ECHO = Path(__file__).with_name("echo_service.py")
NAMES = {DOMAIN, f"echo.{DOMAIN}", f"echo-user.{DOMAIN}"}


@pytest.fixture(scope="module")
def pebble(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pebble]:
    """The ACME server, not yet started."""
    pebble = Pebble(tmp_path_factory.mktemp("pebble"), http_port=free_port())
    yield pebble
    pebble.stop()


@pytest.fixture(scope="module")
def stack(new_stack: Callable[..., Stack], pebble: Pebble) -> Iterator[Stack]:
    """A few sites; the certificate is to come from a server that is not there yet."""
    stack = new_stack(
        {
            "proxy": {"http_port": pebble.http_port, "https_port": free_port()},
            "tls": {"mode": "letsencrypt", "email": "ops@example.com", "server": pebble.directory},
            "ca_bundle": str(pebble.ca),
            "users": USERS[:1],
            # Each name takes a challenge, one after the other.
            "echo": {"sites": len(NAMES) - 1},
        },
        name="acme",
    )
    add_service(stack, ECHO, "echo")
    with local_names():
        yield stack
    stack.destroy()


@pytest.fixture(scope="module", params=["nginx", "traefik"])
def web(stack: Stack, pebble: Pebble, request: pytest.FixtureRequest) -> Web:
    """The sites as they are while the ACME server is down."""
    pebble.stop()
    stack.configure({**stack.config, "proxy": {**stack.config["proxy"], "engine": request.param}})
    stack.up()
    return Web(stack)


def engine(web: Web) -> str:
    return str(web.stack.config["proxy"]["engine"])


def served(web: Web, name: str, root: str | None) -> x509.Certificate:
    """The certificate shown for a name, verified with ``root`` unless that is None.

    Raises:
        ssl.SSLCertVerificationError: when it does not verify.
    """
    context = ssl.create_default_context(cadata=root)
    if root is None:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", web.https_port), timeout=ANSWER_S) as plain,
        context.wrap_socket(plain, server_hostname=name) as connection,
    ):
        shown = connection.getpeercert(binary_form=True)
    assert shown
    return x509.load_der_x509_certificate(shown)


def until_served(web: Web, root: str, *, instead_of: x509.Certificate | None = None) -> x509.Certificate:
    """Wait until whoever asks is shown one certificate, verified with ``root``, for all names.

    While nginx takes it up, those of its processes that are about to end still show the former one.
    """

    def everywhere() -> x509.Certificate | None:
        shown = {served(web, name, root) for _ in range(5) for name in NAMES}
        return shown.pop() if len(shown) == 1 and instead_of not in shown else None

    found = wait_until(everywhere)
    assert isinstance(found, x509.Certificate)
    return found


def status(web: Web, host: str, auth: tuple[str, str] | None = None) -> int:
    """Answer of a site, whoever certifies it."""
    with httpx.Client(verify=False, trust_env=False, timeout=ANSWER_S) as client:
        return client.get(web.url(host), auth=auth).status_code


def works(web: Web) -> None:
    """The sites are there, with their logins."""
    assert wait_until(lambda: status(web, "echo") == 200)
    assert status(web, "echo-user") == 401
    assert status(web, "echo-user", ("ada", web.password("ada"))) == 200
    assert web.plain("echo").headers["location"] == web.url("echo")


def test_sites_are_up_without_the_acme_server(web: Web, pebble: Pebble) -> None:
    works(web)
    if engine(web) == "nginx":
        # The platform's own until there is another.
        for name in NAMES:
            served(web, name, web.stack.outputs_once["ca_certificate"])


def test_certificate_for_all_names_is_served(web: Web, pebble: Pebble) -> None:
    build_image()
    pebble.start()
    root = pebble.root()
    with pytest.raises(ssl.SSLCertVerificationError):
        served(web, DOMAIN, root)
    # The next attempt now instead of in a minute.
    web.stack.container("proxy-acme" if engine(web) == "nginx" else "proxy").restart(timeout=5)
    certificate = until_served(web, root)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert set(names.get_values_for_type(x509.DNSName)) == NAMES
    works(web)
    # Browsers trust it by themselves: they may be told to come back by HTTPS only.
    context = ssl.create_default_context(cadata=root)
    with httpx.Client(verify=context, trust_env=False, timeout=ANSWER_S) as client:
        assert client.get(web.url("echo")).headers.get_list("strict-transport-security") == [
            "max-age=31536000"
        ]


def test_renewed_certificate_is_served_by_the_running_proxy(web: Web, pebble: Pebble) -> None:
    if engine(web) != "nginx":
        pytest.skip("Traefik renews by itself, no earlier than 30 days before the end")
    root = pebble.root()
    old, proxy = served(web, DOMAIN, root), web.stack.container("proxy")
    pebble.ask_to_renew(old)
    web.stack.container("proxy-acme").restart(timeout=5)
    until_served(web, root, instead_of=old)
    again = web.stack.container("proxy")
    assert (again.id, again.attrs["State"]["StartedAt"]) == (proxy.id, proxy.attrs["State"]["StartedAt"])
    works(web)


def test_certificate_outlives_the_acme_server_and_the_proxy(web: Web, pebble: Pebble) -> None:
    root = pebble.root()
    serial = served(web, DOMAIN, root).serial_number
    pebble.stop()
    for name in ("proxy-acme", "proxy") if engine(web) == "nginx" else ("proxy",):
        web.stack.container(name).restart(timeout=10)
    wait_until(lambda: served(web, DOMAIN, root))
    assert served(web, DOMAIN, root).serial_number == serial
    works(web)
