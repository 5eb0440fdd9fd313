"""Checks of the certificate and key that mode ``provided`` takes from the user."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from components.problems import Problem
from components.settings import PlatformSettings, TlsMode

_CERTIFICATE = ("tls", "certificate")
_KEY = ("tls", "key")


def check_provided(settings: PlatformSettings, now: datetime | None = None) -> Iterator[Problem]:
    """What is wrong with ``tls.certificate`` and ``tls.key``; nothing in the other modes."""
    tls = settings.tls
    if tls.mode is not TlsMode.PROVIDED or tls.certificate is None or tls.key is None:
        return
    try:
        certificate = x509.load_pem_x509_certificates(Path(tls.certificate).expanduser().read_bytes())[0]
    except (OSError, ValueError, IndexError):
        yield Problem(_CERTIFICATE, "holds no readable certificate - give a PEM file, the server's own first")
        return
    yield from _validity(certificate, now or datetime.now(UTC))
    yield from _names(certificate, settings.domain)
    try:
        key = load_pem_private_key(Path(tls.key).expanduser().read_bytes(), password=None)
    except TypeError:
        yield Problem(_KEY, "is encrypted - give the key without a passphrase (openssl pkey -in … -out …)")
    except (OSError, ValueError, UnsupportedAlgorithm):
        yield Problem(_KEY, "holds no readable private key - give a PEM file")
    else:
        if _public(key.public_key()) != _public(certificate.public_key()):
            yield Problem(_KEY, "does not belong to tls.certificate - give the key of that certificate")


def _validity(certificate: x509.Certificate, now: datetime) -> Iterator[Problem]:
    if now > certificate.not_valid_after_utc:
        ended = certificate.not_valid_after_utc.date()
        yield Problem(_CERTIFICATE, f"expired on {ended} - give a renewed one")
    elif now < certificate.not_valid_before_utc:
        begins = certificate.not_valid_before_utc.date()
        yield Problem(_CERTIFICATE, f"is valid from {begins} on only - give one that is valid now")


def _names(certificate: x509.Certificate, domain: str) -> Iterator[Problem]:
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        names = {name.lower() for name in extension.value.get_values_for_type(x509.DNSName)}
    except (x509.ExtensionNotFound, ValueError):
        names = set()
    parent = domain.partition(".")[2]
    missing = [] if {domain, f"*.{parent}"} & names else [domain]
    # Services come and go; a wildcard is what covers them all.
    missing += [] if f"*.{domain}" in names else [f"*.{domain}"]
    if missing:
        has = ", ".join(sorted(names)) or "no DNS name"
        yield Problem(
            _CERTIFICATE,
            f"does not cover {' and '.join(missing)} (it has {has}) - "
            "give one for the domain and its wildcard",
        )


def _public(key: object) -> bytes:
    encoded: bytes = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined]
    return encoded
