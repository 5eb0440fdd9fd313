"""The object store: settings and their mistakes, policies, lifecycle rules, and what gets deployed."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest
from graph import PLANTED, bare, plain_texts, platform

from components.object_store_settings import (
    Bucket,
    BucketPrivilege,
    BucketSettings,
    ObjectStoreSettings,
    PlannedUser,
    consumer_user,
    lifecycle_json,
    planned_buckets,
    planned_users,
    policy_json,
)
from components.problems import SettingsError
from components.service import Demand, Need, Service
from components.services.object_store import ObjectStore
from components.settings import ServiceSettings, load
from components.workload import Job, Limits

SETTINGS: dict[str, Any] = {
    "buckets": [
        {"name": "lake", "versioning": True, "noncurrent_expire_days": 7},
        {"name": "scratch", "expire_days": 3},
        {"name": "plain"},
    ],
    "users": [
        {"name": "reader", "buckets": [{"bucket": "lake"}]},
        {"name": "writer", "buckets": [{"bucket": "lake", "privilege": "read-write"}]},
        {"name": "dropbox", "buckets": [{"bucket": "plain", "privilege": "write-only"}]},
        {"name": "idle"},
    ],
}


def mistakes(*demands: Demand, **values: Any) -> list[str]:
    found = ObjectStore.check(ObjectStoreSettings.model_validate(values), demands, None)  # type: ignore[arg-type]
    return [problem.line("f", "m") for problem in found]


def demand(consumer: str, request: Bucket) -> Demand:
    return Demand(consumer=consumer, request=request)


# -- settings


def test_good_settings_have_no_mistakes() -> None:
    spark = demand("spark", Bucket(name="lake"))
    logs = demand("spark", Bucket(name="logs", privilege=BucketPrivilege.WRITE_ONLY))
    users = [*SETTINGS["users"], {"name": "auditor", "buckets": [{"bucket": "logs"}]}]
    assert mistakes(spark, spark, logs, **{**SETTINGS, "users": users}) == []


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"buckets": [{"name": "abc"}, {"name": "abc"}]}, 'f: m:buckets[1].name: bucket "abc" stands here a'),
        (
            {"users": [{"name": "abc"}, {"name": "abc"}]},
            'f: m:users[1].name: user "abc" stands here a second',
        ),
        (
            {"buckets": [{"name": "lake"}], "users": [{"name": "abc", "buckets": [{"bucket": "lak3"}]}]},
            'f: m:users[0].buckets[0].bucket: no bucket "lak3" among buckets - did you mean "lake"?',
        ),
        (
            {
                "buckets": [{"name": "lake"}],
                "users": [{"name": "abc", "buckets": [{"bucket": "lake"}, {"bucket": "lake"}]}],
            },
            'f: m:users[0].buckets[1].bucket: bucket "lake" stands here a second time',
        ),
        ({"users": [{"name": "root"}]}, 'f: m:users[0].name: "root" is the administrator - choose another'),
        ({"users": [{"name": "ab"}]}, 'f: m:users[0].name: "ab" is too short for an access key'),
        (
            {"buckets": [{"name": "lake", "noncurrent_expire_days": 3}]},
            "f: m:buckets[0].noncurrent_expire_days: has no meaning without versioning",
        ),
    ],
)
def test_each_mistake_is_one_line(values: dict[str, Any], line: str) -> None:
    (found,) = mistakes(**values)
    assert found.startswith(line)


def test_a_services_user_is_its_own() -> None:
    spark = demand("spark", Bucket(name="lake"))
    (line,) = mistakes(spark, users=[{"name": "spark"}])
    assert line == 'f: m:users[0].name: "spark" is the user of service spark - choose another name'
    (line,) = mistakes(spark, demand("spark", Bucket(name="lake", privilege=BucketPrivilege.READ_ONLY)))
    assert line == 'f: m: service spark wants bucket "lake" read-write and read-only'


@pytest.mark.parametrize("name", ["abc", "a.b-c", "1st", "a" * 63, "logs.2026.example.com"])
def test_bucket_names_that_are_fine(name: str) -> None:
    assert BucketSettings(name=name).name == name


@pytest.mark.parametrize(
    "name",
    (
        "ab|Abc|a_b|-abc|abc-|a..b|a.-b|a-.b|192.168.5.4|999.1.1.1|minio|xn--abc|sthree-x|abc-s3alias|"
        f"abc--ol-s3|abc.mrap|abc\n|äbc||{'a' * 64}"
    ).split("|"),
)
def test_bucket_names_that_s3_refuses(name: str) -> None:
    values = {"users": [{"name": "ada", "role": "admin"}], "object_store": {"buckets": [{"name": name}]}}
    with pytest.raises(SettingsError) as caught:
        load(values, "Pulumi.test.yaml")
    (line,) = caught.value.lines
    assert line.startswith("Pulumi.test.yaml: millrace:object_store.buckets[0].name: ")
    assert " - " in line


# -- the plan


def test_a_service_has_one_user_with_exactly_its_buckets() -> None:
    demands = [
        demand("spark", Bucket(name="lake")),
        demand("spark", Bucket(name="logs", privilege=BucketPrivilege.WRITE_ONLY)),
        demand("ml", Bucket(name="lake", privilege=BucketPrivilege.READ_ONLY)),
    ]
    settings = ObjectStoreSettings.model_validate(SETTINGS)
    users = {user.name: dict(user.buckets) for user in planned_users(settings, demands)}
    assert users["spark"] == {"lake": "read-write", "logs": "write-only"}
    assert users["ml-service"] == {"lake": "read-only"}
    assert [bucket.name for bucket in planned_buckets(settings, demands)] == [
        "lake",
        "scratch",
        "plain",
        "logs",
    ]
    assert planned_buckets(settings, demands)[0].versioning
    assert set(ObjectStore.credentials(settings, demands)) == {"root", *users}


def test_consumers_names_are_access_keys() -> None:
    assert consumer_user("kafka_connect") == "kafka-connect"
    assert len(consumer_user("ml")) >= 3


def statements(**buckets: str) -> list[dict[str, Any]]:
    user = PlannedUser(name="u", buckets={k: BucketPrivilege(v) for k, v in buckets.items()})
    found = json.loads(policy_json(user))
    assert found["Version"] == "2012-10-17"
    return list(found["Statement"])


def allowed(found: list[dict[str, Any]], effect: str = "Allow") -> set[str]:
    actions = {action for s in found if s["Effect"] == effect for action in s["Action"]}
    return {action for action in actions if action.startswith("s3:")}


def test_a_policy_names_only_the_users_buckets() -> None:
    found = statements(lake="read-write", logs="read-only")
    resources = {resource for statement in found for resource in statement.get("Resource", ())}
    assert resources == {f"arn:aws:s3:::{place}" for place in ("lake", "lake/*", "logs", "logs/*")}


@pytest.mark.parametrize(
    ("privilege", "may", "may_not"),
    [
        ("read-only", {"GetObject", "ListBucket", "GetObjectVersion"}, {"PutObject", "DeleteObject"}),
        ("read-write", {"GetObject", "PutObject", "DeleteObject", "ListBucket"}, {"DeleteObjectVersion"}),
        ("write-only", {"PutObject", "AbortMultipartUpload"}, {"GetObject", "ListBucket", "DeleteObject"}),
    ],
)
def test_privileges(privilege: str, may: set[str], may_not: set[str]) -> None:
    actions = allowed(statements(lake=privilege))
    assert {f"s3:{action}" for action in may} <= actions
    assert not {f"s3:{action}" for action in may_not} & actions
    assert not any("*" in action for action in actions)


def test_versions_can_not_be_deleted_for_good() -> None:
    assert allowed(statements(lake="read-write"), "Deny") == {"s3:DeleteObjectVersion"}


@pytest.mark.parametrize("buckets", [{}, {"lake": "read-only"}, {"lake": "read-write"}])
def test_keys_are_made_and_changed_by_the_settings_only(buckets: dict[str, str]) -> None:
    denied = {"Effect": "Deny", "Action": ["admin:CreateServiceAccount", "admin:CreateUser"]}
    assert denied in statements(**buckets)


def test_a_user_without_buckets_is_denied_everything() -> None:
    assert allowed(statements()) == set()
    assert allowed(statements(), "Deny") == {"s3:*"}


def test_lifecycle_rules() -> None:
    assert lifecycle_json(BucketSettings(name="abc")) is None
    assert lifecycle_json(BucketSettings(name="abc", versioning=True)) is None
    both = BucketSettings(name="abc", versioning=True, expire_days=30, noncurrent_expire_days=7)
    rules = {rule["ID"]: rule for rule in json.loads(lifecycle_json(both) or "")["Rules"]}
    assert rules["millrace-expire"]["Expiration"] == {"Days": 30}
    assert rules["millrace-expire-noncurrent"]["NoncurrentVersionExpiration"] == {"NoncurrentDays": 7}
    assert rules["millrace-delete-markers"]["Expiration"] == {"ExpiredObjectDeleteMarker": True}
    assert all(rule["Status"] == "Enabled" for rule in rules.values())


# -- what gets deployed


class Consumer(Service):
    """A service with a bucket of its own."""

    key = "big_consumer"
    settings_model = ServiceSettings
    request = Bucket(name="consumer-data")

    @classmethod
    def needs(cls, settings: Any, platform: Any) -> Iterable[Need]:
        return [Need(service="object_store", request=cls.request)]

    def build(self) -> None:
        connection = self.context.platform.connect(self.key, "object_store", self.request)
        self.run(
            Job(
                name="use",
                image="minio",
                command=("true",),
                user=1000,
                limits=Limits(memory_mib=64),
                env={"URI": connection.uri, "KEY": connection.user},
            )
        )


def deployed(**values: Any) -> Any:
    return platform(
        {
            "object_store": {**SETTINGS, **values},
            "big_consumer": {},
            "domain": "data.test.example",
            "proxy": {"https_port": 8443},
        },
        services={"object_store": ObjectStore, "big_consumer": Consumer},
    )


@pytest.fixture(scope="module")
def graph() -> Any:
    return deployed(loopback_port=19000)


def sent_to(graph: Any) -> dict[str, str]:
    (job,) = [node for node in graph.jobs if node.name == "object-store-setup"]
    return {file["path"].removeprefix("/run/millrace/setup/"): file["content"] for file in job.get("files")}


def test_secrets_are_in_files_alone(graph: Any) -> None:
    server = graph.container("object-store")
    (job,) = [node for node in graph.jobs if node.name == "object-store-setup"]
    for node, keys in ((server, ("envs", "entrypoints", "labels")), (job, ("env", "command", "labels"))):
        assert not any(PLANTED in text for text in plain_texts(node.inputs))
        assert not any(PLANTED in text for key in keys for text in plain_texts(node.get(key)))
    for upload in server.get("uploads"):
        if PLANTED in upload["content"]:
            assert upload["permissions"] == "0440", upload["file"]


def test_the_server_knows_its_public_console_and_calls_nobody(graph: Any) -> None:
    env = dict(pair.split("=", 1) for pair in graph.container("object-store").get("envs"))
    assert env["MINIO_BROWSER_REDIRECT_URL"] == "https://object-store.data.test.example:8443"
    assert env["MINIO_UPDATE"] == "off"
    assert env["MINIO_STS_DURATION"] == "1h"
    assert "MINIO_SERVER_URL" not in env
    assert not {"MINIO_ROOT_USER", "MINIO_ROOT_PASSWORD"} & set(env)


def test_the_setup_holds_all_that_is_declared(graph: Any) -> None:
    sent = sent_to(graph)
    users = {"reader", "writer", "dropbox", "idle", "big-consumer"}
    assert {name.removeprefix("users/") for name in sent if name.startswith("users/")} == users
    assert {name for name in sent if name.startswith("policies/")} == {f"policies/{u}.json" for u in users}
    assert {name for name in sent if name.startswith("lifecycle/")} == {
        "lifecycle/lake.json",
        "lifecycle/scratch.json",
    }
    assert sent["users/reader"].startswith("reader\n")
    assert json.loads(sent["mc.json"])["aliases"]["store"]["url"] == "https://object-store:9000"
    script = sent["setup.sh"]
    for bucket in ("lake", "scratch", "plain", "consumer-data"):
        assert f"mc mb --quiet --ignore-existing store/{bucket}\n" in script
    assert "mc version enable store/lake" in script
    assert "mc version enable store/plain" not in script
    assert PLANTED not in script
    for never in ("mc rb", "mc rm", "--dangerous"):
        assert never not in script


def test_an_empty_store_renders() -> None:
    made = platform({"object_store": {}}, services={"object_store": ObjectStore})
    assert "wanted='  '" in sent_to(made)["setup.sh"]


def test_the_api_can_stay_inside(graph: Any) -> None:
    assert set(graph.outputs["urls"]) == {"portal", "s3", "object-store"}
    inside = deployed(api_route=False)
    assert set(inside.outputs["urls"]) == {"portal", "object-store"}
    assert "public_endpoint" not in bare(inside.outputs["connections"])["object_store"]


def test_outputs(graph: Any) -> None:
    offered = bare(graph.outputs["connections"])["object_store"]
    assert offered["endpoint"] == "https://object-store:9000"
    assert offered["loopback"] == "https://127.0.0.1:19000"
    assert offered["public_endpoint"] == "https://s3.data.test.example:8443"
    assert offered["users"]["dropbox"]["buckets"] == {"plain": "write-only"}
    assert set(bare(graph.outputs["credentials"])["object_store"]) == {"root", *offered["users"]}


def test_a_consumer_gets_its_own_bucket(graph: Any) -> None:
    (job,) = [node for node in graph.jobs if node.name == "big-consumer-use"]
    env = job.get("env")
    assert env["KEY"] == "big-consumer"
    assert env["URI"].startswith(
        f"https://big-consumer:{PLANTED}-password-credential-object-store-big-consumer"
    )
    assert env["URI"].endswith("@object-store:9000/consumer-data")
