"""Builds all images of the catalogue before the tests run, a line for each.

Two stacks that want the same image at the same time would both build it, and nobody would see why a test
takes ten minutes. ``python -m tests.integration.images``: a matter of seconds when the engine has them all.
"""

from __future__ import annotations

import io
import json
import sys
import tarfile
import threading
import time
from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

import docker

from components import ca_bundle
from components.images import CATALOGUE, built_reference
from scripts.console import say
from tests.integration.stack import ROOT

_AT_ONCE = 4
"""More than there are cores: much of a build is waiting for downloads."""

_TIMEOUT_S = 3600


class BuildError(Exception):
    """A build failed; the message holds the end of its output."""


def build(folder: str, tag: str, arguments: Mapping[str, str]) -> None:
    """Build ``images/<folder>`` as the platform does, by BuildKit on the engine.

    Raises:
        BuildError: when it fails.
    """
    engine = docker.from_env(timeout=_TIMEOUT_S).api
    # Version 2 is BuildKit, which neither this client nor every `docker build` has.
    answer = engine.post(
        f"{engine.base_url}/v{engine.api_version}/build",
        params={
            "version": "2",
            "dockerfile": f"{folder}/Dockerfile",
            "t": tag,
            "buildargs": json.dumps(dict(arguments)),
        },
        headers={"Content-Type": "application/x-tar"},
        data=_context(),
    )
    if "Successfully tagged" not in answer.text:
        errors = [m["error"] for line in answer.text.splitlines() if "error" in (m := json.loads(line))]
        raise BuildError(f"image {folder}: {' '.join(errors) or answer.text[-2000:]}")


def _context() -> io.BytesIO:
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w", format=tarfile.GNU_FORMAT) as tar:
        tar.add(ROOT / "images", ".")
    context.seek(0)
    return context


def build_all() -> None:
    """Build every image that can be built, each after its bases.

    Raises:
        BuildError: when one fails.
    """
    ca_bundle.place_for_builds(None)
    started: dict[str, float] = {}
    todo = {name: set(entry.bases.values()) for name, entry in CATALOGUE.items() if entry.buildable}
    done: set[str] = set()
    ended = threading.Event()
    threading.Thread(target=_heartbeat, args=(started, done, ended), daemon=True).start()
    try:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            running: dict[Future[None], str] = {}
            while todo or running:
                for name in [name for name, bases in todo.items() if bases <= done]:
                    del todo[name]
                    running[pool.submit(_build_one, name, started)] = name
                finished, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    name = running.pop(future)
                    future.result()
                    done.add(name)
                    say("images", f"{name}: {time.monotonic() - started[name]:.0f} s")
    finally:
        ended.set()


def _build_one(name: str, started: dict[str, float]) -> None:
    started[name] = time.monotonic()
    bases = {argument: built_reference(base) for argument, base in CATALOGUE[name].bases.items()}
    build(name, built_reference(name), bases)


def _heartbeat(started: dict[str, float], done: set[str], ended: threading.Event) -> None:
    while not ended.wait(60):
        say("images", f"building {', '.join(sorted(set(started) - done))}")


if __name__ == "__main__":
    try:
        build_all()
    except BuildError as error:
        sys.exit(f"error: {error}")
