"""A service that can't start ends `up` soon, says which and why, and the next `up` after mending succeeds."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.conftest import USERS
from tests.integration.stack import Run, Stack, free_port, proxy_ports


@pytest.fixture(scope="module")
def stack(new_stack: Callable[..., Stack]) -> Iterator[Stack]:
    """A small platform that the tests break and mend; its project folder has configs/ of its own."""
    stack = new_stack(
        {
            "proxy": proxy_ports(),
            "users": USERS[:1],
            "postgres": {"memory_mib": 256, "databases": [{"name": "shop"}]},
        }
    )
    stack.up()
    yield stack
    stack.destroy()


def says(run: Run, *words: str) -> None:
    """The output holds all words and no traceback."""
    for word in words:
        assert word in run.output, f"{word!r} is not in\n{run.output}"
    assert "Traceback" not in run.output
    assert 'File "' not in run.output


def test_bad_init_sql_names_file_and_mistake(stack: Stack, tmp_path: Path) -> None:
    folder = tmp_path / "init" / "shop"
    folder.mkdir(parents=True)
    bad = folder / "001_orders.sql"
    bad.write_text("create table orders (id int);\ninsert into ordres values (1);\n")
    postgres = {**stack.config["postgres"], "init_sql": str(tmp_path / "init")}
    with stack.changed(postgres=postgres):
        says(stack.up_fails(), "postgres", "001_orders.sql", "ordres")
        # Still wrong: still refused, not reported as done.
        says(stack.up_fails(), "001_orders.sql")
        bad.write_text("create table orders (id int);\ninsert into orders values (1);\n")
        stack.up()
    stack.up()


def test_taken_port(stack: Stack) -> None:
    with socket.socket() as taken:
        # Not one of those that outgoing connections take: one of them might, as soon as it is given back.
        taken.bind(("127.0.0.1", free_port()))
        taken.listen()
        postgres = {**stack.config["postgres"], "loopback_port": taken.getsockname()[1]}
        with stack.changed(postgres=postgres):
            says(stack.up_fails(), "postgres", "address already in use", str(taken.getsockname()[1]))
            taken.close()
            stack.up()
    stack.up()


def test_container_that_exits_is_named_with_its_last_words(stack: Stack) -> None:
    postgres = {**stack.config["postgres"], "parameters": {"work_mem": "a lot"}}
    with stack.changed(postgres=postgres):
        run = stack.up_fails()
        says(run, "postgres", "work_mem")
        # It does not wait for a container that is gone.
        assert "not ready after" not in run.output
        says(stack.up_fails(), "work_mem")
    stack.up()
    assert stack.container("postgres").status == "running"


def test_probe_that_never_succeeds(stack: Stack) -> None:
    """The server runs and logs in whoever asks, but each session sleeps before its first query."""
    postgres = {**stack.config["postgres"], "parameters": {"post_auth_delay": "300"}}
    with stack.changed(postgres=postgres, timeout_scale=0.5):
        says(
            stack.up_fails(),
            "postgres",
            "not ready after 60 s",
            "no answer within",
            "ready to accept connections",
        )
    stack.up()


def test_image_build_error(stack: Stack, tmp_path: Path) -> None:
    images = stack.folder / "images"
    original = images.resolve()
    copy = tmp_path / "images"
    shutil.copytree(original, copy)
    dockerfile = copy / "nginx" / "Dockerfile"
    text = dockerfile.read_text()
    dockerfile.write_text(text.replace("USER ", "RUN echo no such luck >&2; exit 7\nUSER ", 1))
    images.unlink()
    images.symlink_to(copy)
    try:
        says(stack.up_fails(), "image-nginx", "image nginx: build failed", "exit code: 7", "no such luck")
    finally:
        images.unlink()
        images.symlink_to(original)
    stack.up()


def test_pull_that_fails(stack: Stack) -> None:
    with stack.changed(postgres={**stack.config["postgres"], "image": "127.0.0.1:9/none/postgres:15"}):
        says(stack.up_fails(), "127.0.0.1:9/none/postgres:15")
    stack.up()


def test_container_of_another_checkout_is_left_alone(stack: Stack) -> None:
    """A stack of the same name in another checkout has the same container names on the engine."""
    ours = stack.container("portal")
    image = ours.attrs["Image"]
    ours.remove(force=True)
    labels = {
        "dev.millrace.stack": f"{stack.project}/{stack.name}",
        "dev.millrace.identity": "0123456789abcdef",
    }
    foreign = stack.docker.containers.create(image, ["true"], name=ours.name, labels=labels)
    says(stack.up_fails(), f"{stack.prefix}-portal", "another checkout")
    assert stack.container("portal").id == foreign.id
    foreign.remove(force=True)
    stack.up()
    stack.no_change()


def test_settings_mistakes_change_nothing(stack: Stack) -> None:
    before = {c.id for c in stack.containers()}
    with stack.changed(domain="Not a domain", postgress={}, users=[{"name": "ada", "role": "boss"}]):
        run = stack.up_fails()
        says(run, f"Pulumi.{stack.name}.yaml: millrace:domain", 'did you mean "postgres"?', "role")
    assert {c.id for c in stack.containers()} == before
