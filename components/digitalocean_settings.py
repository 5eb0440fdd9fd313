"""Settings of the target ``digitalocean``: a Droplet with a Docker engine, and what belongs to it."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Field, WithJsonSchema

from components.digitalocean_prices import KAFKA_SIZES, POSTGRES_SIZES, SIZES
from components.problems import Problem, nearest
from components.settings_types import Domain, Email, Form, Int, Model

if TYPE_CHECKING:
    from components.settings import Settings

# Regions that have Droplets, volumes and VPCs (docs.digitalocean.com, regional availability; nyc2, sfo1 and
# ams2 have no volumes or take no new resources).
REGIONS = (
    "ams3", "atl1", "blr1", "fra1", "lon1", "nyc1", "nyc3", "sfo2", "sfo3", "sgp1", "syd1", "tor1",
)  # fmt: skip
# Regions that have Spaces (terraform-provider-digitalocean, spaces_entities.go).
SPACES_REGIONS = (
    "ams3", "atl1", "blr1", "fra1", "lon1", "mkc1", "nyc3", "ric1", "sfo2", "sfo3", "sgp1", "syd1", "tor1",
)  # fmt: skip
IMAGES = ("debian-12-x64", "debian-13-x64", "ubuntu-22-04-x64", "ubuntu-24-04-x64")
"""Distributions whose packages have a Docker engine that is recent enough."""

_WIDEST_V4, _WIDEST_V6 = 8, 19


def _one_of(known: Collection[str], what: str) -> AfterValidator:
    def check(value: str) -> str:
        if value not in known:
            raise ValueError(f"not a {what} that is known here{nearest(value, known)}")
        return value

    return AfterValidator(check)


def _size(value: str) -> str:
    if value not in SIZES:
        hint = nearest(value, SIZES)
        if " - did you mean" not in hint:
            hint = " - write one such as s-4vcpu-8gb (docs/digitalocean.md has the list's source)"
        raise ValueError(f"not a size of Droplet that is known here{hint}")
    return value


def _network(value: str) -> str:
    try:
        network = ipaddress.ip_network(value)
    except ValueError:
        raise ValueError(
            "not an address or network - write one such as 203.0.113.7/32 or 198.51.100.0/24"
        ) from None
    widest = _WIDEST_V4 if network.version == 4 else _WIDEST_V6
    if network.prefixlen < widest:
        raise ValueError(f"would let a good part of the world try - give networks of /{widest} or smaller")
    return str(network)


def _not_empty(values: tuple[str, ...]) -> tuple[str, ...]:
    if not values:
        raise ValueError("nobody could set the host up - name at least one address or network")
    return values


def _vpc_range(value: str) -> str:
    try:
        network = ipaddress.IPv4Network(value)
    except ValueError:
        raise ValueError("not an IPv4 range - write one such as 10.120.0.0/20") from None
    # DigitalOcean's own limits (docs, VPC).
    if not network.is_private or not 16 <= network.prefixlen <= 28:
        raise ValueError("must be a private IPv4 range of /16 to /28 - write one such as 10.120.0.0/20")
    return value


def _listed(known: Collection[str]) -> WithJsonSchema:
    """Editors offer the names."""
    return WithJsonSchema({"type": "string", "enum": list(known)})


Region = Annotated[str, _one_of(REGIONS, "region"), _listed(REGIONS)]
SpacesRegion = Annotated[str, _one_of(SPACES_REGIONS, "region of Spaces"), _listed(SPACES_REGIONS)]
BucketPrefix = Annotated[
    str,
    Form(
        r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?",
        "use lower-case letters, digits and hyphens, 32 at most, with a letter or digit at both ends",
    ),
]
DropletSize = Annotated[str, AfterValidator(_size)]
DropletImage = Annotated[str, _one_of(IMAGES, "system image"), _listed(IMAGES)]
PostgresSize = Annotated[str, _one_of(POSTGRES_SIZES, "size of managed Postgres"), _listed(POSTGRES_SIZES)]
KafkaSize = Annotated[str, _one_of(KAFKA_SIZES, "size of managed Kafka"), _listed(KAFKA_SIZES)]
Percent = Annotated[Int, Field(ge=1, le=100)]
SourceNetwork = Annotated[str, AfterValidator(_network)]
TimeOfDay = Annotated[str, Form(r"([01]\d|2[0-3]):[0-5]\d", 'write a time of day as "04:30", in quotes')]


class Alerts(Model):
    """Alerts of DigitalOcean's monitoring, sent when a mean over `window` is higher."""

    email: Email
    """Who gets them: the verified address of a member of the DigitalOcean team."""
    cpu_percent: Percent = 90
    """CPU of the Droplet in use, in percent."""
    memory_percent: Percent = 90
    """Memory of the Droplet in use, in percent."""
    disk_percent: Percent = 80
    """Disk in use, in percent."""
    window: Literal["5m", "10m", "30m", "1h"] = "10m"
    """5m, 10m, 30m or 1h."""


