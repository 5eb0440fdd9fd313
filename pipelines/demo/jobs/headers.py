"""Whether a CSV file is what it should be, by its first line."""

from __future__ import annotations

import csv
from collections.abc import Sequence

LIMIT = 1 << 16
"""Bytes of a file to look at."""


def header_problem(start: bytes, columns: Sequence[str]) -> tuple[str | None, str]:
    """What is wrong with the beginning of a file, and its first line.

    ``columns`` are those it should have, none for files without a header.
    """
    if not start.strip():
        return "empty", ""
    first = start.split(b"\n", 1)[0].rstrip(b"\r")
    if b"\0" in start:
        return "not text", repr(first[:200])
    try:
        line = first.decode("utf-8-sig")
    except UnicodeDecodeError:
        return "not text in UTF-8", repr(first[:200])
    if not columns:
        return None, line[:200]
    found = [name.strip() for name in next(csv.reader([line]), [])]
    unknown = [name for name in found if name not in columns]
    missing = [name for name in columns if name not in found]
    problems = []
    if unknown:
        problems.append(f"unknown columns: {', '.join(unknown)}")
    if missing:
        problems.append(f"missing columns: {', '.join(missing)}")
    if not problems and found != list(columns):
        problems.append("columns twice, or in another order")
    return ("; ".join(problems) or None), line[:1000]
