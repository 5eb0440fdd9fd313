"""Fixtures of the unit tests: which services there are, a console as at the start of a script.

The search of hypothesis is fixed and repeatable.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

import components.services
from components.service import Service
from components.settings import settings_model
from scripts import console

ROOT = Path(__file__).resolve().parents[2]

settings.register_profile(
    "millrace",
    max_examples=1200,
    derandomize=True,
    database=None,
    deadline=None,
    # One search over one function: the fixtures hold no state that an example could leave behind.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("millrace")


@pytest.fixture(autouse=True)
def _project_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths in settings and templates are relative to Pulumi.yaml."""
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("DOCKER_HOST", raising=False)


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, type[Service]]]:
    """The registry holds fake services only."""
    from fake_services import FAKES

    found = dict(FAKES)
    monkeypatch.setattr(components.services, "registry", lambda: found)
    settings_model.cache_clear()
    yield found
    monkeypatch.undo()
    settings_model.cache_clear()


@pytest.fixture
def fresh_console(monkeypatch: pytest.MonkeyPatch) -> None:
    """No step of the scripts has failed yet."""
    monkeypatch.setattr(console, "_cancelled", threading.Event())
