"""Makes users, topics and permissions of a Kafka cluster what a plan says; doing it twice changes nothing.

    setup.py PLAN PASSWORDS

PLAN is JSON: ``bootstrap`` (addresses), ``brokers`` (how many there must be), ``topics`` (name, partitions,
replication, config), ``internal_replication``, ``deleted_topics``, ``users`` (names) and ``acls`` (principal,
resource, name, pattern, operation, permission). PASSWORDS is JSON: user -> password. The folder
/run/millrace/tls has the administrator's certificate.

Users and permissions that the plan doesn't name are revoked. Topics that it doesn't name are left alone.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from changes import Partitions, PlanError, config_changes, missing_topics, more_partitions, reassigned
from kafka import TopicPartition
from kafka.admin import (
    ACL,
    ACLFilter,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    AlterConfigOp,
    ConfigResource,
    ConfigResourceType,
    KafkaAdminClient,
    ResourcePattern,
    ResourcePatternFilter,
    ResourceType,
    ScramMechanism,
    UserScramCredentialDeletion,
    UserScramCredentialUpsertion,
)
from kafka.errors import KafkaError, for_code

TLS = Path("/run/millrace/tls")
WAIT_S = 60
"""For all brokers to be there, and for changes to reach them."""
REASSIGN_S = 600
"""For replicas to be copied."""
INTERNAL = ("__consumer_offsets", "__transaction_state", "__share_group_state")

Made = TypeVar("Made")


def waited(what: Callable[[], Made | None], seconds: float, failure: str) -> Made:
    """The first result that is not None, errors of the cluster counting as none.

    Raises:
        PlanError: with ``failure`` and the last error, when there is none in time.
    """
    deadline = time.monotonic() + seconds
    last = ""
    while time.monotonic() < deadline:
        try:
            if (made := what()) is not None:
                return made
        except KafkaError as error:
            last = f": {error}"
        time.sleep(0.2)
    raise PlanError(failure + last)


class Setup:
    """One cluster and the plan for it."""

    def __init__(self, plan: dict[str, Any], passwords: dict[str, str]) -> None:
        self.plan, self.passwords = plan, passwords
        self.admin: KafkaAdminClient = waited(self._connect, WAIT_S, "no broker answers")

    def _connect(self) -> KafkaAdminClient:
        return KafkaAdminClient(
            bootstrap_servers=self.plan["bootstrap"],
            security_protocol="SSL",
            ssl_cafile=str(TLS / "ca.crt"),
            ssl_certfile=str(TLS / "client.crt"),
            ssl_keyfile=str(TLS / "client.key"),
            bootstrap_timeout_ms=5000,
            reconnect_backoff_max_ms=1000,
        )

    def run(self) -> None:
        """Everything, in an order in which nobody may do more in between than before or after."""
        self.brokers = waited(self._all_brokers, WAIT_S, f"not all {self.plan['brokers']} brokers are there")
        self.revoke_permissions()
        self.set_users()
        self.delete_topics()
        self.set_topics()
        self.grant_permissions()

    def _all_brokers(self) -> list[int] | None:
        found = [b["broker_id"] for b in self.admin.describe_cluster()["brokers"] if not b.get("is_fenced")]
        return sorted(found) if len(found) >= self.plan["brokers"] else None

    # -- users

    def set_users(self) -> None:
        """Each user's password, and no other users."""
        mechanism = ScramMechanism.SCRAM_SHA_512
        there = {
            (user, info["mechanism"])
            for user, found in self.admin.describe_user_scram_credentials().items()
            for info in found["credential_infos"]
        }
        wanted = {(user, mechanism) for user in self.plan["users"]}
        # The salt is new each time, and nobody can tell whether the password is.
        changes: list[Any] = [
            UserScramCredentialUpsertion(user, mechanism, self.passwords[user]) for user in self.plan["users"]
        ]
        changes += [UserScramCredentialDeletion(*one) for one in sorted(there - wanted)]
        if changes:
            for user, error in self.admin.alter_user_scram_credentials(changes).items():
                if error:
                    raise PlanError(f'user "{user}": {error}')
        for user, _ in sorted(there - wanted):
            print(f"user {user}: removed")

    # -- permissions

    def _present(self) -> set[ACL]:
        every = ACLFilter(
            None,
            None,
            ACLOperation.ANY,
            ACLPermissionType.ANY,
            ResourcePatternFilter(ResourceType.ANY, None, ACLResourcePatternType.ANY),
        )
        return set(self.admin.describe_acls(every)[0])

    def _wanted(self) -> set[ACL]:
        return {
            ACL(
                acl["principal"],
                "*",
                ACLOperation[acl["operation"]],
                ACLPermissionType[acl["permission"]],
                ResourcePattern(
                    ResourceType[acl["resource"]], acl["name"], ACLResourcePatternType[acl["pattern"]]
                ),
            )
            for acl in self.plan["acls"]
        }

    def revoke_permissions(self) -> None:
        """Whatever the plan doesn't grant goes first; denials come before what they restrict."""
        present, wanted = self._present(), self._wanted()
        denials = {acl for acl in wanted if acl.permission_type is ACLPermissionType.DENY}
        self._create(denials - present)
        gone = [_filter(acl) for acl in present - wanted]
        if gone:
            for _, _, error in self.admin.delete_acls(gone):
                if error.errno:
                    raise PlanError(f"a permission can not be revoked: {error.__name__}")
            print(f"permissions: {len(gone)} revoked")

    def grant_permissions(self) -> None:
        """What is missing, once there is what it is about."""
        self._create(self._wanted() - self._present())

    def _create(self, acls: set[ACL]) -> None:
        if acls:
            failed = self.admin.create_acls(list(acls))["failed"]
            if failed:
                raise PlanError(f"a permission can not be granted: {failed[0].__name__}")
            print(f"permissions: {len(acls)} granted")

    # -- topics

    def _topics(self) -> dict[str, Partitions]:
        return {
            topic["name"]: {p["partition_index"]: list(p["replica_nodes"]) for p in topic["partitions"]}
            for topic in self.admin.describe_topics()
        }

    def delete_topics(self) -> None:
        """Topics that the settings name for deletion."""
        if doomed := sorted(set(self.plan["deleted_topics"]) & self._topics().keys()):
            answer = self.admin.delete_topics(doomed, raise_errors=False)
            _check(answer["topics"])
            waited(
                lambda: True if not self._topics().keys() & set(doomed) else None,
                WAIT_S,
                f"topics {', '.join(doomed)} are still there",
            )
            print(f"topics deleted: {', '.join(doomed)}")

    def set_topics(self) -> None:
        """Topics with their partitions, replicas and configuration."""
        wanted = self.plan["topics"]
        present = self._topics()
        more = more_partitions(wanted, present)
        if new := missing_topics(wanted, present):
            _check(self.admin.create_topics(new, raise_errors=False)["topics"])
            print(f"topics created: {', '.join(new)}")
        if more:
            answer = self.admin.create_partitions(more, raise_errors=False)
            _check([result.to_dict() for result in answer.results])
            print("partitions: " + ", ".join(f"{name} has {count}" for name, count in more.items()))
        self.set_configuration([topic for topic in wanted if topic["name"] not in new])
        self.admin.wait_for_topics([topic["name"] for topic in wanted], WAIT_S * 1000)
        self.set_replicas()

    def set_configuration(self, topics: list[dict[str, Any]]) -> None:
        """Topic configuration is what the plan says, the broker's defaults otherwise."""
        if not topics:
            return
        resources = [ConfigResource(ConfigResourceType.TOPIC, topic["name"]) for topic in topics]
        found = self.admin.describe_configs(resources)["topic"]
        changes = []
        for topic in topics:
            own = {
                name: value["value"]
                for name, value in found[topic["name"]].items()
                if value["config_source"] == "DYNAMIC_TOPIC_CONFIG"
            }
            changed, reset = config_changes(topic["config"], own)
            if changed or reset:
                configs = {name: (AlterConfigOp.SET, value) for name, value in changed.items()}
                configs |= dict.fromkeys(reset, (AlterConfigOp.DELETE, None))
                changes.append(ConfigResource(ConfigResourceType.TOPIC, topic["name"], configs))
        if changes:
            answer = self.admin.alter_configs(changes, raise_on_unknown=False, incremental=True)
            for name, result in answer["topic"].items():
                if result != "OK":
                    raise PlanError(f'topic "{name}": {result}')
            print(f"configuration changed: {', '.join(change.name for change in changes)}")

    def set_replicas(self) -> None:
        """As many replicas as planned; those of Kafka's own topics follow the number of brokers."""
        present = self._topics()
        replication = {topic["name"]: topic["replication"] for topic in self.plan["topics"]}
        replication |= {
            name: max(self.plan["internal_replication"], min(map(len, present[name].values())))
            for name in INTERNAL
            if name in present
        }
        changes = reassigned(replication, present, self.brokers)
        if not changes:
            return
        answer = self.admin.alter_partition_reassignments(
            {TopicPartition(name, partition): replicas for (name, partition), replicas in changes.items()}
        )
        for partition, error in answer.items():
            if error is not None:
                raise PlanError(f'replicas of topic "{partition.topic}": {error.__name__}')
        waited(
            lambda: True if not self.admin.list_partition_reassignments() else None,
            REASSIGN_S,
            "replicas are still being copied",
        )
        print(f"replicas changed: {', '.join(sorted({name for name, _ in changes}))}")


def _filter(acl: ACL) -> ACLFilter:
    pattern = acl.resource_pattern
    return ACLFilter(
        acl.principal,
        acl.host,
        acl.operation,
        acl.permission_type,
        ResourcePatternFilter(pattern.resource_type, pattern.resource_name, pattern.pattern_type),
    )


def _check(results: list[dict[str, Any]]) -> None:
    for result in results:
        if result["error_code"]:
            error = for_code(result["error_code"])
            raise PlanError(f'topic "{result["name"]}": {result.get("error_message") or error.__name__}')


def main() -> None:
    """See the module's description; a mistake is one line on standard error and exit code 1."""
    logging.basicConfig(level=logging.ERROR)
    plan, passwords = (json.loads(Path(path).read_text()) for path in sys.argv[1:3])
    try:
        Setup(plan, passwords).run()
    except (PlanError, KafkaError) as error:
        sys.exit(f"kafka: {' '.join(str(error).split())}")


if __name__ == "__main__":
    main()
