"""The settings of a stack without Pulumi: as its file has them, encrypted values aside."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from components.settings import Settings, from_config, load

SECRET = "-----BEGIN secret PRIVATE KEY-----"
"""Stands for each encrypted value. The settings look whether ``target.private_key`` reads like a key."""


def read(file: Path) -> Settings:
    """The settings of a stack file. An encrypted value stands as :data:`SECRET`.

    Raises:
        SettingsError: with one line for each mistake.
        OSError: the file cannot be read.
        yaml.YAMLError: it is no YAML.
    """
    document = yaml.safe_load(file.read_text()) or {}
    config: Mapping[str, Any] = document.get("config") or {}
    # By the way of the program: it gets every value as text, and judges that.
    return load(from_config({str(key): _text(_plain(value)) for key, value in config.items()}), file.name)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return SECRET if set(value) == {"secure"} else {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list) else value


def _text(value: Any) -> str:
    """A value as Pulumi hands it to the program."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, default=str)
