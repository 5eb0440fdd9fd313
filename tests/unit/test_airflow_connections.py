"""Airflow's connections as users that the settings declare."""

from __future__ import annotations

import json
from typing import Any

import pytest
from airflow_sample import CONNECTIONS, PROGRAMS, deployed, files
from graph import bare

from components.problems import SettingsError
from components.settings import load

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
