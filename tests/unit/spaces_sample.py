"""Platforms whose object store is Spaces."""

from __future__ import annotations

from functools import cache
from typing import Any

from graph import PLANTED, Graph, Node, platform

from components.settings import Settings, load

TARGET: dict[str, Any] = {"kind": "digitalocean", "region": "fra1", "ssh_networks": ["203.0.113.7"]}
STORE: dict[str, Any] = {
    "buckets": [
        {"name": "raw", "expire_days": 90},
        {"name": "lake", "versioning": True, "noncurrent_expire_days": 30},
        {"name": "plain", "versioning": False},
    ],
    "users": [
        {
            "name": "loader",
            "buckets": [{"bucket": "raw", "privilege": "read-write"}, {"bucket": "lake"}],
        },
        {"name": "nobody"},
    ],
}
TABLES = [{"name": "orders"}, {"name": "raw-orders", "bucket": "raw", "path": "shop/orders"}]
VALUES: dict[str, Any] = {
    "domain": "data.example.org",
    "tls": {"email": "ops@example.org"},
    "users": [{"name": "ada", "role": "admin"}],
    "object_store": STORE,
    "postgres": {},
    "kafka": {},
    "spark": {},
    "presto": {},
    "airflow": {},
    "jupyter": {},
    "delta_sharing": {
        "shares": [{"name": "sales", "schemas": [{"name": "shop", "tables": TABLES}]}],
        "recipients": [{"name": "partner"}],
    },
    "demo": {},
}
ENDPOINT = "https://fra1.digitaloceanspaces.com"
PUBLIC_CAS = "/etc/ssl/certs/ca-certificates.crt"
ACME = {"object_store": {"prefix": "acme"}}
# What the demo adds, and what services ask for.
ALL = {"raw", "lake", "plain", "bronze", "silver", "jobs", "airflow-logs", "spark-events", "presto-metastore"}


@cache
def made() -> Graph:
    """Everything, on Spaces."""
    return platform({**VALUES, "target": {**TARGET, **ACME}})


def small(target: dict[str, Any] | None = None, **values: Any) -> Graph:
    """The object store and what is given."""
    few = {key: VALUES[key] for key in ("domain", "tls", "users", "object_store")}
    return platform({**few, **values, "target": {**TARGET, **(ACME if target is None else target)}})


def buckets(graph: Graph) -> dict[str, Node]:
    found = graph.of("digitalocean:index/spacesBucket:SpacesBucket")
    return {node.name.removeprefix("bucket-"): node for node in found}


def keys(graph: Graph) -> dict[str, Node]:
    found = graph.of("digitalocean:index/spacesKey:SpacesKey")
    return {node.name.removeprefix("credential-object-store-").removesuffix("-key"): node for node in found}


def files(node: Node) -> dict[str, str]:
    if node.type == "millrace:docker:Job":
        return {file["path"]: file["content"] for file in node.get("files")}
    return {upload["file"]: upload["content"] for upload in node.get("uploads")}


def job(graph: Graph, name: str) -> Node:
    (found,) = [node for node in graph.jobs if node.name == name]
    return found


def env(node: Node) -> dict[str, str]:
    return dict(pair.split("=", 1) for pair in node.get("envs"))


def secret(user: str, graph: Graph | None = None) -> str:
    """The secret key that the provider makes up for a user."""
    return f"{PLANTED}+/{keys(graph or made())[user].get('name')}"


def settings(target: dict[str, Any], **values: Any) -> Settings:
    return load({**VALUES, **values, "target": {**TARGET, **target}}, "Pulumi.prod.yaml")
