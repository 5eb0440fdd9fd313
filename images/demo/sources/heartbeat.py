"""Signs of life: each part says when its server did something for it, the probe looks when that was."""

from __future__ import annotations

import sys
import time
from pathlib import Path

FOLDER = Path("/tmp/shop-simulator")

PARTS = {"writer": "Postgres took nothing from it", "publisher": "Kafka took nothing from it"}

_LONGEST_S = 45
"""A failed delivery takes that long to be noticed; without one there is a sign every 10 seconds."""


def beat(part: str) -> None:
    """Now something went well."""
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / part).touch()


def silent(folder: Path, now: float) -> list[str]:
    """What is wrong, one line for each part without a recent sign."""
    found = []
    for part, text in PARTS.items():
        try:
            age = now - (folder / part).stat().st_mtime
        except FileNotFoundError:
            found.append(f"{part}: {text} yet")
            continue
        if age > _LONGEST_S:
            found.append(f"{part}: {text} for {age:.0f} s")
    return found


def main() -> int:
    """The probe: 0 when both parts are at work."""
    wrong = silent(FOLDER, time.time())
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0
