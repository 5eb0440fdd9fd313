"""Airflow: what gets deployed."""

from __future__ import annotations

import json
import re
from configparser import ConfigParser
from typing import Any

import pytest
from airflow_sample import CFG, CONFIGS, CONNECTIONS, PROGRAMS, deployed, files, job
from graph import PLANTED, Graph, bare, plain_texts

from components.airflow_settings import OWN_OPTIONS
from components.images import CATALOGUE


@pytest.fixture(scope="module")
def graph() -> Graph:
    return deployed()


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory) -> Graph:
    """Other settings than the defaults, all of them at once: they have nothing to do with each other."""
    folder = tmp_path_factory.mktemp("dags")
    (folder / "mine.py").write_text("# mine\n")
    return deployed(
        {
            "time_zone": "Europe/Berlin",
            "images": "upstream",
            "postgres": {"databases": [{"name": "shop"}]},
            "kafka": {},
            "delta_sharing": {},
            "spark": {},
            "presto": {},
        },
        access="engineer",
        api_route=False,
        egress=True,
        pause_new_dags=False,
        options={"core.max_active_runs_per_dag": 5},
        warehouse_privilege="owner",
        dags_folders=[str(folder)],
        log_retention_days=5,
        metadata_retention_days=6,
    )


def config(node: Any) -> ConfigParser:
    parser = ConfigParser()
    parser.read_string(files(node)[CFG])
    return parser


def test_four_programs_after_the_migration_and_then_the_keys(graph: Graph) -> None:
    migrate, fernet = job(graph, "migrate"), job(graph, "fernet")
    assert migrate.get("command") == ["airflow", "db", "migrate"]
    for name in PROGRAMS:
        assert migrate.urn in graph.waits_for(graph.container(name)), name
        # What knows the former key alone could not read what the job writes.
        assert graph.container(name).urn in graph.waits_for(fernet), name
    assert graph.container("postgres").urn in graph.waits_for(migrate)
    assert graph.container("object-store").urn in graph.waits_for(migrate)
    # A changed file of a DAG is the business of one job, which nobody waits for.
    for node in graph.containers:
        assert job(graph, "dags").urn not in graph.waits_for(node)


def test_no_secret_is_outside_secret_files(graph: Graph) -> None:
    nodes = [*(graph.container(name) for name in PROGRAMS), *(job(graph, n) for n in ("migrate", "fernet"))]
    for node in nodes:
        assert not any(PLANTED in text for text in plain_texts(node.inputs)), node.name
        for upload in bare(node.get("uploads")) or []:
            if PLANTED in upload["content"]:
                assert upload["permissions"] == "0440", upload["file"]
        secret = [
            f["path"] for f in bare(node.get("files")) or [] if PLANTED in f["content"] and not f["secret"]
        ]
        assert set(secret) <= {"/run/millrace/tls/ca.crt"}
    for node in (*nodes, job(graph, "dags")):
        env = bare(node.get("envs")) or [f"{k}={v}" for k, v in bare(node.get("env")).items()]
        assert not any(PLANTED in text for text in env)
    # Keys are derived, so nothing planted shows in them: the file they are in is secret as a whole.
    assert "fernet_key = " in str(files(graph.container("airflow")))
    assert not any("fernet_key = " in text for node in nodes for text in plain_texts(node.inputs))


def test_users_and_the_proxys_secret_reach_the_api_server_alone(graph: Graph) -> None:
    users = json.loads(files(graph.container("airflow"))["/run/millrace/airflow/users.json"])
    assert {name: entry["role"] for name, entry in users["users"].items()} == {
        "ada": "admin",
        "erin": "engineer",
        "uma": "user",
    }
    assert all(PLANTED in entry["hash"] for entry in users["users"].values())
    for name in PROGRAMS[1:]:
        assert not any("users.json" in path or "tls.key" in path for path in files(graph.container(name)))
        assert users["proxy"] not in str(files(graph.container(name)))
    proxy = files(graph.container("proxy"))
    assert any(users["proxy"] in text for text in proxy.values())


