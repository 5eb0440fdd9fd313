"""What each consumer of the object store is told of Spaces."""

from __future__ import annotations

import configparser
import json
import re
from functools import cache
from pathlib import Path

import pytest
from graph import Graph, bare
from spaces_sample import (
    ALL,
    ENDPOINT,
    PUBLIC_CAS,
    VALUES,
    buckets,
    env,
    files,
    job,
    keys,
    made,
    secret,
    small,
)


@cache
def other() -> Graph:
    """The other engine and the other server."""
    sharing = {"images": "upstream", "shares": VALUES["delta_sharing"]["shares"]}
    return small(presto={"engine": "prestodb"}, delta_sharing=sharing)


def properties(text: str) -> dict[str, str]:
    """``spark-defaults.conf``."""
    return dict(line.split(" ", 1) for line in text.splitlines())


def test_spark() -> None:
    found = properties(files(made().container("spark-worker-1"))["/run/millrace/spark/spark-defaults.conf"])
    assert found["spark.hadoop.fs.s3a.endpoint"] == ENDPOINT
    assert found["spark.hadoop.fs.s3a.endpoint.region"] == "fra1"
    assert found["spark.hadoop.fs.s3a.path.style.access"] == "true"
    assert found["spark.eventLog.dir"] == "s3a://acme-spark-events/"
    assert found["spark.hadoop.fs.s3a.bucket.acme-spark-events.access.key"] == (
        "DO00credential-object-store-spark-key"
    )
    assert found["spark.hadoop.fs.s3a.bucket.acme-spark-events.secret.key"] == secret("spark")
    history = properties(files(made().container("spark-history"))["/run/millrace/spark/spark-defaults.conf"])
    assert history["spark.history.fs.logDirectory"] == "s3a://acme-spark-events/"
    assert bare(made().outputs["connections"])["spark"]["event_logs"] == "s3a://acme-spark-events/"


@pytest.mark.parametrize("engine", ["trino", "prestodb"])
def test_presto(engine: str) -> None:
    graph = made() if engine == "trino" else other()
    server = graph.container("presto")
    text = files(server)["/etc/millrace/presto/catalog/lake.properties"]
    found = dict(line.split("=", 1) for line in text.splitlines() if not line.startswith("#"))
    old = "hive." if engine == "prestodb" else ""
    assert found[f"{old}s3.endpoint"] == ENDPOINT
    assert found[f"{old}s3.aws-access-key"] == "DO00credential-object-store-presto-key"
    assert found[f"{old}s3.aws-secret-key"] == secret("presto", graph)
    assert found["hive.metastore.catalog.dir"] == f"s3://acme-presto-metastore/{engine}"
    assert engine == "prestodb" or found["s3.region"] == "fra1"
    assert env(server)["TRUST_PUBLIC_CAS"] == "true"
    keeper = json.loads(files(graph.container("presto-lake"))["/etc/millrace/presto-lake/settings.json"])
    assert (keeper["bucket"], keeper["metastore"]) == ("acme-lake", "acme-presto-metastore")
    assert (keeper["endpoint"], keeper["region"], keeper["store_ca"]) == (ENDPOINT, "fra1", PUBLIC_CAS)
    assert keeper["store_user"] == "DO00credential-object-store-presto-key"
    assert keeper["store_password"] == secret("presto", graph)


def test_strangers_certificates_are_no_login() -> None:
    """PrestoDB takes client certificates of the CAs in this file: public ones must stay out."""
    server = other().container("presto")
    assert files(server)["/run/millrace/tls/ca.crt"] == "certificate ca-certificate"


def test_airflow() -> None:
    container = made().container("airflow-scheduler")
    found = json.loads(files(container)["/run/millrace/airflow/connections.json"])
    entry, extra = found["object_store"], json.loads(found["object_store"]["extra"])
    assert (entry["login"], entry["password"]) == (
        "DO00credential-object-store-airflow-key",
        secret("airflow"),
    )
    assert (extra["endpoint_url"], extra["region_name"], extra["verify"]) == (ENDPOINT, "fra1", PUBLIC_CAS)
    assert extra["config_kwargs"] == {
        "s3": {"addressing_style": "path"},
        "request_checksum_calculation": "when_required",
        "response_checksum_validation": "when_required",
    }
    assert found["demo_bronze"]["login"] == "DO00credential-object-store-demo-bronze-key"
    config = configparser.ConfigParser(interpolation=None)
    config.read_string(files(container)["/run/millrace/airflow/airflow.cfg"])
    assert config["logging"]["remote_base_log_folder"] == "s3://acme-airflow-logs"
    dags = json.loads(files(job(made(), "airflow-dags"))["/etc/millrace/airflow/dags.json"])
    assert json.loads(dags["platform/platform_cleanup.json"])["bucket"] == "acme-airflow-logs"
    variables = json.loads(files(container)["/etc/millrace/airflow/variables.json"])
    names = json.loads(variables["object_store_buckets"])
    used = ("airflow-logs", "bronze", "jobs", "lake", "raw", "silver")
    assert names == {name: f"acme-{name}" for name in used}


