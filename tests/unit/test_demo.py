"""The demo's settings: what they add to those of the other services, and what the service makes of them."""

from __future__ import annotations

import copy
import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from graph import PLANTED, Graph, bare, plain_texts, platform
from hypothesis import given, settings
from hypothesis import strategies as st

from components import demo_settings
from components.checks import networks
from components.demo_overlay import additions, with_demo
from components.demo_settings import PIPELINE_USERS, DemoSettings
from components.problems import SettingsError
from components.services import registry
from components.settings import Settings, load

USERS = [{"name": "ada", "role": "admin"}, {"name": "erin", "role": "engineer"}]
NEEDED = ("airflow", "kafka", "object_store", "postgres", "spark")
OPTIONAL = ("delta_sharing", "jupyter", "presto")
LINE = "Pulumi.dev.yaml: millrace:demo"
GRANT = {"database": "shop", "privilege": "read-write"}


def loaded(**values: Any) -> Settings:
    return load({"users": USERS, **{key: {} for key in NEEDED}, "demo": {}, **values}, "Pulumi.dev.yaml")


def mistakes(**values: Any) -> list[str]:
    with pytest.raises(SettingsError) as error:
        loaded(**values)
    return error.value.lines


@cache
def graph() -> Graph:
    return platform({"users": USERS, **{key: {} for key in (*NEEDED, *OPTIONAL, "demo")}})


@cache
def sources() -> Graph:
    keys = ("kafka", "object_store", "postgres")
    return platform({"users": USERS, **{key: {} for key in keys}, "demo": {"pipelines": False, "seed": 7}})


def uploads(node: Any) -> dict[str, dict[str, Any]]:
    return {entry["file"]: entry for entry in bare(node.get("uploads"))}


def seed_files(found: Graph) -> dict[str, dict[str, Any]]:
    (job,) = [node for node in found.jobs if node.name == "demo-seed"]
    return {entry["path"]: entry for entry in bare(job.get("files"))}


# -- what is added


def test_every_service_gets_its_part() -> None:
    found: Any = loaded(delta_sharing={}, jupyter={}, presto={})
    assert [(d.name, d.owner) for d in found.postgres.databases] == [("shop", "shop_simulator")]
    assert [t.name for t in found.kafka.topics] == ["shop-orders"]
    assert found.airflow.dags_folders == ("pipelines/dags", "pipelines/demo/dags")
    assert found.airflow.variables == {"demo_schedule": "@hourly"}
    assert set(found.airflow.connections) == {
        "demo_shop", "demo_events", "demo_bronze", "demo_silver", "demo_gold", "demo_export",
    }  # fmt: skip
    assert found.jupyter.notebooks_folders == ("configs/jupyter/examples", "pipelines/demo/notebooks")
    assert [r.name for r in found.delta_sharing.recipients] == ["analyst-partner"]
    assert found.delta_sharing.recipients[0].shares == ("retail",)


def test_no_pipeline_writes_a_bucket_but_its_own() -> None:
    found: Any = loaded()
    writers: dict[str, set[str]] = {}
    for user in found.object_store.users:
        for access in user.buckets:
            if access.privilege != "read-only":
                writers.setdefault(access.bucket, set()).add(user.name)
    assert writers == {
        "bronze": {"demo-bronze"},
        "silver": {"demo-silver"},
        "lake": {"demo-gold"},
        "jobs": {"demo-seed"},
        "raw": {"demo-seed", "demo-export"},
    }
    (reader,) = [role for role in found.postgres.roles if role.name == "shop_reader"]
    assert [(g.database, g.privilege) for g in reader.grants] == [("shop", "read-only")]
    assert [(u.name, u.read, u.write) for u in found.kafka.users] == [
        ("shop-simulator", (), ("shop-orders",)),
        ("shop-ingest", ("shop-orders",), ()),
    ]


