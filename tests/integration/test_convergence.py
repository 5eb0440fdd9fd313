"""A second `up` changes nothing, a refresh finds nothing, what was removed by hand comes back."""

from __future__ import annotations

from collections.abc import Callable

from tests.integration.conftest import full_config
from tests.integration.stack import Stack


def test_second_up_and_refresh_change_nothing(platform: Stack) -> None:
    platform.no_change()


def test_removed_container_comes_back(platform: Stack) -> None:
    platform.container("portal").remove(force=True)
    platform.up()
    assert platform.container("portal").status == "running"
    assert platform.http("", user="ada").status_code == 200
    platform.no_change()


def test_stopped_container_is_started_again(platform: Stack) -> None:
    platform.container("postgres").stop(timeout=5)
    platform.up()
    assert platform.container("postgres").status == "running"


def test_nothing_remains_after_destroy(new_stack: Callable[..., Stack]) -> None:
    stack = new_stack(full_config())
    stack.up()
    assert stack.remains()
    stack.destroy()
    assert stack.remains() == []
