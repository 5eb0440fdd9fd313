"""Kafka run by a cloud provider: what becomes of topics and users, and what it can't do."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from components.kafka_plan import planned_users, topic_config
from components.kafka_settings import KafkaSettings
from components.managed import ManagedTopic, ManagedUser
from components.problems import Problem, nearest
from components.service import Demand
from components.settings import ServiceSettings

PARTITIONS = 3
"""Fewest partitions of a topic."""
_REPLICAS = 2
"""Fewest copies of a partition."""

# The topic configuration that the managed service takes, in Kafka's own words.
_CONFIG: Mapping[str, type] = {
    "cleanup.policy": str,
    "compression.type": str,
    "delete.retention.ms": str,
    "file.delete.delay.ms": str,
    "flush.messages": str,
    "flush.ms": str,
    "index.interval.bytes": str,
    "max.compaction.lag.ms": str,
    "max.message.bytes": str,
    "message.timestamp.type": str,
    "min.cleanable.dirty.ratio": float,
    "min.compaction.lag.ms": str,
    "min.insync.replicas": int,
    "preallocate": bool,
    "retention.bytes": str,
    "retention.ms": str,
    "segment.bytes": str,
    "segment.index.bytes": str,
    "segment.jitter.ms": str,
    "segment.ms": str,
}
# Python itself takes more for a number, such as nan, 1_0 and digits of other scripts.
_WHOLE = re.compile(r"[0-9]{1,9}")
_RATIO = re.compile(r"[0-9]*\.?[0-9]+([eE][-+]?[0-9]{1,2})?")
_POLICIES = {"compact,delete": "compact_delete", "delete,compact": "compact_delete"}


def topics(settings: KafkaSettings, nodes: int) -> list[ManagedTopic]:
    """Declared topics, with as many copies as on brokers of one's own, two at least."""
    return [
        ManagedTopic(
            name=topic.name,
            partitions=topic.partitions,
            replication=topic.replicas(nodes),
            config={name: _value(name, text) for name, text in topic_config(topic, brokers=nodes).items()},
        )
        for topic in settings.topics
    ]


def _value(name: str, text: str) -> str | float | bool:
    """A value as the provider takes it.

    Raises:
        ValueError: when it is none of its kind; says what is wrong and the fix.
    """
    kind = _CONFIG[name]
    if kind is bool:
        if text not in ("true", "false"):
            raise ValueError("expected true or false")
        return text == "true"
    if kind is int:
        if not _WHOLE.fullmatch(text):
            raise ValueError("expected a whole number")
        return int(text)
    if kind is float:
        if not _RATIO.fullmatch(text) or float(text) > 1:
            raise ValueError("expected a number from 0 to 1 - write one such as 0.5")
        return float(text)
    return _POLICIES.get(text.replace(" ", ""), text) if name == "cleanup.policy" else text


def users(settings: KafkaSettings, demands: Sequence[Demand]) -> list[ManagedUser]:
    """Declared users and those of services, with what they may do with which topics."""
    found = []
    for user in planned_users(settings, demands):
        permissions: dict[str, str] = dict.fromkeys(user.read, "consume")
        for topic in user.write:
            permissions[topic] = "produceconsume" if topic in permissions else "produce"
        found.append(ManagedUser(name=user.name, permissions=permissions))
    return found


def problems(settings: ServiceSettings, nodes: int) -> Iterator[Problem]:
    """What the managed service has no means for; paths start at the service's key."""
    assert isinstance(settings, KafkaSettings)
    for index, topic in enumerate(settings.topics):
        path = ("kafka", "topics", index)
        if topic.partitions < PARTITIONS:
            yield Problem(
                (*path, "partitions"),
                f"a managed cluster has {PARTITIONS} or more in a topic - write `partitions: {PARTITIONS}`",
            )
        if topic.replication is not None and not _REPLICAS <= topic.replication <= nodes:
            yield Problem(
                (*path, "replication"), f"a managed cluster keeps {_REPLICAS} to {nodes} copies - change it"
            )
        for name, text in topic.config.items():
            if name not in _CONFIG:
                yield Problem(
                    (*path, "config", name),
                    f"not among the configuration that a managed cluster takes{nearest(name, _CONFIG)}",
                )
                continue
            try:
                _value(name, text)
            except ValueError as error:
                yield Problem((*path, "config", name), str(error))
    for index, user in enumerate(settings.users):
        if user.groups is not None:
            yield Problem(
                ("kafka", "users", index, "groups"),
                "a managed cluster lets every user read with any consumer group - remove it",
            )
    if settings.deleted_topics:
        yield Problem(
            ("kafka", "deleted_topics"),
            "topics of a managed cluster are deleted in its control panel - remove it",
        )
    if settings.console:
        yield Problem(
            ("kafka", "console"), "has no user with the rights it needs on a managed cluster - remove it"
        )
