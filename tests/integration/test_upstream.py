"""Official images instead of built ones, from a registry of one's own that wants a password.

The registry holds the built images under the official ones' names: what is tested is how images are named,
fetched and chosen. Whether the services run on the official images' content only those can show.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

from components.images import built_reference, upstream_reference
from tests.integration.clients import object_store, postgres
from tests.integration.conftest import full_config
from tests.integration.registry import Registry
from tests.integration.stack import Run, Stack

IMAGES = ("postgres", "minio", "nginx")
CONTAINERS = {"postgres": "postgres", "object-store": "minio", "proxy": "nginx", "portal": "nginx"}
# The official image of MinIO has a shell and coreutils, and nothing else that scripts like to use.
LACKING = {"minio": ("grep", "sed", "awk", "find", "xargs", "perl", "tar", "gzip", "diff", "cmp", "which")}


@pytest.fixture(scope="module")
def registry(platform: Stack) -> Iterator[Registry]:
    """Filled with what the platform's images are now."""
    registry = Registry()
    try:
        for name in IMAGES:
            path = upstream_reference(name, registry.address).partition("/")[2]
            registry.fill(built_reference(name), path, without=LACKING.get(name, ()))
        yield registry
    finally:
        registry.close()


@pytest.fixture(scope="module")
def runs() -> list[Run]:
    """Everything the CLI wrote in this module."""
    return []


@pytest.fixture(scope="module")
def stack(registry: Registry, new_stack: Callable[..., Stack], runs: list[Run]) -> Iterator[Stack]:
    """A stack that wants upstream images and has not been up."""
    stack = new_stack(full_config(images="upstream"))
    stack.configure({**stack.config, "registry": _access(stack, registry, registry.password)})
    plain = stack.pulumi

    def recorded(*arguments: str, **more: Any) -> Run:
        run = plain(*arguments, **more)
        if "--show-secrets" not in arguments:
            runs.append(run)
        return run

    stack.pulumi = recorded  # type: ignore[method-assign]
    yield stack
    stack.destroy()


def _access(stack: Stack, registry: Registry, password: str) -> dict[str, Any]:
    """The setting `registry`, with the password encrypted as the documentation says."""
    before = stack.config
    stack.pulumi("config", "set", "--secret", "--path", "millrace:registry.password", password)
    encrypted = yaml.safe_load(stack.file.read_text())["config"]["millrace:registry"]["password"]
    stack.configure(before)
    return {"mirror": registry.address, "username": registry.username, "password": encrypted}


def _origins(stack: Stack) -> dict[str, str | None]:
    return {name: Registry.origin(stack.container(name).image) for name in CONTAINERS}


def _expected() -> dict[str, str | None]:
    return {name: upstream_reference(image, "r").partition("/")[2] for name, image in CONTAINERS.items()}


def _refused(run: Run, image: str, *causes: str) -> None:
    """One line of the summary names the image and says why, and nobody sees a traceback."""
    summary = run.output.partition("Diagnostics:")[2]
    lines = [line for line in summary.splitlines() if image in line and any(c in line for c in causes)]
    assert lines, f"no line with {image} and one of {causes} in\n{run.output}"
    assert "Traceback" not in run.output
    assert 'File "' not in run.output


def test_wrong_password_starts_nothing(stack: Stack, registry: Registry) -> None:
    with stack.changed(registry=_access(stack, registry, "not-the-password")):
        run = stack.up_fails()
    for name in IMAGES:
        _refused(run, upstream_reference(name, registry.address), "unauthorized", "no basic auth")
    assert stack.containers() == []


def test_all_services_run_and_work(stack: Stack) -> None:
    stack.up()
    assert _origins(stack) == _expected()
    with postgres(stack, "shop", "shop_owner") as connection:
        connection.execute("create table t (n int)")
        connection.execute("insert into t values (42)")
    with postgres(stack, "shop", "reader") as connection:
        assert connection.execute("select n from t").fetchone() == (42,)
    client = object_store(stack, "loader")
    client.put_object("raw", "a.txt", io.BytesIO(b"an object"), 9)
    assert client.get_object("raw", "a.txt").read() == b"an object"
    assert stack.http("", user="uma").status_code == 200
    assert stack.http("object-store", user="ada").status_code == 200


def test_nothing_is_built(stack: Stack) -> None:
    assert "dockerfile" not in stack.state().lower()
    stack.no_change()


def test_one_service_built_the_others_upstream(stack: Stack) -> None:
    with stack.changed(postgres={**stack.config["postgres"], "images": "build"}):
        stack.up()
        assert _origins(stack) == {**_expected(), "postgres": None}
        assert built_reference("postgres") in stack.container("postgres").image.tags
    stack.up()
    assert _origins(stack) == _expected()
    with postgres(stack, "shop", "reader") as connection:
        assert connection.execute("select n from t").fetchone() == (42,)


def test_exact_reference_with_digest(stack: Stack, registry: Registry) -> None:
    digest = registry.fill(built_reference("postgres"), "library/postgres:exact")
    # What is fetched is what the digest says, whatever the tag says by now.
    registry.fill(built_reference("base"), "library/postgres:exact")
    reference = f"{registry.address}/library/postgres:exact@{digest}"
    with stack.changed(postgres={**stack.config["postgres"], "image": reference}):
        stack.up()
        assert _origins(stack)["postgres"] == "library/postgres:exact"
        stack.no_change()
        with postgres(stack, "shop", "reader") as connection:
            assert connection.execute("select n from t").fetchone() == (42,)
    stack.up()


def test_missing_tag_leaves_what_runs(stack: Stack, registry: Registry) -> None:
    before = {c.id for c in stack.containers()}
    missing = f"{registry.address}/library/postgres:no-such-tag"
    with stack.changed(postgres={**stack.config["postgres"], "image": missing}):
        _refused(stack.up_fails(), missing, "manifest unknown", "not found")
    assert {c.id for c in stack.containers()} == before
    stack.up("--expect-no-changes")


def test_password_is_nowhere(stack: Stack, registry: Registry, runs: list[Run]) -> None:
    stack.pulumi("preview", "--diff", "--stack", stack.name)
    assert len(runs) > 8
    assert not [run for run in runs if registry.password in run.output]
    assert registry.password not in stack.state()
    assert registry.password not in stack.file.read_text()
    assert not [c.name for c in stack.containers() if registry.password in str(c.attrs)]
