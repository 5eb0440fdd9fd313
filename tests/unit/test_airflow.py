"""Airflow: settings and their mistakes, what gets deployed, and the scripts that run beside it."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import runpy
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from configparser import ConfigParser
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest
from cryptography.fernet import Fernet
from graph import PLANTED, Graph, bare, plain_texts, platform

from components import folders
from components.airflow_settings import OWN_OPTIONS, AirflowSettings, is_dag_file, problems
from components.images import CATALOGUE
from components.problems import SettingsError
from components.services.airflow import Airflow
from components.services.delta_sharing import DeltaSharing
from components.services.kafka import Kafka
from components.services.object_store import ObjectStore
from components.services.postgres import Postgres
from components.services.presto import Presto
from components.services.spark import Spark
from components.settings import load

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


def job(graph: Graph, name: str) -> Any:
    (found,) = [node for node in graph.jobs if node.name == f"airflow-{name}"]
    return found


def files(node: Any) -> dict[str, str]:
    entries = bare(node.get("uploads") or node.get("files"))
    return {entry.get("file") or entry["path"]: entry["content"] for entry in entries}


def config(node: Any) -> ConfigParser:
    parser = ConfigParser()
    parser.read_string(files(node)[CFG])
    return parser


# -- settings


def mistakes(**values: Any) -> list[str]:
    return [p.line("f", "m") for p in problems(AirflowSettings.model_validate(values))]


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"dags_folders": ["no/such"]}, 'f: m:dags_folders[0]: no folder "no/such" - give a path'),
        (
            {"options": {"core.parallelism": "4"}},
            'f: m:options["core.parallelism"]: has a key of its own - write',
        ),
        (
            {"options": {"core.fernet_key": "x"}},
            'f: m:options["core.fernet_key"]: is set by the platform itself',
        ),
        *(
            ({"options": {name: "x"}}, f'f: m:options["{name}"]: is set by the platform itself')
            for name in (
                "core.fernet_key_cmd",
                "database.sql_alchemy_conn_secret",
                "api.expose_config",
                "webserver.secret_key",
                "core.simple_auth_manager_all_admins",
                "workers.secrets_backend",
            )
        ),
        (
            {"options": {"millrace.users": "x"}},
            'f: m:options["millrace.users"]: is set by the platform itself',
        ),
        ({"buckets": ["lake", "lake"]}, 'f: m:buckets[1]: bucket "lake" stands here a second time'),
        ({"buckets": ["airflow-logs"]}, 'f: m:buckets[0]: "airflow-logs" holds the logs - remove it'),
        ({"kafka_read": ["a", "a"]}, 'f: m:kafka_read[1]: topic "a" stands here a second time'),
    ],
)
def test_each_mistake_is_one_line(values: dict[str, Any], line: str) -> None:
    (found,) = mistakes(**values)
    assert found.startswith(line), found


def test_dag_files_must_be_text_and_few(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_bytes(b"\xff\xfe")
    (found,) = mistakes(dags_folders=[str(tmp_path)])
    assert found.startswith(f"f: m:dags_folders[0]: {tmp_path}/a.py cannot be read as UTF-8 text")
    (tmp_path / "a.py").write_text("#" * 5 * 1024 * 1024)
    (found,) = mistakes(dags_folders=[str(tmp_path)])
    assert found.startswith("f: m:dags_folders: 5120 KiB in all, more than 4096 - keep data elsewhere")


def test_folders_make_one_tree(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for folder, name in ((one, "a.py"), (two, "b.py")):
        folder.mkdir()
        (folder / name).write_text(name)
    both = [str(one), str(two)]
    assert folders.texts(both, is_dag_file) == {"a.py": "a.py", "b.py": "b.py"}
    assert mistakes(dags_folders=both) == []
    (two / "a.py").write_text("other")
    (line,) = mistakes(dags_folders=both)
    assert line.startswith("f: m:dags_folders[1]: a.py is in ") and line.endswith(" too - rename one")
    (line,) = mistakes(dags_folders=[str(one)] * 2)
    assert line.endswith("stands here a second time - remove it")


def test_dag_files_are_all_but_byte_code_and_hidden_ones(tmp_path: Path) -> None:
    for name in ("a.py", "lib/b.py", ".airflowignore", "lib/__pycache__/b.pyc", ".git/config", "sql/q.sql"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "empty.py").touch()
    found = folders.texts([str(tmp_path)], is_dag_file)
    assert found == {n: n for n in ("a.py", "lib/b.py", ".airflowignore", "sql/q.sql")} | {"empty.py": ""}
    assert folders.texts([str(tmp_path / "none")], is_dag_file) == {}


@pytest.mark.parametrize(
    "values",
    [
        {"memory_mib": 256},
        {"scheduler_memory_mib": 512},
        {"parallelism": 0},
        {"log_retention_days": 0},
        {"options": {"parallelism": "4"}},
        {"kafka_read": ["a*b"]},
        {"warehouse_privilege": "all"},
    ],
)
def test_values_out_of_range(values: dict[str, Any]) -> None:
    with pytest.raises(SettingsError) as caught:
        load({"users": [{"name": "a", "role": "admin"}], "airflow": values}, "f")
    (line,) = caught.value.lines
    assert line.startswith("f: millrace:airflow.")


def test_as_many_tasks_as_there_is_memory_for() -> None:
    assert AirflowSettings().tasks_at_a_time == 3
    assert AirflowSettings(scheduler_memory_mib=640).tasks_at_a_time == 1
    assert AirflowSettings(scheduler_memory_mib=4096).tasks_at_a_time == 18
    assert AirflowSettings(parallelism=7).tasks_at_a_time == 7


# -- what gets deployed


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


DECLARED: dict[str, Any] = {
    "postgres": {
        "databases": [{"name": "shop"}, {"name": "stock"}],
        "roles": [
            {"name": "clerk", "grants": [{"database": "stock"}]},
            {"name": "chief", "grants": [{"database": "shop"}, {"database": "stock"}]},
            {"name": "idle"},
        ],
    },
    "object_store": {"users": [{"name": "loader"}]},
    "kafka": {
        "users": [
            {"name": "reports", "groups": ["nightly-*"]},
            {"name": "seller"},
        ]
    },
}


def test_pools_are_made_once_the_database_is_there() -> None:
    made = deployed(pools={"one_at_a_time": 1, "exports": "4"})
    pools = job(made, "pools")
    assert json.loads(files(pools)["/etc/millrace/airflow/pools.json"]) == {"one_at_a_time": 1, "exports": 4}
    assert job(made, "migrate").urn in made.waits_for(pools)
    assert not any(node.name == "airflow-pools" for node in deployed().jobs)


def test_connections_as_declared_users() -> None:
    wanted = {
        "clerk": {"service": "postgres", "user": "clerk"},
        "chief": {"service": "postgres", "user": "chief", "database": "stock"},
        "loader": {"service": "object_store", "user": "loader"},
        "reports": {"service": "kafka", "user": "reports"},
        "seller": {"service": "kafka", "user": "seller"},
    }
    made = deployed(DECLARED, connections=wanted, variables={"region": "north", "batch": 5})
    for name in PROGRAMS:
        assert json.loads(files(made.container(name))["/etc/millrace/airflow/variables.json"]) == {
            "region": "north",
            "batch": "5",
            # What tasks find a bucket by, whoever runs the object store.
            "object_store_buckets": '{"airflow-logs": "airflow-logs", "lake": "lake"}',
        }
    found = json.loads(files(made.container("airflow"))[CONNECTIONS])
    assert (found["clerk"]["login"], found["clerk"]["schema"]) == ("clerk", "stock")
    assert (found["chief"]["login"], found["chief"]["schema"]) == ("chief", "stock")
    assert found["loader"]["login"] == "loader" and found["loader"]["conn_type"] == "aws"
    for id_, group in (("reports", "nightly-"), ("seller", "seller")):
        kafka = json.loads(found[id_]["extra"])
        assert (kafka["sasl.username"], kafka["group.id"]) == (id_, group)
    # The passwords are those of the users, and nobody got a user more.
    given = bare(made.outputs["credentials"])
    assert found["clerk"]["password"] == given["postgres"]["clerk"]
    assert found["loader"]["password"] == given["object_store"]["loader"]
    assert json.loads(found["seller"]["extra"])["sasl.password"] == given["kafka"]["seller"]
    assert set(given["kafka"]) == {"reports", "seller", "airflow"}


@pytest.mark.parametrize(
    ("connection", "line"),
    [
        (
            {"service": "kafka", "user": "sellr"},
            '.user: no user "sellr" among kafka.users - did you mean "seller"',
        ),
        (
            {"service": "postgres", "user": "nobody"},
            '.user: no user "nobody" among postgres.roles - known: chief',
        ),
        ({"service": "postgres", "user": "chief"}, '.database: missing - role "chief" may use shop, stock'),
        (
            {"service": "postgres", "user": "idle"},
            '.database: role "idle" may use no database - give it a grant',
        ),
        (
            {"service": "postgres", "user": "clerk", "database": "shop"},
            '.database: role "clerk" has no grant on "shop" - known: stock',
        ),
        (
            {"service": "object_store", "user": "loader", "database": "shop"},
            ".database: has no meaning for object_store - remove it",
        ),
        (
            {"service": "spark", "user": "x"},
            '.service: must be "postgres", "object_store" or "kafka", got "spark"',
        ),
    ],
)
def test_a_connection_as_nobody_is_one_line(connection: dict[str, Any], line: str) -> None:
    values = {"users": [{"name": "a", "role": "admin"}], **DECLARED}
    with pytest.raises(SettingsError) as caught:
        load({**values, "airflow": {"connections": {"mine": connection}}}, "f")
    (found,) = caught.value.lines
    assert found.startswith(f"f: millrace:airflow.connections.mine{line}"), found


@pytest.mark.parametrize("id_", ["postgres_default", "postgres_stock", "kafka_default", "aws_default"])
def test_the_platforms_own_connections_stay(id_: str) -> None:
    wanted = {id_: {"service": "object_store", "user": "loader"}}
    with pytest.raises(SettingsError, match="is a connection of the platform itself - choose another id"):
        deployed(DECLARED, connections=wanted)


def test_a_connection_to_what_is_off() -> None:
    with pytest.raises(
        SettingsError, match=r"mine\.service: kafka is off - add the key kafka or remove this"
    ):
        deployed(connections={"mine": {"service": "kafka", "user": "seller"}})


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


class Store:
    """Stands for Airflow's hook for the object store, with three objects."""

    deleted: ClassVar[list[str]] = []

    def __init__(self, aws_conn_id: str) -> None:
        assert aws_conn_id == "object_store"

    def get_conn(self) -> Any:
        """The client."""
        return self

    def get_paginator(self, operation: str) -> Any:
        """The paginator."""
        assert operation == "list_objects_v2"
        return self

    def paginate(self, Bucket: str) -> Any:  # noqa: N803  # the client's own name
        """Two pages, and one without anything."""
        assert Bucket == "logs"
        now = datetime.now(UTC)
        ages = {"new": 1, "younger": 9, "old": 11}
        entries = [{"Key": k, "LastModified": now - timedelta(days=d)} for k, d in ages.items()]
        return [{"Contents": entries[:2]}, {}, {"Contents": entries[2:]}]

    def delete_objects(self, bucket: str, keys: list[str]) -> None:
        """Notes what goes."""
        self.deleted.extend(keys)


