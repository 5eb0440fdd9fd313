"""Kafka: brokers in KRaft mode, the job that sets up topics, users and permissions, an optional console."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pulumi
import pulumi_random as random

from components import kafka_managed
from components.certificates import Certificate
from components.connection import Secret
from components.kafka_plan import (
    controllers,
    heap_mib,
    plan_json,
    planned_users,
    user_names,
)
from components.kafka_settings import CONSOLE, KafkaConnection, KafkaSettings, problems
from components.managed import ManagedContent
from components.options import child_opts
from components.problems import Problem
from components.service import TLS_FOLDER, Demand, Login, Service, ca_file
from components.settings import Settings
from components.targets import Deployment
from components.templates import render
from components.workload import (
    Endpoint,
    File,
    Group,
    Job,
    Limits,
    Probe,
    Route,
    Scheme,
    Volume,
    Workload,
)

_CLIENT, _LOOPBACK, _BROKER, _CONTROLLER = 9092, 9093, 9094, 9095
_UID = 1000
_SETUP_UID = 65534
_CONSOLE_UID = 65534
_CONSOLE_PORT = 8080
_FOLDER = "/run/millrace/kafka"
_CONSOLE_FOLDER = "/run/millrace/console"
# Not the official image's own folder: see components.workload.Volume.
_DATA = "/var/lib/millrace/kafka"
_MANAGED_MECHANISM = "SCRAM-SHA-256"
_BROKER_NAME = "kafka-broker"
"""Common name of the brokers' certificates, by which they know each other."""
_ADMIN_NAME = "kafka-admin"
"""Common name of the certificate the setup job logs in with."""


