"""Settings of Kafka, what services may request of it, and mistakes a single value doesn't show."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pulumi
from pydantic import AfterValidator, Field

from components.checks import duplicates, published_ports
from components.connection import Connection
from components.problems import PathPart, Problem, nearest
from components.service import Demand
from components.settings import ServiceSettings, Settings
from components.settings_types import Form, Int, Line, MiB, Model, Name, Port, Text
from components.workload import Access

CONSOLE = "console"
"""User of the web console."""

MAX_CONTROLLERS = 3
"""Brokers that also vote on the cluster's metadata, once there are as many; one otherwise."""

SEPARATORS = ("-", ".", "_")
"""What may follow a user's name in the names of its groups and transactional ids."""

_OWN_CONFIG = {
    "retention.ms": "retention_hours",
    "retention.bytes": "retention_mib",
    "min.insync.replicas": "replication",
}
"""Topic configuration that has a key of its own, or follows from one."""


@dataclass(frozen=True, kw_only=True)
class KafkaAccess:
    """Request of a service: a user that reads and writes these topics.

    A topic is a declared name, a prefix as ``orders-*``, or ``*`` for all but Kafka's own. Consumer groups
    and transactional ids of the user are its name, which is the service's key, or start with it and one of
    :data:`SEPARATORS`.
    """

    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class KafkaConnection(Connection):
    """A user of Kafka: SASL/SCRAM (with SHA-512 on brokers of ours) over TLS, verified with the CA.

    ``bootstrap`` lists the brokers as clients take them, ``host1:9092,host2:9092``; ``host`` and ``port`` are
    those of the first. ``group`` is a consumer group it may use; others are that, one of
    :data:`SEPARATORS`, and whatever they need.
    """

    user: str
    bootstrap: pulumi.Input[str]
    group: str
    security_protocol: str = "SASL_SSL"
    sasl_mechanism: str = "SCRAM-SHA-512"

    @property
    def jaas(self) -> pulumi.Output[str]:
        """Value of ``sasl.jaas.config`` for Java clients; secret."""
        return pulumi.Output.secret(
            self.password.apply(
                lambda password: (
                    "org.apache.kafka.common.security.scram.ScramLoginModule required "
                    f'username="{self.user}" password="{password}";'
                )
            )
        )

    def librdkafka(self, ca: str) -> dict[str, pulumi.Input[str]]:
        """Settings of clients made with librdkafka; ``ca`` is the file with the CA's certificate."""
        return {
            "bootstrap.servers": self.bootstrap,
            "security.protocol": self.security_protocol,
            "sasl.mechanism": self.sasl_mechanism,
            "sasl.username": self.user,
            "sasl.password": self.password,
            "ssl.ca.location": ca,
        }

    def as_output(self) -> dict[str, pulumi.Input[object]]:
        """The connection as a stack output; a URI means nothing to Kafka's clients."""
        return {
            "bootstrap": self.bootstrap,
            "user": self.user,
            "password": self.password,
            "group": self.group,
            "security_protocol": self.security_protocol,
            "sasl_mechanism": self.sasl_mechanism,
        }


# Kafka's own rule is 249 characters of these; the rest leaves room for folders of partitions.
_TOPIC = r"[A-Za-z0-9._-]{1,200}"


def _topic_name(value: str) -> str:
    if not re.fullmatch(_TOPIC, value) or value in (".", ".."):
        raise ValueError("not a topic name - use up to 200 letters, digits, dots, underscores and hyphens")
    if value.startswith("__"):
        raise ValueError("a name that Kafka keeps for itself - start it otherwise")
    return value


def _pattern(value: str) -> str:
    if value != "*":
        _topic_name(value.removesuffix("*"))
    return value


TopicName = Annotated[str, AfterValidator(_topic_name)]
TopicPattern = Annotated[str, AfterValidator(_pattern)]
GroupPattern = Annotated[
    str,
    Form(r"[A-Za-z0-9._-]{1,200}\*?", "write the name of a consumer group, or a start of names as reports-*"),
]
ConfigName = Annotated[
    str, Form(r"[a-z][a-z.]*", "write the name of a topic configuration such as cleanup.policy")
]


