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


def extra_path(setting: str | None) -> Path | None:
    """The setting's file, else the one that SSL_CERT_FILE names, or None."""
    path = setting or os.environ.get("SSL_CERT_FILE")
    found = Path(path).expanduser() if path else None
    return found if found is not None and found.is_file() else None


@cache
def combined(setting: str | None) -> str | None:
    """Public roots and the extra CAs as one PEM text, or None when there is nothing to add."""
    path = extra_path(setting)
    if path is None:
        return None
    text = certifi.contents() + "\n" + path.read_text(errors="replace")
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
