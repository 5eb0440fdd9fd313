"""The platform's private CA and the certificates it issues (ECDSA P-256), renewed by ``pulumi up``."""

from __future__ import annotations

from collections.abc import Sequence

import pulumi
import pulumi_tls as tls

from components.options import child_opts

_HOURS = 24
_CA_DAYS = 3650
_SERVER = ("digital_signature", "key_encipherment", "server_auth")
_CLIENT = ("digital_signature", "client_auth")


class CertificateAuthority(pulumi.ComponentResource):
    """A self-signed CA valid for ten years. Its key never leaves the state."""

    def __init__(self, name: str, *, common_name: str, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("millrace:core:CertificateAuthority", name, None, opts)
        self.key = _key(name, self)
        self._certificate = tls.SelfSignedCert(
            f"{name}-certificate",
            private_key_pem=_secret(self.key.private_key_pem),
            is_ca_certificate=True,
            set_subject_key_id=True,
            validity_period_hours=_CA_DAYS * _HOURS,
            early_renewal_hours=30 * _HOURS,
            allowed_uses=["cert_signing", "crl_signing"],
            subject=tls.SelfSignedCertSubjectArgs(common_name=common_name, organization="Millrace"),
            opts=child_opts(self),
        )
        self.register_outputs({})

    @property
    def certificate(self) -> pulumi.Output[str]:
        """PEM, public."""
        return self._certificate.cert_pem


class Certificate(pulumi.ComponentResource):
    """A certificate from the platform's CA, for a server (``names``), a client (``client``) or both in one.

    Args:
        common_name: the subject; a client is recognised by it.
        names: DNS names of a server, wildcards included; 127.0.0.1 is always added.
        validity_days: its life time.
        renew_days: an ``up`` issues another one when fewer days are left.
    """

    def __init__(
        self,
        name: str,
        *,
        authority: CertificateAuthority,
        common_name: str,
        names: Sequence[str] = (),
        client: bool = False,
        validity_days: int,
        renew_days: int,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__("millrace:core:Certificate", name, None, opts)
        self._key = _key(name, self)
        request = tls.CertRequest(
            f"{name}-request",
            private_key_pem=_secret(self._key.private_key_pem),
            dns_names=list(names),
            ip_addresses=["127.0.0.1"] if names else [],
            subject=tls.CertRequestSubjectArgs(common_name=common_name),
            opts=child_opts(self),
        )
        self._signed = tls.LocallySignedCert(
            f"{name}-certificate",
            cert_request_pem=request.cert_request_pem,
            ca_private_key_pem=_secret(authority.key.private_key_pem),
            ca_cert_pem=authority.certificate,
            validity_period_hours=validity_days * _HOURS,
            early_renewal_hours=renew_days * _HOURS,
            set_subject_key_id=True,
            # A server's may not log in as a client: each has just the uses it was asked for.
            allowed_uses=list(dict.fromkeys([*(_SERVER if names else ()), *(_CLIENT if client else ())])),
            opts=child_opts(self),
        )
        self.authority = authority
        self.register_outputs({})

    @property
    def certificate(self) -> pulumi.Output[str]:
        """PEM, public."""
        return self._signed.cert_pem

    @property
    def key(self) -> pulumi.Output[str]:
        """PEM of the private key (PKCS#8, which Java and Postgres read alike); secret."""
        return _secret(self._key.private_key_pem_pkcs8)


def _key(name: str, parent: pulumi.Resource) -> tls.PrivateKey:
    return tls.PrivateKey(
        f"{name}-key",
        algorithm="ECDSA",
        ecdsa_curve="P256",
        opts=child_opts(
            parent,
            additional_secret_outputs=["privateKeyPem", "privateKeyPemPkcs8", "privateKeyOpenssh"],
        ),
    )


def _secret(value: pulumi.Output[str]) -> pulumi.Output[str]:
    return pulumi.Output.secret(value)
