"""Asks the registries for the digests of the official images and writes them to configs/image-digests.json.

From then on these images are pulled by digest: another machine, or another day, gets the same ones. Run it
again after a version changed.
"""

from __future__ import annotations

import argparse
import json
import re
import urllib.error
import urllib.parse
import urllib.request
from concurrent.futures import ThreadPoolExecutor

from components.images import CATALOGUE, DIGESTS
from scripts.console import SetupError, main, say
from scripts.versions import ROOT

_TIMEOUT_S = 30
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
# Docker Hub's API is not where its name says.
_HUB = {"docker.io": "registry-1.docker.io"}
_ACCEPT = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)


def digest_of(reference: str, scheme: str = "https") -> str:
    """The digest that a tag has now, for all platforms where there are several.

    Raises:
        SetupError: the registry cannot be asked, or does not know the image.
    """
    registry, _, rest = reference.partition("/")
    name, _, tag = rest.partition(":")
    url = f"{scheme}://{_HUB.get(registry, registry)}/v2/{name}/manifests/{tag}"
    try:
        try:
            found = _ask(url)
        except urllib.error.HTTPError as error:
            if error.code != 401:
                raise
            found = _ask(url, _token(error.headers.get("WWW-Authenticate", "")))
    except (OSError, ValueError, KeyError) as error:
        raise SetupError(f"{reference}: {error}") from None
    if not _DIGEST.fullmatch(found):
        raise SetupError(f"{reference}: {registry} told no digest")
    return found


def _ask(url: str, token: str = "") -> str:
    headers = {"Accept": ", ".join(_ACCEPT)} | ({"Authorization": f"Bearer {token}"} if token else {})
    request = urllib.request.Request(url, headers=headers, method="HEAD")  # noqa: S310 - of the catalogue
    with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:  # noqa: S310
        return str(answer.headers.get("Docker-Content-Digest", ""))


def _token(challenge: str) -> str:
    """The token for reading that a registry gives to anybody (distribution's token authentication)."""
    fields = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
    realm = fields.pop("realm")
    if not realm.startswith(("https://", "http://127.0.0.1")):
        raise ValueError(f"asks for a login at {realm}")
    with urllib.request.urlopen(  # noqa: S310
        f"{realm}?{urllib.parse.urlencode(fields)}", timeout=_TIMEOUT_S
    ) as answer:
        values = json.load(answer)
    return str(values.get("token") or values["access_token"])


def _main() -> int:
    argparse.ArgumentParser(description=__doc__).parse_args()
    wanted = sorted(e.upstream for e in CATALOGUE.values() if e.upstream and "@" not in e.upstream)
    found: dict[str, str] = {}
    failed: list[str] = []

    def look(reference: str) -> None:
        try:
            found[reference] = digest_of(reference)
            say("digests", reference)
        except SetupError as error:
            failed.append(str(error))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(look, wanted))
    if found:
        file = ROOT / DIGESTS
        known = json.loads(file.read_text()) if file.is_file() else {}
        # One that no registry was asked about today keeps what it had.
        kept = {reference: known[reference] for reference in wanted if reference in known}
        file.write_text(json.dumps(dict(sorted({**kept, **found}.items())), indent=2) + "\n")
        say("digests", f"{len(found)} written to {DIGESTS}")
    if failed:
        raise SetupError("; ".join(sorted(failed)))
    return 0


if __name__ == "__main__":
    main(_main)
