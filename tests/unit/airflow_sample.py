"""A platform with Airflow, and how to read what it is given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from graph import Graph, bare, platform

from components.services.airflow import Airflow
from components.services.delta_sharing import DeltaSharing
from components.services.kafka import Kafka
from components.services.object_store import ObjectStore
from components.services.postgres import Postgres
from components.services.presto import Presto
from components.services.spark import Spark

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "airflow"
SERVICES: Any = {
    "airflow": Airflow,
    "delta_sharing": DeltaSharing,
    "kafka": Kafka,
    "object_store": ObjectStore,
    "postgres": Postgres,
    "presto": Presto,
    "spark": Spark,
}
PROGRAMS = ("airflow", "airflow-scheduler", "airflow-dag-processor", "airflow-triggerer")
CFG, CONNECTIONS = "/run/millrace/airflow/airflow.cfg", "/run/millrace/airflow/connections.json"


def deployed(platform_wide: dict[str, Any] | None = None, **own: Any) -> Graph:
    return platform(
        {
            "domain": "data.test.example",
            "proxy": {"https_port": 8443},
            "users": [
                {"name": "ada", "role": "admin"},
                {"name": "erin", "role": "engineer"},
                {"name": "uma", "role": "user"},
            ],
            "postgres": {"databases": [{"name": "shop"}, {"name": "stock"}]},
            "object_store": {},
            "airflow": own,
            **(platform_wide or {}),
        },
        services=SERVICES,
    )


def job(graph: Graph, name: str) -> Any:
    (found,) = [node for node in graph.jobs if node.name == f"airflow-{name}"]
    return found


def files(node: Any) -> dict[str, str]:
    entries = bare(node.get("uploads") or node.get("files"))
    return {entry.get("file") or entry["path"]: entry["content"] for entry in entries}
