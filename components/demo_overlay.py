"""What the demo adds to the settings of the other services.

The demo consists of ordinary settings and of the files below ``pipelines/demo``. :func:`with_demo` adds the
former to what the stack file says, before anything is validated; the other services know nothing of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from components.airflow_settings import DAGS_FOLDER
from components.demo_settings import (
    FOLDER,
    INGEST,
    KEY,
    PIPELINE_USERS,
    PUBLISHER,
    READER,
    SIMULATOR,
    TOPIC,
    DemoSettings,
    store_users,
)
from components.jupyter_settings import NOTEBOOKS_FOLDER
from components.settings import ImageSource

Raw = dict[str, Any]

_COLUMNS = (
    ("event_id", "BIGINT"),
    ("order_id", "BIGINT"),
    ("branch_id", "INTEGER"),
    ("customer_id", "INTEGER"),
    ("amount", "DOUBLE"),
    ("status", "VARCHAR"),
)

_SHARED = {
    "retail": ("branch_performance", "segment_revenue"),
    "flights": ("airline_punctuality", "airport_punctuality"),
}


def additions(settings: DemoSettings, *, managed_store: bool = False) -> dict[str, Raw]:
    """What the demo adds to the settings of each service, as it would stand in the stack file."""
    users = store_users(settings, managed=managed_store)
    buckets = {bucket for access in users.values() for bucket in access}
    columns: list[Raw] = [{"name": name, "type": kind} for name, kind in _COLUMNS]
    columns.append({"name": "occurred_at", "type": "TIMESTAMP", "format": "iso8601"})
    found: dict[str, Raw] = {
        "postgres": {
            "databases": [{"name": settings.database, "owner": SIMULATOR}],
            "roles": [
                {"name": SIMULATOR},
                {"name": READER, "grants": [{"database": settings.database, "privilege": "read-only"}]},
            ],
        },
        "object_store": {
            "buckets": [{"name": name} for name in sorted(buckets)],
            "users": [
                {"name": name, "buckets": [{"bucket": b, "privilege": p} for b, p in access.items()]}
                for name, access in users.items()
            ],
        },
        "kafka": {
            "topics": [
                {"name": TOPIC, "partitions": 3, "message": {"format": "json", "columns": columns}},
            ],
            "users": [{"name": PUBLISHER, "write": [TOPIC]}, {"name": INGEST, "read": [TOPIC]}],
        },
    }
    return found | _pipelines(settings) if settings.pipelines else found


def _pipelines(settings: DemoSettings) -> dict[str, Raw]:
    connections: Raw = {
        "demo_shop": {"service": "postgres", "user": READER, "database": settings.database},
        "demo_events": {"service": "kafka", "user": INGEST},
    }
    connections |= {
        name.replace("-", "_"): {"service": "object_store", "user": name} for name in sorted(PIPELINE_USERS)
    }
    return {
        "airflow": {
            "dags_folders": [f"{FOLDER}/dags"],
            "connections": connections,
            "variables": {"demo_schedule": settings.schedule},
            # One Spark job at a time: see pipelines/demo/dags/demo_lib/spark.py.
            "pools": {"demo_spark": 1},
        },
        "delta_sharing": {
            "shares": [
                {"name": name, "schemas": [{"name": name, "tables": [{"name": t} for t in tables]}]}
                for name, tables in _SHARED.items()
            ],
            "recipients": [{"name": "analyst-partner", "shares": ["retail"]}],
        },
        "jupyter": {"notebooks_folders": [f"{FOLDER}/notebooks"]},
        "bi": {"dashboards_folders": [f"{FOLDER}/dashboards"]},
    }


# What a list of the stack file holds when it is left out.
_DEFAULTS = {("airflow", "dags_folders"): [DAGS_FOLDER], ("jupyter", "notebooks_folders"): [NOTEBOOKS_FOLDER]}

# What an entry of both is united in; of everything else the user's own counts.
_UNITED = ("buckets", "grants", "read", "write")

_IDENTITY = ("name", "bucket", "database")
"""Keys by which entries of a list are the same."""


def with_demo(values: Mapping[str, object]) -> dict[str, object]:
    """Settings by service, as the stack file has them, with the demo's added when it is on.

    Nothing is added to a service that is off. Values of a wrong type are left alone, for validation to
    report; so is everything when the demo's own settings are wrong.
    """
    found = dict(values)
    if KEY not in values:
        return found
    try:
        settings = DemoSettings.model_validate(values[KEY])
    except ValidationError:
        return found
    for service, more in _fitting(settings, values).items():
        own = values.get(service)
        if not isinstance(own, dict):
            continue
        merged = dict(own)
        for key, value in more.items():
            present = own.get(key)
            if present is None:
                merged[key] = [*_DEFAULTS[service, key], *value] if (service, key) in _DEFAULTS else value
            elif isinstance(present, dict) and isinstance(value, dict):
                merged[key] = {**value, **present}
            elif isinstance(present, list | tuple):
                merged[key] = _united(present, value)
        found[service] = merged
    return found


def _fitting(settings: DemoSettings, values: Mapping[str, object]) -> dict[str, Raw]:
    """The additions without those that other settings rule out, which would be mistakes of nobody's."""
    target = values.get("target")
    elsewhere = isinstance(target, dict) and target.get("object_store") is not None
    found = additions(settings, managed_store=elsewhere)
    if "airflow" in found:
        made = found["airflow"]["connections"]
        found["airflow"]["connections"] = {k: v for k, v in made.items() if v["service"] in values}
    if not _takes_recipients(values):
        found.get("delta_sharing", {}).pop("recipients", None)
    if "presto" not in values:
        # The charts ask Presto.
        found.pop("bi", None)
    return found


def _takes_recipients(values: Mapping[str, object]) -> bool:
    """Whether recipients outside are possible: see :mod:`components.delta_sharing_settings`."""
    sharing, store = (
        v if isinstance(v := values.get(k), dict) else {} for k in ("delta_sharing", "object_store")
    )
    official = (sharing.get("images") or values.get("images")) == ImageSource.UPSTREAM or sharing.get("image")
    return not official and store.get("api_route") not in (False, "false")


def _united(own: Sequence[Any], more: Sequence[Any]) -> list[Any]:
    """The user's entries in their order, then what is new among the others."""
    found = list(own)
    for entry in more:
        key = next((k for k in _IDENTITY if isinstance(entry, dict) and k in entry), None)
        if key is None:
            if entry not in found:
                found.append(entry)
            continue
        same = (i for i, o in enumerate(found) if isinstance(o, dict) and o.get(key) == entry[key])
        place = next(same, None)
        if place is None:
            found.append(entry)
            continue
        merged = dict(found[place])
        for name in _UNITED:
            if name in entry and isinstance(merged.get(name) or [], list | tuple):
                merged[name] = _united(merged.get(name) or [], entry[name])
        found[place] = merged
    return found
