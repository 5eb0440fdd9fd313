"""The catalogue of images: the one place that holds upstream versions."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

IMAGES = Path("images")
"""Build context of every image, relative to the project's folder (an absolute path would differ by
checkout and show up as a change)."""

_SHARED = "common"
"""Folder below images/ with scripts that every Dockerfile may use."""

_TAG_DIGITS = 12


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One image: what to pull, and how to build its equivalent.

    ``upstream`` is repository:tag on Docker Hub (None for build stages). ``version`` becomes part of the
    built image's tag. ``bases`` are the build arguments that name other images of this catalogue.
    """

    version: str
    upstream: str | None = None
    bases: Mapping[str, str] = field(default_factory=lambda: {"BASE": "base"})


CATALOGUE: Mapping[str, Entry] = {
    "base": Entry(version="bookworm", bases={}),
    "go-build": Entry(version="1", bases={"BASE": "base"}),
    "postgres": Entry(version="15", upstream="postgres:15.14-bookworm"),
    "minio": Entry(
        version="2026-02-12",
        upstream="minio/minio:RELEASE.2025-09-07T16-13-09Z",
        bases={"BASE": "base", "GO_BUILD": "go-build"},
    ),
    "nginx": Entry(version="1.22", upstream="nginx:1.28.0-bookworm"),
    "traefik": Entry(
        version="3.6.12", upstream="traefik:v3.6.12", bases={"BASE": "base", "GO_BUILD": "go-build"}
    ),
    "acme": Entry(
        version="4", upstream="goacme/lego:v4.25.2", bases={"BASE": "base", "GO_BUILD": "go-build"}
    ),
}


def upstream_reference(name: str, mirror: str | None) -> str:
    """Full reference of the official image, from ``mirror`` (host[:port][/prefix]) when there is one.

    Raises:
        KeyError: when the catalogue has no such image or it is only ever built.
    """
    upstream = CATALOGUE[name].upstream
    if upstream is None:
        raise KeyError(name)
    if mirror is None:
        return upstream
    repository = upstream if "/" in upstream else f"library/{upstream}"
    return f"{mirror.rstrip('/')}/{repository}"


@cache
def content_hash(name: str) -> str:
    """Hash of everything a build of this image depends on: its folder and those of its bases."""
    digest = hashlib.sha256()
    for base in sorted(CATALOGUE[name].bases.values()):
        digest.update(content_hash(base).encode())
    files = [p for folder in (IMAGES / name, IMAGES / _SHARED) for p in folder.rglob("*") if p.is_file()]
    for path in sorted(files):
        digest.update(f"{path.relative_to(IMAGES)}\0{path.stat().st_mode & 0o111:o}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def built_reference(name: str) -> str:
    """Local name of the built image; it changes exactly when :func:`content_hash` does."""
    return f"millrace/{name}:{CATALOGUE[name].version}-{content_hash(name)[:_TAG_DIGITS]}"
