"""The provider's memory of former values, and that a service gets it as a secret."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from millrace.former import Former
from millrace.resources import Call

from tests.unit.graph import PLANTED, Secret, platform


@pytest.fixture
def call() -> Call:
    engine: Any = None
    return Call(engine=engine, progress=lambda text: None, cancelled=threading.Event())


def props(value: str, keep: int = 3) -> dict[str, Any]:
    return {"value": value, "keep": keep}


def history(call: Call, *values: str) -> list[str]:
    former = Former()
    _, outs = former.create(call, props(values[0]))
    for value in values[1:]:
        outs = former.update(call, "id", props(value), outs)
    return list(outs["former"])


@pytest.mark.parametrize(
    ("values", "known"),
    [
        (("a",), []),
        (("a", "b"), ["a"]),
        (("a", "b", "c"), ["b", "a"]),
        (("a", "b", "c", "d", "e"), ["d", "c", "b"]),
        (("a", "b", "a"), ["b"]),
    ],
)
def test_the_last_values_are_known(call: Call, values: tuple[str, ...], known: list[str]) -> None:
    assert history(call, *values) == known


def test_another_number_to_keep_forgets_nothing_else(call: Call) -> None:
    former = Former()
    outs = former.update(call, "id", props("c"), {"value": "b", "keep": 3, "former": ["a"]})
    assert former.update(call, "id", props("c", keep=1), outs)["former"] == ["b"]
    assert former.read(call, "id", outs) == outs


def test_it_is_secret_in_the_state() -> None:
    graph = platform({"postgres": {}, "bi": {}})
    node = graph.one("millrace:core:Former", "former-bi-secret-key")
    assert isinstance(node.inputs["value"], Secret)
    assert set(node.additional_secrets) == {"value", "former"}
    assert f"{PLANTED}-former-former-bi-secret-key" in str(graph.named("bi-setup").get("files"))
