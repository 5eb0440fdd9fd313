"""The settings of a stack without Pulumi: as its file has them, encrypted values aside.

``python -m components.stack_file STACK`` writes the file's mistakes as a JSON list of lines.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from components.problems import PathPart, SettingsError, dotted
from components.settings import NAMESPACE, Settings, from_config, load

SECRET = "-----BEGIN secret PRIVATE KEY-----"
"""Stands for each encrypted value. The settings look whether ``target.private_key`` reads like a key."""


def read(file: Path) -> Settings:
    """The settings of a stack file. An encrypted value stands as :data:`SECRET`.

    Raises:
        SettingsError: with one line for each mistake.
        OSError: the file cannot be read.
    """
    return _settings(_config(file), file)


def mistakes(file: Path) -> list[str]:
    """One line for each mistake in a stack file; what an encrypted value says is not judged.

    Raises:
        OSError: the file cannot be read.
    """
    config: Mapping[str, Any] = {}
    try:
        config = _config(file)
        _settings(config, file)
    except SettingsError as error:
        places = tuple(f"{file.name}: {NAMESPACE}:{dotted(path)}: " for path in _encrypted(config))
        return [line for line in error.lines if not line.startswith(places)]
    return []


def _settings(config: Mapping[str, Any], file: Path) -> Settings:
    # By the way of the program: it gets every value as text, and judges that.
    return load(
        from_config({_full(str(key)): _text(_plain(value)) for key, value in config.items()}), file.name
    )


def _config(file: Path) -> Mapping[str, Any]:
    try:
        document = _Loader(file.read_text()).get_single_data()
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise SettingsError([f"{file.name}{line}: {error.problem or error.context}"]) from None
    except yaml.YAMLError as error:
        raise SettingsError([f"{file.name}: {' '.join(str(error).split())}"]) from None
    config = document.get("config") if isinstance(document, dict) else None
    return config if isinstance(config, dict) else {}


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice, as Pulumi does: PyYAML takes the last one without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in lines and not key.tag.endswith(":merge"):
                text = f'key "{key.value}" stands in line {lines[key.value]} already - remove one of them'
                raise yaml.MarkedYAMLError(problem=text, problem_mark=key.start_mark)
            if isinstance(key, yaml.ScalarNode):
                lines[key.value] = key.start_mark.line + 1
        return super().construct_mapping(node, deep)


def _encrypted(value: Any, path: tuple[PathPart, ...] = ()) -> Iterator[tuple[PathPart, ...]]:
    """Paths of the encrypted values; the namespace is not part of them."""
    if isinstance(value, dict) and set(value) == {"secure"}:
        yield path
    elif isinstance(value, dict):
        for key, below in value.items():
            part = str(key) if path else str(key).removeprefix(f"{NAMESPACE}:")
            yield from _encrypted(below, (*path, part))
    elif isinstance(value, list):
        for index, below in enumerate(value):
            yield from _encrypted(below, (*path, index))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return SECRET if set(value) == {"secure"} else {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list) else value


def _full(key: str) -> str:
    # Pulumi takes a key without a namespace for one of the project.
    return key if ":" in key else f"{NAMESPACE}:{key}"


def _text(value: Any) -> str:
    """A value as Pulumi hands it to the program."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, default=str)


if __name__ == "__main__":
    print(json.dumps(mistakes(Path(f"Pulumi.{sys.argv[1]}.yaml"))))
