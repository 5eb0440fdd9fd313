"""What a run of the demo's pipelines came to: a short table, and where to look further."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from scripts.console import SetupError, say
from scripts.dag_runs import Airflow, Run, short
from scripts.https import Site, UnreachableError, trusting
from scripts.statements import rows
from scripts.versions import ROOT

_DASHBOARDS = ROOT / "pipelines" / "demo" / "dashboards"
_LISTED_S = 90.0
"""Presto looks for new tables every minute, unless the settings say otherwise."""
_POLL_S = 2.0

Counts = dict[str, int]
"""Rows by table."""


def text(airflow: Airflow, runs: Sequence[Run], outputs: Mapping[str, Any], stack: str) -> str:
    """The table and the links."""
    reports = [(short(run.dag), report) for run in runs for report in _reports(airflow, run)]
    made = _counted(reports, "gold", "written")
    served, by = _served(outputs, airflow.site, made)
    parts = [
        _section("Taken in", "rows", _counted(reports, "bronze", "written")),
        _section("Refused", "rows", _counted(reports, "silver", "quarantined")),
        _section("Served", f"rows, {by}", served),
        "\n".join(_links(airflow, runs, outputs, stack)),
    ]
    return "\n\n".join(parts)


def _reports(airflow: Airflow, run: Run) -> Iterable[dict[str, Any]]:
    """What the jobs of a run say they did."""
    for task in airflow.tasks(run):
        found = airflow.result(run, task)
        found = json.loads(found) if isinstance(found, str) and found.startswith("{") else found
        if isinstance(found, dict) and isinstance(found.get("counts"), dict):
            yield {**found, "task": task["task_id"]}


def _counted(reports: Iterable[tuple[str, dict[str, Any]]], layer: str, what: str) -> Counts:
    """One of the numbers that the jobs of a layer give, by table, where it is not zero."""
    found: Counts = {}
    for pipeline, report in reports:
        if report["task"] == layer:
            for table, counts in report["counts"].items():
                name = table if "/" in table else f"{pipeline}/{table}"
                if number := int(counts.get(what, 0)):
                    found[name] = found.get(name, 0) + number
    return found


def _served(outputs: Mapping[str, Any], who: Site, made: Counts) -> tuple[Counts, str]:
    """Rows of the gold tables as Presto has them; as the jobs wrote them where there is no Presto."""
    presto = outputs["connections"].get("presto")
    if not presto or not made:
        return made, "as written"
    url, context = str(presto["public_url"]), trusting(outputs["ca_certificate"])
    site = Site(url, context, who.user, who.password)
    end = time.monotonic() + _LISTED_S
    told = False
    while True:
        try:
            return {
                table: int(_count(site, presto["engine"], table)) for table in made
            }, f"as {presto['engine']} reads them"
        except (SetupError, UnreachableError) as error:
            # A table that was just written for the first time is not on its list yet.
            if time.monotonic() > end:
                say("presto", f"does not show the tables: {error}")
                return made, "as written"
        if not told:
            say("presto", "has not listed the new tables yet, waiting")
            told = True
        time.sleep(_POLL_S)


def _count(site: Site, engine: str, table: str) -> Any:
    name = ".".join(f'"{part}"' for part in table.split("/"))
    return rows(site, engine, f"SELECT count(*) FROM lake.{name}")[0][0]  # noqa: S608 - names of our own jobs


def _section(title: str, unit: str, counts: Counts) -> str:
    if not counts:
        return f"{title}: nothing" + (" new" if title == "Taken in" else "")
    width = max(34, *(len(table) + 2 for table in counts))
    lines = [f"{title} ({unit})"]
    lines += [f"  {table.ljust(width)}{number:>12,}" for table, number in sorted(counts.items())]
    return "\n".join(lines)


def _links(airflow: Airflow, runs: Sequence[Run], outputs: Mapping[str, Any], stack: str) -> Iterable[str]:
    urls, connections = outputs["urls"], outputs["connections"]
    places = [(f"Airflow, {short(run.dag)}", f"{airflow.site.url}{run.page}") for run in runs]
    if "spark-history" in urls:
        places.append(("Spark history", urls["spark-history"]["url"]))
    if bi := connections.get("bi"):
        # Superset's addresses have the file's name in them, Metabase's a number.
        names = [file.stem for file in sorted(_DASHBOARDS.glob("*.yaml"))]
        paths = [f"superset/dashboard/{name}/" for name in names] if bi["engine"] == "superset" else [""]
        places += [("Dashboard", f"{bi['public_url']}/{path}") for path in paths]
    if jupyter := connections.get("jupyter"):
        places.append(("Notebooks", f"{jupyter['public_url']}/lab/tree/examples"))
    yield from (f"{name:<18}{url}" for name, url in places)
    option = "" if stack == "dev" else f" --stack {stack}"
    for name in connections.get("delta_sharing", {}).get("profiles", {}):
        yield (
            f"Share of {name}: pulumi stack output connections --show-secrets{option}"
            f" | jq -r '.delta_sharing.profiles[\"{name}\"]' > {name}.share"
        )