class ManagedPostgres(Model):
    """A managed Postgres cluster."""

    size: PostgresSize = "db-s-1vcpu-2gb"
    """Size of a node."""
    nodes: Annotated[Int, Field(ge=1, le=3)] = 1
    """1, or 2 or 3 with standby nodes."""
    version: Literal["15", "16", "17"] = "15"
    """Major version; a higher one is an upgrade in place, a lower one is refused by DigitalOcean."""
    storage_gib: Annotated[Int, Field(ge=10, le=20000)] | None = None
    """Storage in GiB; without it what belongs to the size. It can grow later, never shrink."""


class ManagedKafka(Model):
    """A managed Kafka cluster."""

    size: KafkaSize = "db-s-2vcpu-2gb"
    """Size of a node."""
    nodes: Annotated[Int, Field(ge=3, le=15, multiple_of=3)] = 3
    """Number of nodes: 3, 6, 9, 12 or 15."""
    version: Literal["3.7", "3.8"] = "3.8"
    """Version of Kafka."""


class ManagedObjectStore(Model):
    """Buckets in Spaces, DigitalOcean's object store."""

    region: SpacesRegion | None = None
    """Where the buckets are, such as fra1; without it in the Droplet's region. Another one would be other
    buckets."""
    prefix: BucketPrefix | None = None
    """What their names start with, which all customers of DigitalOcean share: `acme` makes `acme-lake` of
    `lake`. Without it project, stack and eight digits of the domain's hash. Another one would be other
    buckets."""

    def names_start(self, stem: str, domain: str) -> str:
        """What the buckets' names start with, without the hyphen that follows; 32 characters at most.

        ``stem`` is what other names of the stack start with.
        """
        if self.prefix is not None:
            return self.prefix
        # A domain has one owner: nobody else has the name already.
        digits = hashlib.sha256(domain.encode()).hexdigest()[:8]
        return f"{stem[:23].strip('-')}-{digits}"


class DigitalOceanTarget(Model):
    """A Droplet of its own with a Docker engine, whose data is on a block volume."""

    kind: Literal["digitalocean"]
    """digitalocean: the host is made too."""
    region: Region
    """Where, such as fra1. Another region is another platform: volume and address can not move there."""
    size: DropletSize = "s-4vcpu-8gb"
    """Size of the Droplet. A change turns it off and on again; its own disk keeps its size."""
    image: DropletImage = "debian-12-x64"
    """System of the Droplet. Another one replaces the Droplet; data and address stay."""
    ssh_networks: Annotated[tuple[SourceNetwork, ...], AfterValidator(_not_empty)]
    """Who may reach SSH: addresses or networks, such as that of the machine that runs `pulumi up`."""
    volume_gib: Annotated[Int, Field(ge=10, le=16384)] = 100
    """Size of the volume that holds all of Docker's data, in GiB. It can grow later, never shrink."""
    dns: Literal["zone", "records", "none"] = "zone"
    """zone: make the DNS zone and records in it; records: only records, in a zone that is there; none."""
    dns_zone: Domain | None = None
    """The DNS zone: the platform's domain or one above; without it the platform's domain."""
    alerts: Alerts | None = None
    """Alerts on CPU, memory and disk."""
    backups: Literal["daily", "weekly"] | None = None
    """Backups of the Droplet's own disk by DigitalOcean. Volumes are not in them."""
    protect: bool = True
    """Refuse to delete the volume, the address, the DNS zone, managed databases and buckets in Spaces. With
    false a bucket goes with all that is in it."""
    revision: Annotated[Int, Field(ge=1)] = 1
    """Another number replaces the Droplet: a fresh system, set up as the program does it now. Data and
    address stay."""
    reboot_at: TimeOfDay | None = None
    """Time of day (UTC) for reboots that security updates need; without it they wait for you."""
    vpc_range: Annotated[str, AfterValidator(_vpc_range)] | None = None
    """Addresses of the private network, such as 10.120.0.0/20; without it DigitalOcean chooses."""
    postgres: ManagedPostgres | None = None
    """Managed Postgres instead of the container of service postgres."""
    kafka: ManagedKafka | None = None
    """Managed Kafka instead of the containers of service kafka."""
    object_store: ManagedObjectStore | None = None
    """Spaces instead of the container of service object_store."""

    @property
    def managed(self) -> frozenset[str]:
        """Keys of the services that DigitalOcean runs."""
        found = {"postgres": self.postgres, "kafka": self.kafka, "object_store": self.object_store}
        return frozenset(key for key, value in found.items() if value is not None)

    @property
    def spaces_region(self) -> str:
        """Where buckets in Spaces are."""
        return (self.object_store and self.object_store.region) or self.region

    def zone(self, domain: str) -> str:
        """The DNS zone of a platform's domain."""
        return self.dns_zone or domain


