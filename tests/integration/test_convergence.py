"""What was removed or stopped by hand comes back; the rest is in test_whole_stack.py."""

from __future__ import annotations

from tests.integration.stack import Stack


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
