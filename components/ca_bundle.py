"""An extra CA bundle: a company's own CAs, for builds and for containers that call out."""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path

import certifi

from components.images import IMAGES

BUILD_BUNDLE = IMAGES / "ca" / "bundle.crt"
"""Where Dockerfiles find it (git-ignored). Mounted into single build steps, it never becomes part of a layer,
nor of :func:`components.images.content_hash`."""


def extra_paths(setting: str | None) -> list[Path]:
    """The setting's file and the one that SSL_CERT_FILE names, as far as they exist."""
    paths = [Path(path).expanduser() for path in (setting, os.environ.get("SSL_CERT_FILE")) if path]
    return [path for path in paths if path.is_file()]


@cache
def combined(setting: str | None) -> str | None:
    """Public roots and the extra CAs as one PEM text, or None when there is nothing to add."""
    paths = extra_paths(setting)
    if not paths:
        return None
    text = "\n".join([certifi.contents(), *(path.read_text(errors="replace") for path in paths)])
    blocks = re.findall(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", text, re.DOTALL)
    return "\n".join(dict.fromkeys(blocks)) + "\n"


def place_for_builds(setting: str | None) -> None:
    """Put the bundle where builds look for it, and remove an old one when there is none."""
    bundle = combined(setting)
    if bundle is None:
        BUILD_BUNDLE.unlink(missing_ok=True)
    elif not BUILD_BUNDLE.is_file() or BUILD_BUNDLE.read_text() != bundle:
        BUILD_BUNDLE.parent.mkdir(parents=True, exist_ok=True)
        # Another stack's build may read it at this moment: the rename swaps it whole.
        partial = BUILD_BUNDLE.with_suffix(f".{os.getpid()}")
        partial.write_text(bundle)
        partial.replace(BUILD_BUNDLE)
