"""Fixtures of stacks on a real Docker engine, for `tests/integration` and `tests/e2e`.

The platform that most tests look at comes up once for all of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import everything_config, full_config
from tests.integration.stack import Stack

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def new_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Stack]]:
    """Makes stacks; all of them are destroyed at the end, whatever happened."""
    made: list[Stack] = []

    def make(config: Mapping[str, Any], name: str | None = None, **more: Any) -> Stack:
        name = name or f"s{next(_numbers)}"
        folder: Path = tmp_path_factory.mktemp(name) / "project"
        stack = Stack(folder, name, config, **more)
        made.append(stack)
        return stack

    yield make
    for stack in made:
        if stack.file.exists():
            stack.destroy()


@pytest.fixture(scope="session")
def platform(new_stack: Callable[..., Stack]) -> Stack:
    """Postgres and the object store, up. Tests that change the settings put them back and `up` again."""
    stack = new_stack(full_config(), name="shared")
    stack.up()
    return stack


@pytest.fixture(scope="session")
def everything(new_stack: Callable[..., Stack]) -> Stack:
    """All services of the platform, up; with ``MILLRACE_TEST_SERVICES=a,b`` these and what they need.

    Tests that change settings put them back and `up` again:
    ``with everything.changed(kafka={...}): everything.up()``.
    """
    stack = new_stack(everything_config(), name="all")
    stack.first_up = stack.up().output
    return stack
