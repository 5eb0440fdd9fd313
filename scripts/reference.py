"""Writes the reference of all settings from their own schema: docs/settings.md and the tables in other pages.

A page says where its table goes by two comments on lines of their own; what stands between them is replaced::

    <!-- settings: postgres -->
    <!-- end -->

README.md lists the pages that have one, between ``<!-- services -->`` and ``<!-- end -->``.

``scripts/run reference`` writes, ``--check`` only compares.
"""

from __future__ import annotations

import argparse
import re
import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from components.schema import stack_schema
from components.settings import NAMESPACE, PlatformSettings
from scripts.console import SetupError, main
from scripts.versions import ROOT

DOCS = ROOT / "docs"
FILE = DOCS / "settings.md"
README = ROOT / "README.md"
_INDEX = re.compile(r"^<!-- services -->\n.*?^<!-- end -->$", re.MULTILINE | re.DOTALL)
BLOCK = re.compile(r"^<!-- settings: (\w+) -->\n(.*?)^<!-- end -->$", re.MULTILINE | re.DOTALL)
"""The key whose settings a page shows, and the table that stands there now."""
_CODE = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
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


@cache
def _schema() -> tuple[dict[str, Node], dict[str, Node]]:
    """The models by name, and the keys of a stack file."""
    schema = stack_schema()
    return schema["definitions"], schema["properties"]["config"]["properties"]


def page(file: Path) -> str:
    """What a page must hold: its own text with the tables of now.

    Raises:
        SetupError: when it asks for a key there is not.
    """

    def table(found: re.Match[str]) -> str:
        return f"<!-- settings: {found[1]} -->\n{_block(found[1], file)}<!-- end -->"

    parts = _CODE.split(file.read_text(encoding="utf-8"))
    return "".join(part if i % 2 else BLOCK.sub(table, part) for i, part in enumerate(parts))


def pages() -> list[Path]:
    """The pages that ask for a table; one that shows how to ask for it does not."""
    written = {file: _CODE.sub("", file.read_text(encoding="utf-8")) for file in sorted(DOCS.glob("*.md"))}
    return [file for file, text in written.items() if BLOCK.search(text)]


def index() -> str:
    """What README.md must hold: the list of the services' pages, each by the title it has."""
    links = [f"[{_title(file)}](docs/{file.name})" for file in pages()]
    lines = textwrap.fill(f"Services: {', '.join(links)}", 120, break_on_hyphens=False)
    return _INDEX.sub(f"<!-- services -->\n{lines}\n<!-- end -->", README.read_text(encoding="utf-8"))


def _title(file: Path) -> str:
    return file.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")


def _block(key: str, file: Path) -> str:
    """The table of a service's (or platform key's) settings, and one for each mapping below."""
    definitions, keys = _schema()
    path = f"{NAMESPACE}:{key}"
    sections = _below(path, keys[path], definitions) if path in keys else []
    if not sections:
        raise SetupError(f"docs/{file.name}: there are no settings of the name {key}")
    _, *rest = _sections(sections, definitions, level=2)
    # The page itself is the heading and says what it is.
    return "\n".join([_TABLE, *rest]) + "\n"


def text() -> str:
    """What docs/settings.md must hold."""
    definitions, keys = _schema()
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
        kind = node["properties"].get("kind", {}).get("const")
        of = f" of kind {kind}" if kind else ""
        yield f"\n{'#' * level} `{path}`{of}\n\n{_one_line(node['description'])}\n\n{_TABLE}"
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
    alternatives = node.get("anyOf") or node.get("oneOf") or node.get("allOf")
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


def wanted() -> dict[Path, str]:
    """Every page with generated parts, and what it must hold."""
    return {FILE: text(), README: index(), **{file: page(file) for file in pages()}}


def _main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only say whether the pages are in step")
    check = parser.parse_args().check
    for file, content in wanted().items():
        if file.is_file() and file.read_text(encoding="utf-8") == content:
            continue
        if check:
            raise SetupError(
                f"{file.relative_to(ROOT)} is not in step with the settings: run `scripts/run reference`"
            )
        file.write_text(content, encoding="utf-8")
    return 0


if __name__ == "__main__":
    main(_main)
