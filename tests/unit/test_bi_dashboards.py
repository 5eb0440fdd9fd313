"""Dashboards as code: definitions, their mistakes, and what Superset is told to make of them."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from components.bi_dashboard_problems import problems
from components.bi_dashboards import dashboards
from components.settings import SettingsError, load
from tests.unit.dashboard_sample import SHOP, write
from tests.unit.graph import platform

SOURCES = ("postgres/shop", "presto")


def script(name: str) -> ModuleType:
    """A setup job's script, which finds its neighbours as it does in the container."""
    folder = Path("configs/bi")
    spec = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(folder))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(folder))
    return module


superset = script("superset_charts")


def mistakes(folder: Path, text: str, name: str = "shop.yaml") -> list[str]:
    write(folder, text, name)
    return [problem.text.removeprefix(f"{folder}/") for problem in problems([str(folder)], SOURCES)]


def changed(old: str, new: str) -> str:
    assert old in SHOP
    return SHOP.replace(old, new)


# -- definitions


def test_a_definition_has_no_mistakes(tmp_path: Path) -> None:
    assert mistakes(tmp_path, SHOP) == []


def test_the_documentations_example_has_no_mistakes(tmp_path: Path) -> None:
    (example,) = re.findall(r"```yaml\n(# sales\.yaml\n.*?)```", Path("docs/bi.md").read_text(), re.DOTALL)
    assert mistakes(tmp_path, example) == []


def test_the_demos_dashboards_name_units_and_axes() -> None:
    folder = "pipelines/demo/dashboards"
    assert list(problems([folder], ["presto"])) == []
    found = [chart for entry in dashboards([folder]) for chart in superset.charts_of(entry)]
    assert {chart["kind"] for chart in found} == {"bar", "line", "number", "table"}
    for chart in found:
        assert all(value["unit"] for value in chart["y"]), chart["title"]


def test_charts_fill_rows_in_the_order_of_reading(tmp_path: Path) -> None:
    (shop,) = dashboards([str(write(tmp_path))])
    assert (shop["id"], shop["title"], shop["description"]) == ("shop", "Shop", "What the shop sells.")
    assert [[(c["id"], c["width"]) for c in row] for row in shop["rows"]] == [
        [("shop/orders-in-all", 3), ("shop/orders-by-branch", 6)],
        [("shop/orders-by-day", 6)],
        [("shop/all-branches", 12)],
    ]
    number, bar = shop["rows"][0]
    assert number["query"] == "SELECT count(*) AS orders FROM orders"
    assert bar["query"] == 'SELECT * FROM "lake"."retail"."branch_performance"'
    assert bar["y"][0]["title"] == "Delivery (hours)"
    assert bar["order"] == [["average_delivery_hours", True]]
    # A name in words where no label is given.
    assert shop["rows"][2][0]["columns"][1]["title"] == "Revenue (EUR)"


