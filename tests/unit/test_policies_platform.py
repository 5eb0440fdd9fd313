"""The platform itself keeps all rules of the policy pack."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from graph import platform
from policy_sample import STRICT, everything, found, resource

from components.services import registry
from policies.data import LABEL_DATA
from policies.rules import CONTAINER, IMAGE, JOB, VOLUME
from policies.secrecy import leaks
from tests.integration.services import resolved


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"protect_data": True, **resolved(registry())},
        {"protect_data": True, "proxy": {"engine": "traefik"}, "kafka": {"brokers": 3}, "postgres": {}},
        {"domain": "data.acme.org", "tls": {"mode": "letsencrypt", "email": "a@b.org"}},
        {
            "domain": "data.acme.org",
            "tls": {"email": "a@b.org"},
            "target": {
                "kind": "digitalocean",
                "region": "fra1",
                "ssh_networks": ["203.0.113.7"],
                "object_store": {},
            },
            "protect_data": True,
            "object_store": {},
            "spark": {},
        },
    ],
    ids=["proxy", "everything", "traefik", "acme", "spaces"],
)
def test_the_platform_keeps_all_rules_in_production_too(values: dict[str, Any]) -> None:
    wrong = {node.name: texts for node in platform(values).nodes if (texts := found(resource(node)))}
    assert wrong == {}


def test_official_images_keep_all_rules_but_that_of_digests() -> None:
    made = platform({"images": "upstream", "postgres": {}, "object_store": {}, "protect_data": True})
    wrong = {node.name: texts for node in made.nodes if (texts := found(resource(node)))}
    assert {name for texts in wrong.values() for name in texts} == {"image-pinned"}
    assert "image-postgres-upstream" in wrong
    assert "image-minio-upstream" not in wrong
    without = replace(STRICT, digests=False)
    assert all(not found(resource(node), without) for node in made.nodes)


def test_nothing_secret_of_the_platform_stands_in_plain_elsewhere() -> None:
    assert list(leaks(map(resource, everything().nodes))) == []


def labels() -> Iterator[tuple[str, str]]:
    for node in everything().of(VOLUME):
        own = resource(node).labels
        yield node.name, own.get(LABEL_DATA, "true")


def test_volumes_that_can_be_made_again_say_so() -> None:
    marks = dict(labels())
    assert marks["postgres-data"] == "true"
    assert marks["spark-scratch"] == "false"
    protected = {node.name for node in everything().of(VOLUME) if node.protect}
    assert {name for name, data in marks.items() if data == "true"} == protected


def test_containers_jobs_and_volumes_have_the_types_the_rules_look_for() -> None:
    types = {node.type for node in everything().nodes}
    assert {CONTAINER, JOB, VOLUME, IMAGE} <= types
