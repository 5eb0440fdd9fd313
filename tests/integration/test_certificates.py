"""Certificates: servers prove their names by the exported CA, are renewed in time; or the user's own."""

from __future__ import annotations

import datetime
import json
import socket
import ssl
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from tests.integration.clients import ca_file, object_store, postgres
from tests.integration.conftest import USERS
from tests.integration.exported import Pair, edit, self_signed
from tests.integration.stack import ANSWER_S, DOMAIN, Stack, free_port, proxy_ports, wait_until

POSTGRES, STORE, PROXY = "postgres", "object-store", "proxy"


@pytest.fixture(scope="module")
def stack(new_stack: Callable[..., Stack]) -> Iterator[Stack]:
    """All servers that speak TLS."""
    stack = new_stack(
        {
            "proxy": proxy_ports(),
            "users": USERS[:1],
            "postgres": {"memory_mib": 256, "loopback_port": free_port(), "databases": [{"name": "shop"}]},
            "object_store": {"loopback_port": free_port(), "buckets": [{"name": "raw"}]},
        },
        name="certs",
    )
    stack.up()
    yield stack
    stack.destroy()


def served(stack: Stack, server: str, name: str, ca: str | None = None) -> x509.Certificate:
    """The certificate that a server shows and that verifies for this name.

    Raises:
        ssl.SSLCertVerificationError: when it does not.
    """
    port = {
        POSTGRES: stack.config["postgres"]["loopback_port"],
        STORE: stack.config["object_store"]["loopback_port"],
        PROXY: stack.config["proxy"]["https_port"],
    }[server]
    context = ssl.create_default_context(cafile=ca or ca_file(stack))
    with socket.create_connection(("127.0.0.1", port), timeout=ANSWER_S) as plain:
        if server == POSTGRES:
            plain.sendall(struct.pack("!ii", 8, 80877103))  # SSLRequest of Postgres' protocol
            assert plain.recv(1) == b"S"
        with context.wrap_socket(plain, server_hostname=name) as connection:
            shown = connection.getpeercert(binary_form=True)
    assert shown
    return x509.load_der_x509_certificate(shown)


NAMES = [
    (POSTGRES, "postgres"),
    (POSTGRES, "localhost"),
    (STORE, "object-store"),
    (STORE, "localhost"),
    (PROXY, DOMAIN),
    (PROXY, f"object-store.{DOMAIN}"),
    (PROXY, f"anything.{DOMAIN}"),
]


@pytest.mark.parametrize(("server", "name"), NAMES)
def test_servers_prove_their_names(stack: Stack, server: str, name: str) -> None:
    certificate = served(stack, server, name)
    left = certificate.not_valid_after_utc - datetime.datetime.now(datetime.UTC)
    assert datetime.timedelta(days=364) < left <= datetime.timedelta(days=365)


@pytest.mark.parametrize(
    ("server", "name"),
    [
        (POSTGRES, "object-store"),
        (STORE, "postgres"),
        (PROXY, "localhost"),
        (PROXY, f"too.deep.{DOMAIN}"),
        (PROXY, "other.localhost"),
    ],
)
def test_servers_prove_no_other_names(stack: Stack, server: str, name: str) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        served(stack, server, name)


def test_console_behind_the_proxy_proves_its_name(stack: Stack) -> None:
    """From the proxy's container, the only one that reaches it."""
    command = (
        "openssl s_client -connect object-store:9001 -verify_return_error -verify_hostname {name}"
        " -CAfile /run/millrace/tls/ca.crt </dev/null"
    )
    proxy = stack.container("proxy")
    assert proxy.exec_run(["sh", "-c", command.format(name="object-store")]).exit_code == 0
    assert proxy.exec_run(["sh", "-c", command.format(name="portal")]).exit_code != 0


def test_the_exported_ca_is_the_one_that_counts(stack: Stack, tmp_path: Path) -> None:
    other = self_signed(tmp_path, "other", ["postgres", "object-store", DOMAIN])
    for server, name in ((POSTGRES, "postgres"), (STORE, "object-store"), (PROXY, DOMAIN)):
        with pytest.raises(ssl.SSLCertVerificationError, match=r"self-signed|unable to get local issuer"):
            served(stack, server, name, str(other.certificate))
    authority = x509.load_pem_x509_certificate(stack.outputs_once["ca_certificate"].encode())
    assert authority.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    left = authority.not_valid_after_utc - datetime.datetime.now(datetime.UTC)
    assert left > datetime.timedelta(days=3640)


# -- renewal


def age(stack: Stack, certificate: str, *, days_left: float) -> None:
    """Make the state say that a certificate ends so soon, as it would after the time has passed."""
    end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days_left)

    def change(outputs: dict[str, Any]) -> None:
        outputs["validityEndTime"] = end.strftime("%Y-%m-%dT%H:%M:%SZ")

    edit(stack, certificate, change)


