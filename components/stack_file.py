"""The settings of a stack without Pulumi: as its file has them, encrypted values aside."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from components.settings import NAMESPACE, Settings, load

_SECRET = "secret"


def read(file: Path) -> Settings:
    """The settings of a stack file. An encrypted value stands as the text ``secret``.

    Raises:
        SettingsError: with one line for each mistake.
        OSError: the file cannot be read.
        yaml.YAMLError: it is no YAML.
    """
    document = yaml.safe_load(file.read_text()) or {}
    config: Mapping[str, Any] = document.get("config") or {}
    own = {
        key.removeprefix(f"{NAMESPACE}:"): _plain(value)
        for key, value in config.items()
        if key.startswith(f"{NAMESPACE}:")
    }
    return load(own, file.name)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return _SECRET if set(value) == {"secure"} else {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list) else value