class Column(Model):
    """A column of the table that a topic's messages make in Presto."""

    name: Annotated[str, Form(r"[a-z_][a-z0-9_]{0,62}", "use lower-case letters, digits and _, 63 at most")]
    """Name of the column."""
    type: Annotated[
        str,
        Form(
            r"BOOLEAN|TINYINT|SMALLINT|INTEGER|BIGINT|DOUBLE|VARCHAR(\(\d+\))?|VARBINARY|DATE|TIME|TIMESTAMP",
            "write BOOLEAN, TINYINT, SMALLINT, INTEGER, BIGINT, DOUBLE, VARCHAR, VARCHAR(n), VARBINARY, "
            "DATE, TIME or TIMESTAMP",
        ),
    ]
    """SQL type: BOOLEAN, TINYINT, SMALLINT, INTEGER, BIGINT, DOUBLE, VARCHAR, VARCHAR(n), VARBINARY, DATE,
    TIME or TIMESTAMP."""
    mapping: Line | None = None
    """Where in the message. json: path of keys such as `customer/id`, the column's name without it; csv:
    index of the field, the column's place without it; raw: first byte, or `first:end`, required."""
    format: Literal["iso8601", "rfc2822", "milliseconds-since-epoch", "seconds-since-epoch"] | None = None
    """How a DATE, TIME or TIMESTAMP is written in json."""


class Message(Model):
    """What the messages of a topic hold."""

    format: Literal["json", "csv", "raw"]
    """json, csv or raw (bytes at fixed places)."""
    columns: Annotated[tuple[Column, ...], Field(min_length=1)]
    """Columns of the table."""


class TopicSettings(Model):
    """A topic. Taking it out of the settings keeps it and all that is in it."""

    name: TopicName
    """Up to 200 letters, digits, dots, underscores and hyphens."""
    partitions: Annotated[Int, Field(ge=1, le=10000)] = 1
    """Number of partitions. It can grow later, never shrink."""
    replication: Annotated[Int, Field(ge=1, le=32)] | None = None
    """Copies of each partition, on as many brokers; without it three, or one for each broker if there are
    fewer. With three or more a write is confirmed when two have it."""
    retention_hours: Annotated[Int, Field(ge=1, le=876000)] | None = None
    """Delete messages that are older, in hours; without it after 168."""
    retention_mib: Annotated[Int, Field(ge=1, le=2**40)] | None = None
    """Delete the oldest messages of a partition that is larger, in MiB; without it no limit."""
    config: dict[ConfigName, Text] = {}
    """More configuration of the topic, such as `cleanup.policy: compact`."""
    message: Message | None = None
    """What its messages hold, for services that make tables of topics."""

    def replicas(self, brokers: int) -> int:
        """Copies of each partition in a cluster of that many brokers."""
        return self.replication or min(3, brokers)


def own_names(user: str) -> tuple[str, ...]:
    """Names and starts of names that are a user's own, so that ``air`` has none of ``airflow``'s."""
    return (user, *(f"{user}{separator}*" for separator in SEPARATORS))


def table_name(topic: TopicSettings) -> str:
    """The topic's table: its name in lower case, with _ for what is no letter or digit."""
    return "".join(c if c.isalnum() else "_" for c in topic.name.lower())


class KafkaUser(Model):
    """A user that logs in with a generated password (stack output `credentials`)."""

    name: Name
    """Name to log in with."""
    read: tuple[TopicPattern, ...] = ()
    """Topics it may read: names of `topics`, starts as `orders-*`, or `*` for all but Kafka's own."""
    write: tuple[TopicPattern, ...] = ()
    """Topics it may write, likewise."""
    groups: tuple[GroupPattern, ...] | None = None
    """Consumer groups it may use, names or `reports-*`; without it its own name, and all that start with it
    and `-`, `.` or `_`."""

    @property
    def group_patterns(self) -> tuple[str, ...]:
        """Its consumer groups, given or by default."""
        return own_names(self.name) if self.groups is None else self.groups


class KafkaSettings(ServiceSettings):
    """Kafka brokers, topics, users and what these may read and write."""

    brokers: Annotated[Int, Field(ge=1, le=20)] = 1
    """Number of brokers. It can grow later, never shrink; three or more stand the loss of one."""
    memory_mib: Annotated[MiB, Field(ge=384)] = 768
    """Memory limit of a broker, in MiB; half of it is Java's heap."""
    topics: tuple[TopicSettings, ...] = ()
    """Topics to have."""
    deleted_topics: tuple[TopicName, ...] = ()
    """Topics to delete with all they hold. No other topic is ever deleted."""
    users: tuple[KafkaUser, ...] = ()
    """Users and their permissions."""
    loopback_port: Port | None = None
    """Port on 127.0.0.1 of the host for clients there; the second broker has the next port, and so on."""
    console: bool = False
    """Run Redpanda Console, an image that is on no package registry and always pulled."""
    console_access: Access = Access.ENGINEER
    """Who may open the console at https://kafka.<domain>; it sees all topics and messages."""


