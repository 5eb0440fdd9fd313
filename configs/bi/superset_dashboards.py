"""Makes the dashboards of the platform's definitions in Superset's metadata; part of the setup job.

What was made here is known by numbers that follow from names, and by a note of the name; what people made has
neither.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from superset_charts import NOTE, charts_of, dataset_of, datasets, number_of, params, position, query_context

Say = Callable[[str], None]


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
                {NOTE: entry["id"], "color_scheme": "supersetColors", "cross_filters_enabled": False}
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
        dataset.extra = _text({NOTE: name})
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
        if json.loads(dashboard.json_metadata)[NOTE] not in dashboards:
            say(f"dashboard {dashboard.dashboard_title}: removed, it has no definition any more")
            db.session.delete(dashboard)
    db.session.commit()
    for chart in _made(Slice, "chart", "params"):
        if json.loads(chart.params)[NOTE] in charts:
            continue
        if chart.dashboards:
            # Somebody's dashboard shows it: from now on it is theirs.
            chart.is_managed_externally = False
            say(f"chart {chart.slice_name}: has no definition any more, kept for {chart.dashboards[0]}")
        else:
            db.session.delete(chart)
    db.session.commit()
    for dataset in _made(SqlaTable, "dataset", "extra"):
        if json.loads(dataset.extra)[NOTE] not in needed and not list(_uses(dataset)):
            db.session.delete(dataset)
    db.session.commit()


def _made(model: Any, kind: str, note: str) -> Iterator[Any]:
    """Rows that this script made: the note alone is copied by people who copy the whole."""
    from superset.extensions import db

    for row in db.session.query(model).filter(getattr(model, note).like(f'%"{NOTE}"%')).all():
        try:
            name = json.loads(getattr(row, note)).get(NOTE)
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
