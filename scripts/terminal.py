"""Markdown of a summary as text for a terminal."""

from __future__ import annotations

import re


def render(markdown: str, *, colour: bool) -> str:
    """The same text for a terminal: without markup, what is bold in bold."""
    text = re.sub(r"^> \[!\w+\]\n", "", markdown, flags=re.MULTILINE)
    text = re.sub(r"^>$", "", re.sub(r"^> ", "", text, flags=re.MULTILINE), flags=re.MULTILINE)
    text = re.sub(r"^\|[-:|]+\|\n", "", text, flags=re.MULTILINE)
    text = re.sub(r"^#+ (.*)$", r"**\1**", text, flags=re.MULTILINE)
    text = re.sub(r"^```\w*\n", "", text, flags=re.MULTILINE)
    text = re.sub(r"\\([\\`*_{}\[\]<>#|~])", "\x00\\1", text)
    text = re.sub(r"(?<!\x00)`", "", text)
    bold, plain = ("\x1b[1m", "\x1b[0m") if colour else ("", "")
    text = _aligned(re.sub(r"\*\*(.+?)\*\*", rf"{bold}\1{plain}", text))
    return re.sub(r"\n{3,}", "\n\n", text.replace("\x00", "").replace("\u200b", ""))


def _aligned(text: str) -> str:
    """Tables with columns as wide as their widest cell."""
    out: list[str] = []
    table: list[list[str]] = []
    for line in [*text.splitlines(), ""]:
        if line.startswith("| "):
            table.append([cell.strip() for cell in re.split(r"(?<!\x00)\|", line)[1:-1]])
            continue
        if table:
            widths = [max(_width(row[i]) for row in table if i < len(row)) for i in range(len(table[0]))]
            for row in table:
                cells = [c + " " * (w - _width(c)) for c, w in zip(row, widths, strict=False)]
                out.append("  ".join(cells).rstrip())
            table = []
        out.append(line)
    return "\n".join(out)


def _width(cell: str) -> int:
    """Characters that a terminal shows."""
    return len(re.sub(r"\x1b\[\d+m|\x00|\u200b", "", cell))