def problems(settings: Settings, target: DigitalOceanTarget) -> Iterator[Problem]:
    """Mistakes that only the target together with the rest shows."""
    zone = target.zone(settings.domain)
    if target.dns == "none" and target.dns_zone is not None:
        yield Problem(("target", "dns_zone"), "has no meaning with `dns: none` - remove it")
    elif settings.domain != zone and not settings.domain.endswith(f".{zone}"):
        yield Problem(
            ("target", "dns_zone"),
            f"{settings.domain} is not in zone {zone} - give the domain or one above it",
        )
    if target.vpc_range is not None and ipaddress.IPv4Network(target.vpc_range).overlaps(
        ipaddress.IPv4Network(settings.network.pool)
    ):
        yield Problem(
            ("target", "vpc_range"),
            f"overlaps the containers' networks (network.pool is {settings.network.pool}) - choose another",
        )
    if settings.proxy.http_port == 22 or settings.proxy.https_port == 22:
        yield Problem(("proxy",), "port 22 is SSH's on a Droplet - choose another")
    for key in sorted(target.managed - settings.services.keys()):
        yield Problem(("target", key), f"service {key} is off - add the key {key}, or remove this")
    yield from _of_containers(settings, target)


# What a cluster has of its own, by size or by its provider. Postgres keeps what its setup job uses.
_CONTAINERS_ONLY = {
    "kafka": ("brokers", "cpus", "image", "images", "loopback_port", "memory_mib"),
    "object_store": (
        "api_route", "console_access", "cpus", "engine", "image", "images", "loopback_port", "memory_mib"
    ),
    "postgres": (
        "loopback_port", "max_connections", "memory_mib", "parameters"
    ),
}  # fmt: skip


def _of_containers(settings: Settings, target: DigitalOceanTarget) -> Iterator[Problem]:
    """Settings of a service that mean its containers."""
    for key in sorted(target.managed & settings.services.keys()):
        own = settings.services[key]
        for name in _CONTAINERS_ONLY.get(key, ()):
            if name in own.model_fields_set and getattr(own, name) is not None:
                what = "Spaces" if key == "object_store" else "a managed cluster"
                yield Problem((key, name), f"{what} does not have it (target.{key}) - remove it")
    kafka = settings.services.get("kafka")
    if target.kafka is not None and kafka is not None:
        from components import kafka_managed

        yield from kafka_managed.problems(kafka, target.kafka.nodes)
        for id_ in settings.rotation:
            if id_.startswith("kafka/"):
                yield Problem(
                    ("rotation", id_),
                    "passwords of a managed Kafka cluster are its provider's - reset it in the control panel",
                )
    if target.object_store is not None:
        from components import object_store_managed

        yield from object_store_managed.problems(settings, target)