def serials(stack: Stack) -> dict[str, int]:
    """Serial numbers of what the servers show."""
    return {
        server: served(stack, server, name).serial_number
        for server, name in ((POSTGRES, "postgres"), (STORE, "object-store"), (PROXY, DOMAIN))
    }


def works(stack: Stack) -> None:
    """Every server serves its clients."""
    with postgres(stack, "shop", "shop") as connection:
        assert connection.execute("select 1").fetchone() == (1,)
    assert object_store(stack, "root").bucket_exists("raw")
    assert wait_until(lambda: stack.http("", user="ada").status_code == 200)


def test_up_renews_what_is_due_and_nothing_else(stack: Stack) -> None:
    before = serials(stack)
    containers = {name: stack.container(name).id for name in (POSTGRES, STORE, PROXY, "portal")}
    with postgres(stack, "shop", "shop") as connection:
        connection.execute("create table kept (id int)")
    age(stack, "postgres-server-certificate", days_left=29.9)
    age(stack, "proxy-server-certificate", days_left=1)
    age(stack, "object-store-server-certificate", days_left=30.1)
    stack.up()
    after = serials(stack)
    assert {server for server in after if after[server] != before[server]} == {POSTGRES, PROXY}
    changed = {name for name, id_ in containers.items() if stack.container(name).id != id_}
    assert changed == {POSTGRES, PROXY}
    works(stack)
    with postgres(stack, "shop", "shop") as connection:
        assert connection.execute("select count(*) from kept").fetchone() == (0,)
    stack.no_change()
    assert serials(stack) == after


def test_renew_days_is_what_decides(stack: Stack) -> None:
    before = serials(stack)
    age(stack, "postgres-server-certificate", days_left=29.9)
    with stack.changed(tls={"renew_days": 10}):
        stack.up()
        assert serials(stack) == before
    stack.up()
    after = serials(stack)
    assert {server for server in after if after[server] != before[server]} == {POSTGRES}


def test_renewed_ca_signs_everything_anew(stack: Stack) -> None:
    before, authority = serials(stack), stack.outputs()["ca_certificate"]
    age(stack, "ca-certificate", days_left=29)
    stack.up()
    assert stack.outputs_once["ca_certificate"] != authority
    after = serials(stack)
    assert {server for server in after if after[server] != before[server]} == {POSTGRES, STORE, PROXY}
    works(stack)
    stack.no_change()


# -- the user's own certificate


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """A certificate for the domain from somewhere else."""
    return self_signed(tmp_path_factory.mktemp("own"), "own", [DOMAIN, f"*.{DOMAIN}"])


def provided(certificate: Path, key: Path) -> dict[str, str]:
    return {"mode": "provided", "certificate": str(certificate), "key": str(key)}


def test_mistakes_in_a_provided_certificate_are_one_line_each(
    stack: Stack, own: Pair, tmp_path: Path
) -> None:
    other = self_signed(tmp_path, "other", ["other.example", "*.other.example"])
    before = {c.id for c in stack.containers()}
    for tls, words in (
        (provided(own.certificate, other.key), "millrace:tls.key: does not belong to tls.certificate"),
        (provided(other.certificate, other.key), f"does not cover {DOMAIN} and *.{DOMAIN}"),
    ):
        with stack.changed(tls=tls):
            run = stack.up_fails()
        # Shown while it runs and in the summary at the end.
        lines = {line.partition("error: ")[2] for line in run.output.splitlines() if "millrace:tls" in line}
        assert len(lines) == 1 and words in lines.pop(), run.output
        assert "Traceback" not in run.output
        assert "PRIVATE KEY" not in run.output
    assert {c.id for c in stack.containers()} == before


def test_provided_certificate_is_served_and_its_successor_too(
    stack: Stack, own: Pair, tmp_path: Path
) -> None:
    with stack.changed(tls=provided(own.certificate, own.key)):
        stack.up()
        for name in (DOMAIN, f"object-store.{DOMAIN}"):
            assert served(stack, PROXY, name, str(own.certificate)) == own.parsed
        # The servers inside keep the platform's CA.
        assert serials_inside(stack)
        successor = self_signed(tmp_path, "own", [DOMAIN, f"*.{DOMAIN}"])
        own.certificate.write_bytes(successor.certificate.read_bytes())
        own.key.write_bytes(successor.key.read_bytes())
        stack.up()
        assert served(stack, PROXY, DOMAIN, str(successor.certificate)) == successor.parsed
        assert successor.key.read_text().splitlines()[1] not in json.dumps(
            [c.attrs for c in stack.containers()]
        )


def serials_inside(stack: Stack) -> list[int]:
    """Of the servers that only the platform's CA certifies."""
    return [served(stack, s, s).serial_number for s in (POSTGRES, STORE)]
