"""The catalogue of images: the one place that holds upstream versions."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

IMAGES = Path("images")
"""Build context of every image, relative to the project's folder (an absolute path would differ by
checkout and show up as a change)."""

DIGESTS = Path("configs/image-digests.json")
"""Digests of official images by reference, as their registries told `make digests`; it need not be there."""

_SCRIPTS = "common"
SHARED = (_SCRIPTS, "ca")
"""Folders below images/ that every build gets besides its own: scripts for Dockerfiles, and the extra CAs,
which never become part of an image."""

_TAG_DIGITS = 12


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One image: what to pull, and how to build its equivalent.

    ``upstream`` is registry/repository:tag[@digest]; without it the image is built whatever the settings
    say. ``version`` becomes part of the built image's tag. ``bases`` are the build arguments that name other
    images of this catalogue. ``buildable`` False: no package registry has the program, it is pulled whatever
    the settings say. ``part`` True: it stands beside a service's own image, and a service's ``image`` setting
    does not replace it.
    """

    version: str
    upstream: str | None = None
    buildable: bool = True
    part: bool = False
    bases: Mapping[str, str] = field(default_factory=lambda: {"BASE": "base"})


_GO = {"BASE": "base", "GO_BUILD": "go-build"}
_PYTHON = {"BASE": "python", "FETCH": "fetch"}
_JAVA = {"BASE": "java", "FETCH": "fetch"}
_FETCHED = {"BASE": "base", "FETCH": "fetch"}

# A digest stands where several sources agree on it; the engine then verifies what it pulls.
CATALOGUE: Mapping[str, Entry] = {
    "base": Entry(version="bookworm", bases={}),
    "go-build": Entry(version="1"),
    "python": Entry(version="3.11", upstream="docker.io/library/python:3.11.13-slim-bookworm", part=True),
    "java": Entry(version="17", bases={"BASE": "python"}),
    "fetch": Entry(version="1", bases={"BASE": "python"}),
    "postgres": Entry(version="15", upstream="docker.io/library/postgres:15.19-bookworm"),
    # The last community image; Docker Hub's repository was deleted in September 2026, quay.io still has it.
    "minio": Entry(
        version="2026-02-12",
        upstream="quay.io/minio/minio:RELEASE.2025-09-07T16-13-09Z"
        "@sha256:14cea493d9a34af32f524e538b8346cf79f3321eff8e708c1e2960462bd8936e",
        bases=_GO,
    ),
    "nginx": Entry(version="1.22", upstream="docker.io/library/nginx:1.28.0-bookworm"),
    "traefik": Entry(
        version="3.6.25",
        upstream="docker.io/library/traefik:v3.6.25"
        "@sha256:31267173a15b4944e797a76ffd9c419707c8d8b32fe5b610f80cd0cfa05f372d",
        bases=_GO,
    ),
    "kafka": Entry(version="4.3.1", upstream="docker.io/apache/kafka:4.3.1", bases=_JAVA),
    "kafka-setup": Entry(version="1", bases=_PYTHON, part=True),
    "redpanda-console": Entry(
        version="3.10.0", upstream="docker.io/redpandadata/console:v3.10.0", buildable=False, part=True
    ),
    # The newest one published; later versions of the reference server have none.
    "delta-sharing": Entry(
        version="1.0.0", upstream="docker.io/deltaio/delta-sharing-server:0.7.8", bases=_PYTHON
    ),
    # Ours alone, so it is built whatever the settings say.
    "demo": Entry(version="1", bases=_PYTHON),
    "airflow": Entry(version="3.3.2", upstream="docker.io/apache/airflow:3.3.2", bases=_PYTHON),
    "trino": Entry(version="476", upstream="docker.io/trinodb/trino:476", bases=_FETCHED),
    # Maven Central has no release after 0.287, whose Kafka connector knows neither TLS nor SASL: images/ adds
    # both. The official image is of a release that has them.
    "presto": Entry(
        version="0.287",
        upstream="docker.io/prestodb/presto:0.299",
        bases=_FETCHED,
    ),
    # On no package registry. The setup job speaks the HTTP API of this version.
    "metabase": Entry(version="0.63.19", upstream="docker.io/metabase/metabase:v0.63.19", buildable=False),
    # The plain official image has no database drivers, not even for the metadata; the one for development has
    # PostgreSQL's, Trino's and Presto's.
    "superset": Entry(version="6.1.0", upstream="docker.io/apache/superset:6.1.0-dev", bases=_PYTHON),
    # The official image has a Spark and a Python of its own, other than the cluster has: see docs/jupyter.md.
    "jupyter": Entry(
        version="4.6.6",
        upstream="quay.io/jupyter/pyspark-notebook:2025-12-15",
        bases={"BASE": "spark", "FETCH": "fetch"},
    ),
    "acme": Entry(version="4.35.2", upstream="docker.io/goacme/lego:v4.35.2", bases=_GO),
    "spark": Entry(
        version="4.2.0",
        upstream="docker.io/apache/spark:4.2.0-scala2.13-java17-python3-ubuntu",
        bases={"BASE": "java", "FETCH": "fetch"},
    ),
}


def upstream_reference(name: str, mirror: str | None) -> str:
    """Full reference of the official image, from ``mirror`` (host[:port][/prefix]) when there is one.

    A mirror holds the images under their own paths, such as ``<mirror>/library/postgres``, and is trusted
    with their content: digests are not asked of it, since one that was filled by hand has others.

    Raises:
        KeyError: when the catalogue has no such image or it is only ever built.
    """
    upstream = CATALOGUE[name].upstream
    if upstream is None:
        raise KeyError(name)
    if mirror is None:
        digest = None if "@" in upstream else digests().get(upstream)
        return f"{upstream}@{digest}" if digest else upstream
    path = upstream.split("/", 1)[1].partition("@")[0]
    return f"{mirror.rstrip('/')}/{path}"


@cache
def digests() -> Mapping[str, str]:
    """What :data:`DIGESTS` holds."""
    found: dict[str, str] = json.loads(DIGESTS.read_text()) if DIGESTS.is_file() else {}
    return found


def pulled_reference(name: str, *, upstream: bool, override: str | None, mirror: str | None) -> str | None:
    """What to pull for an image, or None where it is built.

    ``upstream`` asks for the official image, ``override`` is the exact reference that a service's settings
    give, ``mirror`` as in :func:`upstream_reference`.
    """
    entry = CATALOGUE[name]
    if override is not None and not entry.part:
        return override
    if not entry.buildable or (upstream and entry.upstream is not None):
        return upstream_reference(name, mirror)
    return None


@cache
def content_hash(name: str) -> str:
    """Hash of everything a build of this image depends on: its folder and those of its bases."""
    digest = hashlib.sha256()
    for base in sorted(CATALOGUE[name].bases.values()):
        digest.update(content_hash(base).encode())
    files = [p for folder in (IMAGES / name, IMAGES / _SCRIPTS) for p in folder.rglob("*") if p.is_file()]
    # Byte code appears beside an image's Python when its tests run.
    for path in sorted(p for p in files if "__pycache__" not in p.parts):
        digest.update(f"{path.relative_to(IMAGES)}\0{path.stat().st_mode & 0o111:o}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def built_reference(name: str) -> str:
    """Local name of the built image; it changes exactly when :func:`content_hash` does."""
    return f"millrace/{name}:{CATALOGUE[name].version}-{content_hash(name)[:_TAG_DIGITS]}"
