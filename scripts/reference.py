"""Writes docs/settings.md, the reference of all settings, from the settings' own schema.

``scripts/run reference`` writes it, ``--check`` only compares.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from components.schema import stack_schema
from components.settings import NAMESPACE, PlatformSettings
from scripts.console import SetupError, main
from scripts.versions import ROOT

FILE = ROOT / "docs" / "settings.md"
_REFERENCE = "#/definitions/"
_HEAD = """\
# Settings

<!-- Written by `scripts/run reference` from components/settings.py and the services' settings. -->

Every key of `Pulumi.<stack>.yaml` below `config:`. How to change them is in
[configuration.md](configuration.md). `required` stands where a key has no default and must be there once the
mapping around it is; `-` means there is no default and the key may be left out.
"""
_TABLE = "| Key | Type | Default | Meaning |\n|---|---|---|---|"
_WORDS = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true or false"}

Node = dict[str, Any]


def text() -> str:
    """What the file must hold."""
    schema = stack_schema()
    definitions: dict[str, Node] = schema["definitions"]
    keys: dict[str, Node] = schema["properties"]["config"]["properties"]
    parts = [_HEAD, "## Platform\n", _TABLE]
    sections: list[tuple[str, Node]] = []
    for key, node in keys.items():
        if key.removeprefix(f"{NAMESPACE}:") in PlatformSettings.model_fields:
            parts.append(_row(key, node, definitions, required=False))
            sections += _below(key, node, definitions)
    parts += _sections(sections, definitions, level=3)
    services = {
        k: v for k, v in keys.items() if k.removeprefix(f"{NAMESPACE}:") not in PlatformSettings.model_fields
    }
    parts.append(
        "\n## Services\n\nA service is on when its key is there; `{}` or nothing below it means its defaults."
    )
    for key, node in services.items():
        parts += _sections(_below(key, node, definitions), definitions, level=3)
    return "\n".join(parts) + "\n"


def _sections(sections: list[tuple[str, Node]], definitions: dict[str, Node], level: int) -> Iterator[str]:
    """A section for each mapping, those below it right after it."""
    for path, node in sections:
        yield f"\n{'#' * level} `{path}`\n\n{_one_line(node['description'])}\n\n{_TABLE}"
        below: list[tuple[str, Node]] = []
        for key, value in node["properties"].items():
            yield _row(key, value, definitions, required=key in node.get("required", ()))
            below += _below(f"{path}.{key}", value, definitions)
        yield from _sections(below, definitions, min(level + 1, 5))


def _below(path: str, node: Node, definitions: dict[str, Node]) -> list[tuple[str, Node]]:
    """The mapping a key holds, or the one each entry of its list is; nothing for plain values."""
    found = []
    for option in _options(node, definitions):
        if option.get("type") == "array":
            found += _below(f"{path}[]", option["items"], definitions)
        # An encrypted value is a mapping in the file, too, but nobody writes one by hand.
        elif option.get("properties", {}).keys() - {"secure"}:
            found.append((path, option))
    return found


def _options(node: Node, definitions: dict[str, Node]) -> list[Node]:
    """What a value may be, references followed."""
    if "$ref" in node:
        return _options(definitions[node["$ref"].removeprefix(_REFERENCE)], definitions)
    alternatives = node.get("anyOf") or node.get("allOf")
    if alternatives is None:
        return [node]
    return [found for option in alternatives for found in _options(option, definitions)]


def _row(key: str, node: Node, definitions: dict[str, Node], *, required: bool) -> str:
    options = [option for option in _options(node, definitions) if option.get("type") != "null"]
    kind = " or ".join(dict.fromkeys(_type(option, definitions) for option in options))
    default = "required" if required else f"`{_value(node['default'])}`" if "default" in node else "-"
    return f"| `{key}` | {kind} | {default} | {_one_line(node.get('description', ''))} |"


def _type(node: Node, definitions: dict[str, Node]) -> str:
    if "enum" in node:
        return ", ".join(f"`{name}`" for name in node["enum"])
    if "const" in node:
        return f"`{node['const']}`"
    kind = node.get("type")
    if kind == "array":
        return "list of " + " or ".join(
            "mappings" if o.get("type") == "object" else _type(o, definitions)
            for o in _options(node["items"], definitions)
        )
    if kind == "object":
        return "encrypted text" if "secure" in node.get("properties", {}) else "mapping"
    if isinstance(kind, list):
        return "text"
    return _WORDS[str(kind)] + _limits(node)


def _limits(node: Node) -> str:
    low, above, high = node.get("minimum"), node.get("exclusiveMinimum"), node.get("maximum")
    if low is not None and high is not None:
        return f", {low} to {high}"
    return f", above {above}, {high} at most" if above is not None else ""


def _value(default: object) -> str:
    return str(default).lower() if isinstance(default, bool) else str(default)


def _one_line(sentence: str) -> str:
    parts = " ".join(sentence.split()).replace("|", "\\|").split("`")
    # What stands in backticks is literal; elsewhere <x> would be taken for HTML.
    return "`".join(part if i % 2 else part.replace("<", "&lt;") for i, part in enumerate(parts))


def _main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only say whether the file is in step")
    check = parser.parse_args().check
    wanted = text()
    if FILE.is_file() and FILE.read_text(encoding="utf-8") == wanted:
        return 0
    if check:
        raise SetupError("docs/settings.md is not in step with the settings: run `scripts/run reference`")
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    main(_main)