def test_users_own_entries_come_first_and_win() -> None:
    found: Any = loaded(
        postgres={
            "databases": [{"name": "warehouse"}],
            "roles": [{"name": "shop_reader", "connection_limit": 5, "grants": [{"database": "warehouse"}]}],
        },
        kafka={
            "topics": [{"name": "orders"}, {"name": "shop-orders", "partitions": 12}],
            "users": [{"name": "shop-ingest", "read": ["orders"], "groups": ["nightly-*"]}],
        },
        object_store={
            "buckets": [{"name": "lake", "versioning": True}],
            "users": [{"name": "demo-export", "buckets": [{"bucket": "lake"}]}],
        },
        airflow={
            "dags_folders": ["configs/airflow/dags"],
            "variables": {"demo_schedule": "@daily", "mine": "x"},
            "connections": {"demo_events": {"service": "kafka", "user": "shop-simulator"}},
        },
    )
    assert [d.name for d in found.postgres.databases] == ["warehouse", "shop"]
    reader = found.postgres.roles[0]
    assert reader.connection_limit == 5
    assert [g.database for g in reader.grants] == ["warehouse", "shop"]
    topic = found.kafka.topics[1]
    assert (topic.name, topic.partitions, topic.message) == ("shop-orders", 12, None)
    ingest = found.kafka.users[0]
    assert (ingest.read, ingest.groups) == (("orders", "shop-orders"), ("nightly-*",))
    assert found.object_store.buckets[0].versioning
    export = found.object_store.users[0]
    assert {b.bucket: b.privilege for b in export.buckets} == {"lake": "read-only", "raw": "write-only"}
    assert found.airflow.dags_folders == ("configs/airflow/dags", "pipelines/demo/dags")
    assert found.airflow.variables == {"demo_schedule": "@daily", "mine": "x"}
    assert found.airflow.connections["demo_events"].user == "shop-simulator"
    assert len(found.airflow.connections) == 6


def test_a_stack_file_that_says_it_all_itself_gets_nothing_more() -> None:
    once = with_demo({"demo": {}, **{key: {} for key in (*NEEDED, *OPTIONAL)}})
    assert with_demo(copy.deepcopy(once)) == once


def test_without_the_demo_nothing_is_added() -> None:
    values: dict[str, object] = {key: {} for key in NEEDED}
    assert with_demo(values) == values


def test_what_is_given_stays_as_it_was() -> None:
    values: dict[str, Any] = {"demo": {}, "kafka": {"users": [{"name": "shop-ingest", "read": ["a"]}]}}
    before = copy.deepcopy(values)
    with_demo(values)
    assert values == before


@settings(max_examples=200)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["name", "bucket", "users", "buckets", "topics", "roles", "grants", "connections", "read"]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
def test_whatever_stands_in_the_file_is_left_to_validation(value: Any) -> None:
    keys = ("airflow", "kafka", "object_store", "postgres", "delta_sharing", "jupyter")
    found = with_demo({"demo": {}, **dict.fromkeys(keys, value)})
    if not isinstance(value, dict):
        assert all(found[key] == value for key in keys)


@pytest.mark.parametrize(
    "off",
    [
        {"images": "upstream"},
        {"delta_sharing": {"image": "example.com/sharing:1"}},
        {"object_store": {"api_route": False}},
    ],
)
def test_no_recipient_where_there_can_be_none(off: dict[str, Any]) -> None:
    found: Any = loaded(**{"delta_sharing": {}, **off})
    assert found.delta_sharing.recipients == ()
    assert [share.name for share in found.delta_sharing.shares] == ["retail", "flights"]


# -- mistakes


@pytest.mark.parametrize("missing", NEEDED)
def test_a_service_that_is_missing_is_one_line(missing: str) -> None:
    values = {"users": USERS, "demo": {}, **{key: {} for key in NEEDED if key != missing}}
    if missing in ("object_store", "postgres"):
        del values["airflow"], values["spark"]  # which need them as well
    with pytest.raises(SettingsError) as error:
        load(values, "Pulumi.dev.yaml")
    assert f"{LINE}: needs {missing}, which is off - add the key {missing}" in error.value.lines
    assert len(error.value.lines) == (3 if missing in ("object_store", "postgres") else 1)


