"""What Superset is to be told of the dashboards of the platform's definitions; part of the setup job.

Nothing here asks a data source: a chart may be defined before its table exists. A dataset, of a table or of a
chart's own SQL, gets the columns that charts show, so Superset need not look them up.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

_NAMESPACE = uuid.UUID("f4f3a1f0-9f0c-5d7e-8e0b-6f9f7a4f3c21")
NOTE = "millrace"
"""Key of a dashboard's metadata, of a chart's and a dataset's extras, with the name that made it."""

_ROWS = 10_000
_HEIGHTS = {"number": 20, "table": 50, "bar": 50, "line": 50}
"""In units of 8 pixels."""

_VIEWS = {
    "bar": "echarts_timeseries_bar",
    "line": "echarts_timeseries_line",
    "number": "big_number_total",
    "table": "table",
}


def number_of(kind: str, name: str) -> uuid.UUID:
    """The number of the dashboard, chart or dataset that a definition of this name makes."""
    return uuid.uuid5(_NAMESPACE, f"{kind}/{name}")


def charts_of(dashboard: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Its charts, in the order of reading."""
    return [chart for row in dashboard["rows"] for chart in row]


# -- what a chart asks for


def _format(column: Mapping[str, Any]) -> str:
    """How its numbers are written, in the language of d3."""
    digits = column["decimals"]
    return ",.2~f" if digits is None else f",.{digits}f"


def metric(column: Mapping[str, Any]) -> dict[str, Any]:
    """The column's values: their sum, which is the one value of a bar or point."""
    return {
        "expressionType": "SIMPLE",
        "column": {"column_name": column["column"]},
        "aggregate": "SUM",
        "label": column["title"],
        "hasCustomLabel": True,
        "optionName": f"metric_{column['column']}",
    }


def params(chart: Mapping[str, Any]) -> dict[str, Any]:
    """What Superset's chart editor would have noted, but for the number of the dataset."""
    found: dict[str, Any] = {"viz_type": _VIEWS[chart["kind"]], "adhoc_filters": [], NOTE: chart["id"]}
    match chart["kind"]:
        case "number":
            (value,) = chart["y"]
            return {
                **found,
                "metric": metric(value),
                "y_axis_format": _format(value),
                "subtitle": value["unit"] or "",
                "subtitle_font_size": 0.15,
                "header_font_size": 0.4,
            }
        case "table":
            return {
                **found,
                "query_mode": "raw",
                "all_columns": [column["column"] for column in chart["columns"]],
                "order_by_cols": [json.dumps([name, not down]) for name, down in chart["order"]],
                "column_config": {
                    column["column"]: {"d3NumberFormat": _format(column)} for column in chart["columns"]
                },
                "row_limit": 1000,
                "server_page_length": 10,
                "page_length": 20,
                "table_timestamp_format": "%Y-%m-%d %H:%M:%S",
                "show_cell_bars": False,
            }
        case _:
            return {**found, **_axes(chart)}


def _axes(chart: Mapping[str, Any]) -> dict[str, Any]:
    x, series, values = chart["x"], chart["series"], chart["y"]
    name, down = chart["order"][0] if chart["order"] else (x["column"], False)
    titles = {value["column"]: value["title"] for value in values}
    # With colours by a column Superset knows two orders: by name and by what a bar has in all.
    whole = "name" if name == x["column"] else "sum"
    found = {
        "x_axis": x["column"],
        "x_axis_title": x["title"],
        "y_axis_title": values[0]["title"] if len(values) == 1 else _common_unit(values),
        "y_axis_title_position": "Left",
        "x_axis_sort": whole if series else titles.get(name, x["column"]),
        "x_axis_sort_asc": not down,
        "metrics": [metric(value) for value in values],
        "groupby": [series["column"]] if series else [],
        "time_grain_sqla": None,
        "row_limit": _ROWS,
        "truncate_metric": True,
        "show_empty_columns": True,
        "y_axis_format": _format(min(values, key=lambda value: -(value["decimals"] or 0))),
        "y_axis_bounds": [None, None],
        "x_axis_time_format": "smart_date",
        "tooltipTimeFormat": "%Y-%m-%d %H:%M",
        "rich_tooltip": True,
        "show_legend": len(values) > 1 or series is not None,
        "legendType": "scroll",
        "legendOrientation": "top",
        "color_scheme": "supersetColors",
    }
    if chart["kind"] == "line":
        return {**found, "x_axis_title_margin": 30, "y_axis_title_margin": 60, "markerEnabled": True}
    if not chart["horizontal"]:
        return {
            **found,
            "x_axis_title_margin": 30,
            "y_axis_title_margin": 60,
            "orientation": "vertical",
            "xAxisForceCategorical": True,
        }
    return {
        **found,
        # It would lie on the names, whose width nobody knows here.
        "x_axis_title": "",
        "x_axis_title_margin": 0,
        "y_axis_title_margin": 30,
        # Superset begins at the bottom.
        "x_axis_sort_asc": down,
        "orientation": "horizontal",
        "xAxisForceCategorical": True,
    }


def _common_unit(values: Sequence[Mapping[str, Any]]) -> str:
    units = {value["unit"] for value in values}
    return str(units.pop() or "") if len(units) == 1 else ""


def query_context(chart: Mapping[str, Any], form: Mapping[str, Any], dataset: int) -> dict[str, Any]:
    """The query by which the API returns the chart's rows, without a browser that would put it together."""
    shown = [column["column"] for column in (chart["x"], chart["series"]) if column]
    columns = shown + [column["column"] for column in chart["columns"]]
    metrics = [metric(value) for value in chart["y"]]
    titles = {value["column"]: made for value, made in zip(chart["y"], metrics, strict=True)}
    order = chart["order"] or ([[chart["x"]["column"], False]] if chart["x"] else [])
    query: dict[str, Any] = {
        "columns": columns,
        "orderby": [[titles.get(name, name), not down] for name, down in order],
        "filters": [],
        "extras": {"having": "", "where": ""},
        "row_limit": form.get("row_limit", 1),
    }
    if metrics:
        query["metrics"] = metrics
    return {
        "datasource": {"id": dataset, "type": "table"},
        "force": False,
        "queries": [query],
        "form_data": dict(form),
        "result_format": "json",
        "result_type": "full",
    }


def position(dashboard: Mapping[str, Any], numbers: Mapping[str, int]) -> dict[str, Any]:
    """Where charts are on the page; ``numbers`` are theirs by name."""
    grid = ["ROOT_ID", "GRID_ID"]
    found: dict[str, Any] = {
        "DASHBOARD_VERSION_KEY": "v2",
        "ROOT_ID": {"type": "ROOT", "id": "ROOT_ID", "children": ["GRID_ID"]},
        "GRID_ID": {"type": "GRID", "id": "GRID_ID", "children": [], "parents": ["ROOT_ID"]},
        "HEADER_ID": {"type": "HEADER", "id": "HEADER_ID", "meta": {"text": dashboard["title"]}},
    }

    def put(row: str, item: str, kind: str, meta: Mapping[str, Any]) -> None:
        if row not in found:
            background = {"background": "BACKGROUND_TRANSPARENT"}
            found[row] = {"type": "ROW", "id": row, "children": [], "parents": grid, "meta": background}
            found["GRID_ID"]["children"].append(row)
        found[row]["children"].append(item)
        found[item] = {"type": kind, "id": item, "children": [], "parents": [*grid, row], "meta": dict(meta)}

    if text := dashboard["description"]:
        lines = sum(1 + len(line) // 160 for line in text.splitlines())
        put("ROW-about", "MARKDOWN-about", "MARKDOWN", {"width": 12, "height": 7 + 3 * lines, "code": text})
    for index, row in enumerate(dashboard["rows"]):
        for chart in row:
            put(
                f"ROW-{index}",
                f"CHART-{chart['id']}",
                "CHART",
                {
                    "width": chart["width"],
                    "height": max(_HEIGHTS[other["kind"]] for other in row),
                    "chartId": numbers[chart["id"]],
                    "uuid": str(number_of("chart", chart["id"])),
                    "sliceName": chart["title"],
                },
            )
    return found


def dataset_of(chart: Mapping[str, Any]) -> str:
    """Name of the dataset: charts of a table share one."""
    return f"{chart['data_source']}/{chart['table']}" if chart["table"] else str(chart["id"])


def datasets(wanted: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """What datasets there have to be, by name. Where charts call a column differently the first counts.

    All are of SQL: as a table itself, a dataset would keep people from making their own of that table.
    """
    found: dict[str, dict[str, Any]] = {}
    for chart in (chart for dashboard in wanted for chart in charts_of(dashboard)):
        about = {"source": chart["data_source"], "name": chart["table"] or chart["id"], "sql": chart["query"]}
        dataset = found.setdefault(dataset_of(chart), {**about, "columns": {}})
        values = {column["column"] for column in chart["y"]}
        shown = [chart["x"], chart["series"], *chart["y"], *chart["columns"]]
        for column in (column for column in shown if column):
            known = dataset["columns"].setdefault(column["column"], {"title": column["title"], "value": True})
            known["value"] = known["value"] and column["column"] in values
    return found
