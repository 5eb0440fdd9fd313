"""Thousands of broken configurations: always settings or clear lines, never another exception.

What is loaded is also sound: every check that a platform relies on holds.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import settings as search
from hypothesis import strategies as st

from components.checks import credential_ids, order, problems
from components.problems import SettingsError
from components.settings import Settings, from_config, load

STACK = "Pulumi.test.yaml"
SECRET = "hunter2-Zx9"

FULL: dict[str, Any] = {
    "domain": "data.localhost",
    "target": {"kind": "docker", "host": "ssh://u@h:22", "ssh_options": ["-v"]},
    "images": "build",
    "registry": {"mirror": "r.example:5000/x", "username": "u", "password": SECRET},
    "proxy": {"engine": "nginx", "http_port": 80, "https_port": 443, "portal_access": "user", "cpus": 0.5},
    "tls": {"mode": "self-signed", "validity_days": 100, "renew_days": 10},
    "users": [{"name": "ada", "role": "admin"}, {"name": "bob", "role": "user"}],
    "rotation": {"all": "1", "users/ada": "2"},
    "time_zone": "Europe/Berlin",
    "network": {"pool": "10.213.0.0/16"},
    "protect_data": True,
}
FAKE_SERVICES: dict[str, Any] = {
    "database": {
        "roles": [{"name": "reader", "access": "user"}, {"name": "writer"}],
        "options": {"a": "1"},
        "loopback_port": 5432,
        "memory_mib": 256,
        "token": SECRET,
    },
    "big_store": {"host": "files", "cpus": 2, "image": "r.example/x:1", "images": "upstream"},
    "app": {"replicas": 2, "use_store": True},
}

Where = tuple[str | int, ...]


def _paths(value: Any, path: Where = ()) -> Iterator[Where]:
    yield path
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _paths(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _paths(inner, (*path, index))


def _at(value: Any, path: Where) -> Any:
    for part in path:
        value = value[part]
    return value


TEXTS = (
    "", " ", "null", "5", "-1", "0", "1e9", "nan", "inf", "{", "[", "{}", "[]", "all", "*", "~", "~x/y",
    "../..", "\x00", "a\nb", "\x1b[31m", "\u202e", "\ud800", "x" * 3000, "admin", "public", "letsencrypt",
    "provided", "tcp://h:1", "unix:///x", "a@b.org", "10.0.0.0/8", "Pulumi.yaml", "a-b", "a_b",
    "9" * 400, "name", "role", "mode", "users/bob",
)  # fmt: skip
NUMBERS = (-1, 0, 1, 80, 443, 65536, 2**63, 10**400, -(10**40), float("nan"), float("inf"), 0.1, 1e300)
NESTED = (
    {},
    [],
    [None],
    [[]],
    [{}],
    {"": None},
    {"a": {"b": [1]}},
    [1, "a"],
    ["x"] * 50,
    {"name": "a"},
    [True],
)
VALUES = (None, True, False, *TEXTS, *NUMBERS, *NESTED)

text = st.sampled_from(TEXTS) | st.text(max_size=12)
free = st.recursive(
    st.sampled_from(VALUES) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=5,
)
# Most mutations take a prepared value: drawing a free one costs ten times as much.
value = st.integers(0, 7).flatmap(lambda n: free if n == 0 else st.sampled_from(VALUES))
keys = st.sampled_from(["docker:host", "millrce:x", "x", ":", "millrace:", "a:b:c"]) | text
operations = st.sampled_from(["drop", "rename", "typo", "retype", "retype", "duplicate", "move", "insert"])
numbers = st.integers(0, 999)


@st.composite
def mutated(draw: st.DrawFn, full: dict[str, Any]) -> dict[str, Any]:
    """A valid configuration with one to three things changed somewhere."""
    values = copy.deepcopy(full)
    for _ in range(1 + draw(numbers) % 3):
        paths = list(_paths(values))[1:]
        if not paths:
            break
        path = paths[draw(numbers) % len(paths)]
        parent, last = _at(values, path[:-1]), path[-1]
        match draw(operations):
            case "drop":
                del parent[last]
            case "typo" if isinstance(parent, dict) and last:
                at = draw(numbers) % len(last)
                parent[last[:at] + last[at + 1 :]] = parent.pop(last)
            case "rename" if isinstance(parent, dict):
                parent[draw(text)] = parent.pop(last)
            case "duplicate" if isinstance(parent, list):
                parent.insert(last, copy.deepcopy(parent[last]))
            case "move":
                moved = copy.deepcopy(_at(values, paths[draw(numbers) % len(paths)]))
                # A password written where a domain belongs is nothing a program could know for one.
                parent[last] = moved if SECRET not in json.dumps(moved) else "moved"
            case "insert" if isinstance(parent, dict):
                parent[draw(text)] = copy.deepcopy(draw(value))
            case _:
                parent[last] = copy.deepcopy(draw(value))
    return values


@st.composite
def raw(draw: st.DrawFn, full: dict[str, Any]) -> dict[str, str]:
    """As Pulumi hands it over, now and then with broken JSON or foreign keys."""
    config = {}
    for key, value in draw(mutated(full)).items():
        nested = isinstance(value, bool | dict | list)
        config[f"millrace:{key}"] = json.dumps(value) if nested else "" if value is None else str(value)
    extra = draw(numbers)
    if config and extra % 10 == 1:
        key = sorted(config)[draw(numbers) % len(config)]
        config[key] = config[key][: draw(numbers) % 40]
    if extra % 10 == 2:
        config[draw(keys)] = draw(text)
    return config


def judge(config: dict[str, str]) -> Settings | None:
    """Load and hold the result against the promise; None when there were mistakes."""
    loaded, lines = _load(config)
    if loaded is None:
        assert lines
        assert len(set(lines)) == len(lines)
        for line in lines:
            assert line.startswith(f"{STACK}: "), line
            path, _, said = line.removeprefix(f"{STACK}: ").partition(": ")
            assert ":" in path or path == "millrace", line
            assert said.strip(), line
            assert line.isprintable(), line
            assert len(line) <= 600, line
            assert SECRET not in line, line
        assert _load(dict(reversed(config.items())))[1] == lines
        return None
    assert list(problems(loaded)) == []
    assert sorted(order(loaded)) == sorted(loaded.services)
    ids = set(credential_ids(loaded))
    assert len({id_.replace("_", "-") for id_ in ids}) == len(ids)
    assert SECRET not in repr(loaded)
    return loaded


def _load(config: dict[str, str]) -> tuple[Settings | None, list[str]]:
    try:
        return load(from_config(config), STACK), []
    except SettingsError as error:
        return None, error.lines


@pytest.mark.usefixtures("fakes")
def test_the_full_configuration_is_valid() -> None:
    values = {**FULL, **FAKE_SERVICES}
    settings = judge({f"millrace:{k}": v if isinstance(v, str) else json.dumps(v) for k, v in values.items()})
    assert settings is not None
    assert set(settings.services) == set(FAKE_SERVICES)


@pytest.mark.usefixtures("fakes")
@given(config=raw({**FULL, **FAKE_SERVICES}))
def test_broken_configurations_give_clear_lines(config: dict[str, str]) -> None:
    judge(config)


DEV = yaml.safe_load(Path("Pulumi.dev.yaml").read_text())["config"]
REAL = {
    **FULL,
    "rotation": {"all": "1"},
    **{key.removeprefix("millrace:"): value for key, value in DEV.items()},
}


@search(max_examples=800)
@given(config=raw(REAL))
def test_broken_configurations_of_the_real_services_give_clear_lines(config: dict[str, str]) -> None:
    judge(config)
