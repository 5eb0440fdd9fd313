"""What a changed setting changes of the platform's graph: rotated credentials, limits, services."""

from __future__ import annotations

import json

from fake_services import FAKES
from graph import Graph, bare, platform
from graph_sample import ALONE, FAKE, fake, made, real


def changed(before: Graph, after: Graph) -> set[str]:
    """Names of custom resources whose inputs differ."""
    old = {node.urn: node for node in before.nodes}
    assert old.keys() == {node.urn for node in after.nodes}
    return {node.name for node in after.nodes if bare(dict(node.inputs)) != bare(dict(old[node.urn].inputs))}


def test_timeouts_are_scaled_and_containers_stay_as_they_are() -> None:
    before, after = fake(), fake(timeout_scale=2.5)
    waits = {node.name: node.get("deadline") for node in before.of("millrace:docker:Ready")}
    runs = {node.name: node.get("timeout") for node in before.jobs}
    assert waits and runs
    scaled = {node.name: node.get("deadline") for node in after.of("millrace:docker:Ready")}
    assert scaled == {name: seconds * 2.5 for name, seconds in waits.items()}
    assert {node.name: node.get("timeout") for node in after.jobs} == {
        name: seconds * 2.5 for name, seconds in runs.items()
    }
    assert changed(before, after) == {*waits, *runs}


# -- rotation


def test_rotation_changes_one_password_and_what_uses_it() -> None:
    assert changed(fake(), fake(rotation={"database/app": "2"})) == {
        "credential-database-app-password",
        "database-roles",
        "app-1",
        "app-2",
        "app-migrate",
    }
    assert changed(fake(), fake(rotation={"database/reader": "2"})) == {
        "credential-database-reader-password",
        "database-roles",
    }


def test_the_same_rotation_changes_nothing() -> None:
    assert changed(fake(rotation={"database/app": "2"}), _made_again()) == set()


def _made_again() -> Graph:
    return platform({**FAKE, "rotation": {"database/app": "2"}}, services=FAKES)


def test_rotation_of_all() -> None:
    passwords = {node.name for node in fake().of("random:index/randomPassword:RandomPassword")}
    assert passwords <= changed(fake(), fake(rotation={"all": "2"}))
    both = changed(fake(rotation={"all": "2"}), fake(rotation={"all": "2", "users/ada": "3"}))
    assert both == {"credential-users-ada-password", "proxy"}


def test_every_credential_of_the_real_services_is_declared_and_rotates() -> None:
    graph = real()
    credentials = bare(graph.outputs["credentials"])
    ids = [f"{owner}/{name}" for owner, own in credentials.items() for name in own]
    passwords = {n.name for n in graph.of("random:index/randomPassword:RandomPassword")}
    rotated = changed(graph, real(rotation=dict.fromkeys(ids, "2"))) & passwords
    assert {name for name in rotated if name.endswith("-password")} == {
        f"credential-{id_.replace('/', '-').replace('_', '-')}-password" for id_ in ids
    }


# -- a changed setting touches only what depends on it


def test_a_changed_limit_touches_its_container_alone() -> None:
    assert changed(fake(), fake(big_store={"memory_mib": 512, "cpus": 0.5})) == {"big-store"}


def test_another_service_touches_nothing_but_the_proxy() -> None:
    alone = made(ALONE, False, "test")
    more = made(json.dumps({"database": {}, "app": {}, "big_store": {}}), False, "test")
    old = {node.urn: node for node in alone.nodes}
    touched = {n.name for n in more.nodes if n.urn in old and n.inputs != old[n.urn].inputs}
    assert touched <= {"proxy", "portal"}
