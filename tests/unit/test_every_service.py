"""Every service by itself and with any others: left out, it is missed in one line or not at all."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable
from functools import cache
from typing import Any

import pytest
from graph import Graph, bare, plain_texts, platform

from components.checks import needs_of, networks
from components.problems import SettingsError
from components.service import Need, dns_name
from components.services import registry
from components.settings import Settings, load, settings_model
from tests.integration.services import resolved

USERS = [
    {"name": "ada", "role": "admin"},
    {"name": "erin", "role": "engineer"},
    {"name": "uma", "role": "user"},
]
KEYS = tuple(registry())
SUBSETS = 12
FILE = "Pulumi.test.yaml"


def values(keys: Iterable[str]) -> dict[str, Any]:
    """Settings of a platform with these services."""
    return {"users": USERS, **resolved(keys)}


def parsed(keys: Iterable[str]) -> Settings:
    """The same, typed but not checked as a whole."""
    return settings_model().model_validate(values(keys))


def required(keys: Iterable[str], key: str) -> set[str]:
    """What a service cannot do without, of all there is."""
    own = registry()[key].needs(parsed(keys).services[key], parsed(keys))
    return {need.service for need in own if not need.optional}


def closed(keys: Iterable[str]) -> frozenset[str]:
    """These services and whatever they cannot do without."""
    found = set(keys)
    while more := {other for key in found for other in required(found, key)} - found:
        found |= more
    return frozenset(found)


@cache
def graph(keys: frozenset[str]) -> Graph:
    """The platform with these services."""
    return platform(values(key for key in KEYS if key in keys))


def hosts(key: str) -> set[str]:
    """Names by which the containers of a service are reached."""
    full = graph(frozenset(KEYS))
    return {
        alias
        for node in full.containers
        if {"label": "dev.millrace.service", "value": key} in node.get("labels")
        for network in node.get("networksAdvanced")
        for alias in network["aliases"]
    }


def addresses(found: Graph, names: Iterable[str]) -> list[str]:
    """Where the graph holds one of these host names in an address: ``host:port`` or ``//host``."""
    # A path or a longer name that ends so is something else: millrace/kafka:4.3, spark-kafka:1.
    one = "|".join(sorted(map(re.escape, names), key=len, reverse=True))
    address = re.compile(rf"(?<![\w./-])(?:{one}):\d|(?<!:)//(?:{one})(?![\w-])|://(?:{one})(?![\w-])")
    return [
        f"{node.name}: …{text[max(0, hit.start() - 40) : hit.end() + 20]}…"
        for node in found.nodes
        for text in plain_texts(bare(node.inputs))
        for hit in address.finditer(text)
    ]


def pairs(found: Graph) -> set[str]:
    """Services that share a network, as ``consumer--provider``."""
    named = {node.name.removeprefix("net-") for node in found.of("millrace:docker:Network")}
    return {name for name in named if "--" in name and not name.endswith(("--publish", "--egress"))}


def own_needs(key: str, optional: bool) -> list[Need]:
    """The needs of a service, when all services are on, that are optional or not."""
    return [need for need in needs_of(parsed(KEYS), key) if need.optional is optional]


def cases(*, optional: bool) -> list[Any]:
    """Each service with each other one that it needs so."""
    found = {(key, need.service) for key in KEYS for need in own_needs(key, optional)}
    return [pytest.param(key, other, id=f"{key}-{other}") for key, other in sorted(found)]


@pytest.mark.parametrize("key", KEYS)
def test_a_service_comes_up_with_no_more_than_it_needs(key: str) -> None:
    made = graph(closed([key]))
    assert [node for node in made.containers if node.parent.endswith(f"::{dns_name(key)}")]


@pytest.mark.parametrize(("key", "other"), cases(optional=False))
def test_a_need_that_is_off_is_one_line(key: str, other: str) -> None:
    left = closed([key]) - {other}
    with pytest.raises(SettingsError) as error:
        load(values(left), FILE)
    about = [line for line in error.value.lines if f"millrace:{key}: " in line]
    assert about == [f"{FILE}: millrace:{key}: needs {other}, which is off - add the key {other}"]


@pytest.mark.parametrize(("key", "other"), cases(optional=True))
def test_an_optional_need_that_is_off_leaves_no_trace(key: str, other: str) -> None:
    if other in closed([key]):
        pytest.skip(f"{key} cannot do without what needs {other}")
    keys = {name for name in KEYS if other not in closed([name])}
    made = graph(frozenset(keys))
    assert [node for node in made.containers if node.parent.endswith(f"::{dns_name(key)}")]
    assert addresses(made, hosts(other)) == []
    assert not [pair for pair in pairs(made) if dns_name(other) in pair.split("--")]


def test_the_search_above_finds_addresses() -> None:
    """In the platform with all services, every service that another one uses by name is found."""
    full = graph(frozenset(KEYS))
    for key in KEYS:
        for need in needs_of(parsed(KEYS), key):
            if need.request is not None:
                assert addresses(full, hosts(need.service)), f"{key} uses {need.service}"


@pytest.mark.parametrize("number", range(SUBSETS))
def test_any_set_of_services_holds_together(number: int) -> None:
    """Each is linked to those it needs, waits for them, and knows of no service that is off."""
    chance = random.Random(number)
    keys = closed(chance.sample(KEYS, chance.randint(1, len(KEYS))))
    made = graph(keys)
    settings = parsed(keys)
    wanted = {f"{dns_name(key)}--{dns_name(n.service)}" for key in keys for n in needs_of(settings, key)}
    assert {pair for pair in pairs(made) if not pair.startswith("proxy--")} == wanted
    assert len(made.of("millrace:docker:Network")) == networks(settings)
    off = set(KEYS) - keys
    if off:
        assert addresses(made, {host for key in off for host in hosts(key)}) == []
    outputs = bare(made.outputs)
    for name in ("credentials", "connections"):
        assert not off & set(outputs[name])
    on = {service_of(node) for node in made.containers}
    assert on == {*keys, "proxy", "portal"}


ACME = {"tls": {"mode": "letsencrypt", "email": "ada@example.com"}, "domain": "data.example.com"}


@pytest.mark.parametrize(
    "more",
    [
        {
            "kafka": {"console": True},
            "airflow": {"egress": True},
            "jupyter": {"internet": True},
            "spark": {"images": "upstream"},
        },
        {"spark": {"image": "example.com/spark:1"}, **ACME},
        {"proxy": {"engine": "traefik"}, **ACME},
    ],
)
def test_a_pool_has_room_for_all_networks(more: dict[str, Any]) -> None:
    """Their number is known beforehand, and a pool that is too small is one line."""
    given = values(KEYS)
    for key, own in more.items():
        given[key] = {**given.get(key, {}), **own} if isinstance(own, dict) else own
    number = len(platform(given).of("millrace:docker:Network"))
    assert networks(settings_model().model_validate(given)) == number
    with pytest.raises(SettingsError) as error:
        load({**given, "network": {"pool": "10.7.0.0/22"}}, FILE)
    assert error.value.lines == [
        f"{FILE}: millrace:network.pool: 10.7.0.0/22 has room for 32 networks, these settings need {number} "
        "- give a range of /21 or larger"
    ]
    load({**given, "network": {"pool": "10.7.0.0/21"}}, FILE)


def service_of(node: Any) -> str:
    """The service a container belongs to."""
    (found,) = [e["value"] for e in node.get("labels") if e["label"] == "dev.millrace.service"]
    return str(found)
