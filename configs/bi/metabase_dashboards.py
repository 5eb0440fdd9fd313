"""Makes the dashboards of the platform's definitions in Metabase, by its HTTP API; part of the setup job.

They are in a collection of their own, which everybody may read and administrators alone change. A dashboard
is known by its caveats there, a question by its name among the dashboard's: what people made is neither.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

COLLECTION = "Millrace"
MARK = "Managed by Millrace: "
"""Stands in the collection's description and before a dashboard's name in its caveats."""

_EVERYBODY = "All Users"
_ADMINISTRATORS = "Administrators"
# Metabase's grid has twice the columns that definitions have.
_SCALE = 2
_HEIGHTS = {"number": 3, "table": 8, "bar": 8, "line": 8}
_TEXT_HEIGHT = 2
_DISPLAYS = {"bar": "bar", "line": "line", "number": "scalar", "table": "table"}

Say = Callable[[str], None]


def display(chart: Mapping[str, Any]) -> str:
    """The kind of chart as Metabase calls it."""
    return "row" if chart["horizontal"] else _DISPLAYS[chart["kind"]]


def query(chart: Mapping[str, Any]) -> str:
    """The chart's SQL in its order: Metabase shows rows as they come."""
    order = chart["order"] or ([[chart["x"]["column"], False]] if chart["x"] else [])
    if not order:
        return str(chart["query"])
    keys = ", ".join(f"{_quoted(name)} {'DESC' if down else 'ASC'}" for name, down in order)
    return f"SELECT * FROM (\n{chart['query']}\n) AS result\nORDER BY {keys}"  # noqa: S608 - a query it is


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def settings(chart: Mapping[str, Any]) -> dict[str, Any]:
    """Axes, titles and number formats."""
    x, series, values, columns = chart["x"], chart["series"], chart["y"], chart["columns"]
    shown = [column for column in (x, series, *values, *columns) if column]
    found: dict[str, Any] = {
        "column_settings": {json.dumps(["name", c["column"]], separators=(",", ":")): _of(c) for c in shown}
    }
    match chart["kind"]:
        case "number":
            found["scalar.field"] = values[0]["column"]
        case "table":
            found["table.columns"] = [{"name": column["column"], "enabled": True} for column in columns]
        case _:
            units = {value["unit"] for value in values}
            title = values[0]["title"] if len(values) == 1 else (units.pop() if len(units) == 1 else None)
            found |= {
                "graph.dimensions": [column["column"] for column in (x, series) if column],
                "graph.metrics": [value["column"] for value in values],
                "graph.x_axis.title_text": x["title"],
                "graph.y_axis.title_text": title or "",
                "graph.x_axis.labels_enabled": True,
                "graph.y_axis.labels_enabled": True,
                "series_settings": {value["column"]: {"title": value["title"]} for value in values},
            }
            if chart["kind"] == "bar":
                found["graph.x_axis.scale"] = "ordinal"
    return found


def _of(column: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"column_title": column["title"]}
    if column["decimals"] is not None:
        found["decimals"] = column["decimals"]
    return found


def layout(dashboard: Mapping[str, Any], numbers: Mapping[str, int]) -> list[dict[str, Any]]:
    """Cards on the dashboard's grid; ``numbers`` are the questions' by the charts' names."""
    found: list[dict[str, Any]] = []
    top = 0

    def put(card: int | None, col: int, width: int, height: int, own: Mapping[str, Any]) -> None:
        # A number below 0 is a new one; Metabase replaces all of a dashboard's cards.
        place = {"row": top, "col": col, "size_x": width, "size_y": height}
        more = {"card_id": card, "parameter_mappings": [], "series": [], "visualization_settings": dict(own)}
        found.append({"id": -1 - len(found), **place, **more})

    if text := dashboard["description"]:
        virtual = {"name": None, "display": "text", "visualization_settings": {}, "archived": False}
        put(None, 0, 24, _TEXT_HEIGHT, {"virtual_card": {**virtual, "dataset_query": {}}, "text": text})
        top += _TEXT_HEIGHT
    for row in dashboard["rows"]:
        height = max(_HEIGHTS[chart["kind"]] for chart in row)
        col = 0
        for chart in row:
            width = chart["width"] * _SCALE
            put(numbers[chart["id"]], col, width, height, {})
            col += width
        top += height
    return found


def write(api: Any, wanted: Sequence[Mapping[str, Any]], sources: Mapping[str, int], say: Say) -> None:
    """Make the dashboards what the definitions say, and remove those made here that have none any more.

    ``api`` is the setup job's session, ``sources`` the data sources' numbers by id.
    """
    collection = _collection(api, make=bool(wanted))
    if collection is None:
        return
    _readable(api, collection)
    items = api.call("GET", f"/api/collection/{collection}/items?models=dashboard&limit=1000")["data"]
    known: dict[str, dict[str, Any]] = {}
    for item in items:
        dashboard = api.call("GET", f"/api/dashboard/{item['id']}")
        caveats = str(dashboard.get("caveats") or "")
        if caveats.startswith(MARK):
            known[caveats.removeprefix(MARK)] = dashboard
    for entry in wanted:
        _dashboard(api, entry, known.get(entry["id"]), collection, sources, say)
    for name in sorted(known.keys() - {entry["id"] for entry in wanted}):
        api.call("DELETE", f"/api/dashboard/{known[name]['id']}")
        for card in _cards(known[name], collection).values():
            _drop(api, card, say)
        say(f"dashboard {known[name]['name']}: removed, it has no definition any more")


