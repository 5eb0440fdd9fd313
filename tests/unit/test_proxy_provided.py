"""Checks of a certificate and key of the user's own."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from components.proxy import check_provided
from components.settings import PlatformSettings

NOW = datetime(2030, 1, 1, tzinfo=UTC)
NAMES = ("data.localhost", "*.data.localhost")


def certificate(key: ec.EllipticCurvePrivateKey, names: tuple[str, ...], days: tuple[int, int]) -> bytes:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    builder = (
        x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
    )
    builder = builder.serial_number(1).not_valid_before(NOW + timedelta(days=days[0]))
    builder = builder.not_valid_after(NOW + timedelta(days=days[1]))
    if names:
        extension = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def private(key: ec.EllipticCurvePrivateKey, password: bytes | None = None) -> bytes:
    protection = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection)


class Pair:
    """A certificate and key as files."""

    def __init__(self, folder: Path) -> None:
        self.own = ec.generate_private_key(ec.SECP256R1())
        self.certificate, self.key = folder / "tls.crt", folder / "tls.key"
        self.issue()
        self.key.write_bytes(private(self.own))

    def issue(self, names: tuple[str, ...] = NAMES, days: tuple[int, int] = (-1, 1)) -> None:
        self.certificate.write_bytes(certificate(self.own, names, days))

    def problems(self, mode: str = "provided") -> list[tuple[str, str]]:
        tls = {"mode": mode, "certificate": str(self.certificate), "key": str(self.key)}
        found = check_provided(PlatformSettings.model_validate({"tls": tls}), NOW)
        return [(str(problem.path[-1]), problem.text) for problem in found]


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(tmp_path)


def test_good(pair: Pair) -> None:
    assert pair.problems() == []


def test_a_wildcard_of_the_parent_covers_the_domain(pair: Pair) -> None:
    pair.issue(("*.localhost", "*.data.localhost"))
    assert pair.problems() == []


def test_other_modes_are_not_checked(pair: Pair) -> None:
    pair.certificate.write_text("nonsense")
    assert pair.problems("self-signed") == []


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (("data.localhost",), "does not cover *.data.localhost (it has data.localhost)"),
        (("*.data.localhost",), "does not cover data.localhost (it has *.data.localhost)"),
        (("a.test",), "does not cover data.localhost and *.data.localhost (it has a.test)"),
        ((), "does not cover data.localhost and *.data.localhost (it has no DNS name)"),
    ],
)
def test_names(pair: Pair, names: tuple[str, ...], text: str) -> None:
    pair.issue(names)
    ((key, found),) = pair.problems()
    assert key == "certificate"
    assert found.startswith(text)


def test_expired(pair: Pair) -> None:
    pair.issue(days=(-10, -1))
    assert pair.problems() == [("certificate", "expired on 2029-12-31 - give a renewed one")]


def test_not_yet_valid(pair: Pair) -> None:
    pair.issue(days=(2, 10))
    assert pair.problems() == [
        ("certificate", "is valid from 2030-01-03 on only - give one that is valid now")
    ]


def test_key_of_another(pair: Pair) -> None:
    pair.key.write_bytes(private(ec.generate_private_key(ec.SECP256R1())))
    ((key, text),) = pair.problems()
    assert key == "key"
    assert "does not belong to tls.certificate" in text


def test_encrypted_key(pair: Pair) -> None:
    pair.key.write_bytes(private(pair.own, b"secret"))
    ((key, text),) = pair.problems()
    assert key == "key"
    assert "encrypted" in text


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\xff\x00", b"-----BEGIN CERTIFICATE-----\nAA==\n"])
def test_unreadable(pair: Pair, content: bytes) -> None:
    pair.certificate.write_bytes(content)
    pair.key.write_bytes(content)
    ((key, text),) = pair.problems()
    assert key == "certificate"
    assert "no readable certificate" in text
    pair.issue()
    ((key, text),) = pair.problems()
    assert key == "key"
    assert "no readable private key" in text


def test_several_mistakes_at_once(pair: Pair) -> None:
    pair.issue(("a.test",), days=(-10, -1))
    assert [key for key, _ in pair.problems()] == ["certificate", "certificate"]
