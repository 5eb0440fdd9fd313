"""What has to change so that a cluster is as planned. Nothing here talks to a cluster."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Partitions = Mapping[int, Sequence[int]]
"""A topic's replicas: broker ids by partition, the preferred leader first."""


class PlanError(Exception):
    """The plan asks for what Kafka cannot do; the message is one line for a person."""


def missing_topics(wanted: Iterable[Mapping[str, Any]], present: Mapping[str, Partitions]) -> dict[str, dict]:
    """Topics to create, as kafka-python takes them."""
    return {
        topic["name"]: {
            "num_partitions": topic["partitions"],
            "replication_factor": topic["replication"],
            "configs": dict(topic["config"]),
        }
        for topic in wanted
        if topic["name"] not in present
    }


def more_partitions(wanted: Iterable[Mapping[str, Any]], present: Mapping[str, Partitions]) -> dict[str, int]:
    """Topics that need more partitions, with their new number.

    Raises:
        PlanError: when there are more already: Kafka cannot take partitions away.
    """
    grown: dict[str, int] = {}
    for topic in wanted:
        name, count = topic["name"], topic["partitions"]
        there = len(present.get(name, {}))
        if there > count:
            raise PlanError(
                f'topic "{name}" has {there} partitions, the settings say {count}, and Kafka cannot take '
                f"partitions away - write `partitions: {there}`, or make another topic"
            )
        if 0 < there < count:
            grown[name] = count
    return grown


def reassigned(
    replication: Mapping[str, int], present: Mapping[str, Partitions], brokers: Sequence[int]
) -> dict[tuple[str, int], list[int]]:
    """New replicas for each partition that has too few or too many of them.

    Replicas that stay are those that come first: the leader moves only where it must. New ones go to the
    brokers that have the fewest.
    """
    load: Counter[int] = Counter(dict.fromkeys(brokers, 0))
    load.update(broker for topic in present.values() for replicas in topic.values() for broker in replicas)
    changed: dict[tuple[str, int], list[int]] = {}
    for name, wanted in sorted(replication.items()):
        for partition, replicas in sorted(present.get(name, {}).items()):
            if len(replicas) == wanted:
                continue
            kept = list(replicas[:wanted])
            load.subtract(replicas[wanted:])
            while len(kept) < wanted:
                new = min((b for b in brokers if b not in kept), key=lambda broker: (load[broker], broker))
                kept.append(new)
                load[new] += 1
            changed[name, partition] = kept
    return changed


def config_changes(wanted: Mapping[str, str], present: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Configuration to set, and names to put back to the broker's default."""
    changed = {name: value for name, value in wanted.items() if present.get(name) != value}
    return changed, sorted(present.keys() - wanted.keys())