def test_the_sources_need_neither_spark_nor_airflow() -> None:
    values = {"users": USERS, "demo": {"pipelines": False}}
    found: Any = load({**values, "kafka": {}, "object_store": {}, "postgres": {}}, "f")
    assert [(u.name, [b.bucket for b in u.buckets]) for u in found.object_store.users] == [
        ("demo-seed", ["raw"])
    ]
    assert [bucket.name for bucket in found.object_store.buckets] == ["raw"]


@pytest.mark.parametrize(
    ("values", "line"),
    [
        (
            {"postgres": {"databases": [{"name": "shop"}]}},
            '.database: postgres.databases has "shop" already, of shop - give another name',
        ),
        (
            {"postgres": {"roles": [{"name": "shop_reader", "grants": [GRANT]}]}},
            ": postgres.roles gives shop_reader another grant on shop - the demo's is read-only, remove",
        ),
        (
            {"object_store": {"users": [{"name": "demo-gold", "buckets": [{"bucket": "lake"}]}]}},
            ": object_store.users gives demo-gold another privilege on bucket lake - the demo's is read",
        ),
        ({"demo": {"schedule": "hourly"}}, '.schedule: not a schedule, got "hourly" - write five fields'),
        ({"demo": {"orders_per_minute": 0}}, ".orders_per_minute: must be greater than 0"),
        ({"demo": {"tables": 1}}, ".tables: unknown key"),
        ({"demo": True}, ': expected a mapping, got "true"'),
    ],
)
def test_each_mistake_is_one_line(values: dict[str, Any], line: str) -> None:
    (found,) = mistakes(**values)
    assert found.startswith(f"{LINE}{line}"), found


def test_another_database_makes_room_for_ones_own() -> None:
    found: Any = loaded(postgres={"databases": [{"name": "shop"}]}, demo={"database": "retail"})
    assert {d.name: d.owner_name for d in found.postgres.databases} == {
        "shop": "shop",
        "retail": "shop_simulator",
    }
    assert found.airflow.connections["demo_shop"].database == "retail"