def test_jupyter() -> None:
    sent = files(made().container("jupyter"))
    about = json.loads(sent["/run/millrace/jupyter/connections.json"])["object_store"]
    assert about == {
        "endpoint": ENDPOINT,
        "region": "fra1",
        "bucket": "acme-lake",
        "access_key": "DO00credential-object-store-jupyter-key",
        "secret_key": secret("jupyter"),
        "ca": PUBLIC_CAS,
        "client_config": {
            "s3": {"addressing_style": "path"},
            "request_checksum_calculation": "when_required",
            "response_checksum_validation": "when_required",
        },
    }
    spark = properties(sent["/run/millrace/spark/conf/spark-defaults.conf"])
    assert spark["spark.sql.warehouse.dir"] == "s3a://acme-lake/warehouse"
    assert spark["spark.hadoop.fs.s3a.access.key"] == "DO00credential-object-store-jupyter-key"


def test_delta_sharing() -> None:
    container = made().container("delta-sharing")
    sent = files(container)
    found = json.loads(sent["/run/millrace/delta-sharing/keys.json"])
    # Recipients outside read from Spaces itself.
    assert found["endpoint"] == found["public_endpoint"] == ENDPOINT
    assert (found["access_key"], found["secret_key"]) == (
        "DO00credential-object-store-delta-sharing-key",
        secret("delta-sharing"),
    )
    assert found["region"] == "fra1"
    assert env(container)["STORE_CA"] == PUBLIC_CAS
    tables = json.loads(sent["/run/millrace/delta-sharing/server.yaml"])["shares"][0]["schemas"][0]["tables"]
    assert [table["location"] for table in tables] == [
        "s3a://acme-lake/shop/orders",
        "s3a://acme-raw/shop/orders",
    ]


def test_delta_sharings_official_server() -> None:
    container = other().container("delta-sharing")
    site = files(container)["/opt/docker/conf/core-site.xml"]
    assert f"<name>fs.s3a.endpoint</name><value>{ENDPOINT}</value>" in site
    assert "<name>fs.s3a.endpoint.region</name><value>fra1</value>" in site
    assert "<value>DO00credential-object-store-delta-sharing-key</value>" in site
    assert env(container)["TRUST_PUBLIC_CAS"] == "true"


def test_the_demo() -> None:
    seed = files(job(made(), "demo-seed"))
    assert json.loads(seed["/run/millrace/demo/object-store.json"]) == {
        "endpoint": "fra1.digitaloceanspaces.com",
        "region": "fra1",
        "ca": PUBLIC_CAS,
        "raw": "acme-raw",
        "access_key": "DO00credential-object-store-demo-seed-key",
        "secret_key": secret("demo-seed"),
    }
    assert set(json.loads(seed["/etc/millrace/demo/seed.json"])) == {"acme-jobs/demo"}
    assert bare(made().outputs["connections"])["demo"]["files"] == "s3://acme-raw/flights/"


def test_who_uses_it_waits_for_buckets_and_keys() -> None:
    graph = made()
    waited = graph.waits_for(graph.container("spark"))
    assert {node.urn for node in (*buckets(graph).values(), *keys(graph).values())} <= waited


def test_no_bucket_is_called_by_its_name_in_the_settings() -> None:
    """Whatever a container is told of S3 addresses has the name that a bucket has in Spaces."""
    names = "|".join(sorted(ALL))
    graph = made()
    ours = {file.read_text() for folder in ("configs", "pipelines") for file in Path(folder).rglob("*.py")}
    for node in (*graph.containers, *graph.jobs):
        for path, content in files(node).items():
            if content in ours or path.endswith(("dags.json", "seed.json")) or "/examples/" in path:
                continue  # programs, which are given the names
            assert not re.findall(rf"s3a?://(?:{names})\b", content), (node.name, path)
