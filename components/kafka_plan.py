"""From Kafka's settings and what services request to the plan that the setup job carries out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from components.kafka_settings import (
    CONSOLE,
    MAX_CONTROLLERS,
    SEPARATORS,
    KafkaAccess,
    KafkaSettings,
    TopicSettings,
    own_names,
)
from components.service import Demand

_HOUR_MS = 3_600_000
_MIB = 1024 * 1024
_INTERNAL = "__"
"""What the names of Kafka's own topics start with."""


@dataclass(frozen=True, kw_only=True)
class PlannedUser:
    """A user, the topics and consumer groups it may use (names, ``start*``, ``*``)."""

    name: str
    read: tuple[str, ...]
    write: tuple[str, ...]
    groups: tuple[str, ...]


@dataclass(frozen=True, order=True, kw_only=True)
class Acl:
    """One permission, in the words of Kafka's admin protocol."""

    principal: str
    resource: str
    name: str
    pattern: str
    operation: str
    permission: str = "ALLOW"


def planned_users(settings: KafkaSettings, demands: Sequence[Demand]) -> list[PlannedUser]:
    """Declared users, and one for each service with requests."""
    users = [
        PlannedUser(name=user.name, read=user.read, write=user.write, groups=user.group_patterns)
        for user in settings.users
    ]
    for consumer in dict.fromkeys(demand.consumer for demand in demands):
        requests: list[KafkaAccess] = [d.request for d in demands if d.consumer == consumer]
        users.append(
            PlannedUser(
                name=consumer,
                read=tuple(dict.fromkeys(name for request in requests for name in request.read)),
                write=tuple(dict.fromkeys(name for request in requests for name in request.write)),
                groups=own_names(consumer),
            )
        )
    return users


def user_names(settings: KafkaSettings, demands: Sequence[Demand]) -> list[str]:
    """All users that log in with a password."""
    names = [user.name for user in planned_users(settings, demands)]
    return [*names, CONSOLE] if settings.console else names


def controllers(brokers: int) -> int:
    """How many brokers vote on the metadata: two would be lost with either one, so it is one or three."""
    return MAX_CONTROLLERS if brokers >= MAX_CONTROLLERS else 1


def heap_mib(memory_mib: int) -> int:
    """Java's heap: half the limit. The rest is threads, code, network buffers and the cache of files."""
    return memory_mib // 2


def topic_config(topic: TopicSettings, brokers: int) -> dict[str, str]:
    """The topic's configuration, apart from what is left to the broker's defaults."""
    config = {name: str(value) for name, value in topic.config.items()}
    if topic.retention_hours is not None:
        config["retention.ms"] = str(topic.retention_hours * _HOUR_MS)
    if topic.retention_mib is not None:
        config["retention.bytes"] = str(topic.retention_mib * _MIB)
    if topic.replicas(brokers) >= 3:
        config["min.insync.replicas"] = "2"
    return dict(sorted(config.items()))


def acls(users: Iterable[PlannedUser], *, console: bool) -> list[Acl]:
    """Every permission there is; what is not here is denied."""
    users = list(users)
    found = {acl for user in users for acl in _user_acls(user, [other.name for other in users])}
    if console:
        found |= set(_console_acls())
    return sorted(found)


def plan_json(settings: KafkaSettings, demands: Sequence[Demand], bootstrap: Sequence[str]) -> str:
    """The plan as ``images/kafka-setup/setup.py`` reads it."""
    brokers = settings.brokers
    users = planned_users(settings, demands)
    plan: dict[str, Any] = {
        "bootstrap": list(bootstrap),
        "brokers": brokers,
        "internal_replication": min(3, brokers),
        "topics": [
            {
                "name": topic.name,
                "partitions": topic.partitions,
                "replication": topic.replicas(brokers),
                "config": topic_config(topic, brokers),
            }
            for topic in settings.topics
        ],
        "deleted_topics": list(settings.deleted_topics),
        "users": user_names(settings, demands),
        "acls": [asdict(acl) for acl in acls(users, console=settings.console)],
    }
    return json.dumps(plan, indent=1) + "\n"


def _user_acls(user: PlannedUser, everybody: Sequence[str]) -> Iterator[Acl]:
    for topic in user.read:
        yield from _on("TOPIC", topic, user.name, "READ", "DESCRIBE", "DESCRIBE_CONFIGS")
    for topic in user.write:
        yield from _on("TOPIC", topic, user.name, "WRITE", "DESCRIBE", "DESCRIBE_CONFIGS")
    if any(topic.endswith("*") and _INTERNAL.startswith(topic[:-1]) for topic in (*user.read, *user.write)):
        # Kafka's own topics hold the offsets and transactions of everybody.
        yield from _on("TOPIC", f"{_INTERNAL}*", user.name, "ALL", permission="DENY")
    own = own_names(user.name)
    # Of users shop and shop-billing, names that start with shop-billing- belong to the second one alone.
    starts = tuple(user.name + separator for separator in SEPARATORS)
    others = [name for other in everybody if other.startswith(starts) for name in own_names(other)]
    if user.read:
        for group in user.groups:
            yield from _on("GROUP", group, user.name, "READ", "DESCRIBE")
        if user.groups == own:
            for group in others:
                yield from _on("GROUP", group, user.name, "ALL", permission="DENY")
    if user.write:
        for id_ in own:
            yield from _on("TRANSACTIONAL_ID", id_, user.name, "WRITE", "DESCRIBE")
        for id_ in others:
            yield from _on("TRANSACTIONAL_ID", id_, user.name, "ALL", permission="DENY")


def _console_acls() -> Iterator[Acl]:
    yield from _on("TOPIC", "*", CONSOLE, "READ", "DESCRIBE", "DESCRIBE_CONFIGS")
    # READ of a group would let it set the group's offsets.
    yield from _on("GROUP", "*", CONSOLE, "DESCRIBE")
    yield from _on("TRANSACTIONAL_ID", "*", CONSOLE, "DESCRIBE")
    yield from _on("CLUSTER", "kafka-cluster", CONSOLE, "DESCRIBE", "DESCRIBE_CONFIGS")


def _on(resource: str, pattern: str, user: str, *operations: str, permission: str = "ALLOW") -> Iterator[Acl]:
    prefixed = pattern.endswith("*") and pattern != "*"
    for operation in operations:
        yield Acl(
            principal=f"User:{user}",
            resource=resource,
            name=pattern.removesuffix("*") if prefixed else pattern,
            pattern="PREFIXED" if prefixed else "LITERAL",
            operation=operation,
            permission=permission,
        )
