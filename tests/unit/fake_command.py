"""Commands that tests put on PATH."""

from __future__ import annotations

from pathlib import Path


def command(folder: Path, name: str, body: str) -> Path:
    """A fake command in a folder."""
    folder.mkdir(exist_ok=True)
    file = folder / name
    file.write_text(f"#!/bin/sh\n{body}\n")
    file.chmod(0o755)
    return file
