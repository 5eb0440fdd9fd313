"""Makes the dashboards of the platform's definitions in Superset's metadata; part of the setup job.

Nothing here asks a data source: a chart may be defined before its table exists. A dataset, of a table or of a
chart's own SQL, gets the columns that charts show, so Superset need not look them up. What was made here is
known by numbers that follow from names, and by a note of the name; what people made has neither.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

_NAMESPACE = uuid.UUID("f4f3a1f0-9f0c-5d7e-8e0b-6f9f7a4f3c21")
_NOTE = "millrace"
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

Say = Callable[[str], None]


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
    found: dict[str, Any] = {"viz_type": _VIEWS[chart["kind"]], "adhoc_filters": [], _NOTE: chart["id"]}
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


# -- Superset's metadata


def write(wanted: Sequence[Mapping[str, Any]], sources: Mapping[str, int], say: Say) -> None:
    """Make the dashboards what the definitions say, and remove those made here that have none any more.

    ``sources`` are the data sources' numbers by the names that definitions use.
    """
    from superset.extensions import db
    from superset.models.dashboard import Dashboard

    made = {name: _dataset(name, about, sources) for name, about in datasets(wanted).items()}
    for entry in wanted:
        charts = [_chart(chart, made[dataset_of(chart)]) for chart in charts_of(entry)]
        db.session.flush()
        numbers = {chart["id"]: row.id for chart, row in zip(charts_of(entry), charts, strict=True)}
        number = number_of("dashboard", entry["id"])
        dashboard = db.session.query(Dashboard).filter_by(uuid=number).one_or_none()
        known = dashboard is not None
        if dashboard is None:
            dashboard = Dashboard(uuid=number)
            db.session.add(dashboard)
        with db.session.no_autoflush:
            dashboard.dashboard_title = entry["title"]
            dashboard.description = entry["description"]
            dashboard.slug = _slug(entry["id"], number, say)
            # Readable to whoever may read one of its data sources.
            dashboard.published = True
            dashboard.is_managed_externally = True
            dashboard.position_json = _text(position(entry, numbers))
            dashboard.json_metadata = _text(
                {_NOTE: entry["id"], "color_scheme": "supersetColors", "cross_filters_enabled": False}
            )
            if {chart.id for chart in dashboard.slices} != set(numbers.values()):
                dashboard.slices = charts
        db.session.commit()
        say(f"dashboard {entry['title']}: {'there' if known else 'made'}")
    _remove(wanted, say)


def _text(values: Mapping[str, Any]) -> str:
    return json.dumps(values, sort_keys=True)


def _slug(name: str, number: uuid.UUID, say: Say) -> str | None:
    """The name in the address, unless it is that of somebody's own dashboard."""
    from superset.extensions import db
    from superset.models.dashboard import Dashboard

    other = db.session.query(Dashboard).filter_by(slug=name).one_or_none()
    if other is None or other.uuid == number:
        return name
    say(f"dashboard {name}: its address /superset/dashboard/{name}/ is that of {other.dashboard_title}")
    return None


def _chart(chart: Mapping[str, Any], dataset: Any) -> Any:
    from superset.extensions import db
    from superset.models.slice import Slice

    number = number_of("chart", chart["id"])
    form = {**params(chart), "datasource": f"{dataset.id}__table"}
    values = {
        "slice_name": chart["title"],
        "description": chart["description"],
        "viz_type": form["viz_type"],
        "datasource_id": dataset.id,
        "datasource_type": "table",
        "datasource_name": dataset.table_name,
        "params": _text(form),
        "query_context": _text(query_context(chart, form, dataset.id)),
        "is_managed_externally": True,
    }
    made = db.session.query(Slice).filter_by(uuid=number).one_or_none()
    if made is None:
        # Whole at once: any look at another row would write what there is of it.
        made = Slice(uuid=number, **values)
        db.session.add(made)
    else:
        for key, value in values.items():
            setattr(made, key, value)
    return made


def _dataset(name: str, wanted: Mapping[str, Any], sources: Mapping[str, int]) -> Any:
    from superset.connectors.sqla.models import SqlaTable, TableColumn
    from superset.extensions import db

    number = number_of("dataset", name)
    dataset = db.session.query(SqlaTable).filter_by(uuid=number).one_or_none()
    if dataset is None:
        dataset = SqlaTable(uuid=number)
        db.session.add(dataset)
    with db.session.no_autoflush:
        dataset.database_id = sources[wanted["source"]]
        dataset.table_name, dataset.sql = wanted["name"], wanted["sql"]
        dataset.is_managed_externally = True
        dataset.extra = _text({_NOTE: name})
        # Columns that somebody added stay: charts of theirs may show them.
        known = {column.column_name: column for column in dataset.columns}
        for column_name, about in wanted["columns"].items():
            column = known.get(column_name)
            if column is None:
                column = TableColumn(column_name=column_name)
                dataset.columns.append(column)
            column.verbose_name = about["title"]
            column.groupby = not about["value"]
    db.session.flush()
    return dataset


# -- what has no definition any more


def _remove(wanted: Sequence[Mapping[str, Any]], say: Say) -> None:
    from superset.connectors.sqla.models import SqlaTable
    from superset.extensions import db
    from superset.models.dashboard import Dashboard
    from superset.models.slice import Slice

    dashboards = {entry["id"] for entry in wanted}
    charts = {chart["id"] for entry in wanted for chart in charts_of(entry)}
    needed = datasets(wanted)
    for dashboard in _made(Dashboard, "dashboard", "json_metadata"):
        if json.loads(dashboard.json_metadata)[_NOTE] not in dashboards:
            say(f"dashboard {dashboard.dashboard_title}: removed, it has no definition any more")
            db.session.delete(dashboard)
    db.session.commit()
    for chart in _made(Slice, "chart", "params"):
        if json.loads(chart.params)[_NOTE] in charts:
            continue
        if chart.dashboards:
            # Somebody's dashboard shows it: from now on it is theirs.
            chart.is_managed_externally = False
            say(f"chart {chart.slice_name}: has no definition any more, kept for {chart.dashboards[0]}")
        else:
            db.session.delete(chart)
    db.session.commit()
    for dataset in _made(SqlaTable, "dataset", "extra"):
        if json.loads(dataset.extra)[_NOTE] not in needed and not list(_uses(dataset)):
            db.session.delete(dataset)
    db.session.commit()


def _made(model: Any, kind: str, note: str) -> Iterator[Any]:
    """Rows that this script made: the note alone is copied by people who copy the whole."""
    from superset.extensions import db

    for row in db.session.query(model).filter(getattr(model, note).like(f'%"{_NOTE}"%')).all():
        try:
            name = json.loads(getattr(row, note)).get(_NOTE)
        except (ValueError, AttributeError):
            continue
        if row.uuid == number_of(kind, str(name)):
            yield row


def _uses(dataset: Any) -> Iterator[str]:
    """Tables with rows that need the dataset: charts, and what people attached to it."""
    from flask_appbuilder import Model
    from sqlalchemy import func, select
    from superset.extensions import db
    from superset.models.slice import Slice

    if db.session.query(Slice).filter_by(datasource_id=dataset.id, datasource_type="table").count():
        yield "slices"
    own = ("table_columns", "sql_metrics", "sqlatable_user")
    for table in Model.metadata.tables.values():
        for key in table.foreign_keys:
            if key.column.table.name == "tables" and table.name not in own:
                rows = select(func.count()).select_from(table).where(key.parent == dataset.id)
                if db.session.execute(rows).scalar():
                    yield str(table.name)
