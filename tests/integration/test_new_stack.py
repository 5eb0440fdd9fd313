"""The stack of all services just after it came up: this module runs first of those that share it."""

from __future__ import annotations

import os

import pytest

from components.estimates import estimate
from components.settings import load
from tests.bench.usage import memory
from tests.integration.services import ONLY
from tests.integration.stack import Stack, wait_until
from tests.integration.test_whole_stack import service_of, wait_healthy

ALLOWED = 0.15
"""By how much the memory of all services may differ from the estimate."""
SETTLE_S = 300
"""Until what starts and set-up took is given back. Later on, use has grown the heaps of the Java servers."""


def test_memory_is_near_the_estimate(everything: Stack) -> None:
    """With all services: what a few of them use varies more."""
    if os.environ.get(ONLY):
        pytest.skip("not all services are among those of this run")
    wait_healthy(everything.containers())
    expected = estimate(load(everything.config, everything.file.name))
    services = {c.name: service_of(c) for c in everything.containers()}
    assert {s.service for s in expected.services} == set(services.values())
    table: list[str] = []

    def near() -> bool:
        measured = dict.fromkeys(services.values(), 0.0)
        for name, used in memory(everything.containers()).items():
            measured[services[name]] += used
        rows = [f"{s.service:16} {s.memory_mib:6} {measured[s.service]:6.0f}" for s in expected.services]
        table[:] = ["service          expected measured MiB", *rows]
        return bool(expected.memory_mib == pytest.approx(sum(measured.values()), rel=ALLOWED))

    try:
        wait_until(near, seconds=SETTLE_S)
    except TimeoutError:
        pytest.fail("\n".join(table))
