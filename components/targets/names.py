"""Names of what a target makes."""

from __future__ import annotations

import re
import zlib


def name_prefix(project: str, stack: str) -> str:
    """What the names of everything of a stack start with on the engine, without the hyphen that follows."""
    return slug(f"{project}-{stack}")


def slug(text: str) -> str:
    """The text as part of a name on the engine; texts that differ stay different."""
    made = re.sub(r"[^a-z0-9-]+", "-", text.lower()).strip("-")
    return made if made == text else f"{made}-{zlib.crc32(text.encode()):08x}"
