"""The environments, one for each Pulumi.<stack>.yaml. Their targets tell which of them a team deploys."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts import gitlab, python_env, target
from scripts import stack as stack_module
from scripts.console import SetupError, main
from scripts.setup import packages_only
from scripts.versions import ROOT

ALL = "all"
"""Stands for every environment where a stack is asked for."""


@dataclass(frozen=True, kw_only=True)
class Environment:
    """One stack file, as far as continuous integration must know it."""

    stack: str
    where: str
    """local, or the address or kind of the host."""

    @property
    def deployed(self) -> bool:
        """Whether it is on a host of its own, which a team shares; others are for one's own machine."""
        return self.where != "local"


def names() -> list[str]:
    """All stacks that have a file."""
    return sorted(
        path.name.removeprefix("Pulumi.").removesuffix(".yaml") for path in ROOT.glob("Pulumi.*.yaml")
    )


def chosen(text: str) -> list[str]:
    """The stacks that an argument names: one, several with blanks or commas between them, or ``all``.

    Raises:
        SetupError: none is named, or one of them has no file.
    """
    known = names()
    wanted = text.replace(",", " ").split()
    if not wanted:
        listed = ", ".join(known) or "none"
        raise SetupError(f"no stack is named: STACK (--stack) is empty (there is: {listed})")
    if wanted == [ALL] and ALL not in known:
        return known
    for stack in wanted:
        if stack not in known:
            listed = ", ".join(known) or "none"
            raise SetupError(f"stack {stack}: there is no Pulumi.{stack}.yaml (there is: {listed})")
    return list(dict.fromkeys(wanted))


def where(config: Mapping[str, Any]) -> str:
    """Where a configuration puts a stack: ``local``, a host's address, or a kind of cloud."""
    settings = config.get("millrace:target")
    own: Mapping[str, Any] = settings if isinstance(settings, dict) else {}
    kind = str(own.get("kind") or "docker")
    if kind != "docker":
        return kind
    host = str(own.get("host") or "")
    if host.startswith(("ssh://", "tcp://")):
        return host.split("://")[0] + "://" + host.split("://")[1].rsplit("@", 1)[-1]
    return "local"


def read(stack: str) -> Environment:
    """An environment by its stack. A file that can't be read counts as local: its preview says why."""
    return Environment(stack=stack, where=where(target.config_of(stack, python_env.PYTHON)))


def in_ci() -> bool:
    """Whether continuous integration runs this: what cannot be checked fails there."""
    return os.environ.get("CI", "").lower() in ("true", "1")


NO_STATE = (
    f"stack {{stack}}: its state is not to be had here: {stack_module.LOCAL_BACKEND} is a folder of one "
    "checkout. Set PULUMI_BACKEND_URL to the team's backend (docs/state.md)"
)


def state_is_elsewhere(stack: str) -> bool:
    """Whether continuous integration looks at a deployed environment with the state of an empty checkout."""
    return in_ci() and stack_module.uses_local_state() and read(stack).deployed


def _main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--json", action="store_true", help="names as a JSON list")
    group.add_argument("--gitlab", action="store_true", help="GitLab's child pipeline for them")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--deployed", action="store_true", help="only those on a host of their own")
    which.add_argument("--local", action="store_true", help="only those for one's own machine")
    parser.add_argument("--output", type=Path, help="file for the answer; else it is printed")
    options = parser.parse_args()
    packages_only()
    found = [read(stack) for stack in names()]
    if options.deployed or options.local:
        found = [environment for environment in found if environment.deployed is options.deployed]
    if options.json:
        text = json.dumps([environment.stack for environment in found]) + "\n"
    elif options.gitlab:
        stacks, deployed = [e.stack for e in found], [e.stack for e in found if e.deployed]
        text = gitlab.pipeline(stacks, deployed, os.environ)
    else:
        width = max((len(environment.stack) for environment in found), default=0)
        text = "".join(f"{environment.stack:<{width}}  {environment.where}\n" for environment in found)
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(text)
    else:
        print(text, end="")
    return 0


if __name__ == "__main__":
    main(_main)