def test_the_clean_up_deletes_what_is_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logs = tmp_path / "logs"
    old = time.time() - 11 * 86400
    for name, stamp in (("a/old", old), ("a/new", None), ("b/c/old", old)):
        (logs / name).parent.mkdir(parents=True, exist_ok=True)
        (logs / name).touch()
        if stamp:
            os.utime(logs / name, (stamp, stamp))
    for folder in ("b/c", "b", "a"):
        os.utime(logs / folder, (old, old))
    source = CONFIGS / "dags" / "platform_cleanup.py"
    keep = {"metadata_days": 20, "log_days": 10, "bucket": "logs", "folders": {str(logs): 10}}
    (tmp_path / source.name).write_text(source.read_text())
    (tmp_path / "platform_cleanup.json").write_text(json.dumps(keep))
    ran: list[Any] = []

    def task(function: Any) -> Any:
        return lambda: ran.append((function.__name__, function()))

    options: dict[str, Any] = {}
    sdk = ModuleType("airflow.sdk")
    sdk.__dict__.update(task=task, dag=lambda **given: (options.update(given), lambda function: function)[1])
    s3 = ModuleType("airflow.providers.amazon.aws.hooks.s3")
    s3.__dict__["S3Hook"] = Store
    for module in (sdk, s3):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "airflow-db-not-allowed:///")
    commands: list[Any] = []
    monkeypatch.setattr(subprocess, "run", lambda command, **more: commands.append((command, more)))
    spec = importlib.util.spec_from_file_location("platform_cleanup", tmp_path / source.name)
    assert spec and spec.loader
    spec.loader.exec_module(importlib.util.module_from_spec(spec))

    assert dict(ran) == {"metadata": None, "task_logs": 1, "local_files": 2}
    assert Store.deleted == ["old"]
    # The folder that became empty just now has a new time stamp: it goes the next time.
    assert sorted(str(p.relative_to(logs)) for p in logs.rglob("*")) == ["a", "a/new", "b", "b/c"]
    ((command, more),) = commands
    assert command[:3] == ["airflow", "db", "clean"] and "--yes" in command
    until = datetime.fromisoformat(command[command.index("--clean-before-timestamp") + 1])
    assert abs(datetime.now(UTC) - timedelta(days=20) - until) < timedelta(minutes=1)
    assert more["check"] and not any("SQL_ALCHEMY" in name for name in more["env"])
    assert options["is_paused_upon_creation"] is False


