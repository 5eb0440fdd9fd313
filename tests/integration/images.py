"""Builds all images of the catalogue before the tests run, a line for each.

Two stacks that want the same image at the same time would both build it, and nobody would see why a test
takes ten minutes. ``python -m tests.integration.images``; nothing to do when the engine has them all.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

import docker
from docker.errors import ImageNotFound

from components import ca_bundle
from components.images import CATALOGUE, SHARED, built_reference
from scripts.console import say
from tests.integration.stack import ROOT

# A package of its own, which pytest finds by the project's settings.
sys.path.append(str(ROOT / "provider"))
from millrace import buildkit

_AT_ONCE = 4
"""More than there are cores: much of a build is waiting for downloads."""


def build(folder: str, tag: str, arguments: Mapping[str, str]) -> None:
    """Build ``images/<folder>`` on the engine as the platform does.

    Raises:
        millrace.buildkit.BuildError: when it fails.
    """
    buildkit.build(
        docker.from_env(),
        tag,
        context=str(ROOT / "images"),
        folders=[folder, *SHARED],
        dockerfile=f"{folder}/Dockerfile",
        args=arguments,
        progress=lambda line: None,
    )


def build_all() -> None:
    """Build every image that can be built and is not there, each after its bases.

    Raises:
        millrace.buildkit.BuildError: when one fails.
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
                    running[pool.submit(_have, name, started)] = name
                finished, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    name = running.pop(future)
                    future.result()
                    done.add(name)
                    if name in started:
                        say("images", f"{name}: built in {time.monotonic() - started[name]:.0f} s")
    finally:
        ended.set()
    say("images", f"{len(done)} on the engine")


def _have(name: str, started: dict[str, float]) -> None:
    try:
        docker.from_env().images.get(built_reference(name))
    except ImageNotFound:
        started[name] = time.monotonic()
        bases = {argument: built_reference(base) for argument, base in CATALOGUE[name].bases.items()}
        build(name, built_reference(name), bases)


def _heartbeat(started: dict[str, float], done: set[str], ended: threading.Event) -> None:
    while not ended.wait(60):
        say("images", f"building {', '.join(sorted(set(started) - done))}")


if __name__ == "__main__":
    try:
        build_all()
    except buildkit.BuildError as error:
        sys.exit("\n".join([*error.log[-30:], f"error: {error}"]))
