"""How the tests are shared out among the processes that run them side by side."""

from __future__ import annotations

from pathlib import Path

import pytest

_TESTS = Path(__file__).parent
_SHARED = "everything"
"""The fixture with the stack of all services: too big to be up twice, so one process gets all its modules."""

_LAST = "test_whole_stack.py"
"""It destroys that stack in the end."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A module stays whole; what takes longest starts first, after the quick unit tests."""
    modules: dict[Path, list[pytest.Item]] = {}
    for item in items:
        modules.setdefault(item.path, []).append(item)
    groups = {path: _group(path, members) for path, members in modules.items()}
    for path, members in modules.items():
        for item in members:
            item.add_marker(pytest.mark.xdist_group(groups[path]))
    suites = ("unit", "integration", "e2e")

    def place(item: pytest.Item) -> tuple[int, bool, bool]:
        suite = item.path.relative_to(_TESTS).parts[0]
        return suites.index(suite), groups[item.path] != _SHARED, item.path.name == _LAST

    items.sort(key=place)


def _group(path: Path, members: list[pytest.Item]) -> str:
    shared = any(_SHARED in getattr(item, "fixturenames", ()) for item in members)
    return _SHARED if shared else path.relative_to(_TESTS).as_posix()
