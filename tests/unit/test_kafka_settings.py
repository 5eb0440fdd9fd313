"""Kafka's settings and their mistakes, the plan they become, and what the setup job makes of it."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from components.kafka_plan import Acl, acls, plan_json, planned_users, topic_config, user_names
from components.kafka_settings import KafkaAccess, KafkaSettings, TopicSettings
from components.problems import SettingsError
from components.service import Demand
from components.services.kafka import Kafka
from components.settings import load, settings_model

_CHANGES = Path(__file__).resolve().parents[2] / "images/kafka-setup/changes.py"
_spec = importlib.util.spec_from_file_location("kafka_setup_changes", _CHANGES)
assert _spec and _spec.loader
changes = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(changes)

TOPICS: list[dict[str, Any]] = [{"name": "orders", "partitions": 3}, {"name": "visits"}]


def demand(consumer: str, **request: tuple[str, ...]) -> Demand:
    return Demand(consumer=consumer, request=KafkaAccess(**request))


def mistakes(*demands: Demand, platform: dict[str, Any] | None = None, **values: Any) -> list[str]:
    whole = settings_model().model_validate({"kafka": values, **(platform or {})})
    return [problem.line("f", "m") for problem in Kafka.check(whole.kafka, demands, whole)]  # type: ignore[attr-defined]


def test_good_settings_have_no_mistakes() -> None:
    users = [
        {"name": "seller", "write": ["orders"]},
        {"name": "analyst", "read": ["orders", "web-*", "*"], "groups": ["reports", "ad-hoc-*"]},
        {"name": "idle"},
    ]
    columns = [
        {"name": "id", "type": "BIGINT", "mapping": "order/id"},
        {"name": "at", "type": "TIMESTAMP", "format": "iso8601"},
        {"name": "note", "type": "VARCHAR(200)"},
    ]
    topics = [
        {**TOPICS[0], "replication": 2, "config": {"cleanup.policy": "compact"}},
        {"name": "visits", "message": {"format": "json", "columns": columns}},
        {
            "name": "lines",
            "message": {"format": "csv", "columns": [{"name": "a", "type": "BIGINT", "mapping": "0"}]},
        },
        {
            "name": "bytes",
            "message": {"format": "raw", "columns": [{"name": "a", "type": "BIGINT", "mapping": "0:8"}]},
        },
    ]
    needs = [demand("spark", read=("orders",), write=("visits", "tmp-*")), demand("presto", read=("*",))]
    assert (
        mistakes(
            *needs,
            brokers=2,
            topics=topics,
            users=users,
            deleted_topics=["old"],
            loopback_port=19092,
            console=True,
        )
        == []
    )


def message(format_: str, **column: Any) -> dict[str, Any]:
    columns = [{"name": "a", "type": "BIGINT", **column}]
    return {"topics": [{"name": "t", "message": {"format": format_, "columns": columns}}]}


def described(name: str) -> dict[str, Any]:
    columns = [{"name": "a", "type": "BIGINT"}]
    return {"name": name, "message": {"format": "json", "columns": columns}}


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"topics": [*TOPICS, TOPICS[1]]}, 'topics[2].name: topic "visits" stands here a second time'),
        ({"topics": [{"name": "a.b"}, {"name": "a_b"}]}, 'topics[1].name: "a_b" is too like "a.b"'),
        (
            {"topics": [{"name": "a", "replication": 3}], "brokers": 2},
            "topics[0].replication: 3 copies need as many brokers, there are 2",
        ),
        (
            {"topics": [{"name": "a", "config": {"retention.ms": 5}}]},
            'topics[0].config["retention.ms"]: has a key of its own - write `retention_hours`',
        ),
        (
            {"topics": [described("a-b"), {"name": "A-B"}, described("A_b")]},
            'topics[2].message: "A_b" and "a-b" would both be table a_b - rename one, or describe one',
        ),
        (
            {"topics": [described("ab"), described("Ab")]},
            'topics[1].message: "Ab" and "ab" would both be table ab',
        ),
        ({"topics": [described("a.b"), described("a_b")]}, 'topics[1].name: "a_b" is too like "a.b"'),
        ({"topics": TOPICS, "deleted_topics": ["visits"]}, 'deleted_topics[0]: "visits" is one of `topics`'),
        ({"users": [{"name": "a"}, {"name": "a"}]}, 'users[1].name: user "a" stands here a second time'),
        ({"users": [{"name": "console"}]}, 'users[0].name: "console" is the web console\'s user'),
        (
            {"topics": TOPICS, "users": [{"name": "a", "read": ["order"]}]},
            'users[0].read[0]: no topic "order" among topics - did you mean "orders"?',
        ),
        ({"users": [{"name": "a", "write": ["x"]}]}, 'users[0].write[0]: no topic "x" among topics'),
        (message("json", mapping="a//b"), 'topics[0].message.columns[0].mapping: "a//b" does not fit json'),
        (message("csv", mapping="a"), 'topics[0].message.columns[0].mapping: "a" does not fit csv'),
        (message("raw", mapping="1-2"), 'topics[0].message.columns[0].mapping: "1-2" does not fit raw'),
        (message("raw"), "topics[0].message.columns[0].mapping: missing - raw needs"),
        (message("csv", format="iso8601"), "topics[0].message.columns[0].format: has a meaning for DATE"),
        (
            {"loopback_port": 65535, "brokers": 2},
            "loopback_port: 2 brokers need ports up to 65536 - choose a lower one",
        ),
        (
            {"loopback_port": 442, "brokers": 3},
            "loopback_port: broker 2 gets port 443, which is taken by proxy.https_port",
        ),
        (
            {"loopback_port": 79, "brokers": 2},
            "loopback_port: broker 2 gets port 80, which is taken by proxy.http_port",
        ),
    ],
)
def test_each_mistake_is_one_line(values: dict[str, Any], line: str) -> None:
    (found,) = mistakes(**values)
    assert found.startswith(f"f: m:{line}")


def test_requests_are_checked_like_settings() -> None:
    (line,) = mistakes(demand("spark", read=("visit",)), topics=TOPICS)
    assert (
        line == 'f: m:topics: no topic "visit" among topics - did you mean "visits"? (service spark uses it)'
    )
    (line,) = mistakes(demand("spark"), users=[{"name": "spark"}])
    assert line == 'f: m:users[0].name: "spark" is the user of a service - choose another name'


def test_another_services_port_in_between() -> None:
    platform = {"postgres": {"loopback_port": 19094}}
    (line,) = mistakes(platform=platform, loopback_port=19092, brokers=3)
    assert line.startswith(
        "f: m:loopback_port: broker 3 gets port 19094, which is taken by postgres.loopback_port"
    )
    assert mistakes(platform=platform, loopback_port=19092, brokers=2) == []


@pytest.mark.parametrize("name", ["a", "A.b-c_d", "x" * 200])
def test_topic_names_that_are_fine(name: str) -> None:
    assert TopicSettings(name=name).name == name


@pytest.mark.parametrize("name", ["", ".", "..", "a b", "a/b", "ä", "x" * 201, "__offsets", "a\n", "a*"])
def test_topic_names_that_kafka_refuses(name: str) -> None:
    values = {"users": [{"name": "ada", "role": "admin"}], "kafka": {"topics": [{"name": name}]}}
    with pytest.raises(SettingsError) as caught:
        load(values, "Pulumi.test.yaml")
    (line,) = caught.value.lines
    assert line.startswith("Pulumi.test.yaml: millrace:kafka.topics[0].name: ")
    assert " - " in line


# -- the plan


def test_a_service_has_one_user_for_all_its_requests() -> None:
    demands = [demand("spark", read=("orders",)), demand("spark", read=("visits", "orders"), write=("out",))]
    (user,) = planned_users(KafkaSettings(), demands)
    assert (user.name, user.read, user.write, user.groups) == (
        "spark",
        ("orders", "visits"),
        ("out",),
        ("spark", "spark-*", "spark.*", "spark_*"),
    )
    assert user_names(KafkaSettings(console=True), demands) == ["spark", "console"]


def granted(*others: str, **user: Any) -> set[tuple[str, ...]]:
    users = [{"name": "u", **user}, *({"name": other} for other in others)]
    settings = KafkaSettings.model_validate({"users": users})
    found = acls(planned_users(settings, []), console=False)
    assert all(acl.principal == "User:u" for acl in found)
    return {(acl.resource, acl.name, acl.pattern, acl.operation, acl.permission) for acl in found}


def allowed(resource: str, name: str, pattern: str, *operations: str) -> set[tuple[str, ...]]:
    return {(resource, name, pattern, operation, "ALLOW") for operation in operations}


def own(resource: str, name: str, *operations: str, permission: str = "ALLOW") -> set[tuple[str, ...]]:
    patterns = [(name, "LITERAL"), *((name + separator, "PREFIXED") for separator in "-._")]
    return {(resource, *pattern, operation, permission) for pattern in patterns for operation in operations}


def test_permissions_are_exactly_what_is_granted() -> None:
    assert granted() == set()
    assert granted(read=["orders"]) == {
        *allowed("TOPIC", "orders", "LITERAL", "READ", "DESCRIBE", "DESCRIBE_CONFIGS"),
        *own("GROUP", "u", "READ", "DESCRIBE"),
    }
    assert granted(write=["web-*"]) == {
        *allowed("TOPIC", "web-", "PREFIXED", "WRITE", "DESCRIBE", "DESCRIBE_CONFIGS"),
        *own("TRANSACTIONAL_ID", "u", "WRITE", "DESCRIBE"),
    }
    assert granted(read=["a"], groups=["g", "h-*"]) == {
        *allowed("TOPIC", "a", "LITERAL", "READ", "DESCRIBE", "DESCRIBE_CONFIGS"),
        *allowed("GROUP", "g", "LITERAL", "READ", "DESCRIBE"),
        *allowed("GROUP", "h-", "PREFIXED", "READ", "DESCRIBE"),
    }


def denied(found: set[tuple[str, ...]]) -> set[tuple[str, ...]]:
    return {one for one in found if one[-1] == "DENY"}


def test_groups_and_transactions_of_a_user_with_a_longer_name_are_its_own() -> None:
    both: dict[str, Any] = {"read": ["a"], "write": ["a"]}
    mine = denied(granted("u-2", "u_b", "us", "v", **both))
    assert mine == {
        one
        for other in ("u-2", "u_b")
        for resource in ("GROUP", "TRANSACTIONAL_ID")
        for one in own(resource, other, "ALL", permission="DENY")
    }
    # Who names groups may name anybody's.
    assert {one[0] for one in denied(granted("u-2", groups=["u-*"], **both))} == {"TRANSACTIONAL_ID"}
    assert denied(granted("us", "v", **both)) == set()


@pytest.mark.parametrize("kind", ["read", "write"])
@pytest.mark.parametrize("pattern", ["*", "_*"])
def test_all_topics_are_all_but_kafkas_own(pattern: str, kind: str) -> None:
    assert denied(granted(**{kind: [pattern]})) == {("TOPIC", "__", "PREFIXED", "ALL", "DENY")}
    found = granted(read=["*"])
    assert ("TOPIC", "*", "LITERAL", "READ", "ALLOW") in found
    assert not any(permission == "DENY" for *_, permission in granted(read=["web-*"]))


def test_the_console_reads_and_changes_nothing() -> None:
    found = acls([], console=True)
    assert {acl.principal for acl in found} == {"User:console"}
    assert {acl.operation for acl in found} == {"READ", "DESCRIBE", "DESCRIBE_CONFIGS"}
    # Who may read in a group may set its offsets.
    assert {acl.resource for acl in found if acl.operation == "READ"} == {"TOPIC"}


def test_a_topics_configuration() -> None:
    topic = TopicSettings.model_validate(
        {"name": "t", "retention_hours": 2, "retention_mib": 3, "config": {"cleanup.policy": "delete"}}
    )
    own = {"cleanup.policy": "delete", "retention.bytes": "3145728", "retention.ms": "7200000"}
    assert topic_config(topic, 1) == own
    assert topic_config(topic, 3) == {**own, "min.insync.replicas": "2"}
    assert topic_config(TopicSettings(name="t", replication=1), 3) == {}


def test_copies_follow_the_brokers_unless_said() -> None:
    def replication(brokers: int) -> list[int]:
        settings = KafkaSettings.model_validate(
            {"brokers": brokers, "topics": [{"name": "a"}, {"name": "b", "replication": 1}]}
        )
        return [topic["replication"] for topic in json.loads(plan_json(settings, [], []))["topics"]]

    assert [replication(n) for n in (1, 2, 3, 9)] == [[1, 1], [2, 1], [3, 1], [3, 1]]


def test_the_plan_does_not_depend_on_the_order_of_permissions() -> None:
    users = [{"name": "a", "read": ["y", "x"]}, {"name": "b", "read": ["x"]}]
    one, other = (KafkaSettings.model_validate({"users": order}) for order in (users, users[::-1]))
    made = acls(planned_users(one, []), console=True)
    assert made == acls(planned_users(other, []), console=True)
    assert Acl(principal="User:a", resource="TOPIC", name="x", pattern="LITERAL", operation="READ") in made


# -- what the job changes


def test_missing_topics_are_created() -> None:
    wanted = [{"name": n, "partitions": 2, "replication": 1, "config": {"a": "b"}} for n in ("old", "new")]
    assert changes.missing_topics(wanted, {"old": {0: [1]}}) == {
        "new": {"num_partitions": 2, "replication_factor": 1, "configs": {"a": "b"}}
    }


def test_partitions_grow_and_never_shrink() -> None:
    present = {"a": {0: [1], 1: [1]}}
    assert changes.more_partitions([{"name": "a", "partitions": 3}], present) == {"a": 3}
    assert changes.more_partitions([{"name": "a", "partitions": 2}], present) == {}
    assert changes.more_partitions([{"name": "new", "partitions": 2}], present) == {}
    with pytest.raises(changes.PlanError, match='topic "a" has 2 partitions, the settings say 1') as caught:
        changes.more_partitions([{"name": "a", "partitions": 1}], present)
    assert "\n" not in str(caught.value)


def test_replicas_go_where_there_are_fewest() -> None:
    present = {"a": {0: [1], 1: [2]}, "full": {0: [2], 1: [2]}}
    assert changes.reassigned({"a": 2}, present, [1, 2, 3]) == {("a", 0): [1, 3], ("a", 1): [2, 1]}
    assert changes.reassigned({"a": 1}, present, [1, 2, 3]) == {}


def test_fewer_replicas_keep_the_leader() -> None:
    assert changes.reassigned({"a": 1}, {"a": {0: [3, 1, 2], 1: [2]}}, [1, 2, 3]) == {("a", 0): [3]}


def test_configuration_is_set_and_put_back() -> None:
    assert changes.config_changes({"a": "1", "b": "2"}, {"a": "1", "c": "3"}) == ({"b": "2"}, ["c"])
    assert changes.config_changes({}, {}) == ({}, [])
