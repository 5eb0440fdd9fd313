"""What a stack at DigitalOcean costs by the table."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from components.digitalocean_prices import AS_OF, KAFKA_SIZES, POSTGRES_SIZES, SIZES, CostLine, monthly_cost
from components.settings import Settings, load

VALUES: dict[str, Any] = {
    "domain": "data.example.org",
    "users": [{"name": "ada", "role": "admin"}],
    "tls": {"email": "ops@example.org"},
    "postgres": {},
    "kafka": {},
}
TARGET: dict[str, Any] = {"kind": "digitalocean", "region": "fra1", "ssh_networks": ["203.0.113.7"]}


def settings(**target: Any) -> Settings:
    return load({**VALUES, "target": {**TARGET, **target}}, "Pulumi.prod.yaml")


def cost(**target: Any) -> dict[str, float | None]:
    return {line.what: line.monthly_usd for line in monthly_cost(settings(**target))}


def test_every_size_is_whole() -> None:
    assert len(SIZES) > 100
    for slug, size in SIZES.items():
        assert size.slug == slug
        assert 1 <= size.vcpus <= 64
        assert size.memory_mib % 1024 == 0
        assert 1 <= size.memory_mib / 1024 / size.vcpus <= 8
        assert 4 < size.monthly_usd / size.vcpus < 90
        # The slugs tell the same.
        assert f"{size.memory_mib // 1024}gb" in slug or slug.startswith("c-")


def test_more_of_the_same_kind_costs_more() -> None:
    plain = [SIZES[f"s-{shape}"] for shape in ("1vcpu-2gb", "2vcpu-4gb", "4vcpu-8gb", "8vcpu-16gb")]
    assert [size.monthly_usd for size in plain] == [12, 24, 48, 96]


def test_the_table_has_a_date() -> None:
    assert datetime.date(2026, 11, 1) <= AS_OF <= datetime.date.today()


def test_a_plain_host() -> None:
    assert cost() == {"Droplet s-4vcpu-8gb": 48, "Volume of 100 GiB": 10, "Reserved IP": 0}


@pytest.mark.parametrize(
    ("target", "what", "usd"),
    [
        ({"size": "m-4vcpu-32gb"}, "Droplet m-4vcpu-32gb", 168),
        ({"volume_gib": 512}, "Volume of 512 GiB", 51.2),
        ({"backups": "weekly"}, "Droplet backups, weekly", 9.6),
        ({"backups": "daily"}, "Droplet backups, daily", 14.4),
        ({"postgres": {}}, "Managed Postgres, 1 x db-s-1vcpu-2gb", 30),
        (
            {"postgres": {"nodes": 2, "size": "db-s-2vcpu-4gb"}},
            "Managed Postgres, 2 x db-s-2vcpu-4gb",
            120,
        ),
        ({"kafka": {}}, "Managed Kafka, 3 x db-s-2vcpu-2gb", 147),
        ({"kafka": {"size": "gd-2vcpu-8gb"}}, "Managed Kafka, 3 x gd-2vcpu-8gb", None),
    ],
)
def test_what_each_setting_costs(target: dict[str, Any], what: str, usd: float | None) -> None:
    found = cost(**target)
    assert found[what] == (None if usd is None else pytest.approx(usd))
    assert found.keys() - cost().keys() == {what}


def test_a_price_that_is_not_known_is_said_to_be() -> None:
    lines = monthly_cost(settings(kafka={"size": "gd-2vcpu-8gb"}))
    assert (
        CostLine(
            what="Managed Kafka, 3 x gd-2vcpu-8gb",
            monthly_usd=None,
            note="see digitalocean.com/pricing: not in the table",
        )
        in lines
    )


def test_other_targets_cost_nothing_here() -> None:
    assert monthly_cost(load({**VALUES, "tls": {}, "target": {}}, "Pulumi.dev.yaml")) == []


def test_databases_have_the_names_of_the_api() -> None:
    assert all(slug.startswith(("db-s-", "gd-")) for slug in (*POSTGRES_SIZES, *KAFKA_SIZES))
