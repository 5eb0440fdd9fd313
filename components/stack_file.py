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
        yaml.YAMLError: it is no YAML.
    """
    config = _config(file)
    # By the way of the program: it gets every value as text, and judges that.
    return load(from_config({str(key): _text(_plain(value)) for key, value in config.items()}), file.name)


def mistakes(file: Path) -> list[str]:
    """One line for each mistake in a stack file; what an encrypted value says is not judged.

    Raises:
        OSError: the file cannot be read.
    """
    try:
        read(file)
    except SettingsError as error:
        places = tuple(f"{file.name}: {NAMESPACE}:{dotted(path)}: " for path in _encrypted(_config(file)))
        return [line for line in error.lines if not line.startswith(places)]
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        return [f"{file.name}{line}: {error.problem or error.context}"]
    except yaml.YAMLError as error:
        return [f"{file.name}: {' '.join(str(error).split())}"]
    return []


def _config(file: Path) -> Mapping[str, Any]:
    config: Mapping[str, Any] = (yaml.safe_load(file.read_text()) or {}).get("config") or {}
    return config


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


def _text(value: Any) -> str:
    """A value as Pulumi hands it to the program."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, default=str)


if __name__ == "__main__":
    print(json.dumps(mistakes(Path(f"Pulumi.{sys.argv[1]}.yaml"))))