class Kafka(Service):
    """Kafka with TLS, declared topics and users with permissions, on one broker or more.

    Users log in with SCRAM-SHA-512 and may do what the settings grant, nothing else. Brokers, controllers and
    the setup job know each other by certificates: a password in the metadata could not secure the election
    that comes before the metadata is known.
    """

    key = "kafka"
    settings_model = KafkaSettings
    settings: KafkaSettings

    @classmethod
    def credentials(cls, settings: KafkaSettings, demands: Sequence[Demand]) -> Iterable[str]:
        """One for each user."""
        return user_names(settings, demands)

    @classmethod
    def routed(cls, settings: KafkaSettings, platform: Settings) -> bool:
        """The console alone has a page."""
        return settings.console

    @classmethod
    def check(
        cls, settings: KafkaSettings, demands: Sequence[Demand], platform: Settings
    ) -> Iterable[Problem]:
        """See :func:`components.kafka_settings.problems`."""
        return problems(settings, demands, platform)

    def build(self) -> None:
        """Brokers, setup job, console; or topics and users on a cluster that somebody else runs."""
        self._content: ManagedContent | None = None
        self._managed = self.context.platform.managed(self.key)
        if self._managed is not None:
            nodes = self.context.platform.settings.managed_kafka_nodes
            self._content = self.context.platform.managed_kafka(
                kafka_managed.topics(self.settings, nodes),
                kafka_managed.users(self.settings, self.context.demands),
            )
            self.ready += [*self._managed.ready, *self._content.ready]
            return
        self._hosts = [f"{self.hostname}-{node}" for node in self._nodes]
        self._bootstrap = [f"{host}:{_CLIENT}" for host in self._hosts]
        self._cluster_id = random.RandomId(
            f"{self.hostname}-cluster-id", byte_length=16, opts=child_opts(self)
        ).b64_url
        brokers: list[Deployment] = [self.deploy(self._broker(node)) for node in self._nodes]
        # A cluster on volumes that somebody emptied has none of it: every new container gets the job.
        instances = [instance for broker in brokers for instance in broker.instances]
        done = self.run(self._setup(instances), after=[r for broker in brokers for r in broker.ready])
        if self.settings.console:
            # It has no login of its own: services that use Kafka must not reach it past the proxy.
            self.deploy(self._console(), after=[done], links=())

    def credential_outputs(self) -> Mapping[str, pulumi.Output[str]]:
        """Passwords by user, whoever chose them."""
        return super().credential_outputs() if self._content is None else self._content.passwords

    def connect(self, demand: Demand) -> KafkaConnection:
        """The consumer's user."""
        return self._connection(demand.consumer, demand.consumer)

    @classmethod
    def logins(cls, settings: KafkaSettings) -> Mapping[str, Sequence[str]]:
        """The declared users."""
        return {user.name: () for user in settings.users}

    def login(self, login: Login) -> KafkaConnection:
        """A declared user, with the first of its consumer groups."""
        (user,) = (user for user in self.settings.users if user.name == login.user)
        groups = user.group_patterns or (user.name,)
        return self._connection(user.name, groups[0].removesuffix("*"))

    def connections(self) -> Mapping[str, Any]:
        """Where clients find the brokers, how they log in, and what each user may do."""
        out: dict[str, Any] = {
            "bootstrap": self._addresses,
            "security_protocol": "SASL_SSL",
            "sasl_mechanism": "SCRAM-SHA-512" if self._managed is None else _MANAGED_MECHANISM,
            "users": {
                user.name: {
                    "password": self._password(user.name),
                    "read": list(user.read),
                    "write": list(user.write),
                    "groups": list(user.groups),
                }
                for user in planned_users(self.settings, self.context.demands)
            },
            "topics": [topic.name for topic in self.settings.topics],
        }
        if self.settings.loopback_port:
            out["loopback"] = ",".join(f"localhost:{self._loopback(node)}" for node in self._nodes)
        return out

    # -- parts

    def _connection(self, user: str, group: str) -> KafkaConnection:
        own = self.context.platform.authority.certificate
        if self._managed is not None:
            return KafkaConnection(
                scheme="kafka",
                host=self._managed.host,
                port=self._managed.port,
                user=user,
                password=self._password(user),
                bootstrap=self._addresses,
                group=group,
                sasl_mechanism=_MANAGED_MECHANISM,
                # The platform's too: many a client has one file for all servers.
                ca_certificate=pulumi.Output.concat(own, self._managed.ca_certificate),
            )
        return KafkaConnection(
            scheme="kafka",
            host=self._hosts[0],
            port=_CLIENT,
            user=user,
            password=self._password(user),
            bootstrap=self._addresses,
            group=group,
            ca_certificate=own,
        )

    def _password(self, user: str) -> Secret:
        return self.credential(user).password if self._content is None else self._content.passwords[user]

    @property
    def _addresses(self) -> pulumi.Input[str]:
        if self._managed is None:
            return ",".join(self._bootstrap)
        return pulumi.Output.concat(
            self._managed.host, ":", pulumi.Output.from_input(self._managed.port).apply(str)
        )

    @property
    def _nodes(self) -> range:
        return range(1, self.settings.brokers + 1)

    def _loopback(self, node: int) -> int | None:
        first = self.settings.loopback_port
        return first + node - 1 if first else None

    def _broker(self, node: int) -> Workload:
        host = self._hosts[node - 1]
        # Its own name as client makes it one of the brokers for the others.
        certificate = self.certificate(f"{node}-broker", names=[host], client=_BROKER_NAME)
        voters = [name for name in self._hosts[: controllers(self.settings.brokers)] if name != host]
        return Workload(
            name=str(node),
            image="kafka",
            command=("bash", f"{_FOLDER}/start.sh"),
            user=_UID,
            env={
                "FOLDER": _FOLDER,
                "DATA": _DATA,
                "CLUSTER_ID": self._cluster_id,
                "NODE": str(node),
                "BROKERS": str(self.settings.brokers),
                "PEERS": " ".join(f"{name}:{_BROKER}" for name in voters),
                "HEAP_MIB": str(heap_mib(self.settings.memory_mib)),
                # For the probe.
                "HOST_NAME": host,
                "PROBE_PORT": str(_BROKER),
                "CA_FILE": f"{TLS_FOLDER}/ca.crt",
            },
            files=(
                ca_file(certificate.authority.certificate),
                File(path=f"{_FOLDER}/start.sh", content=render("kafka/start.sh")),
                File(path=f"{_FOLDER}/probe.sh", content=render("kafka/probe.sh")),
                File(path=f"{_FOLDER}/log4j2.yaml", content=render("kafka/log4j2.yaml")),
                File(path=f"{_FOLDER}/server.properties", content=self._properties(node, host)),
                File(path=f"{_FOLDER}/broker.pem", content=_key_store(certificate), secret=True),
            ),
            volumes=(Volume(name="data", path=_DATA),),
            endpoints=(
                Endpoint(name="client", port=_CLIENT, scheme=Scheme.TLS),
                *(
                    (
                        Endpoint(
                            name="loopback",
                            port=_LOOPBACK,
                            scheme=Scheme.TLS,
                            loopback_port=self._loopback(node),
                        ),
                    )
                    if self.settings.loopback_port
                    else ()
                ),
                Endpoint(name="broker", port=_BROKER, scheme=Scheme.TLS),
                *(
                    (Endpoint(name="controller", port=_CONTROLLER, scheme=Scheme.TLS),)
                    if node <= controllers(self.settings.brokers)
                    else ()
                ),
            ),
            probe=Probe(command=("bash", f"{_FOLDER}/probe.sh")),
            limits=self.settings.limits,
            # It hands its partitions over to others before it goes.
            stop_grace_s=60,
        )

    def _properties(self, node: int, host: str) -> str:
        brokers = self.settings.brokers
        votes = node <= controllers(brokers)
        listeners = {"CLIENT": _CLIENT, "BROKER": _BROKER}
        advertised = {"CLIENT": f"{host}:{_CLIENT}", "BROKER": f"{host}:{_BROKER}"}
        if self.settings.loopback_port:
            listeners["LOOPBACK"] = _LOOPBACK
            advertised["LOOPBACK"] = f"localhost:{self._loopback(node)}"
        if votes:
            listeners["CONTROLLER"] = _CONTROLLER
            advertised["CONTROLLER"] = f"{host}:{_CONTROLLER}"
        return render(
            "kafka/server.properties.j2",
            node=node,
            controller=votes,
            data=_DATA,
            folder=_FOLDER,
            tls_folder=TLS_FOLDER,
            listeners=listeners,
            advertised=advertised,
            controllers=[f"{name}:{_CONTROLLER}" for name in self._hosts[: controllers(brokers)]],
            super_users=[f"User:CN={name}" for name in (_BROKER_NAME, _ADMIN_NAME)],
            replication=min(3, brokers),
            min_isr=2 if brokers >= 3 else 1,
            dedupe_mib=max(8, heap_mib(self.settings.memory_mib) // 16),
        )

    def _setup(self, triggers: Sequence[pulumi.Output[str]]) -> Job:
        admin = self.certificate("admin", client=_ADMIN_NAME)
        bootstrap = [f"{host}:{_BROKER}" for host in self._hosts]
        return Job(
            name="setup",
            image="kafka-setup",
            command=(
                "/opt/kafka-setup/bin/python",
                "/opt/kafka-setup/app/setup.py",
                f"{_FOLDER}/plan.json",
                f"{_FOLDER}/passwords.json",
            ),
            user=_SETUP_UID,
            files=(
                ca_file(admin.authority.certificate),
                File(path=f"{TLS_FOLDER}/client.crt", content=admin.certificate),
                File(path=f"{TLS_FOLDER}/client.key", content=admin.key, secret=True),
                File(
                    path=f"{_FOLDER}/plan.json",
                    content=plan_json(self.settings, self.context.demands, bootstrap),
                ),
                File(path=f"{_FOLDER}/passwords.json", content=self._passwords(), secret=True),
            ),
            limits=Limits(memory_mib=128, cpus=self.settings.cpus),
            triggers=tuple(triggers),
            # Copies of a topic that gets more of them are made before it ends.
            timeout_s=900,
        )

    def _passwords(self) -> pulumi.Output[str]:
        names = user_names(self.settings, self.context.demands)
        passwords = pulumi.Output.all(*(self.credential(name).password for name in names))
        return pulumi.Output.secret(
            passwords.apply(lambda found: json.dumps(dict(zip(names, found, strict=True))) + "\n")
        )

    def _console(self) -> Workload:
        config = self.credential(CONSOLE).password.apply(
            lambda password: render(
                "kafka/console.yaml.j2",
                bootstrap=self._bootstrap,
                user=CONSOLE,
                password=password,
                tls_folder=TLS_FOLDER,
                port=_CONSOLE_PORT,
            )
        )
        route = Route(
            host=self.hostname,
            access=self.settings.console_access,
            title="Kafka",
            purpose="Browse topics, messages and consumer groups",
            group=Group.DATA,
        )
        return Workload(
            name="console",
            image="redpanda-console",
            command=("/app/console", f"-config.filepath={_CONSOLE_FOLDER}/config.yaml"),
            user=_CONSOLE_UID,
            files=(
                ca_file(self.context.platform.authority.certificate),
                File(
                    path=f"{_CONSOLE_FOLDER}/config.yaml", content=pulumi.Output.secret(config), secret=True
                ),
            ),
            endpoints=(Endpoint(name="http", port=_CONSOLE_PORT, scheme=Scheme.HTTP, route=route),),
            # It serves pages only once it has reached the brokers.
            probe=Probe(
                command=("wget", "-q", "-O", "/dev/null", f"http://127.0.0.1:{_CONSOLE_PORT}/admin/startup")
            ),
            limits=Limits(memory_mib=256, cpus=self.settings.cpus),
        )


def _key_store(certificate: Certificate) -> pulumi.Output[str]:
    """Key and certificate in one PEM file, as Kafka reads them."""
    both = pulumi.Output.all(certificate.key, certificate.certificate)
    return pulumi.Output.secret(both.apply(lambda parts: "\n".join(part.strip() for part in parts) + "\n"))
