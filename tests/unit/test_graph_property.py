"""Random sets of services: whoever needs whom, networks, order and ports follow from that alone."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

from graph import Graph, Node, platform
from hypothesis import given
from hypothesis import settings as search
from hypothesis import strategies as st

from components.service import Need, Service
from components.settings import ServiceSettings
from components.workload import Access, Endpoint, Job, Limits, Probe, Route, Scheme, Volume, Workload

CONTAINER = "docker:index/container:Container"
KEYS = ("alpha", "beta", "gamma_one", "delta", "epsilon_x")


class PlainSettings(ServiceSettings):
    """Nothing of its own."""


def service(key: str, needed: Iterable[str], shape: dict[str, Any]) -> type[Service]:
    """A service with these needs; ``shape`` says: routed, calls out, binds loopback, has a job, replicas."""
    names = tuple(needed)

    class Random(Service):
        """One of a random set."""

        settings_model = PlainSettings

        @classmethod
        def needs(cls, settings: Any, platform: Any) -> Iterable[Need]:
            return [Need(service=name) for name in names]

        def build(self) -> None:
            route = Route(host=self.hostname, access=Access.USER, title=key, purpose="Test")
            deployment = self.deploy(
                Workload(
                    name=key,
                    image="nginx",
                    command=("serve",),
                    user=101,
                    probe=Probe(command=("true",)),
                    limits=Limits(memory_mib=64),
                    egress=shape["egress"],
                    replicas=shape["replicas"],
                    volumes=(Volume(name="data", path="/data"),),
                    endpoints=(
                        Endpoint(
                            name="web",
                            port=8080,
                            scheme=Scheme.HTTP,
                            route=route if shape["routed"] else None,
                            loopback_port=20000 + KEYS.index(key) if shape["loopback"] else None,
                        ),
                    ),
                )
            )
            if shape["job"]:
                self.run(
                    Job(
                        name="setup", image="nginx", command=("set",), user=101, limits=Limits(memory_mib=64)
                    ),
                    after=deployment.ready,
                )

    Random.key = key
    Random.__name__ = "".join(part.title() for part in key.split("_"))
    return Random


@st.composite
def sets(draw: st.DrawFn) -> dict[str, tuple[list[str], dict[str, Any]]]:
    """Up to five services; each may need those before it, in an order that is not the alphabet's."""
    order = draw(st.permutations(KEYS))[: draw(st.integers(1, len(KEYS)))]
    made = {}
    for index, key in enumerate(order):
        needed = [other for other in order[:index] if draw(st.booleans())]
        shape: dict[str, Any] = {
            name: draw(st.booleans()) for name in ("routed", "egress", "loopback", "job")
        }
        made[key] = (needed, {**shape, "replicas": draw(st.sampled_from([1, 1, 2]))})
    return made


def label(node: Node) -> str:
    labels = node.get("labels")
    found = labels if isinstance(labels, dict) else {entry["label"]: entry["value"] for entry in labels}
    return str(found["dev.millrace.service"])


def networks(node: Node) -> set[str]:
    joined = node.get("networksAdvanced")
    return {entry["name"] for entry in joined} if joined is not None else set(node.get("networks"))


@search(max_examples=8)
@given(made=sets())
def test_networks_order_and_ports_follow_from_needs(
    made: dict[str, tuple[list[str], dict[str, Any]]],
) -> None:
    registry = {key: service(key, needed, shape) for key, (needed, shape) in sorted(made.items())}
    graph = platform({key: {} for key in made}, services=registry)
    isolated(graph, made)
    ordered(graph, made)
    for node in graph.containers:
        shape = made[label(node)][1] if label(node) in made else None
        ports = node.get("ports") or []
        assert all(port["ip"] == "127.0.0.1" for port in ports) or label(node) == "proxy"
        if shape is not None:
            assert bool(ports) == shape["loopback"] or shape["replicas"] > 1


def isolated(graph: Graph, made: Any) -> None:
    allowed = {frozenset((key, other)) for key, (needed, _) in made.items() for other in needed}
    allowed |= {frozenset(("proxy", key)) for key, (_, shape) in made.items() if shape["routed"]}
    allowed.add(frozenset(("proxy", "portal")))
    seen = set()
    for one, other in itertools.combinations([*graph.containers, *graph.jobs], 2):
        pair = frozenset((label(one), label(other)))
        if len(pair) == 2 and networks(one) & networks(other):
            assert pair in allowed, (one.name, other.name)
            seen.add(pair)
    assert seen == allowed


def ordered(graph: Graph, made: Any) -> None:
    ready: dict[str, set[str]] = {}
    for node in [*graph.of("millrace:docker:Ready"), *graph.jobs]:
        owner = node.parent.split("::")[-1].replace("-", "_")
        ready.setdefault(owner, set()).add(node.urn)
    for key, (needed, _) in made.items():
        for node in [*graph.containers, *graph.jobs]:
            if label(node) == key:
                waited = graph.waits_for(node)
                for other in made:
                    if other in needed:
                        assert ready[other] <= waited
                    elif other != key and other not in reachable(made, key):
                        assert not ready[other] & waited


def reachable(made: Any, key: str) -> set[str]:
    found: set[str] = set()
    todo = [key]
    while todo:
        for other in made[todo.pop()][0]:
            if other not in found:
                found.add(other)
                todo.append(other)
    return found