def test_folders_are_read_with_those_below(tmp_path: Path) -> None:
    write(tmp_path / "sales" / "eu", name="europe.yml")
    write(tmp_path / "sales", name="all.yaml")
    write(tmp_path / "sales", "no dashboard", name="README.md")
    found = dashboards([str(tmp_path / "sales")])
    assert [entry["id"] for entry in found] == ["all", "europe"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (changed("kind: number", "kind: pie"),
         'line 9: charts[0].kind: must be "bar", "line", "number" or "table", got "pie"'),
        (changed("    kind: number\n", ""), "line 4: charts[0].kind: missing - add it"),
        (changed("kind: line\n    x: day\n", "kind: line\n"),
         "line 19: charts[2].x: missing - a chart of kind line needs it"),
        (changed("    y: orders\n", "    y: orders\n    collumns: [a]\n"),
         'line 25: charts[2].collumns: unknown key - did you mean "columns"?'),
        (changed("series: state", "columns: [state]"),
         "line 25: charts[2].columns: has no meaning for a chart of kind line - remove it"),
        (changed("order: -average_delivery_hours", "order: -average_delivery_hour"),
         'line 17: charts[1].order[0]: no column "average_delivery_hour" among those it shows - did you mean '
         '"average_delivery_hours"?'),
        (changed("data_source: postgres/shop", "data_source: postgres/stock"),
         'line 6: charts[0].data_source: no data source "postgres/stock" - did you mean "postgres/shop"?'),
        (changed("title: Orders by day", "title: Orders by Branch"),
         'line 19: charts[2].title: "Orders by Branch" is another chart\'s - choose another'),
        (changed("    sql: SELECT day, state, orders FROM lake.retail.days\n", ""),
         "line 19: charts[2]: give either table or sql"),
        (changed("SELECT day, state, orders FROM lake.retail.days", '" ; "'),
         "line 21: charts[2].sql: holds no query - write one, or give table"),
        (changed("    x: day\n", "    table: days\n    x: day\n"),
         "line 19: charts[2]: has table and sql - remove one"),
        (changed("    x: day\n", "    x: day\n    x: month\n"),
         "line 24: charts[2].x: stands here a second time - remove one"),
        (changed("    x: day\n", "    x: orders\n"),
         'line 19: charts[2]: shows column "orders" twice - remove one'),
        (changed("    y: orders\n", "    y: [orders, returns]\n"),
         "line 25: charts[2].series: splits one column of values, y has several - remove either"),
        (changed("unit: orders, decimals: 0", "unit: orders, decimals: many"),
         'line 10: charts[0].y[0].decimals: expected a whole number, got "many"'),
        (changed("table: lake.retail.branch_performance\n    kind: bar", "table: lake; DROP\n    kind: bar"),
         'line 13: charts[1].table: not the name of a table, got "lake; DROP" - write '
         "[[catalog.]schema.]table, or give sql"),
        (changed("    kind: bar\n", "    kind: [bar\n"),
         "line 15: not YAML: expected ',' or ']', but got ':'"),
        ("- one\n", "line 1: expected a dashboard - write `title:` and `charts:`"),
        ("title: Empty\ncharts: []\n", "line 2: charts: "),
        ("title: &a [*a]\ncharts: 1\n", "line 1: title: expected text"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_with_its_place(tmp_path: Path, text: str, expected: str) -> None:
    found = mistakes(tmp_path, text)
    assert found[0].startswith(f"shop.yaml, {expected}"), found
    assert len(found) == 1 or "Empty" in text or "*a" in text


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "shop.yaml").write_bytes(b"title: \xff\xfe")
    (line,) = problems([str(tmp_path)], SOURCES)
    assert "shop.yaml: cannot be read as UTF-8 text" in line.text


def test_names_are_those_of_addresses_and_unlike(tmp_path: Path) -> None:
    write(tmp_path / "a")
    write(tmp_path / "b", name="shop.yml")
    write(tmp_path / "b", name="My Shop.yaml")
    found = [p.text for p in problems([str(tmp_path / "a"), str(tmp_path / "b")], SOURCES)]
    assert found == [
        f"{tmp_path}/b/My Shop.yaml: has a name that is no part of an address - use lower-case letters, "
        "digits, - and _",
        f"{tmp_path}/b/shop.yml: is called as {tmp_path}/a/shop.yaml is - rename one, the name is the "
        "dashboard's",
    ]


def test_folders_that_are_not_there_or_twice_and_too_much(tmp_path: Path) -> None:
    folder = str(write(tmp_path / "a"))
    found = [(p.path, p.text) for p in problems([folder, folder, "no/where"], SOURCES)]
    assert [path for path, _ in found] == [("dashboards_folders", 1), ("dashboards_folders", 2)]
    assert "stands here a second time" in found[0][1]
    assert found[1][1] == 'no folder "no/where" - give a path relative to Pulumi.yaml'
    (line,) = mistakes(tmp_path / "b", changed("Since the first day.", "x" * 600_000))
    assert "more than 512" in line


def test_the_settings_phase_reports_them(tmp_path: Path) -> None:
    """Before anything is made, in the form of all mistakes; Presto is a data source where it is on."""
    values: dict[str, object] = {
        "users": [{"name": "ada", "role": "admin"}],
        "postgres": {"databases": [{"name": "shop"}]},
        "bi": {"dashboards_folders": [str(write(tmp_path, changed("kind: number", "kind: pie")))]},
    }
    with pytest.raises(SettingsError) as error:
        load(values, "Pulumi.test.yaml")
    (line,) = str(error.value).splitlines()
    prefix = f"Pulumi.test.yaml: millrace:bi.dashboards_folders[0]: {tmp_path}/shop.yaml, line 9: "
    assert line.startswith(prefix)
    write(tmp_path)
    with pytest.raises(SettingsError) as error:
        load(values, "Pulumi.test.yaml")
    lines = str(error.value).splitlines()
    assert len(lines) == 3
    assert all('data_source: no data source "presto" - known: postgres/shop' in line for line in lines)
    load({**values, "presto": {}}, "Pulumi.test.yaml")


@pytest.mark.parametrize("engine", ["superset", "metabase"])
def test_the_setup_job_alone_is_given_them(tmp_path: Path, engine: str) -> None:
    values = {"postgres": {"databases": [{"name": "shop"}]}, "presto": {}}
    own = {"engine": engine, "memory_mib": 1536}
    before = platform({**values, "bi": own})
    after = platform({**values, "bi": {**own, "dashboards_folders": [str(write(tmp_path))]}})
    old = {node.urn: json.dumps(dict(node.inputs), default=str) for node in before.nodes}
    changed = {n.name for n in after.nodes if json.dumps(dict(n.inputs), default=str) != old[n.urn]}
    assert changed == {"bi-setup"}
    files = after.named("bi-setup").get("uploads") or after.named("bi-setup").get("files")
    (content,) = [f["content"] for f in files if (f.get("file") or f["path"]).endswith("/dashboards.json")]
    assert json.loads(content) == dashboards([str(tmp_path)])


# -- Superset


def charts(tmp_path: Path, text: str = SHOP) -> dict[str, dict[str, Any]]:
    (shop,) = dashboards([str(write(tmp_path, text))])
    return {chart["title"]: chart for chart in superset.charts_of(shop)}


def test_superset_axes_have_titles_with_units_and_an_order(tmp_path: Path) -> None:
    bar = superset.params(charts(tmp_path)["Orders by branch"])
    assert (bar["viz_type"], bar["orientation"]) == ("echarts_timeseries_bar", "horizontal")
    # Horizontal ones begin at the bottom, and a title would lie on the names.
    assert (bar["x_axis_title"], bar["y_axis_title"]) == ("", "Delivery (hours)")
    assert (bar["x_axis_sort"], bar["x_axis_sort_asc"]) == ("Delivery (hours)", True)
    upright = charts(tmp_path, changed("    horizontal: true\n", ""))["Orders by branch"]
    bar = superset.params(upright)
    assert (bar["orientation"], bar["x_axis_title"]) == ("vertical", "Branch")
    assert (bar["x_axis_sort"], bar["x_axis_sort_asc"]) == ("Delivery (hours)", False)
    assert bar["y_axis_format"] == ",.1f"
    assert bar["show_legend"] is False
    line = superset.params(charts(tmp_path)["Orders by day"])
    assert (line["x_axis"], line["groupby"], line["x_axis_sort"]) == ("day", ["state"], "name")
    assert line["show_legend"] is True
    two = charts(tmp_path, changed("    y: orders\n    series: state\n", "    y: [orders, returns]\n"))
    assert superset.params(two["Orders by day"])["y_axis_title"] == ""


def test_superset_is_asked_for_the_same_rows_by_its_api(tmp_path: Path) -> None:
    found = charts(tmp_path)
    bar = superset.query_context(found["Orders by branch"], superset.params(found["Orders by branch"]), 7)
    (query,) = bar["queries"]
    assert bar["datasource"] == {"id": 7, "type": "table"}
    assert query["columns"] == ["branch"]
    (metric,) = query["metrics"]
    assert (metric["column"]["column_name"], metric["aggregate"]) == ("average_delivery_hours", "SUM")
    assert query["orderby"] == [[metric, False]]
    table = superset.query_context(found["All branches"], superset.params(found["All branches"]), 7)
    (query,) = table["queries"]
    assert (query["columns"], query["orderby"]) == (
        ["branch", "revenue"],
        [["revenue", False], ["branch", True]],
    )
    assert "metrics" not in query


def test_superset_page_has_every_chart_once(tmp_path: Path) -> None:
    (shop,) = dashboards([str(write(tmp_path))])
    numbers = {chart["id"]: index for index, chart in enumerate(superset.charts_of(shop), 1)}
    page = superset.position(shop, numbers)
    rows = [page[row] for row in page["GRID_ID"]["children"]]
    assert [page[item]["type"] for row in rows for item in row["children"]] == ["MARKDOWN", *["CHART"] * 4]
    placed = [page[item]["meta"] for row in rows[1:] for item in row["children"]]
    assert [meta["chartId"] for meta in placed] == [1, 2, 3, 4]
    assert all(sum(page[item]["meta"]["width"] for item in row["children"]) <= 12 for row in rows)
    # Charts beside each other are equally high.
    assert placed[0]["height"] == placed[1]["height"]


def test_superset_charts_of_a_table_share_a_dataset_with_all_columns_they_show(tmp_path: Path) -> None:
    found = superset.datasets(dashboards([str(write(tmp_path))]))
    assert set(found) == {
        "shop/orders-in-all", "shop/orders-by-day", "presto/lake.retail.branch_performance",
    }  # fmt: skip
    table = found["presto/lake.retail.branch_performance"]
    assert (table["name"], table["sql"]) == (
        "lake.retail.branch_performance", 'SELECT * FROM "lake"."retail"."branch_performance"',
    )  # fmt: skip
    assert table["columns"] == {
        "branch": {"title": "Branch", "value": False},
        "average_delivery_hours": {"title": "Delivery (hours)", "value": True},
        "revenue": {"title": "Revenue (EUR)", "value": False},
    }
    query = found["shop/orders-in-all"]
    assert (query["source"], query["sql"]) == ("postgres/shop", "SELECT count(*) AS orders FROM orders")


def test_superset_numbers_are_stable_and_unlike() -> None:
    assert str(superset.number_of("dashboard", "shop")) == str(superset.number_of("dashboard", "shop"))
    made = {superset.number_of(kind, "shop") for kind in ("dashboard", "chart", "dataset")}
    assert len(made) == 3


# -- the demo


def test_the_demo_adds_its_dashboards_where_presto_is_on() -> None:
    """Its charts ask Presto: without it the settings are good all the same, and there are none."""
    names = ("demo", "postgres", "object_store", "kafka", "spark", "airflow", "bi")
    values: dict[str, object] = {"users": [{"name": "ada", "role": "admin"}], **{name: {} for name in names}}
    assert folders(values) == ()
    values["presto"] = None
    assert folders(values) == ("pipelines/demo/dashboards",)
    values |= {"postgres": {"databases": [{"name": "shop"}]}, "demo": {"database": "demo"}}
    values["bi"] = {"dashboards_folders": ["tests/integration/dashboards"]}
    assert folders(values) == ("tests/integration/dashboards", "pipelines/demo/dashboards")


def folders(values: dict[str, object]) -> tuple[str, ...]:
    settings: Any = load(values, "Pulumi.test.yaml").services["bi"]
    found: tuple[str, ...] = settings.dashboards_folders
    return found