# -- scripts


def script(name: str, *arguments: object, **env: str) -> str:
    done = subprocess.run(
        [sys.executable, "-S", str(CONFIGS / name), *map(str, arguments)],
        capture_output=True, text=True, check=False, env={**os.environ, **env},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_folder_becomes_what_the_manifest_says(tmp_path: Path) -> None:
    manifest, folder = tmp_path / "m.json", tmp_path / "dags"
    folder.mkdir()

    def sync(**wanted: str) -> str:
        manifest.write_text(json.dumps({name.replace("__", "/"): text for name, text in wanted.items()}))
        return script("sync_dags.py", manifest, folder)

    assert sync(a="1", b__c="2", b__empty="") == "3 files, 3 written, 0 removed"
    kept = (folder / "a").stat().st_mtime_ns
    assert sync(a="1", b__c="3") == "2 files, 1 written, 1 removed"
    assert (folder / "a").stat().st_mtime_ns == kept
    assert (folder / "b/c").read_text() == "3"
    (folder / "x/y").mkdir(parents=True)
    (folder / "x/y/.foreign").touch()
    assert sync(a="1") == "1 files, 0 written, 2 removed"
    assert [path.name for path in folder.rglob("*")] == ["a"]


class Cursor:
    """Stands for the driver's, on SQLite."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self.database, self.rows, self.itersize, self.rowcount = database, [], 0, 0

    def __enter__(self) -> Cursor:
        return self

    def __exit__(self, *_: object) -> None: ...

    def __iter__(self) -> Iterator[Any]:
        return iter(self.rows)

    def execute(self, text: str, values: Sequence[object] = ()) -> None:
        done = self.database.execute(text.replace("%s", "?"), values)
        self.rows, self.rowcount = done.fetchall(), done.rowcount

    def fetchone(self) -> Any:
        return self.rows[0]


class Reader(Cursor):
    """A cursor of the server; something happens once it has read the variables."""

    def execute(self, text: str, values: Sequence[object] = ()) -> None:
        super().execute(text, values)
        if "FROM variable" in text:
            self.database.execute(Database.meanwhile)


class Database(sqlite3.Connection):
    """Stands for Airflow's."""

    meanwhile: ClassVar[str] = ""

    def cursor(self, name: str = "") -> Any:
        return Reader(self) if name else Cursor(self)


@pytest.fixture
def encrypted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A database with nothing in it, and the script that encrypts anew with some keys."""
    database = sqlite3.connect(":memory:", factory=Database, isolation_level=None)
    columns = "password TEXT, extra TEXT, is_encrypted, is_extra_encrypted"
    database.executescript(
        f"CREATE TABLE connection (id INTEGER PRIMARY KEY, conn_id TEXT, {columns});"
        "CREATE TABLE variable (id INTEGER PRIMARY KEY, key TEXT, val TEXT, is_encrypted);"
        "CREATE TABLE trigger_ (id INTEGER PRIMARY KEY, classpath TEXT, kwargs TEXT);"
        "CREATE TABLE log (dttm, event TEXT, owner TEXT, extra TEXT);"
    )
    database.create_function("now", 0, lambda: "now")
    there = ("connection", "variable", "trigger")
    database.create_function("to_regclass", 1, lambda name: name if name in there else None)

    class Sql(str):
        def format(self, *_: object, **values: object) -> Sql:
            return Sql(str.format(self, **values))

    driver, sql = ModuleType("psycopg2"), ModuleType("psycopg2.sql")
    # SQLite takes no table of this name.
    sql.__dict__.update(SQL=Sql, Identifier=lambda name: "trigger_" if name == "trigger" else name)
    driver.__dict__.update(sql=sql, connect=lambda uri, **more: database)
    for module in (driver, sql):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(Database, "meanwhile", "")

    def run(*keys: bytes) -> sqlite3.Connection:
        (tmp_path / "keys").write_bytes(b",".join(keys))
        (tmp_path / "database").write_text("postgresql://")
        monkeypatch.setattr(sys, "argv", ["", str(tmp_path / "keys"), str(tmp_path / "database")])
        runpy.run_path(str(CONFIGS / "rotate_fernet.py"))
        return database

    return run


def test_what_a_former_key_reads_is_encrypted_anew(
    encrypted: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    new, old, older, gone = (Fernet.generate_key() for _ in range(4))
    database = encrypted(new)
    assert capsys.readouterr().out == "encrypted anew: {}\n"

    def token(key: bytes, text: str) -> str:
        return Fernet(key).encrypt(text.encode()).decode()

    kept = token(new, "c")
    database.execute(
        "INSERT INTO connection VALUES (1, 'a', ?, ?, 1, 1), (2, 'b', 'plain', NULL, 0, 0)",
        (token(old, "p"), token(older, "x")),
    )
    database.execute(
        "INSERT INTO variable VALUES (1, 'c', ?, 1), (2, 'd', ?, 1), (3, 'e', '', 1), (4, 'f', ?, 1)",
        (kept, token(gone, "d"), token(old, "f")),
    )
    database.execute(
        "INSERT INTO trigger_ VALUES (1, 't', ?), (2, 'u', '{\"plain\": 1}')", (token(old, "{}"),)
    )
    # Saved by a program that still has the former key, after the job has read the row.
    saved = token(old, "saved")
    Database.meanwhile = f"UPDATE variable SET val = '{saved}' WHERE key = 'f'"
    encrypted(new, old, older)
    printed = capsys.readouterr()
    assert json.loads(printed.out.partition(":")[2]) == {"connection": 2, "variable": 0, "trigger": 1}
    assert printed.err == "no key that is still known reads variable d: val\n"
    password, extra = database.execute("SELECT password, extra FROM connection WHERE id = 1").fetchone()
    (kwargs,) = database.execute("SELECT kwargs FROM trigger_ WHERE id = 1").fetchone()
    assert [Fernet(new).decrypt(t.encode()) for t in (password, extra, kwargs)] == [b"p", b"x", b"{}"]
    assert database.execute("SELECT password FROM connection WHERE id = 2").fetchone() == ("plain",)
    assert dict(database.execute("SELECT key, val FROM variable WHERE key IN ('c', 'f')")) == {
        "c": kept,
        "f": saved,
    }
    (logged,) = database.execute("SELECT event, extra FROM log").fetchall()
    assert logged == ("encrypted with an unknown key", '["variable d: val"]')
    # And the next run takes it up.
    Database.meanwhile = ""
    encrypted(new, old, older)
    assert Fernet(new).decrypt(dict(database.execute("SELECT key, val FROM variable"))["f"]) == b"saved"
