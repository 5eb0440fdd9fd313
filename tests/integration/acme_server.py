"""A local ACME server: Pebble, with a DNS server that answers every name with the address of this machine."""

from __future__ import annotations

import datetime
import ipaddress
import json
import os
import ssl
from pathlib import Path

import docker
import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from docker.models.containers import Container

from components.images import built_reference
from tests.integration.images import build
from tests.integration.stack import ANSWER_S, free_port, wait_until

_IMAGE = "millrace/pebble:test"


def build_image() -> None:
    """Build the image from those a stack with Go programs has built; a matter of a second when cached."""
    build("pebble", _IMAGE, {"BASE": built_reference("base"), "GO_BUILD": built_reference("go-build")})


class Pebble:
    """Issues certificates for names whose HTTP challenge the proxy at ``http_port`` answers."""

    def __init__(self, folder: Path, http_port: int) -> None:
        """Settles addresses and writes the files; :meth:`start` starts it."""
        self.folder, self.http_port = folder, http_port
        self._docker = docker.from_env(timeout=120)
        bridge = self._docker.networks.get("bridge").attrs["IPAM"]["Config"][0]
        # An address of this machine that is the same seen from here and from containers.
        subnet = ipaddress.ip_network(bridge["Subnet"])
        self.address = bridge.get("Gateway") or str(next(subnet.hosts()))
        self.port, self.management_port = free_port(), free_port()
        self._dns_port, self._challenge_port = free_port(), free_port()
        self.ca = folder / "pebble.crt"
        self._write_certificate()
        config = {
            "listenAddress": f"{self.address}:{self.port}",
            "managementListenAddress": f"{self.address}:{self.management_port}",
            "certificate": "/pebble/pebble.crt",
            "privateKey": "/pebble/pebble.key",
            "httpPort": http_port,
            "tlsPort": free_port(),
            "ocspResponderURL": "",
            "externalAccountBindingRequired": False,
            "retryAfter": {"authz": 1, "order": 1},
            "profiles": {"default": {"description": "for tests", "validityPeriod": 90 * 86400}},
        }
        (folder / "pebble.json").write_text(json.dumps({"pebble": config}))
        self._containers: list[Container] = []

    @property
    def directory(self) -> str:
        """Address of the server as ACME clients take it."""
        return f"https://{self.address}:{self.port}/dir"

    def start(self) -> None:
        """Start the server and the DNS server it asks; wait until it answers."""
        dns = f"{self.address}:{self._dns_port}"
        self._run(
            "pebble-challtestsrv", "-dnsserver", dns, "-defaultIPv4", self.address, "-defaultIPv6", "",
            "-management", f"127.0.0.1:{self._challenge_port}",
            "-http01", "", "-https01", "", "-tlsalpn01", "", "-doh", "",
        )  # fmt: skip
        self._run("pebble", "-config", "/pebble/pebble.json", "-dnsserver", dns)
        wait_until(self.root)

    def stop(self) -> None:
        """Stop and remove both."""
        while self._containers:
            self._containers.pop().remove(force=True)

    def root(self) -> str:
        """The root certificate of what it issues; a new one with each start."""
        return self._manage().get("/roots/0").raise_for_status().text

    def ask_to_renew(self, certificate: x509.Certificate) -> None:
        """Suggest the renewal of a certificate for an hour ago, as a CA does that has to revoke it."""
        now = datetime.datetime.now(datetime.UTC)
        start, end = (
            (now - datetime.timedelta(hours=hours)).strftime("%Y-%m-%dT%H:%M:%SZ") for hours in (2, 1)
        )
        body = {
            "certificate": certificate.public_bytes(Encoding.PEM).decode(),
            "ariResponse": json.dumps({"suggestedWindow": {"start": start, "end": end}}),
        }
        self._manage().post("/set-renewal-info/", json=body).raise_for_status()

    def log(self) -> str:
        """What the server has to say."""
        return str(self._containers[-1].logs().decode()) if self._containers else ""

    def _manage(self) -> httpx.Client:
        return httpx.Client(
            base_url=f"https://{self.address}:{self.management_port}",
            verify=ssl.create_default_context(cafile=str(self.ca)),
            trust_env=False,
            timeout=ANSWER_S,
        )

    def _run(self, *command: str) -> None:
        self._containers.append(
            self._docker.containers.run(
                _IMAGE,
                list(command),
                detach=True,
                network_mode="host",
                user=str(os.getuid()),
                environment={"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "0"},
                volumes={str(self.folder): {"bind": "/pebble", "mode": "ro"}},
            )
        )

    def _write_certificate(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ACME server of the tests")])
        now = datetime.datetime.now(datetime.UTC)
        address = x509.IPAddress(ipaddress.ip_address(self.address))
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=2))
            .add_extension(x509.SubjectAlternativeName([address]), critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(key, hashes.SHA256())
        )
        self.ca.write_bytes(certificate.public_bytes(Encoding.PEM))
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (self.folder / "pebble.key").write_bytes(private)
