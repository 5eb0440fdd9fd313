"""How the tests are shared out among the processes that run them side by side."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path
from typing import Any

import pytest

_TESTS = Path(__file__).parent
_SHARED = "everything"
"""The fixture with the stack of all services: too big to be up twice, so one process gets all its modules."""

_E2E = "tests/e2e/"
"""Its modules share a stack, too."""

_FIRST, _LAST = "test_new_stack.py", "test_whole_stack.py"
"""The one sees that stack as it came up, the other destroys it in the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Quick tests first, then what takes longest; the others fill the gaps."""

    def place(item: pytest.Item) -> tuple[bool, ...]:
        suite, name = item.path.relative_to(_TESTS).parts[0], item.path.name
        return suite != "unit", not _uses_everything(item.path), suite != "e2e", name != _FIRST, name == _LAST

    items.sort(key=place)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With ``--dist=loadfile`` a module stays whole, and those that share a stack of all services."""
    if config.getvalue("dist") != "loadfile":
        return None
    # Only there when processes are asked for.
    from xdist.scheduler import LoadFileScheduling

    class Groups(LoadFileScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            if file.startswith(_E2E):
                return _E2E
            return _SHARED if _uses_everything(config.rootpath / file) else file

    return Groups(config, log)


@cache
def _uses_everything(module: Path) -> bool:
    """Whether a module asks for the shared stack; told from its text, as the sharer-out collects no tests."""
    tree = ast.parse(module.read_text())
    return any(isinstance(node, ast.arg) and node.arg == _SHARED for node in ast.walk(tree))
