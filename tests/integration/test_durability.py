"""Data survives whatever happens to the containers that hold it."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from minio import Minio

from tests.integration.clients import object_store, postgres
from tests.integration.conftest import full_config
from tests.integration.stack import Stack, crash, wait_until


@pytest.fixture(scope="module")
def stack(new_stack: Callable[..., Stack]) -> Iterator[Stack]:
    """A platform with one row and one object in it."""
    stack = new_stack(full_config())
    stack.up()
    with postgres(stack, "shop", "shop_owner") as connection:
        connection.execute("create table kept (what text)")
        connection.execute("insert into kept values ('a row')")
    object_store(stack, "loader").put_object("raw", "kept.txt", io.BytesIO(b"an object"), 9)
    yield stack
    stack.destroy()


@pytest.fixture(autouse=True)
def _still_there(stack: Stack) -> Iterator[None]:
    yield
    wait_until(lambda: _row(stack) == "a row")
    wait_until(lambda: _object(object_store(stack, "loader")) == b"an object")


def _row(stack: Stack) -> Any:
    with postgres(stack, "shop", "reader") as connection:
        row = connection.execute("select what from kept").fetchone()
        return row and row[0]


def _object(client: Minio) -> bytes:
    response = client.get_object("raw", "kept.txt")
    try:
        return response.read()
    finally:
        response.close()
        response.release_conn()


def test_changed_memory_limit(stack: Stack) -> None:
    before = stack.container("postgres").id
    config = stack.config
    config["postgres"]["memory_mib"] = 300
    config["object_store"]["memory_mib"] = 400
    stack.configure(config)
    stack.up()
    container = stack.container("postgres")
    assert container.id != before
    assert container.attrs["HostConfig"]["Memory"] == 300 * 1024 * 1024


@pytest.mark.parametrize(("service", "name"), [("postgres", "postgres"), ("object_store", "object-store")])
def test_changed_image_tag(stack: Stack, service: str, name: str) -> None:
    image = stack.container(name).image
    other = f"mrtest/{name}:other"
    assert image.tag(other)
    try:
        config = stack.config
        config[service]["image"] = other
        stack.configure(config)
        stack.up()
        del config[service]["image"]
        stack.configure(config)
        stack.up()
    finally:
        stack.docker.images.remove(other)


@pytest.mark.parametrize("name", ["postgres", "object-store"])
def test_killed_container(stack: Stack, name: str) -> None:
    crash(stack.container(name))


@pytest.mark.parametrize(
    "moment", ["postgres creating replacement", "deleting original", "postgres-setup creating replacement"]
)
def test_interrupted_up(stack: Stack, moment: str) -> None:
    config = stack.config
    config["postgres"]["memory_mib"] += 8
    config["postgres"]["roles"].append({"name": f"extra{config['postgres']['memory_mib']}"})
    stack.configure(config)
    run = stack.interrupted_up(when=lambda written: moment in written)
    assert moment in run.output
    assert "Traceback" not in run.output
    stack.up()
    assert (
        stack.container("postgres").attrs["HostConfig"]["Memory"] == config["postgres"]["memory_mib"] * 2**20
    )
    stack.no_change()


def test_killed_up(stack: Stack) -> None:
    """`pulumi` itself dies between creating a container and writing that down."""
    config = stack.config
    config["postgres"]["memory_mib"] += 8
    stack.configure(config)
    stack.interrupted_up(when=lambda written: "postgres creating replacement" in written, kill=True)
    # The state is one file for each stack: killed between writing two, it could not be read again.
    assert not list((stack.folder / ".millrace/state").rglob("*.attrs"))
    stack.pulumi("cancel", "--yes", stack.name, check=False)
    stack.up()
    stack.no_change()


def test_old_password_is_dead_after_rotation(stack: Stack) -> None:
    before = stack.outputs()["credentials"]["postgres"]["writer"]
    config = stack.config
    config["rotation"] = {"postgres/writer": "2026-11"}
    stack.configure(config)
    stack.up()
    after = stack.outputs()["credentials"]["postgres"]
    assert after["writer"] != before
    with postgres(stack, "shop", "writer") as connection:
        assert connection.execute("select current_user").fetchone() == ("writer",)
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        postgres(stack, "shop", "writer", password=before).close()
