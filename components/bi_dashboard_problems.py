"""Mistakes in the definitions of dashboards; they are mistakes of the settings.

Each is a line with file, line and key.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import yaml
from pydantic import ValidationError

from components.bi_dashboards import Chart, Dashboard, files, slug
from components.folders import is_folder
from components.problems import PathPart, Problem, dotted, from_validation, nearest, shown

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
        for file in files(Path(name)):
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
