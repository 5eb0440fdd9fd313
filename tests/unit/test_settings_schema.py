"""The schema that editors use agrees with the settings, and with the loader on what is wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from components import schema
from components.problems import SettingsError
from components.services import registry
from components.settings import from_config, load

STACKS = sorted(Path(__file__).parents[2].glob("Pulumi.*.yaml"))


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft7Validator:
    return jsonschema.Draft7Validator(schema.stack_schema())


def valid(validator: jsonschema.Draft7Validator, **values: Any) -> bool:
    config = {key if ":" in key else f"millrace:{key}": value for key, value in values.items()}
    return bool(validator.is_valid({"config": config}))


def test_the_file_is_in_step() -> None:
    assert schema.main(["--check"]) == 0, "run `python -m components.schema`"


def test_it_is_a_schema(validator: jsonschema.Draft7Validator) -> None:
    jsonschema.Draft7Validator.check_schema(validator.schema)


@pytest.mark.parametrize("key", ["proxy", *registry()])
def test_no_service_may_have_fewer_cpus_than_the_engine_gives(key: str) -> None:
    users = [{"name": "ada", "role": "admin"}]
    for value, says in ((0.009, "must be greater than or equal to 0.01"), (True, "expected a number")):
        with pytest.raises(SettingsError) as error:
            load({"users": users, key: {"cpus": value}}, "f")
        assert any(line.startswith(f"f: millrace:{key}.cpus: {says}") for line in error.value.lines)


def test_every_field_has_a_description(validator: jsonschema.Draft7Validator) -> None:
    assert list(_undescribed(validator.schema)) == []


def _undescribed(node: Any, path: str = "") -> Iterator[str]:
    if isinstance(node, dict):
        for key, field in node.get("properties", {}).items():
            if "description" not in field and key != "secure":
                yield f"{path}/{key}"
        for key, inner in node.items():
            yield from _undescribed(inner, f"{path}/{key}")


def test_every_reference_leads_somewhere_and_stands_alone(validator: jsonschema.Draft7Validator) -> None:
    text = json.dumps(validator.schema)
    names = {part.split('"')[0] for part in text.split('"#/definitions/')[1:]}
    assert names == set(validator.schema["definitions"])
    assert '"$defs"' not in text
    assert text.count('"$ref"') == text.count('{"$ref": "')


@pytest.mark.parametrize("stack", STACKS, ids=str)
def test_the_stack_files_are_valid(stack: Path, validator: jsonschema.Draft7Validator) -> None:
    content = yaml.safe_load(stack.read_text())
    assert [error.message for error in validator.iter_errors(content)] == []
    config = content.get("config") or {}
    if not any("secure" in json.dumps(value) for value in config.values()):
        flat = {k: v if isinstance(v, str) else json.dumps(v) for k, v in config.items()}
        assert load(from_config(flat), str(stack))


def test_the_stack_file_of_the_project_names_the_schema() -> None:
    assert Path("Pulumi.dev.yaml").read_text().startswith(f"# yaml-language-server: $schema={schema.FILE}\n")


SECURE = {"secure": "v1:abc:def"}


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"domain": "data.localhost", "tls": "letsencrypt", "protect_data": True},
        {"tls": {"mode": "provided", "certificate": "a", "key": "b"}},
        {"registry": {"mirror": "r.example:5000/x", "username": "u", "password": SECURE}},
        {"registry": {"mirror": "r.example", "username": "u", "password": "plain"}},
        {"users": [{"name": "ada", "role": "admin"}], "rotation": {"all": 5, "users/ada": "x"}},
        {"aws:region": "eu-central-1", "other:x": {"a": 1}},
        {"postgres": None},
        {"postgres": {}},
    ],
)
def test_good_values(values: dict[str, Any], validator: jsonschema.Draft7Validator) -> None:
    assert valid(validator, **values)


BROKEN: list[dict[str, Any]] = [
    {"domian": "x.y"},
    {"domain": 5},
    {"postgers": {}},
    {"postgres": {"memroy_mib": 5}},
    {"postgres": {"memory_mib": 1}},
    {"postgres": "yes"},
    {"images": "pull"},
    {"users": [{"name": "Ada", "role": "admin"}]},
    {"users": [{"name": "ada", "role": "boss"}]},
    {"users": [{"name": "ada"}]},
    {"users": {"name": "ada", "role": "admin"}},
    {"proxy": {"https_port": 0}},
    {"proxy": {"https_port": 443.5}},
    {"proxy": {"engine": "caddy"}},
    {"tls": "selfsigned"},
    {"tls": {"email": "nobody"}},
    {"registry": {"mirror": "https://r.example"}},
    {"registry": {"username": "u"}},
    {"registry": "r.example"},
    {"target": {"kind": "kubernetes"}},
    {"rotation": {"all": []}},
    {"protect_data": "maybe"},
]


@pytest.mark.parametrize("values", BROKEN, ids=json.dumps)
def test_what_is_wrong_is_wrong_for_editor_and_loader(
    values: dict[str, Any], validator: jsonschema.Draft7Validator
) -> None:
    assert not valid(validator, **values)
    flat = {f"millrace:{k}": v if isinstance(v, str) else json.dumps(v) for k, v in values.items()}
    with pytest.raises(SettingsError) as caught:
        load(from_config(flat), "Pulumi.test.yaml")
    assert next(iter(values)) in caught.value.lines[0]


def test_it_is_written_and_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(schema, "FILE", tmp_path / "configs" / "schema.json")
    assert schema.main(["--check"]) == 1
    assert "run `python -m components.schema`" in capsys.readouterr().err
    assert schema.main([]) == 0
    assert schema.main(["--check"]) == 0
    assert schema.main(["--nonsense"]) == 2
