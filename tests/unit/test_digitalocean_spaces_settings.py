"""Spaces: mistakes in the settings, and the account's own keys."""

from __future__ import annotations

from typing import Any

import pytest
from spaces_sample import ACME, STORE, TARGET, VALUES, buckets, settings, small

from components import digitalocean_keys
from components.digitalocean_settings import REGIONS, SPACES_REGIONS
from components.problems import SettingsError
from components.settings import load


def mistakes(target: dict[str, Any], **values: Any) -> list[str]:
    with pytest.raises(SettingsError) as error:
        settings(target, **values)
    return [line.removeprefix("Pulumi.prod.yaml: millrace:") for line in error.value.lines]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("api_route", True),
        ("console_access", "admin"),
        ("cpus", 2),
        ("engine", "minio"),
        ("image", "registry.acme.org/s3:1"),
        ("images", "upstream"),
        ("loopback_port", 9000),
        ("memory_mib", 1024),
    ],
)
def test_settings_of_the_container_are_refused(key: str, value: Any) -> None:
    assert mistakes(ACME, object_store={**STORE, key: value}) == [
        f"object_store.{key}: Spaces does not have it (target.object_store) - remove it"
    ]
    settings({}, object_store={**STORE, key: value})


USER = {"name": "writer", "buckets": [{"bucket": "raw", "privilege": "write-only"}]}


@pytest.mark.parametrize(
    ("target", "values", "expected"),
    [
        (
            {},
            {"object_store": {**STORE, "users": [USER]}},
            "object_store.users[0].buckets[0].privilege: keys of Spaces cannot be limited to writing - "
            "write read-write, or leave the bucket out",
        ),
        (
            {},
            {"jupyter": {"lake_privilege": "write-only"}},
            'jupyter: asks to only write bucket "lake", to which keys of Spaces cannot be limited - let it '
            "read, too",
        ),
        (
            {"region": "nyc1"},
            {},
            "target.object_store.region: missing - there are no Spaces in nyc1: name another region",
        ),
        (
            {},
            {"object_store": {"buckets": [{"name": "b" * 59}]}},
            "target.object_store.prefix: leaves 58 of the 63 characters of a name in Spaces, bucket "
            f'"{"b" * 59}" has 59 - give a shorter one',
        ),
        (
            {"object_store": {}},
            {"object_store": {"buckets": [{"name": "b" * 31}]}},
            "target.object_store.prefix: leaves 30 of the 63 characters of a name in Spaces, bucket "
            f'"{"b" * 31}" has 31 - give a shorter one',
        ),
        (
            {},
            {"rotation": {"object_store/root": "2"}},
            "rotation.object_store/root: Spaces has no administrator's key here - remove it",
        ),
        (
            {},
            {"airflow": {"variables": {"object_store_buckets": "x"}}},
            "airflow.variables.object_store_buckets: is a variable of the platform itself - rename it",
        ),
    ],
)
def test_what_spaces_can_not_do_is_said(
    target: dict[str, Any], values: dict[str, Any], expected: str
) -> None:
    assert mistakes({**ACME, **target}, **values) == [expected]


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        (
            {"region": "fra2"},
            'target.object_store.region: not a region of Spaces that is known here, got "fra2" - did you',
        ),
        ({"prefix": "Acme"}, "target.object_store.prefix: "),
        ({"prefix": "acme-"}, "target.object_store.prefix: "),
        ({"prefix": "a" * 33}, "target.object_store.prefix: "),
        ({"buckets": 3}, "target.object_store.buckets: "),
    ],
)
def test_values_that_are_none(wrong: dict[str, Any], expected: str) -> None:
    (line,) = mistakes({"object_store": wrong})
    assert line.startswith(expected)


def test_it_needs_the_service() -> None:
    values = {key: VALUES[key] for key in ("domain", "tls", "users")}
    with pytest.raises(SettingsError) as error:
        load({**values, "target": {**TARGET, **ACME}}, "f")
    assert error.value.lines == [
        "f: millrace:target.object_store: service object_store is off - add the key object_store, or remove "
        "this"
    ]


def test_the_droplets_region_has_spaces_but_for_one() -> None:
    assert set(REGIONS) - set(SPACES_REGIONS) == {"nyc1"}
    assert settings({"region": "nyc1", "object_store": {"region": "nyc3"}})
    (node, *_) = buckets(small({"region": "nyc1", "object_store": {"region": "nyc3"}})).values()
    assert node.get("region") == "nyc3"


def test_missing_keys_of_the_account_are_said_before_anything_is_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = ("SPACES_ACCESS_KEY_ID", "SPACES_SECRET_ACCESS_KEY")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    with_spaces: Any = settings(ACME).target
    without: Any = settings({}).target

    def missing(target: Any = with_spaces, **config: str) -> str | None:
        problem = digitalocean_keys.missing_keys(
            target, {f"digitalocean:{key}": value for key, value in config.items()}
        )
        return problem and problem.line("Pulumi.prod.yaml", "millrace")

    assert missing(without) is None
    for name in ("DIGITALOCEAN_TOKEN", "DIGITALOCEAN_ACCESS_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    everything = missing()
    assert everything and "; there is no DIGITALOCEAN_TOKEN either - set them" in everything
    assert digitalocean_keys.missing_token({})
    assert digitalocean_keys.missing_token({"digitalocean:token": "t"}) is None
    monkeypatch.setenv("DIGITALOCEAN_TOKEN", "t")
    assert digitalocean_keys.missing_token({}) is None
    assert missing() == (
        "Pulumi.prod.yaml: millrace:target.object_store: Spaces needs an access key of the account, and "
        "there is no SPACES_ACCESS_KEY_ID and no SPACES_SECRET_ACCESS_KEY - set them as docs/digitalocean.md "
        "says"
    )
    assert missing(spacesAccessId="a", spacesSecretKey="b") is None
    text = missing(spacesAccessId="a")
    assert text and "SPACES_SECRET_ACCESS_KEY" in text and "SPACES_ACCESS_KEY_ID" not in text
    monkeypatch.setenv(names[1], "b")
    assert missing(spacesAccessId="a") is None
