"""The stack that all modules here share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.checkout import Checkout


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    """A clone in a folder with a blank in its name, nothing brought up."""
    made = Checkout(tmp_path_factory.mktemp("clone") / "mill race")
    yield made
    made.destroy()


@pytest.fixture(scope="session")
def up(checkout: Checkout) -> tuple[Checkout, str]:
    """A checkout after `make up`, and what that printed."""
    return checkout, checkout.make("up")
