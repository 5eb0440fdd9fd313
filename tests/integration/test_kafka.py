"""Kafka through its real client: who may do what, changed settings, more brokers and the loss of one."""

from __future__ import annotations

import contextlib
import copy
import json
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType

from tests.integration.clients import kafka
from tests.integration.conftest import USERS
from tests.integration.stack import ANSWER_S, PATIENCE_S, Stack, free_port, proxy_ports, wait_until

TOPIC_REFUSED = KafkaError.TOPIC_AUTHORIZATION_FAILED
GROUP_REFUSED = KafkaError.GROUP_AUTHORIZATION_FAILED


def send(stack: Stack, user: str, topic: str, *values: str, **more: Any) -> None:
    """Write messages that all copies in sync confirm.

    Raises:
        KafkaException: when one is refused.
    """
    failed: list[KafkaError] = []

    def delivered(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            failed.append(error)

    producer = Producer(kafka(stack, user, message_timeout_ms=PATIENCE_S * 1000, acks="all", **more))
    for value in values:
        producer.produce(topic, value, on_delivery=delivered)
    left = producer.flush(PATIENCE_S + 10)
    if failed:
        raise KafkaException(failed[0])
    assert left == 0, f"{left} messages neither came nor failed"


def received(stack: Stack, user: str, topic: str, count: int, *, group: str | None = None) -> list[str]:
    """The first messages of a topic, sorted, as a consumer group gets them.

    Raises:
        KafkaException: when the user may not read them.
        AssertionError: when there are fewer.
    """
    config = kafka(stack, user, group_id=group or f"{user}-{uuid.uuid4()}", auto_offset_reset="earliest")
    consumer = Consumer(config)
    values: list[str] = []
    try:
        consumer.subscribe([topic])
        # The loss of a broker is noticed after 9 s; then controller, leaders and the coordinator of the group
        # move, one after the other.
        deadline = time.monotonic() + PATIENCE_S
        while len(values) < count:
            assert time.monotonic() < deadline, f"{len(values)} of {count} messages came"
            message = consumer.poll(0.2)
            if message is None:
                continue
            if error := message.error():
                raise KafkaException(error)
            values.append((message.value() or b"").decode())
    finally:
        consumer.close()
    return sorted(values)


@contextlib.contextmanager
def refused(*codes: int) -> Iterator[None]:
    """The brokers answer with one of these errors."""
    with pytest.raises(KafkaException) as caught:
        yield
    assert caught.value.args[0].code() in codes, caught.value


def no_login(stack: Stack, user: str, *codes: int, **more: Any) -> None:
    """A client that tries to log in gets nothing, and learns that one of these errors is why."""
    found: set[int] = set()
    config = kafka(stack, user, **more)
    client = AdminClient({**config, "error_cb": lambda error: found.add(error.code())})

    def told() -> bool:
        with pytest.raises(KafkaException):
            client.list_topics(timeout=4)
        client.poll(0)
        return not found.isdisjoint(codes)

    assert wait_until(told)


def admin(stack: Stack, *arguments: str, broker: int = 1) -> str:
    """What one of Kafka's own tools says, with the broker's certificate."""
    code, output = stack.container(f"kafka-{broker}").exec_run(
        [
            "bash",
            "-c",
            "(grep ^ssl. /run/millrace/kafka/server.properties; echo security.protocol=SSL) >/tmp/admin;"
            ' tool=$1; shift; exec "/opt/kafka/bin/$tool" --bootstrap-server localhost:9094'
            ' --command-config /tmp/admin "$@"',
            "admin",
            *arguments,
        ]
    )
    assert code == 0, output.decode()
    return str(output.decode())


# -- users of the platform that has everything


def test_one_user_writes_and_another_reads(everything: Stack) -> None:
    values = [f"order {uuid.uuid4()}" for _ in range(20)]
    send(everything, "seller", "orders", *values)
    assert set(values) <= set(received(everything, "analyst", "orders", 20))


def test_users_may_do_what_is_granted_and_nothing_else(everything: Stack) -> None:
    send(everything, "seller", "visits", json.dumps({"id": 1, "page": "/", "who": {"id": 7}}))
    for user in ("analyst", "stranger"):
        with refused(TOPIC_REFUSED):
            send(everything, user, "visits", "mine")
    with refused(TOPIC_REFUSED, GROUP_REFUSED):
        received(everything, "seller", "visits", 1)
    with refused(TOPIC_REFUSED, GROUP_REFUSED):
        received(everything, "stranger", "visits", 1)
    with refused(TOPIC_REFUSED):
        received(everything, "analyst", "__consumer_offsets", 1)


def test_groups_belong_to_their_user(everything: Stack) -> None:
    for group in ("seller", "seller-group", "analysts"):
        with refused(GROUP_REFUSED):
            received(everything, "analyst", "visits", 1, group=group)


def test_users_see_their_topics_only_and_make_none(everything: Stack) -> None:
    for user, topics in (("seller", {"orders", "visits"}), ("stranger", set())):
        client = AdminClient(kafka(everything, user))
        assert set(client.list_topics(timeout=ANSWER_S).topics) == topics
        made = client.create_topics([NewTopic("mine", 1, 1)])["mine"]
        with refused(TOPIC_REFUSED, KafkaError.CLUSTER_AUTHORIZATION_FAILED):
            made.result(ANSWER_S)


def test_a_wrong_password_is_refused(everything: Stack) -> None:
    wrong = everything.outputs_once["credentials"]["kafka"]["analyst"]
    no_login(everything, "seller", KafkaError._AUTHENTICATION, password=wrong)
    no_login(everything, "nobody", KafkaError._AUTHENTICATION, password=wrong)


def test_nobody_gets_in_without_tls_or_login(everything: Stack) -> None:
    for protocol in ("SASL_PLAINTEXT", "SSL"):
        hung_up = (KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN)
        no_login(everything, "seller", *hung_up, security_protocol=protocol)
    # The brokers' own port takes certificates of brokers and of the administrator alone.
    broker = everything.container("kafka-1")
    probe = ["bash", "/run/millrace/kafka/probe.sh"]
    assert broker.exec_run(probe).exit_code == 0
    text = broker.exec_run(["cat", probe[1]]).output.decode()
    bare = text.replace('-cert "$FOLDER/broker.pem" -key "$FOLDER/broker.pem"', "")
    assert bare != text
    assert broker.exec_run(["timeout", "5", "bash", "-c", bare]).exit_code != 0


def test_what_the_health_check_asks(everything: Stack) -> None:
    broker = everything.container("kafka-1")
    probe = ["bash", "/run/millrace/kafka/probe.sh"]
    # Another name than its own: as if it had not joined.
    assert broker.exec_run(probe, environment={"HOST_NAME": "kafka-9"}).exit_code != 0
    assert broker.exec_run(probe, environment={"PROBE_PORT": "9"}).exit_code != 0


def test_no_password_in_sight(everything: Stack) -> None:
    passwords = everything.outputs_once["credentials"]["kafka"].values()
    broker = everything.container("kafka-1")
    shown = json.dumps(broker.attrs) + str(broker.top()["Processes"]) + broker.logs().decode()
    stored = broker.exec_run(["bash", "-c", "cat /run/millrace/kafka/* /var/lib/millrace/kafka/log/*/*.log"])
    shown += stored.output.decode(errors="replace")
    assert "CN=kafka-broker" in shown
    assert not any(password in shown for password in passwords)


# -- changes, on a stack of its own


TOPICS = [
    {"name": "orders", "partitions": 2},
    {"name": "single", "replication": 1},
    {"name": "retired"},
    {"name": "left"},
]
KAFKA_USERS: list[dict[str, Any]] = [
    {"name": "seller", "write": ["orders", "single", "left"]},
    {"name": "analyst", "read": ["orders", "left"]},
    {"name": "leaver", "read": ["orders", "_*"]},
    {"name": "analyst-two", "read": ["orders"]},
]


@pytest.fixture(scope="module")
def stack(new_stack: Callable[..., Stack]) -> Iterator[Stack]:
    """One broker with some messages."""
    port = free_port()
    stack = new_stack(
        {
            "proxy": proxy_ports(),
            "users": USERS[:1],
            "kafka": {"memory_mib": 512, "loopback_port": port, "topics": TOPICS, "users": KAFKA_USERS},
        },
        name="kafka",
    )
    stack.up()
    send(stack, "seller", "orders", "first", "second")
    send(stack, "seller", "left", "kept")
    yield stack
    stack.destroy()


def test_a_user_whose_name_starts_with_anothers_has_groups_of_its_own(stack: Stack) -> None:
    for group in ("analyst-two", "analyst-two-x", "analysts"):
        with refused(GROUP_REFUSED):
            received(stack, "analyst", "orders", 1, group=group)
    for user, group in (
        ("analyst", "analyst"),
        ("analyst", "analyst-twofold"),
        ("analyst-two", "analyst-two.x"),
    ):
        assert received(stack, user, "orders", 2, group=group) == ["first", "second"]
    with refused(TOPIC_REFUSED):
        received(stack, "leaver", "__consumer_offsets", 1)


def change(stack: Stack, **values: Any) -> None:
    """Other settings of Kafka, from now on."""
    stack.configure({**stack.config, "kafka": {**stack.config["kafka"], **values}})


def topic_config(stack: Stack, topic: str, name: str) -> str:
    """A topic's configuration as a reader sees it."""
    resource = ConfigResource(ResourceType.TOPIC, topic)
    client = AdminClient(kafka(stack, "analyst"))
    return str(client.describe_configs([resource])[resource].result(ANSWER_S)[name].value)


def test_changes_of_topics_and_users_apply_while_the_broker_runs(stack: Stack) -> None:
    broker = stack.container("kafka-1").id
    old = dict(stack.outputs_once["credentials"]["kafka"])
    assert received(stack, "leaver", "orders", 2) == ["first", "second"]
    assert "retired" in admin(stack, "kafka-topics.sh", "--list")
    topics = [
        {
            "name": "orders",
            "partitions": 3,
            "retention_hours": 5,
            "config": {"cleanup.policy": "compact,delete"},
        },
        TOPICS[1],
    ]
    users = [
        {"name": "seller", "write": ["orders", "single"]},
        {"name": "analyst", "read": ["orders"]},
        {"name": "joiner", "read": ["ord*"]},
    ]
    stack.configure({**stack.config, "rotation": {"kafka/analyst": "once"}})
    change(stack, topics=topics, users=users, deleted_topics=["retired"])
    stack.up()
    stack.up("--expect-no-changes")

    assert stack.container("kafka-1").id == broker
    assert topic_config(stack, "orders", "retention.ms") == str(5 * 3_600_000)
    assert topic_config(stack, "orders", "cleanup.policy") == "compact,delete"
    assert (
        len(AdminClient(kafka(stack, "joiner")).list_topics(timeout=ANSWER_S).topics["orders"].partitions)
        == 3
    )
    # Users: removed, rotated, new; a permission taken away with its topic.
    for user in ("leaver", "analyst"):
        no_login(stack, user, KafkaError._AUTHENTICATION, password=old[user])
    assert received(stack, "analyst", "orders", 2) == received(stack, "joiner", "orders", 2)
    with refused(TOPIC_REFUSED):
        received(stack, "analyst", "left", 1)
    with refused(TOPIC_REFUSED):
        send(stack, "seller", "left", "more")
    # A topic is deleted when the settings say so; one that they no longer name stays.
    listed = admin(stack, "kafka-topics.sh", "--list").split()
    assert "retired" not in listed
    assert "left" in listed

    change(stack, topics=[{"name": "orders", "partitions": 3}, TOPICS[1]])
    stack.up()
    assert topic_config(stack, "orders", "retention.ms") == str(168 * 3_600_000)
    assert topic_config(stack, "orders", "cleanup.policy") == "delete"


def test_what_kafka_can_not_do_is_one_line(stack: Stack) -> None:
    before = copy.deepcopy(stack.config)
    change(stack, topics=[{"name": "orders", "partitions": 1}, TOPICS[1]])
    output = stack.up_fails().output
    assert 'kafka: topic "orders" has 3 partitions, the settings say 1, and Kafka cannot take' in output
    assert "Traceback" not in output
    change(stack, topics=[*before["kafka"]["topics"], {"name": "new", "config": {"clean.policy": "x"}}])
    output = stack.up_fails().output
    assert 'kafka: topic "new": Unknown topic config name: clean.policy' in output
    assert "Traceback" not in output
    stack.configure(before)
    stack.up()


def voters(stack: Stack) -> set[str]:
    """Ids of the controllers that vote."""
    status = admin(stack, "kafka-metadata-quorum.sh", "describe", "--replication")
    rows = [line.split() for line in status.splitlines()]
    return {row[0] for row in rows if row and row[-1] in ("Leader", "Follower")}


def in_sync(stack: Stack, topic: str) -> list[set[int]]:
    """Brokers with all messages, for each partition."""
    found = AdminClient(kafka(stack, "seller")).list_topics(topic, timeout=ANSWER_S).topics[topic]
    return [set(partition.isrs) for partition in found.partitions.values()]


def everywhere(stack: Stack) -> bool:
    """Whether all three brokers have all messages of a topic."""
    return {frozenset(brokers) for brokers in in_sync(stack, "orders")} == {frozenset({1, 2, 3})}


def test_more_brokers_take_copies_and_votes(stack: Stack) -> None:
    assert voters(stack) == {"1"}
    change(stack, brokers=3)
    stack.up()
    assert wait_until(lambda: voters(stack) == {"1", "2", "3"})
    assert wait_until(lambda: everywhere(stack))
    assert [len(brokers) for brokers in in_sync(stack, "single")] == [1]
    offsets = admin(stack, "kafka-topics.sh", "--describe", "--topic", "__consumer_offsets")
    assert "ReplicationFactor: 3" in offsets
    # On new containers: what the former one stored is there.
    assert received(stack, "analyst", "orders", 2) == ["first", "second"]
    send(stack, "seller", "orders", "third")
    stack.no_change()


def test_the_loss_of_one_broker(stack: Stack) -> None:
    stack.container("kafka-1").kill()
    try:
        assert received(stack, "analyst", "orders", 3) == ["first", "second", "third"]
        send(stack, "seller", "orders", "fourth")
    finally:
        stack.container("kafka-1").start()
    assert wait_until(lambda: everywhere(stack))
    assert received(stack, "analyst", "orders", 4) == ["first", "fourth", "second", "third"]


def test_a_broker_on_an_emptied_volume_comes_back(stack: Stack) -> None:
    broker = stack.container("kafka-1")
    broker.exec_run(["bash", "-c", "rm -rf /var/lib/millrace/kafka/*"])
    broker.kill()
    broker.start()
    # It did not found another cluster: it votes in the one there is, and has its messages again.
    assert wait_until(lambda: voters(stack) == {"1", "2", "3"})
    assert wait_until(lambda: everywhere(stack))
    assert received(stack, "analyst", "orders", 4) == ["first", "fourth", "second", "third"]


def test_fewer_brokers_are_refused_and_nothing_is_lost(stack: Stack) -> None:
    before = copy.deepcopy(stack.config)
    last = stack.container("kafka-3").id
    change(stack, brokers=1)
    output = stack.up_fails().output
    assert "brokers: 1 is less than the 3 there are" in output
    assert stack.container("kafka-3").id == last
    stack.configure(before)
    stack.up()
    assert wait_until(lambda: everywhere(stack))
    assert received(stack, "analyst", "orders", 4) == ["first", "fourth", "second", "third"]


def test_a_port_that_is_not_asked_for_is_not_there(stack: Stack) -> None:
    first = stack.config["kafka"]["loopback_port"]
    for port in range(first, first + 3):
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", first + 3), timeout=5).close()
