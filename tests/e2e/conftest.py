"""The stack that all modules here share."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.e2e.checkout import Checkout
from tests.e2e.demo_stack import Demo
from tests.integration import clients
from tests.integration.web import local_names


@pytest.fixture(scope="package")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    """A clone in a folder with a blank in its name, nothing brought up; gone before other tests go on."""
    made = Checkout(tmp_path_factory.mktemp("clone") / "mill race")
    yield made
    made.destroy()


@pytest.fixture(scope="package")
def up(checkout: Checkout) -> tuple[Checkout, str]:
    """A checkout after `make up`, and what that printed."""
    return checkout, checkout.make("up")


@pytest.fixture(scope="module")
def demo(up: tuple[Checkout, str]) -> Iterator[Demo]:
    """The stack; this process trusts the platform's CA, as somebody outside would."""
    checkout, _ = up
    with local_names(), pytest.MonkeyPatch.context() as patch:
        for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
            patch.setenv(name, clients.ca_file(checkout))
        for name in [n for n in os.environ if n.lower().endswith("_proxy")]:
            patch.delenv(name)
        yield Demo(checkout)
