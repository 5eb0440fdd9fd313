"""Dashboards as code: definitions in YAML that name no engine. The setup jobs make dashboards of them.

One file is one dashboard.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BeforeValidator, Field

from components.settings_types import Int, Line, Model, Text

COLUMNS = 12
"""Columns of a dashboard's grid."""

_WIDTHS = {"full": COLUMNS, "half": 6, "third": 4, "quarter": 3}


def _one(value: object) -> object:
    return {"column": value} if isinstance(value, str) else value


def _many(value: object) -> object:
    return [value] if isinstance(value, str | dict) else value


def _table(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][\w-]*(\.[A-Za-z_][\w-]*){0,2}", value, re.ASCII):
        raise ValueError("not the name of a table - write [[catalog.]schema.]table, or give sql")
    return value


class _Column(Model):
    """A column of the result, and how people see it."""

    column: Line
    """Its name in the result."""
    label: Line | None = None
    """What it is to people; the name in words without it."""
    unit: Line | None = None
    """Unit of the values, such as hours."""
    decimals: Annotated[Int, Field(ge=0, le=9)] | None = None
    """Digits after the point; as many as there are, two at most, without it."""

    def resolved(self) -> dict[str, Any]:
        """With the title for an axis or a table."""
        words = self.column.replace("_", " ").strip()
        label = self.label or words[:1].upper() + words[1:]
        return {
            "column": self.column,
            "label": label,
            "unit": self.unit,
            "decimals": self.decimals,
            "title": f"{label} ({self.unit})" if self.unit else label,
        }


Column = Annotated[_Column, BeforeValidator(_one)]
Columns = Annotated[tuple[Column, ...], BeforeValidator(_many), Field(min_length=1)]


class Chart(Model):
    """A chart: rows of a data source, and what to show of them."""

    title: Line
    """Its heading, by which it is known: unlike the dashboard's others."""
    description: Text | None = None
    """A sentence or two on what is to be seen."""
    data_source: Line
    """`presto`, or `postgres/<database>`."""
    table: Annotated[Line, AfterValidator(_table)] | None = None
    """Table to show the rows of."""
    sql: Text | None = None
    """Query in place of a table; one row for each bar or point."""
    kind: Literal["bar", "line", "number", "table"]
    """bar, line, number or table."""
    x: Column | None = None
    """Column along the axis (bar, line)."""
    y: Columns | None = None
    """Column or columns of values (bar, line), the value (number)."""
    series: Column | None = None
    """Column that makes a colour of each of its values (bar, line)."""
    columns: Columns | None = None
    """Columns from left to right (table)."""
    order: Annotated[tuple[Line, ...], BeforeValidator(_many), Field(min_length=1)] | None = None
    """Column to order by, with a `-` in front from the largest on; a list in tables."""
    horizontal: bool = False
    """Bars from left to right, for long names (bar)."""
    width: Literal["full", "half", "third", "quarter"] | None = None
    """full, half, third or quarter of the page; half without it, quarter for a number."""

    @property
    def span(self) -> int:
        """Columns of the grid it takes."""
        return _WIDTHS[self.width or ("quarter" if self.kind == "number" else "half")]

    @property
    def query(self) -> str:
        """The query: what was given, or all of the table."""
        if self.table is not None:
            quoted = ".".join(f'"{part}"' for part in self.table.split("."))
            return f"SELECT * FROM {quoted}"  # noqa: S608 - letters, digits, _ and - only
        return (self.sql or "").strip().removesuffix(";").rstrip()

    def shows(self) -> list[_Column]:
        """All columns it shows."""
        single = [column for column in (self.x, self.series) if column is not None]
        return [*single, *(self.y or ()), *(self.columns or ())]

    def resolved(self, dashboard: str) -> dict[str, Any]:
        """As the setup jobs take it."""

        def each(columns: Sequence[_Column] | None) -> list[dict[str, Any]]:
            return [column.resolved() for column in columns or ()]

        return {
            "id": f"{dashboard}/{slug(self.title)}",
            "title": self.title,
            "description": self.description,
            "data_source": self.data_source,
            "table": self.table,
            "query": self.query,
            "kind": self.kind,
            "horizontal": self.horizontal,
            "width": self.span,
            "x": self.x.resolved() if self.x else None,
            "series": self.series.resolved() if self.series else None,
            "y": each(self.y),
            "columns": each(self.columns),
            "order": [[name.removeprefix("-"), name.startswith("-")] for name in self.order or ()],
        }


class Dashboard(Model):
    """A page of charts."""

    title: Line
    """Its heading."""
    description: Text | None = None
    """What it is about, in Markdown; stands on top."""
    charts: Annotated[tuple[Chart, ...], Field(min_length=1)]
    """Its charts, in the order of reading."""

    def resolved(self, name: str) -> dict[str, Any]:
        """As the setup jobs take it: charts in rows that the page's width holds."""
        rows: list[list[dict[str, Any]]] = []
        free = 0
        for chart in self.charts:
            if chart.span > free:
                rows.append([])
                free = COLUMNS
            rows[-1].append(chart.resolved(name))
            free -= chart.span
        return {"id": name, "title": self.title, "description": self.description, "rows": rows}


def slug(title: str) -> str:
    """A title as part of a name: words in lower case, joined by hyphens."""
    return "-".join(re.findall(r"\w+", title.lower()))


def dashboards(folders: Sequence[str]) -> list[dict[str, Any]]:
    """All dashboards as the setup jobs take them, from definitions without mistakes."""
    return [
        Dashboard.model_validate(yaml.safe_load(file.read_text(encoding="utf-8"))).resolved(file.stem)
        for folder in folders
        for file in files(Path(folder))
    ]


def files(folder: Path) -> list[Path]:
    """The definitions in a folder and those below it."""
    return sorted(path for path in folder.rglob("*") if path.suffix in (".yaml", ".yml") and path.is_file())