def problems(settings: KafkaSettings, demands: Sequence[Demand], platform: Settings) -> Iterator[Problem]:
    """Duplicates, unknown topics, more replicas than brokers, reserved and clashing users and ports."""
    yield from duplicates([t.name for t in settings.topics], ("topics",), "topic")
    yield from duplicates([u.name for u in settings.users], ("users",), "user")
    yield from _topics(settings, managed="kafka" in platform.managed)
    known = [topic.name for topic in settings.topics]
    for index, name in enumerate(settings.deleted_topics):
        if name in known:
            yield Problem(("deleted_topics", index), f'"{name}" is one of `topics` - remove it here or there')
    consumers = {demand.consumer for demand in demands}
    for index, user in enumerate(settings.users):
        path = ("users", index)
        if user.name in consumers:
            yield Problem((*path, "name"), f'"{user.name}" is the user of a service - choose another name')
        if user.name == CONSOLE:
            yield Problem((*path, "name"), f'"{CONSOLE}" is the web console\'s user - choose another name')
        for key, patterns in (("read", user.read), ("write", user.write)):
            yield from _known(patterns, known, (*path, key))
    for demand in demands:
        request: KafkaAccess = demand.request
        for problem in _known((*request.read, *request.write), known, ("topics",)):
            yield Problem(("topics",), f"{problem.text} (service {demand.consumer} uses it)")
    if CONSOLE in consumers:
        yield Problem((), f"\"{CONSOLE}\" is the web console's user and cannot be a service's")
    yield from _ports(settings, platform)


def _known(patterns: Iterable[str], known: Sequence[str], path: tuple[PathPart, ...]) -> Iterator[Problem]:
    for place, pattern in enumerate(patterns):
        if not pattern.endswith("*") and pattern not in known:
            where = path if path == ("topics",) else (*path, place)
            yield Problem(where, f'no topic "{pattern}" among topics{nearest(pattern, known)}')


def _topics(settings: KafkaSettings, *, managed: bool) -> Iterator[Problem]:
    alike: dict[str, str] = {}
    tables: dict[str, str] = {}
    for index, topic in enumerate(settings.topics):
        path = ("topics", index)
        other = alike.setdefault(topic.name.replace(".", "_"), topic.name)
        if other != topic.name:
            yield Problem(
                (*path, "name"), f'"{topic.name}" is too like "{other}": Kafka takes . and _ for the same'
            )
        if not managed and topic.replication is not None and topic.replication > settings.brokers:
            yield Problem(
                (*path, "replication"),
                f"{topic.replication} copies need as many brokers, there are {settings.brokers} - "
                f"write `replication: {settings.brokers}` or less, or raise `brokers`",
            )
        for name in topic.config:
            if name in _OWN_CONFIG:
                yield Problem(
                    (*path, "config", name),
                    f"has a key of its own - write `{_OWN_CONFIG[name]}` beside `config`",
                )
        if topic.message is not None:
            table = table_name(topic)
            same = tables.setdefault(table, topic.name)
            # Names that Kafka itself takes for the same, or that are, were told above.
            if same.replace(".", "_") != topic.name.replace(".", "_"):
                yield Problem(
                    (*path, "message"),
                    f'"{topic.name}" and "{same}" would both be table {table} - rename one, or describe one',
                )
            yield from _message(topic.message, (*path, "message"))


def _message(message: Message, path: tuple[PathPart, ...]) -> Iterator[Problem]:
    names = [column.name for column in message.columns]
    yield from duplicates(names, (*path, "columns"), "column")
    forms: Mapping[str, tuple[str, str]] = {
        "json": (r"[^/\s]+(/[^/\s]+)*", "a path of keys such as customer/id"),
        "csv": (r"\d+", "the index of a field such as 0"),
        "raw": (r"\d+(:\d+)?", "the first byte such as 0, or 0:4"),
    }
    form, says = forms[message.format]
    for index, column in enumerate(message.columns):
        where = (*path, "columns", index)
        if column.mapping is None:
            if message.format == "raw":
                yield Problem((*where, "mapping"), f"missing - {message.format} needs {says}")
        elif not re.fullmatch(form, column.mapping):
            yield Problem(
                (*where, "mapping"), f'"{column.mapping}" does not fit {message.format} - write {says}'
            )
        if column.format is not None and (
            message.format != "json" or column.type not in ("DATE", "TIME", "TIMESTAMP")
        ):
            yield Problem(
                (*where, "format"), "has a meaning for DATE, TIME and TIMESTAMP in json alone - remove it"
            )


def _ports(settings: KafkaSettings, platform: Settings) -> Iterator[Problem]:
    first = settings.loopback_port
    if first is None:
        return
    last = first + settings.brokers - 1
    if last > 65535:
        yield Problem(
            ("loopback_port",), f"{settings.brokers} brokers need ports up to {last} - choose a lower one"
        )
    taken: Mapping[int, Any] = {port: path for path, port in published_ports(platform)}
    for port in range(first + 1, last + 1):
        if port in taken:
            yield Problem(
                ("loopback_port",),
                f"broker {port - first + 1} gets port {port}, which is taken by {'.'.join(taken[port])} - "
                "choose another",
            )
