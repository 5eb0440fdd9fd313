"""The JSON Schema of stack files, from which editors complete ``Pulumi.<stack>.yaml``.

``python -m components.schema`` writes ``configs/settings.schema.json``; ``--check`` only compares. A stack
file refers to it by its first line: ``# yaml-language-server: $schema=configs/settings.schema.json``.

Draft 7 is what yaml-language-server (VS Code, Neovim, Zed, JetBrains by plugin) supports in full.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from components.settings import NAMESPACE, PlatformSettings, settings_model

FILE = Path("configs/settings.schema.json")
_DRAFT = "http://json-schema.org/draft-07/schema#"
_DEFINITIONS = "#/definitions/{model}"
_LIMITS = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}
_SECURE = {
    "type": "object",
    "properties": {"secure": {"type": "string"}},
    "required": ["secure"],
    "additionalProperties": False,
    "description": "As `pulumi config set --secret` writes it.",
}


def stack_schema() -> dict[str, Any]:
    """The schema of a whole stack file, without the keys of other namespaces."""
    model = settings_model()
    settings = model.model_json_schema(ref_template=_DEFINITIONS)
    definitions = settings.pop("$defs")
    keys = {key: _nullable(key, value) for key, value in settings["properties"].items()}
    others = "|".join(sorted(keys))
    schema = {
        "$schema": _DRAFT,
        "description": "Configuration of one stack: Pulumi.<stack>.yaml",
        "type": "object",
        "properties": {
            "config": {
                "description": "Settings by namespace; Millrace's own start with `millrace:`.",
                "type": "object",
                "properties": {f"{NAMESPACE}:{key}": value for key, value in keys.items()},
                # Keys of providers and other programs are free, unknown ones of Millrace are mistakes.
                "patternProperties": {f"^{NAMESPACE}:(?!({others})$)": False},
                "additionalProperties": True,
            },
            "encryptionsalt": {"description": "Written by Pulumi's passphrase provider.", "type": "string"},
            "encryptedkey": {"description": "Written by Pulumi's cloud key providers.", "type": "string"},
            "secretsprovider": {"description": "Which provider encrypts secrets.", "type": "string"},
            "environment": {"description": "Pulumi ESC environments to import."},
        },
        "definitions": definitions,
    }
    tidy = _tidy(schema)
    assert isinstance(tidy, dict)
    return tidy


def text() -> str:
    """What the file must hold."""
    return json.dumps(stack_schema(), indent=2, ensure_ascii=False) + "\n"


def _nullable(key: str, value: dict[str, Any]) -> dict[str, Any]:
    """Services may be switched on by their key alone, with nothing below it; the platform's keys may not."""
    return value if key not in PlatformSettings.model_fields else _not_null(value)


def _not_null(value: dict[str, Any]) -> dict[str, Any]:
    kept = [option for option in value.get("anyOf", []) if option != {"type": "null"}]
    if len(kept) != 1:
        return {**value, "anyOf": kept} if kept else value
    return {**{k: v for k, v in value.items() if k != "anyOf"}, **kept[0]}


def _tidy(node: Any) -> Any:
    if isinstance(node, list):
        return [_tidy(item) for item in node]
    if not isinstance(node, dict):
        return node
    node = {_rename(key, value): value if key == "enum" else _tidy(value) for key, value in node.items()}
    # A title made from the key's name tells nothing, and editors would insert a default mapping in full.
    if isinstance(node.get("title"), str) and ("type" in node or "anyOf" in node or "$ref" in node):
        del node["title"]
    if "default" in node and (node["default"] is None or isinstance(node["default"], dict | list)):
        del node["default"]
    if node.get("format") == "password":
        return {"anyOf": [{"type": "string"}, _SECURE]} | {
            k: v for k, v in node.items() if k == "description"
        }
    if "$ref" in node and len(node) > 1:
        # Draft 7 ignores what stands next to a `$ref`.
        node["allOf"] = [{"$ref": node.pop("$ref")}]
    return node


def _rename(key: str, value: Any) -> str:
    # Pydantic uses its own names for limits on a type that has a validator as well.
    return _LIMITS.get(key, key) if isinstance(value, int | float) else key


def main(arguments: list[str]) -> int:
    """Write the file, or with ``--check`` say whether it is in step."""
    if arguments not in ([], ["--check"]):
        sys.stderr.write("usage: python -m components.schema [--check]\n")
        return 2
    wanted = text()
    if FILE.is_file() and FILE.read_text(encoding="utf-8") == wanted:
        return 0
    if arguments:
        sys.stderr.write(f"{FILE} is not in step with the settings: run `python -m components.schema`\n")
        return 1
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
