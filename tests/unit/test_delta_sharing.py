"""Delta Sharing: settings and their mistakes, both image sources, and what gets deployed."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

import pytest
from graph import PLANTED, bare, plain_texts, platform

from components.delta_sharing_settings import DeltaSharingSettings, RecipientSettings, ShareAccess
from components.problems import SettingsError
from components.service import Need, Service
from components.services.delta_sharing import DeltaSharing
from components.services.object_store import ObjectStore
from components.settings import ServiceSettings, Settings, load
from components.workload import File, Job, Limits

SETTINGS: dict[str, Any] = {
    "shares": [
        {
            "name": "sales",
            "schemas": [
                {
                    "name": "shop",
                    "tables": [
                        {"name": "orders", "history": True, "start_version": 3},
                        {"name": "visits", "bucket": "raw", "path": "web/visits"},
                    ],
                }
            ],
        },
        {"name": "empty"},
    ],
    "recipients": [
        {"name": "partner", "shares": ["sales"]},
        {"name": "auditor", "expires": "2027-01-31T18:00:00+01:00"},
    ],
}
USERS = [{"name": "ada", "role": "admin"}]


class Reader(Service):
    """A service that reads shares."""

    key = "reader"
    settings_model = ServiceSettings

    @classmethod
    def needs(cls, settings: Any, platform: Settings) -> Iterable[Need]:
        return [Need(service="delta_sharing", request=ShareAccess())]

    def build(self) -> None:
        connection = self.context.platform.connect(self.key, "delta_sharing", ShareAccess())
        uri = File(path="/run/uri", content=connection.uri, secret=True)
        self.run(Job(name="use", image="nginx", command=("true",), user=1, files=(uri,),
                     limits=Limits(memory_mib=64)))  # fmt: skip


SERVICES = {"object_store": ObjectStore, "delta_sharing": DeltaSharing, "reader": Reader}


def deployed(sharing: dict[str, Any] = SETTINGS, **values: Any) -> Any:
    given = {"object_store": {}, "reader": {}, "delta_sharing": sharing, **values}
    return platform({k: v for k, v in given.items() if v is not None}, services=SERVICES)


@pytest.fixture(scope="module")
def graph() -> Any:
    return deployed(domain="data.test.example", proxy={"https_port": 8443})


def sent_to(graph: Any) -> dict[str, str]:
    uploads = graph.container("delta-sharing").get("uploads")
    return {upload["file"]: upload["content"] for upload in uploads}


def mistakes(**values: Any) -> list[str]:
    given = {"users": USERS, "object_store": {}, **values}
    with pytest.raises(SettingsError) as caught:
        load({key: value for key, value in given.items() if value is not None}, "Pulumi.test.yaml")
    return [line.removeprefix("Pulumi.test.yaml: millrace:") for line in caught.value.lines]


# -- settings


def test_places_of_tables() -> None:
    settings = DeltaSharingSettings.model_validate({**SETTINGS, "lake_bucket": "pond"})
    (schema,) = settings.shares[0].schemas
    assert [settings.place(schema, table) for table in schema.tables] == [
        ("pond", "shop/orders"),
        ("raw", "web/visits"),
    ]
    assert settings.buckets == ("pond", "raw")
    assert DeltaSharingSettings().buckets == ("lake",)


@pytest.mark.parametrize(
    "expires",
    ["2027-01-31T18:00:00+01:00", "2027-01-31T17:00:00Z", dt.datetime(2027, 1, 31, 17, tzinfo=dt.UTC)],
)
def test_times_quoted_or_not(expires: Any) -> None:
    found = RecipientSettings.model_validate({"name": "x", "expires": expires})
    assert found.expires_at == dt.datetime(2027, 1, 31, 17, tzinfo=dt.UTC)


def table(**more: Any) -> dict[str, Any]:
    return {"shares": [{"name": "a", "schemas": [{"name": "b", "tables": [{"name": "c", **more}]}]}]}


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"shares": [{"name": "a"}, {"name": "a"}]}, 'shares[1].name: share "a" stands here a second time'),
        ({"shares": [{"name": "a"}, {"name": "A"}]}, 'shares[1].name: share "A", which differs from "a"'),
        (
            {"shares": [{"name": "a", "schemas": [{"name": "b"}, {"name": "b"}]}]},
            'shares[0].schemas[1].name: schema "b" stands here a second time',
        ),
        (
            {"shares": [{"name": "a", "schemas": [{"name": "b", "tables": [{"name": "c"}, {"name": "C"}]}]}]},
            'shares[0].schemas[0].tables[1].name: table "C", which differs from "c" only by case,',
        ),
        (table(start_version=1), "shares[0].schemas[0].tables[0].start_version: has no meaning without"),
        (table(start_version=-1), "shares[0].schemas[0].tables[0].start_version: must be greater than or"),
        (table(path="/x"), "shares[0].schemas[0].tables[0].path: has the wrong form, got \"/x\""),
        (table(bucket="X"), "shares[0].schemas[0].tables[0].bucket: not a bucket name"),
        ({"shares": [{"name": "a.b"}]}, "shares[0].name: has the wrong form, got"),
        ({"recipients": [{"name": "x"}, {"name": "x"}]}, 'recipients[1].name: recipient "x" stands here'),
        (
            {"shares": [{"name": "sales"}], "recipients": [{"name": "x", "shares": ["sale"]}]},
            'recipients[0].shares[0]: no share "sale" among shares - did you mean "sales"?',
        ),
        ({"recipients": [{"name": "x", "shares": []}]}, "recipients[0].shares: "),
        ({"recipients": [{"name": "x", "expires": "2027-01-31"}]}, "recipients[0].expires: not a date and"),
        ({"recipients": [{"name": "x", "expires": "soon"}]}, "recipients[0].expires: not a date and"),
        ({"recipients": [{"name": "reference"}]}, 'recipients[0].name: "reference" is the official image'),
        ({"url_minutes": 0}, "url_minutes: must be greater than or equal to 1"),
        ({"memory_mib": 64}, "memory_mib: must be greater than or equal to 192"),
        (
            {"recipients": [{"name": "x"}], "images": "upstream"},
            "recipients: the official image knows one token for all, no expiry, and only signs",
        ),
    ],
)  # fmt: skip
def test_each_mistake_is_one_line(values: dict[str, Any], line: str) -> None:
    (found,) = mistakes(delta_sharing=values)
    assert found.startswith(f"delta_sharing.{line}")


def test_recipients_outside_need_the_object_stores_public_address() -> None:
    (line,) = mistakes(delta_sharing={"recipients": [{"name": "x"}]}, object_store={"api_route": False})
    assert line.startswith("delta_sharing.recipients: nobody outside reaches the tables' files")
    load({"users": USERS, "delta_sharing": {}, "object_store": {"api_route": False}}, "Pulumi.test.yaml")


def test_it_needs_the_object_store() -> None:
    (line,) = mistakes(delta_sharing={}, object_store=None)
    assert line == "delta_sharing: needs object_store, which is off - add the key object_store"


def test_a_services_recipient_is_its_own() -> None:
    with pytest.raises(SettingsError, match='"reader" is the recipient of service reader'):
        deployed({"recipients": [{"name": "reader"}]})


# -- what gets deployed


def test_both_servers_settings(graph: Any) -> None:
    sent = sent_to(graph)
    settings = json.loads(sent["/run/millrace/delta-sharing/server.yaml"])
    assert settings["version"] == 1
    assert settings["endpoint"] == "/delta-sharing"
    assert settings["preSignedUrlTimeoutSeconds"] == 3600
    (orders, visits) = settings["shares"][0]["schemas"][0]["tables"]
    assert (orders["location"], orders["historyShared"], orders["startVersion"]) == (
        "s3a://lake/shop/orders",
        True,
        3,
    )
    assert (visits["location"], visits["historyShared"]) == ("s3a://raw/web/visits", False)
    assert orders["id"] != visits["id"]
    assert "authorization" not in settings
    assert "/opt/docker/conf/core-site.xml" not in sent


def test_recipients_are_known_by_the_hashes_of_their_tokens(graph: Any) -> None:
    sent = sent_to(graph)
    found = {
        entry["name"]: entry for entry in json.loads(sent["/run/millrace/delta-sharing/recipients.json"])
    }
    tokens = bare(graph.outputs["credentials"])["delta_sharing"]
    assert set(found) == {"partner", "auditor", "reader"} == set(tokens)
    for name, entry in found.items():
        assert entry["token_sha256"] == hashlib.sha256(tokens[name].encode()).hexdigest()
    assert found["partner"]["shares"] == ["sales"] and found["auditor"]["shares"] is None
    assert found["auditor"]["expires"] == "2027-01-31T18:00:00+01:00"
    assert {name: entry["urls"] for name, entry in found.items()} == {
        "partner": "public",
        "auditor": "public",
        "reader": "internal",
    }
    assert PLANTED not in sent["/run/millrace/delta-sharing/recipients.json"]


def test_the_object_stores_keys_are_its_own_and_read_only(graph: Any) -> None:
    keys = json.loads(sent_to(graph)["/run/millrace/delta-sharing/keys.json"])
    assert keys["access_key"] == "delta-sharing"
    assert keys["endpoint"] == "https://object-store:9000"
    assert keys["public_endpoint"] == "https://s3.data.test.example:8443"
    (setup,) = [job for job in graph.jobs if job.name == "object-store-setup"]
    policies = {f["path"].rpartition("/")[2]: f["content"] for f in setup.get("files")}
    policy = policies["delta-sharing.json"]
    assert "s3:GetObject" in policy and "s3:PutObject" not in policy and "s3:DeleteObject" not in policy
    assert all(f"arn:aws:s3:::{bucket}/*" in policy for bucket in ("lake", "raw"))


def test_without_a_public_store_addresses_are_those_inside() -> None:
    inside = deployed({"shares": SETTINGS["shares"]}, object_store={"api_route": False})
    assert json.loads(sent_to(inside)["/run/millrace/delta-sharing/keys.json"])["public_endpoint"] is None


def test_profiles(graph: Any) -> None:
    offered = bare(graph.outputs["connections"])["delta_sharing"]
    tokens = bare(graph.outputs["credentials"])["delta_sharing"]
    assert offered["endpoint"] == "https://delta-sharing:8443/delta-sharing"
    assert offered["public_endpoint"] == "https://sharing.data.test.example:8443/delta-sharing"
    profiles = {name: json.loads(text) for name, text in offered["profiles"].items()}
    assert profiles["auditor"] == {
        "shareCredentialsVersion": 1,
        "endpoint": "https://sharing.data.test.example:8443/delta-sharing",
        "bearerToken": tokens["auditor"],
        "expirationTime": "2027-01-31T17:00:00.0Z",
    }
    assert set(profiles) == {"partner", "auditor"}
    assert "expirationTime" not in profiles["partner"]
    assert graph.outputs["urls"]["sharing"]["url"] == "https://sharing.data.test.example:8443/"


def test_a_consumers_connection(graph: Any) -> None:
    (job,) = [node for node in graph.jobs if node.name == "reader-use"]
    (file,) = job.get("files")
    token = bare(graph.outputs["credentials"])["delta_sharing"]["reader"]
    assert file["content"] == f"https://reader:{quote(token, safe='')}@delta-sharing:8443/delta-sharing"


def test_secrets_are_in_files_alone(graph: Any) -> None:
    container = graph.container("delta-sharing")
    assert not any(PLANTED in text for text in plain_texts(container.inputs))
    for key in ("envs", "entrypoints", "command", "labels", "healthcheck"):
        assert not any(PLANTED in text for text in plain_texts(container.get(key)))
    for upload in container.get("uploads"):
        if PLANTED in upload["content"] or "token_sha256" in upload["content"]:
            assert upload["permissions"] == "0440", upload["file"]


# -- the official image


@pytest.fixture(scope="module")
def official() -> Any:
    return deployed({"shares": SETTINGS["shares"], "images": "upstream"})


def test_the_official_image_runs_by_the_same_commands(graph: Any, official: Any) -> None:
    own, other = graph.container("delta-sharing"), official.container("delta-sharing")
    for key in ("entrypoints", "command", "user", "healthcheck"):
        assert own.get(key) == other.get(key), key
    assert "deltaio/delta-sharing-server:" in json.dumps(
        [node.inputs for node in official.nodes], default=str
    )


def test_the_official_image_has_its_settings_and_keys(official: Any) -> None:
    sent = sent_to(official)
    token = bare(official.outputs["credentials"])["delta_sharing"]
    assert set(token) == {"reference"}
    settings = json.loads(sent["/run/millrace/delta-sharing/server.yaml"])
    assert settings["authorization"] == {"bearerToken": token["reference"]}
    site = sent["/opt/docker/conf/core-site.xml"]
    assert "<name>fs.s3a.endpoint</name><value>https://object-store:9000</value>" in site
    assert "<name>fs.s3a.access.key</name><value>delta-sharing</value>" in site
    assert not {path for path in sent if path.endswith(("keys.json", "recipients.json"))}
    for upload in official.container("delta-sharing").get("uploads"):
        if PLANTED in upload["content"]:
            assert upload["permissions"] == "0440", upload["file"]
    (job,) = [node for node in official.jobs if node.name == "reader-use"]
    assert quote(token["reference"], safe="") in job.get("files")[0]["content"]