def test_only_those_who_may_open_it_get_tokens(changed: Graph) -> None:
    users = json.loads(files(changed.container("airflow"))["/run/millrace/airflow/users.json"])
    assert set(users["users"]) == {"ada", "erin"}


def test_configuration(graph: Graph) -> None:
    read = config(graph.container("airflow-scheduler"))
    assert read["core"]["executor"] == "LocalExecutor"
    assert read["core"]["parallelism"] == "3"
    assert read["core"]["load_examples"] == "False"
    assert read["api"]["base_url"] == "https://airflow.data.test.example:8443"
    assert read["core"]["execution_api_server_url"] == "https://airflow:8443/execution/"
    sync, asynchronous = (read["database"][k] for k in ("sql_alchemy_conn", "sql_alchemy_conn_async"))
    assert "@postgres:5432/airflow?sslmode=verify-full&sslrootcert=/run/millrace/tls/ca.crt" in sync
    assert asynchronous.startswith("postgresql+asyncpg://") and asynchronous.endswith("?ssl=verify-full")
    assert read["logging"]["remote_base_log_folder"] == "s3://airflow-logs"
    keys = read["core"]["fernet_key"].split(",")
    assert [len(key) for key in keys] == [44, 44] and len(set(keys)) == 2
    assert files(job(graph, "fernet"))["/run/millrace/airflow/fernet"] == ",".join(keys)
    assert len(read["api_auth"]["jwt_secret"]) == 128
    bundles = json.loads(read["dag_processor"]["dag_bundle_config_list"])
    assert [bundle["name"] for bundle in bundles] == ["own", "platform"]
    # Whatever the template sets of what is refused in `options`, is refused there; and nothing is missing.
    ours = {f"{section}.{option}" for section in read.sections() for option in read[section]}
    assert ours >= OWN_OPTIONS


def test_time_zone_options_and_paused_dags(changed: Graph) -> None:
    read = config(changed.container("airflow"))
    assert read["core"]["default_timezone"] == "Europe/Berlin"
    assert read["core"]["dags_are_paused_at_creation"] == "False"
    for name in PROGRAMS:
        assert "AIRFLOW__CORE__MAX_ACTIVE_RUNS_PER_DAG=5" in changed.container(name).get("envs")


def test_a_percent_sign_survives_the_file() -> None:
    from components.templates import render

    names = re.findall(r"{{ (\w+) }}", (CONFIGS / "airflow.cfg.j2").read_text())
    text = render(
        "airflow/airflow.cfg.j2", **dict.fromkeys(names, "x"), database="p%40ss", database_async="p%2Fss"
    )
    parser = ConfigParser()
    parser.read_string(text)
    assert parser["database"]["sql_alchemy_conn"] == "p%40ss"
    assert parser["database"]["sql_alchemy_conn_async"] == "p%2Fss"


def test_tasks_find_connections_to_all_there_is(graph: Graph) -> None:
    found = json.loads(files(graph.container("airflow-scheduler"))[CONNECTIONS])
    assert set(found) == {
        "aws_default", "object_store", "postgres_default", "postgres_shop", "postgres_stock",
    }  # fmt: skip
    shop = found["postgres_shop"]
    assert found["postgres_default"] == shop
    assert (shop["conn_type"], shop["host"], shop["login"], shop["schema"]) == (
        "postgres", "postgres", "airflow_tasks", "shop",
    )  # fmt: skip
    assert json.loads(shop["extra"])["sslmode"] == "verify-full"
    store = found["object_store"]
    assert store["conn_type"] == "aws" and PLANTED in store["password"]
    assert json.loads(store["extra"])["endpoint_url"] == "https://object-store:9000"
    assert json.loads(store["extra"])["verify"] == "/run/millrace/tls/ca.crt"


def test_pools_are_made_once_the_database_is_there() -> None:
    made = deployed(pools={"one_at_a_time": 1, "exports": "4"})
    pools = job(made, "pools")
    assert json.loads(files(pools)["/etc/millrace/airflow/pools.json"]) == {"one_at_a_time": 1, "exports": 4}
    assert job(made, "migrate").urn in made.waits_for(pools)
    assert not any(node.name == "airflow-pools" for node in deployed().jobs)


