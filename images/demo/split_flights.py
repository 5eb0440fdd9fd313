"""Takes the New York flights of 2013 apart as raw files would arrive: split_flights.py PACKAGE-FOLDER TARGET.

The rows are those of the package, unchanged: a CSV file of flights for each month, weather as JSON lines by
month, the three lists as they are. All are compressed, since most of the image would be they.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import sys
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

LISTS = ("airlines", "airports", "planes")


def monthly(rows: Iterable[str]) -> dict[int, str]:
    """Lines of a CSV file by the column month, with the head in each part."""
    lines = iter(rows)
    head = next(lines)
    place = head.rstrip("\r\n").split(",").index("month")
    parts: dict[int, list[str]] = {}
    for line in lines:
        # The columns up to it are plain numbers.
        parts.setdefault(int(line.split(",", place + 1)[place]), [head]).append(line)
    return {month: "".join(part) for month, part in sorted(parts.items())}


def json_lines(text: str) -> str:
    """A CSV file as one JSON object a line: numbers as numbers, NA as null."""
    return "".join(
        json.dumps({name: value(field) for name, field in row.items()}) + "\n"
        for row in csv.DictReader(io.StringIO(text))
    )


def value(field: str) -> str | int | float | None:
    """A field as JSON has it."""
    if field == "NA":
        return None
    for kind in (int, float):
        try:
            return kind(field)
        except ValueError:
            pass
    return field


def parts(folder: Path) -> Iterator[tuple[str, str]]:
    """Paths and texts of all files."""
    with zipfile.ZipFile(folder / "flights.csv.zip") as archive, archive.open("flights.csv") as file:
        for month, text in monthly(io.TextIOWrapper(file, "utf-8", newline="")).items():
            yield f"flights/2013-{month:02}.csv", text
    with (folder / "weather.csv").open(encoding="utf-8", newline="") as file:
        for month, text in monthly(file).items():
            yield f"weather/2013-{month:02}.jsonl", json_lines(text)
    for name in LISTS:
        yield f"{name}/{name}.csv", (folder / f"{name}.csv").read_text(encoding="utf-8")


def main() -> None:
    """See the module's description."""
    folder, target = map(Path, sys.argv[1:])
    for name, text in parts(folder):
        path = target / f"{name}.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        # Without a time the file is the same at each build.
        path.write_bytes(gzip.compress(text.encode(), mtime=0))


if __name__ == "__main__":
    main()
