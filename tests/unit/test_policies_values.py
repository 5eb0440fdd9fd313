"""What the policy pack makes of configurations and of the engine's values; secrets in the wrong place."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from google.protobuf.struct_pb2 import Struct
from policy_sample import SECRET, found

from components.settings_parts import Policies
from policies.rules import Resource, stack_of
from policies.secrecy import leaks
from policies.values import UNKNOWN, Secret, bare, dotted, from_struct

SIGNATURE = {"4dabf18193072939515e22adb298388d": "1b47061264138c4ac30d75fd1eb44270"}


@pytest.mark.parametrize(
    ("name", "own", "production", "digests"),
    [
        ("dev", None, False, False),
        ("prod", None, True, True),
        ("production", None, True, True),
        ("prod", {"production": False}, False, False),
        ("eu", {"production": True}, True, True),
        ("prod", {"digests": False}, True, False),
        ("dev", {"digests": True}, False, True),
        ("prod", "broken", True, True),
        ("eu", {"production": "maybe"}, True, True),
        ("dev", {"digests": []}, False, True),
    ],
)
def test_production_goes_by_setting_then_by_name(
    name: str, own: Any, production: bool, digests: bool
) -> None:
    config = {} if own is None else {"millrace:policies": own if isinstance(own, str) else json.dumps(own)}
    stack = stack_of(name, config, frozenset())
    assert (stack.production, stack.digests) == (production, digests)


@pytest.mark.parametrize(
    "value", [True, "true", "yes", "on", "1", 1, False, "false", "no", "off", "0", 0, None]
)
@pytest.mark.parametrize("key", ["production", "digests"])
def test_the_pack_reads_a_choice_as_the_program_does(key: str, value: Any) -> None:
    """Text is what `pulumi config set --path` writes, and what Pulumi makes of `yes`."""
    chosen = getattr(Policies.model_validate({key: value}), key)
    for name in ("prod", "dev"):
        stack = stack_of(name, {"millrace:policies": json.dumps({key: value})}, frozenset())
        assert getattr(stack, key) is (name == "prod" if chosen is None else chosen)


def test_secrets_of_the_configuration_are_known() -> None:
    config = {
        "millrace:registry": json.dumps({"mirror": "registry.acme.org", "password": SECRET}),
        "other:token": "another-secret",
        "other:plain": "not-a-secret",
        "other:short": "abc",
    }
    secret = frozenset(["millrace:registry", "other:token", "other:short"])
    stack = stack_of("dev", config, secret)
    assert stack.secrets == {SECRET, "another-secret"}
    assert SECRET not in repr(stack)
    leaking = Resource(type="x:y:Z", name="z", props={"list": [{"text": f"password={SECRET};"}]})
    (line,) = found(leaking, stack)["no-plain-secrets"]
    assert "a secret of the stack's configuration in plain in list[0].text" in line
    assert found(replace(leaking, props={"list": Secret([f"password={SECRET};"])}), stack) == {}
    assert found(replace(leaking, props={"mirror": "registry.acme.org"}), stack) == {}


def test_a_secret_of_one_resource_is_found_in_plain_at_another() -> None:
    maker = Resource(
        type="random:index/randomPassword:RandomPassword", name="p", props={"result": Secret(SECRET)}
    )
    user = Resource(type="x:y:Z", name="z", urn="urn::z", props={"args": ["-p", f"x={SECRET}"]})
    ((urn, text),) = leaks([maker, user])
    assert urn == "urn::z"
    assert text.startswith("has a secret in plain in args[1] - mark it")
    assert SECRET not in text
    assert list(leaks([maker, replace(user, props={"args": Secret(["-p", SECRET])})])) == []
    outputs = Resource(type="pulumi:pulumi:Stack", name="s", urn="urn::s", props={"password": SECRET})
    assert [urn for urn, _ in leaks([maker, outputs])] == ["urn::s"]


def test_public_and_short_values_are_no_secrets_even_when_marked() -> None:
    maker = Resource(
        type="x:y:Z", name="p", props={"a": Secret("short"), "b": Secret("-----BEGIN CERTIFICATE-----\nMII")}
    )
    user = Resource(type="x:y:Z", name="z", props={"a": "short", "b": "-----BEGIN CERTIFICATE-----\nMII"})
    assert list(leaks([maker, user])) == []


def struct(values: Mapping[str, Any]) -> Struct:
    message = Struct()
    message.update(dict(values))
    return message


def test_marks_of_secret_and_unknown_values_are_kept() -> None:
    unknown = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
    values = from_struct(
        struct({"a": {**SIGNATURE, "value": ["x", unknown]}, "b": [unknown, 1, None, True], "c": {"d": "e"}})
    )
    assert values == {"a": Secret(["x", UNKNOWN]), "b": [UNKNOWN, 1, None, True], "c": {"d": "e"}}
    assert bare(values["a"]) == ["x", UNKNOWN]
    assert "x" not in repr(values["a"])


def test_paths_are_shown_as_one_writes_them() -> None:
    assert dotted(("envs", 0)) == "envs[0]"
    assert dotted(("a", "b", 1, "c")) == "a.b[1].c"
