"""Files both engines get: certificate, key, CA, and who may log in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pulumi

from components.proxy.sites import Site, htpasswd, htpasswd_path, levels, members
from components.service import TLS_FOLDER
from components.settings import PlatformSettings
from components.workload import File


@dataclass(frozen=True, kw_only=True)
class Material:
    """What the proxy is given: its certificate and key, the CA of the upstreams, the users' bcrypt hashes."""

    certificate: pulumi.Input[str]
    key: pulumi.Input[str]
    ca: pulumi.Input[str]
    hashes: Mapping[str, pulumi.Input[str]] = field(default_factory=dict)


def tls_files(material: Material) -> list[File]:
    """Certificate, key and CA, where nginx and Traefik alike look for them."""
    return [
        File(path=f"{TLS_FOLDER}/tls.crt", content=material.certificate),
        File(path=f"{TLS_FOLDER}/tls.key", content=material.key, secret=True),
        File(path=f"{TLS_FOLDER}/ca.crt", content=material.ca),
    ]


def login_files(sites: Sequence[Site], settings: PlatformSettings, material: Material) -> list[File]:
    """An htpasswd file for each level in use, with the users who rank high enough for it and no others."""
    made = []
    for level in levels(sites):
        names = members(settings.users, level)
        made.append(File(path=htpasswd_path(level), content=_htpasswd(material.hashes, names), secret=True))
    return made


def header_files(sites: Sequence[Site]) -> list[File]:
    """For each site with headers of its own the directives of nginx that set them."""
    return [
        File(path=headers_path(site), content=_directives(site.headers), secret=True)
        for site in sites
        if site.headers
    ]


def headers_path(site: Site) -> str:
    """Where nginx finds a site's own request headers."""
    return f"/run/millrace/headers/{site.name}.conf"


def _directives(headers: Mapping[str, pulumi.Input[str]]) -> pulumi.Output[str]:
    text = pulumi.Output.all(**headers).apply(
        lambda known: "".join(f"proxy_set_header {n} {_quoted(v)};\n" for n, v in sorted(known.items()))
    )
    return pulumi.Output.secret(text)


def _quoted(value: str) -> str:
    if "$" in value:
        raise ValueError("a request header's value holds a dollar sign, which nginx cannot be given")
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _htpasswd(hashes: Mapping[str, pulumi.Input[str]], names: list[str]) -> pulumi.Output[str]:
    """Secret even under mocks, where a provider's own secrets are not."""
    text = pulumi.Output.all(**{name: hashes[name] for name in names}).apply(
        lambda known: htpasswd(known, names)
    )
    return pulumi.Output.secret(text)


__all__ = ["TLS_FOLDER", "Material", "header_files", "headers_path", "login_files", "tls_files"]