def test_tasks_may_act_as_owner(changed: Graph) -> None:
    setup = files(next(node for node in changed.jobs if node.name == "postgres-setup"))
    # Acting as the owner: a member of its role.
    assert '{"role": "shop", "member": "airflow_tasks"}' in setup["/etc/millrace/postgres/setup.sql"]


def test_other_services_are_offered_where_they_are_on(changed: Graph) -> None:
    found = json.loads(files(changed.container("airflow-triggerer"))[CONNECTIONS])
    kafka = json.loads(found["kafka_default"]["extra"])
    assert kafka["security.protocol"] == "SASL_SSL" and kafka["sasl.username"] == "airflow"
    assert PLANTED in kafka["sasl.password"] and kafka["ssl.ca.location"] == "/run/millrace/tls/ca.crt"
    assert kafka["group.id"].startswith("airflow")
    trino = found["trino_default"]
    assert (trino["conn_type"], trino["port"], trino["login"]) == ("trino", 8443, "airflow")
    assert json.loads(trino["extra"])["protocol"] == "https" and PLANTED in trino["password"]
    for name, host in (("delta_sharing", "delta-sharing"), ("spark", "spark")):
        entry = found[f"{name}_default"]
        assert (entry["conn_type"], entry["schema"], entry["host"]) == ("http", "https", host)
        extra = json.loads(entry["extra"])
        assert extra == {"verify": "/run/millrace/tls/ca.crt", "Authorization": f"Bearer {entry['password']}"}
        # A login would make the hook send that instead of the header.
        assert "login" not in entry
        assert not any(entry["password"] in t for t in plain_texts(changed.container("airflow").inputs))


def test_routes(graph: Graph, changed: Graph) -> None:
    urls = bare(graph.outputs["urls"])
    assert urls["airflow"]["access"] == "user" and urls["airflow-api"]["access"] == "public"
    assert bare(graph.outputs["connections"])["airflow"] == {
        "url": "https://airflow:8443",
        "public_url": "https://airflow.data.test.example:8443",
        "public_api_url": "https://airflow-api.data.test.example:8443",
    }
    assert "airflow-api" not in changed.outputs["urls"]
    assert changed.outputs["urls"]["airflow"]["access"] == "engineer"
    assert "public_api_url" not in bare(changed.outputs["connections"])["airflow"]


def test_tasks_call_out_only_when_they_may(graph: Graph, changed: Graph) -> None:
    def leaves(graph: Graph) -> set[str]:
        return {
            name
            for name in PROGRAMS
            for network in graph.container(name).get("networksAdvanced")
            if network["name"].endswith("--egress")
        }

    assert leaves(graph) == set()
    assert leaves(changed) == {"airflow-scheduler", "airflow-triggerer"}


def test_dags_come_by_a_job(changed: Graph) -> None:
    sent = json.loads(files(job(changed, "dags"))["/etc/millrace/airflow/dags.json"])
    assert sent["own/mine.py"] == "# mine\n"
    keep = json.loads(sent["platform/platform_cleanup.json"])
    assert (keep["log_days"], keep["metadata_days"], keep["bucket"]) == (5, 6, "airflow-logs")
    assert "platform_cleanup" in sent["platform/platform_cleanup.py"]
    for name in ("airflow-scheduler", "airflow-dag-processor", "airflow-triggerer"):
        volumes = {v["containerPath"]: v for v in changed.container(name).get("volumes")}
        assert volumes["/var/lib/millrace/airflow-dags"]["readOnly"]
    paths = {v["containerPath"] for v in changed.container("airflow").get("volumes")}
    assert paths == {"/var/lib/millrace/airflow-logs"}


def test_both_image_sources(graph: Graph, changed: Graph) -> None:
    for name in PROGRAMS:
        built, official = graph.container(name), changed.container(name)
        assert built.get("entrypoints") == official.get("entrypoints")
        assert built.get("user") == "50000"
    version = CATALOGUE["airflow"].version
    assert CATALOGUE["airflow"].upstream == f"docker.io/apache/airflow:{version}"
    locked = (CONFIGS.parents[1] / "images/airflow/requirements.txt").read_text()
    assert f"\napache-airflow=={version} " in locked
