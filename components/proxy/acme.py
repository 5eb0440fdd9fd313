"""The ACME client beside nginx. Traefik has one of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from components.proxy.nginx import CERTIFICATES, UID
from components.proxy.sites import PORTAL, Site
from components.settings import PlatformSettings
from components.templates import render
from components.workload import File, Limits, Probe, Workload

NAME = "acme"
CHALLENGE_PORT = 8080
"""Where it answers HTTP-01 challenges while it asks for a certificate."""

_SCRIPT = "/etc/millrace/acme"


def domains(sites: Sequence[Site]) -> list[str]:
    """The names on the certificate, the domain first; ACME's HTTP challenge cannot prove a wildcard."""
    ordered = sorted(sites, key=lambda site: (site.name != PORTAL, site.fqdn))
    return [site.fqdn for site in ordered]


def workload(sites: Sequence[Site], settings: PlatformSettings) -> Workload:
    """The program lego in a loop. It has nginx's uid, so that the key can stay private to the two."""
    return Workload(
        name=NAME,
        image="acme",
        command=("sh", _SCRIPT),
        user=UID,
        # Whether there is a certificate depends on others (DNS, the ACME server): not a reason to fail.
        probe=Probe(command=("sh", "-c", '[ -n "$(find /tmp/alive -mmin -10)" ]'), deadline_s=120),
        limits=Limits(memory_mib=128, cpus=0.5),
        env={
            "ACME_CHALLENGE_PORT": str(CHALLENGE_PORT),
            "ACME_DOMAINS": " ".join(domains(sites)),
            "ACME_EMAIL": settings.tls.email or "",
            "ACME_FOLDER": CERTIFICATES.path,
            "ACME_SERVER": settings.tls.server,
        },
        files=(File(path=_SCRIPT, content=render("proxy/acme.sh"), executable=True),),
        volumes=(replace(CERTIFICATES, of="proxy"),),
        egress=True,
        stop_grace_s=10,
    )