def test_jobs_must_be_text_and_few(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(demo_settings, "JOBS_FOLDER", str(tmp_path))
    (tmp_path / "a.py").write_bytes(b"\xff")
    (tmp_path / "note.txt").write_bytes(b"\xff")
    (found,) = mistakes()
    assert found.startswith(f"{LINE}: {tmp_path}/a.py cannot be read as UTF-8 text")
    (tmp_path / "a.py").write_text("#" * 1024 * 1025)
    (found,) = mistakes()
    assert found == f"{LINE}: 1025 KiB in all, more than 1024 - split it"


@pytest.mark.parametrize(
    "schedule", ["none", "@daily", "0 6 * * *", "*/10 0-6,22 1,15 jan-mar mon-fri", "5/15 * * * 7"]
)
def test_schedules(schedule: str) -> None:
    assert DemoSettings(schedule=schedule).schedule == schedule


@pytest.mark.parametrize(
    "schedule",
    ["", "@often", "0 6 * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *", "5-1 * * * *",
     "*/0 * * * *", "* * * * mo",
     "1,,2 * * * *", "* * * * * *", "-1 * * * *"],
)  # fmt: skip
def test_no_schedules(schedule: str) -> None:
    with pytest.raises(ValueError, match="schedule"):
        DemoSettings(schedule=schedule)


# -- what gets deployed


def test_the_simulator_reaches_postgres_and_kafka_alone() -> None:
    simulator = sources().container("demo-shop-simulator")
    joined = {n["name"] for n in bare(simulator.get("networksAdvanced"))}
    named = {node.get("name"): node.name for node in sources().of("millrace:docker:Network")}
    assert {named[name] for name in joined} == {"net-demo", "net-demo--kafka", "net-demo--postgres"}
    plan = json.loads(uploads(simulator)["/etc/millrace/demo/plan.json"]["content"])
    assert plan == {
        "seed": 7,
        "orders": 100_000,
        "initial_orders": 2000,
        "orders_per_minute": 60,
        "topic": "shop-orders",
    }
    given_to = uploads(simulator)["/run/millrace/demo/database"]
    assert (
        "shop_simulator:" in given_to["content"]
        and "@postgres:5432/shop?sslmode=verify-full" in given_to["content"]
    )


def test_its_users_are_those_of_the_settings_and_no_more() -> None:
    given = bare(graph().outputs["credentials"])
    kafka = json.loads(
        uploads(graph().container("demo-shop-simulator"))["/run/millrace/demo/kafka.json"]["content"]
    )
    assert kafka["sasl.username"] == "shop-simulator"
    assert kafka["sasl.password"] == given["kafka"]["shop-simulator"]
    access = json.loads(seed_files(graph())["/run/millrace/demo/object-store.json"]["content"])
    assert access == {
        "endpoint": "object-store:9000",
        "region": "us-east-1",
        "ca": "/run/millrace/tls/ca.crt",
        "raw": "raw",
        "access_key": "demo-seed",
        "secret_key": given["object_store"]["demo-seed"],
    }
    for service in ("kafka", "object_store", "postgres"):
        assert "demo" not in given[service]
    assert set(PIPELINE_USERS) < set(given["object_store"])


def test_airflow_has_each_pipelines_keys() -> None:
    made = uploads(graph().container("airflow"))["/run/millrace/airflow/connections.json"]["content"]
    found, given = json.loads(made), bare(graph().outputs["credentials"])
    for name in PIPELINE_USERS:
        entry = found[name.replace("-", "_")]
        assert (entry["login"], entry["password"]) == (name, given["object_store"][name])
    assert (found["demo_shop"]["login"], found["demo_shop"]["schema"]) == ("shop_reader", "shop")
    assert json.loads(found["demo_events"]["extra"])["group.id"] == "shop-ingest"


def test_secrets_are_in_secret_files_alone() -> None:
    simulator = graph().container("demo-shop-simulator")
    (job,) = [node for node in graph().jobs if node.name == "demo-seed"]
    for node in (simulator, job):
        assert not any(PLANTED in text for text in plain_texts(node.inputs)), node.name
    for path, entry in uploads(simulator).items():
        assert (PLANTED in entry["content"]) == path.startswith("/run/millrace/demo/"), path
        assert entry["permissions"] == "0440" or PLANTED not in entry["content"]
    secret = {path for path, entry in seed_files(graph()).items() if PLANTED in entry["content"]}
    assert secret == {"/run/millrace/demo/object-store.json"}
    assert seed_files(graph())["/run/millrace/demo/object-store.json"]["secret"]


def test_the_jobs_are_seeded_where_there_are_pipelines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from components.services import demo

    monkeypatch.setattr(demo, "JOBS_FOLDER", str(tmp_path))
    (tmp_path / "bronze.py").write_text("print()\n")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "other.py").write_text("")
    made = platform({"users": USERS, **{key: {} for key in (*NEEDED, "demo")}})
    plan = json.loads(seed_files(made)["/etc/millrace/demo/seed.json"]["content"])
    assert plan == {"jobs/demo": {"bronze.py": "print()\n"}}
    assert json.loads(seed_files(sources())["/etc/millrace/demo/seed.json"]["content"]) == {}


def test_it_has_no_page_and_its_networks_are_counted() -> None:
    found = loaded(**{key: {} for key in OPTIONAL})
    assert len(graph().of("millrace:docker:Network")) == networks(found)
    assert not any("demo" in url for url in bare(graph().outputs["urls"]))


def test_every_addition_is_one_that_its_service_knows() -> None:
    for service, more in additions(DemoSettings()).items():
        assert set(more) <= set(registry()[service].settings_model.model_fields), service
