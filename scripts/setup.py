"""Installs what is missing: Python packages, Docker engine, Pulumi CLI and plugins, base image, stack.

Checks are cheap, so that a rerun costs a fraction of a second.
"""

from __future__ import annotations

import argparse
import fcntl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from scripts import base_image, engine, mistakes, pulumi_cli, python_env, stack, target
from scripts.console import main, say, together
from scripts.versions import CACHE


@contextmanager
def locked() -> Iterator[None]:
    """One setup at a time in a checkout; a second one waits."""
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("setup", "waiting for another setup in this checkout")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def packages_only(*, development: bool = False) -> None:
    """Install the Python packages that are missing; enough for what needs neither engine nor CLI.

    Raises:
        SetupError: there can be no environment, or pip failed.
    """
    with locked():
        requirements = python_env.missing(development=development)
        if requirements:
            python_env.create()
            python_env.install(requirements)


def setup(stack_name: str, *, development: bool = False, judge: bool = False, builds: bool = True) -> None:
    """Install what the stack needs and is missing; with ``judge``, look for mistakes in its file first.

    Without ``builds`` the engine gets no base image: for commands that build nothing.

    Raises:
        MistakesError: the stack's file has mistakes; its host has not been asked anything.
        SetupError: something is missing that the scripts may not install.
    """
    start = time.monotonic()
    with locked():
        requirements = python_env.missing(development=development)
        if requirements:
            python_env.create()
        found: dict[str, str] = {}

        installed = threading.Event()

        def packages() -> None:
            try:
                python_env.install(requirements)
            finally:
                installed.set()

        def docker() -> None:
            if judge or target.is_configured(stack_name):
                installed.wait()  # reading the target takes PyYAML, judging the file all of them
            if judge:
                mistakes.refuse(stack_name)
            machine = target.of_stack(stack_name, python_env.PYTHON)
            if machine.made_by_program:
                return
            found["docker"] = engine.ensure(machine)
            if builds and machine.builds_images and not machine.key_is_secret:
                base_image.ensure(machine)

        def pulumi() -> None:
            found["pulumi"] = pulumi_cli.version(pulumi_cli.ensure())

        together(packages, docker, pulumi)
        if "docker" not in found:  # its host is Pulumi's to make
            pulumi_cli.ensure_plugin("digitalocean")
        stack.prepare(stack_name)
    if stack.uses_local_state() and not pulumi_cli.plain_command_works():
        say("pulumi", "for plain `pulumi` commands in your shell: source .envrc (or use direnv)")
    say(
        "ready",
        f"Docker {found.get('docker', 'on the host that Pulumi makes')}, "
        f"Pulumi {found['pulumi'].removeprefix('v')}, stack {stack_name} ({time.monotonic() - start:.1f} s)",
    )


def _main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stack", default="dev", help="stack to prepare (default: dev)")
    parser.add_argument("--development", action="store_true", help="with the tools of the checks and tests")
    options = parser.parse_args()
    setup(options.stack, development=options.development)
    return 0


if __name__ == "__main__":
    main(_main)
