"""Resources of a whole platform as the policy pack sees them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import graph as graphs
from graph import Graph, Node, platform

from components.services import registry
from policies.pack import RULES
from policies.rules import IMAGE, Resource, Stack
from policies.values import Secret
from tests.integration.services import resolved

STRICT = Stack(production=True, digests=True)
SECRET = "correct-horse-battery"


def found(resource: Resource, stack: Stack = STRICT) -> dict[str, list[str]]:
    """What is wrong with a resource, by rule."""
    wrong = {
        rule.name: list(rule.check(resource, stack))
        for rule in RULES
        if rule.types is None or resource.type in rule.types
    }
    return {name: texts for name, texts in wrong.items() if texts}


def marked(value: Any) -> Any:
    """What the graph recorded, with the marks as the pack has them."""
    if isinstance(value, graphs.Secret):
        return Secret(marked(value.value))
    if isinstance(value, Mapping):
        return {key: marked(inner) for key, inner in value.items()}
    if isinstance(value, str) and value.startswith("sha256:"):
        return f"sha256:{'0' * 64}"  # the mock engine's ids are no hashes
    return [marked(inner) for inner in value] if isinstance(value, list) else value


def resource(node: Node) -> Resource:
    return Resource(
        type=node.type, name=node.name, urn=node.urn, props=marked(node.inputs), protect=node.protect
    )


@cache
def everything() -> Graph:
    return platform({"protect_data": True, **resolved(registry())})


def container(name: str = "postgres", **changes: Any) -> Resource:
    own = resource(everything().container(name))
    return replace(own, props={**own.props, **changes})


def image(**changes: Any) -> Resource:
    return Resource(type=IMAGE, name="image-x", props={"title": "x", **changes})
