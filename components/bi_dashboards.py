"""Dashboards as code: definitions in YAML that name no engine. The setup jobs make dashboards of them.

One file is one dashboard. Mistakes in it are mistakes of the settings: a line each, with file, line and key.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BeforeValidator, Field, ValidationError

from components.folders import is_folder
from components.problems import PathPart, Problem, dotted, from_validation, nearest, shown
from components.settings_types import Int, Line, Model, Text

COLUMNS = 12
"""Columns of a dashboard's grid."""

_WIDTHS = {"full": COLUMNS, "half": 6, "third": 4, "quarter": 3}
_LIMIT_KIB = 512
"""Definitions are part of the stack's state."""

_NEEDS = {"bar": ("x", "y"), "line": ("x", "y"), "number": ("y",), "table": ("columns",)}
_MAY = {
    "bar": ("series", "order", "horizontal"),
    "line": ("series", "order"),
    "number": (),
    "table": ("order",),
}
_SHAPE = ("x", "y", "series", "columns", "order", "horizontal")
"""Keys that mean something to some kinds only."""


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
        for file in _files(Path(folder))
    ]


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix in (".yaml", ".yml") and path.is_file())


# -- mistakes


def problems(folders: Sequence[str], data_sources: Collection[str]) -> Iterator[Problem]:
    """What is wrong with folders and definitions; ``data_sources`` are those there are."""
    known: dict[str, Path] = {}
    size = 0
    for index, name in enumerate(folders):
        path = ("dashboards_folders", index)
        if name in folders[:index]:
            yield Problem(path, f"{shown(name)} stands here a second time - remove it")
            continue
        if not is_folder(Path(name)):
            yield Problem(path, f"no folder {shown(name)} - give a path relative to Pulumi.yaml")
            continue
        for file in _files(Path(name)):
            for mistake in _of_name(file, known):
                yield Problem(path, f"{file}: {mistake}")
            try:
                text = file.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                yield Problem(path, f"{file}: cannot be read as UTF-8 text: {error}")
                continue
            size += len(text.encode())
            for line, mistake in _of_text(text, data_sources):
                yield Problem(path, f"{file}, line {line}: {mistake}")
    if size > _LIMIT_KIB * 1024:
        yield Problem(
            ("dashboards_folders",),
            f"definitions of {size // 1024} KiB, more than {_LIMIT_KIB} - move long queries into views",
        )


def _of_name(file: Path, known: dict[str, Path]) -> Iterator[str]:
    """The name is the dashboard's in addresses."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,60}", file.stem):
        yield "has a name that is no part of an address - use lower-case letters, digits, - and _"
    if (other := known.setdefault(file.stem, file)) is not file:
        yield f"is called as {other} is - rename one, the name is the dashboard's"


def _of_text(text: str, data_sources: Collection[str]) -> Iterator[tuple[int, str]]:
    """Mistakes of one file, each with its line."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        yield (mark.line + 1 if mark else 1), f"not YAML: {error.problem or error.context}"
        return
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        yield 1, f"not YAML: {error}"
        return
    if not isinstance(values, dict):
        yield 1, "expected a dashboard - write `title:` and `charts:`"
        return
    for path in _twice(root, (), set()):
        yield _line(root, path), f"{dotted(path)}: stands here a second time - remove one"
    try:
        dashboard = Dashboard.model_validate(values)
    except ValidationError as error:
        found = from_validation(error, Dashboard)
    else:
        found = list(_of_charts(dashboard, data_sources))
    for problem in found:
        yield _line(root, problem.path), f"{dotted(problem.path)}: {problem.text}"


def _of_charts(dashboard: Dashboard, data_sources: Collection[str]) -> Iterator[Problem]:
    titles: dict[str, int] = {}
    for index, chart in enumerate(dashboard.charts):
        path: tuple[PathPart, ...] = ("charts", index)
        if titles.setdefault(slug(chart.title), index) != index:
            yield Problem((*path, "title"), f"{shown(chart.title)} is another chart's - choose another")
        if chart.data_source not in data_sources:
            yield Problem(
                (*path, "data_source"),
                f"no data source {shown(chart.data_source)}{nearest(chart.data_source, data_sources)}",
            )
        yield from (Problem((*path, *where), text) for where, text in _of_chart(chart))


def _of_chart(chart: Chart) -> Iterator[tuple[tuple[PathPart, ...], str]]:
    if (chart.table is None) is (chart.sql is None):
        yield (), "give either table or sql" if chart.table is None else "has table and sql - remove one"
    if chart.sql is not None and not chart.query:
        yield ("sql",), "holds no query - write one, or give table"
    needed = _NEEDS[chart.kind]
    for key in needed:
        if getattr(chart, key) is None:
            yield (key,), f"missing - a chart of kind {chart.kind} needs it"
    for key in _SHAPE:
        if key in chart.model_fields_set and key not in (*needed, *_MAY[chart.kind]):
            yield (key,), f"has no meaning for a chart of kind {chart.kind} - remove it"
    values = chart.y or ()
    if len(values) > 1 and chart.kind == "number":
        yield ("y",), "a number is one value - remove the others"
    if len(values) > 1 and chart.series is not None:
        yield ("series",), "splits one column of values, y has several - remove either"
    names = [column.column for column in chart.shows()]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield (), f"shows column {shown(name)} twice - remove one"
    order = chart.order or ()
    if len(order) > 1 and chart.kind != "table":
        yield ("order",), "bars and lines have one order - remove the others"
    for place, name in enumerate(order):
        if (column := name.removeprefix("-")) not in names:
            yield ("order", place), f"no column {shown(column)} among those it shows{nearest(column, names)}"


def _twice(
    node: yaml.Node | None, path: tuple[PathPart, ...], seen: set[int]
) -> Iterator[tuple[PathPart, ...]]:
    """Paths of keys that a mapping has more than once: YAML takes the last without a word."""
    if id(node) in seen:  # an alias
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        names: set[str] = set()
        for key, value in node.value:
            name = str(key.value)
            if name in names:
                yield (*path, name)
            names.add(name)
            yield from _twice(value, (*path, name), seen)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield from _twice(value, (*path, index), seen)


def _line(node: yaml.Node | None, path: Sequence[PathPart]) -> int:
    """The line of a path, or of what there is of it."""
    line = 1
    for part in path:
        if isinstance(node, yaml.MappingNode):
            found = [(key, value) for key, value in node.value if key.value == str(part)]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            found = [(node.value[part], node.value[part])]
        else:
            found = []
        if not found:
            break
        key, node = found[-1]
        line = key.start_mark.line + 1
    return line