def _drop(api: Any, card: Mapping[str, Any], say: Say) -> None:
    """Delete a question that no dashboard of the definitions shows, unless somebody's shows it."""
    if others := api.call("GET", f"/api/card/{card['id']}/dashboards"):
        say(f"question {card['name']}: has no definition any more, kept for {others[0]['name']}")
    else:
        api.call("DELETE", f"/api/card/{card['id']}")


def _collection(api: Any, *, make: bool) -> int | None:
    for collection in api.call("GET", "/api/collection"):
        if str(collection.get("description") or "").startswith(MARK) and not collection.get("archived"):
            return int(collection["id"])
    if not make:
        return None
    about = f"{MARK}dashboards of the platform's definitions, replaced by each change of those."
    return int(api.call("POST", "/api/collection", {"name": COLLECTION, "description": about})["id"])


def _readable(api: Any, collection: int) -> None:
    """Everybody reads the collection, nobody but administrators changes it."""
    groups = api.call("GET", "/api/permissions/group")
    graph = api.call("GET", "/api/collection/graph")
    number = str(collection)
    changed = {}
    for group in groups:
        level = "read" if group["name"] == _EVERYBODY else "none"
        own = graph["groups"].get(str(group["id"]), {}).get(number, "none")
        if group["name"] != _ADMINISTRATORS and own != level:
            changed[str(group["id"])] = {number: level}
    if changed:
        api.call("PUT", "/api/collection/graph", {"revision": graph["revision"], "groups": changed})


def _cards(dashboard: Mapping[str, Any], collection: int) -> dict[str, dict[str, Any]]:
    """The dashboard's questions that are in the collection, by name."""
    cards = [entry.get("card") or {} for entry in dashboard.get("dashcards") or ()]
    return {card["name"]: card for card in cards if card.get("collection_id") == collection}


def _dashboard(
    api: Any,
    wanted: Mapping[str, Any],
    known: Mapping[str, Any] | None,
    collection: int,
    sources: Mapping[str, int],
    say: Say,
) -> None:
    about = {"name": wanted["title"], "description": wanted["description"]}
    made = known or api.call("POST", "/api/dashboard", {**about, "collection_id": collection})
    cards = _cards(made, collection)
    numbers: dict[str, int] = {}
    for chart in (chart for row in wanted["rows"] for chart in row):
        body = _card(chart, sources[_source(chart, sources)], collection)
        card = cards.pop(chart["title"], None)
        if card is None:
            card = api.call("POST", "/api/card", body)
        elif any(card.get(key) != value for key, value in body.items()):
            api.call("PUT", f"/api/card/{card['id']}", body)
        numbers[chart["id"]] = card["id"]
    places = layout(wanted, numbers)
    change = {**about, "caveats": MARK + wanted["id"], "dashcards": places}
    if _differs(made, change):
        api.call("PUT", f"/api/dashboard/{made['id']}", change)
        say(f"dashboard {wanted['title']}: {'changed' if known else 'made'}")
    for card in cards.values():
        _drop(api, card, say)


def _differs(made: Mapping[str, Any], change: Mapping[str, Any]) -> bool:
    """Whether the dashboard is not yet what it is to be, numbers of cards on the grid apart."""

    def bare(cards: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
        keys = ("card_id", "row", "col", "size_x", "size_y", "visualization_settings")
        return [[card.get(key) for key in keys] for card in sorted(cards, key=lambda c: (c["row"], c["col"]))]

    same = all(made.get(key) == value for key, value in change.items() if key != "dashcards")
    return not same or bare(made.get("dashcards") or ()) != bare(change["dashcards"])


def _card(chart: Mapping[str, Any], database: int, collection: int) -> dict[str, Any]:
    return {
        "name": chart["title"],
        "description": chart["description"],
        "collection_id": collection,
        "display": display(chart),
        "visualization_settings": settings(chart),
        "dataset_query": {"type": "native", "database": database, "native": {"query": query(chart)}},
    }


def _source(chart: Mapping[str, Any], sources: Mapping[str, int]) -> str:
    """Presto's catalogs are data sources of their own: that of the table, else any, queries name theirs."""
    if chart["data_source"] != "presto":
        return str(chart["data_source"])
    catalogs = [name for name in sources if name.startswith("presto/")]
    own = [name for name in catalogs if f'"{name.removeprefix("presto/")}".' in chart["query"]]
    return (own or catalogs)[0]
