"""`make up` of a fresh clone with nothing cached: no toolchain, no Go modules, no images, no build cache."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import docker

_ROOT = Path(__file__).resolve().parents[2]


def cold_up() -> float:
    """Seconds that `make up` took. Its output goes to the terminal.

    Raises:
        SystemExit: when containers use the images, or `make up` fails.
    """
    engine = docker.from_env()
    images = [i for i in engine.images.list() if any(_own(tag) for tag in i.tags)]
    used = {c.attrs["Image"] for c in engine.containers.list(all=True)}
    if any(image.id in used for image in images):
        raise SystemExit("bench --cold: containers use Millrace's images - `make down` first")
    for image in images:
        engine.images.remove(image.id, force=True)
    subprocess.run(["docker", "builder", "prune", "--all", "--force"], check=True, capture_output=True)
    home = Path(tempfile.mkdtemp(prefix="millrace-cold-"))
    environment = {
        "HOME": str(home),
        # The prepared tools of this checkout must not be found; system tools may.
        "PATH": os.environ["PATH"].replace(f"{_ROOT}/.venv/bin:", "").replace(f"{_ROOT}/.millrace/bin:", ""),
        **{k: v for k, v in os.environ.items() if k.endswith("_CA_BUNDLE") or k.startswith("SSL_CERT_")},
    }
    clone = home / "millrace"
    link = Path("/usr/local/bin/pulumi")
    hidden = link.resolve().is_relative_to(_ROOT) if link.is_symlink() else False
    target = link.readlink() if hidden else None
    try:
        if hidden:
            link.unlink()
        subprocess.run(["git", "clone", "--quiet", str(_ROOT), str(clone)], check=True)
        started = time.monotonic()
        code = subprocess.run(["make", "up"], cwd=clone, env=environment).returncode
        seconds = time.monotonic() - started
        if code:
            raise SystemExit(f"bench --cold: make up ended with {code}")
        subprocess.run(["make", "down"], cwd=clone, env=environment, check=True)
        return seconds
    finally:
        if target is not None:
            link.unlink(missing_ok=True)
            link.symlink_to(target)
        # Go makes its module cache read-only.
        subprocess.run(["chmod", "-R", "u+w", str(home)], check=False)
        shutil.rmtree(home, ignore_errors=True)


def _own(tag: str) -> bool:
    return tag.startswith("millrace/") or tag == "debian:bookworm-slim"
