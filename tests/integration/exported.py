"""Resources of a stack as its exported state has them, and certificates that tests make themselves."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from tests.integration.stack import Stack


def outputs_of(stack: Stack, name: str) -> dict[str, Any]:
    """The outputs of the resource of this name, secrets in plain."""
    exported = stack.pulumi("stack", "export", "--show-secrets", "--stack", stack.name).output
    found = [r for r in json.loads(exported)["deployment"]["resources"] if r["urn"].endswith(f"::{name}")]
    assert len(found) == 1, f"{len(found)} resources are named {name}"
    return {
        key: json.loads(value["plaintext"]) if isinstance(value, dict) and "plaintext" in value else value
        for key, value in found[0]["outputs"].items()
    }


def edit(stack: Stack, name: str, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the outputs of one resource in the stored state."""
    document = json.loads(stack.state())
    (resource,) = (r for r in document["deployment"]["resources"] if r["urn"].endswith(f"::{name}"))
    change(resource["outputs"])
    path = stack.folder / "edited.json"
    path.write_text(json.dumps(document))
    stack.pulumi("stack", "import", "--file", str(path), "--stack", stack.name)


@dataclass(frozen=True)
class Pair:
    """A self-signed certificate and its key, as files and as an object."""

    certificate: Path
    key: Path
    parsed: x509.Certificate


def self_signed(folder: Path, name: str, names: Sequence[str]) -> Pair:
    """A new key and a certificate for these DNS names, valid for ten days."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=10))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(n) for n in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pair = Pair(folder / f"{name}.crt", folder / f"{name}.key", certificate)
    pair.certificate.write_bytes(certificate.public_bytes(Encoding.PEM))
    pair.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return pair
