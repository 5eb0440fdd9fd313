"""Managed database clusters of the DigitalOcean target."""

from __future__ import annotations

from collections.abc import Sequence

import pulumi
import pulumi_digitalocean as do

from components.connection import Secret
from components.digitalocean_settings import DigitalOceanTarget
from components.managed import ManagedContent, ManagedServer, ManagedTopic, ManagedUser
from components.options import child_opts

_ADMIN, _ADMIN_DATABASE = "doadmin", "defaultdb"


class Databases:
    """Makes each cluster once: in the platform's VPC, open to its Droplet and to nobody else."""

    def __init__(
        self,
        *,
        parent: pulumi.Resource,
        target: DigitalOceanTarget,
        name: str,
        vpc: do.Vpc,
        droplet: do.Droplet,
    ) -> None:
        self._parent, self._target, self._name = parent, target, name
        self._vpc, self._droplet = vpc, droplet
        self._made: dict[str, ManagedServer] = {}
        self.members: list[pulumi.Output[str]] = []

    def server(self, key: str) -> ManagedServer | None:
        """The cluster in place of a service's containers; None where the settings ask for none."""
        make = {"postgres": self._postgres, "kafka": self._kafka}.get(key)
        if make is not None and key not in self._made and key in self._target.managed:
            self._made[key] = make()
        return self._made.get(key)

    def kafka(self, topics: Sequence[ManagedTopic], users: Sequence[ManagedUser]) -> ManagedContent:
        """Topics and users of the Kafka cluster. Its passwords are DigitalOcean's own."""
        server = self.server("kafka")
        assert server is not None
        ready: list[pulumi.Resource] = []
        for topic in topics:
            config = {name.replace(".", "_"): value for name, value in topic.config.items()}
            ready.append(
                do.DatabaseKafkaTopic(
                    f"managed-kafka-topic-{topic.name}",
                    cluster_id=server.instance,
                    name=topic.name,
                    partition_count=topic.partitions,
                    replication_factor=topic.replication,
                    configs=[do.DatabaseKafkaTopicConfigArgs(**config)] if config else None,  # type: ignore[arg-type]
                    # Taken out of the settings, a topic keeps all it holds.
                    opts=child_opts(self._parent, retain_on_delete=True),
                )
            )
        passwords: dict[str, Secret] = {}
        for user in users:
            acls = [
                do.DatabaseUserSettingAclArgs(topic=topic, permission=permission)
                for topic, permission in user.permissions.items()
            ]
            made = do.DatabaseUser(
                f"managed-kafka-user-{user.name}",
                cluster_id=server.instance,
                name=user.name,
                settings=[do.DatabaseUserSettingArgs(acls=acls)],
                opts=child_opts(
                    self._parent, additional_secret_outputs=["password", "accessCert", "accessKey"]
                ),
            )
            ready.append(made)
            passwords[user.name] = pulumi.Output.secret(made.password)
        return ManagedContent(passwords=passwords, ready=ready)

    def _postgres(self) -> ManagedServer:
        wanted = self._target.postgres
        assert wanted is not None
        cluster = self._cluster(
            "postgres",
            engine="pg",
            version=wanted.version,
            size=wanted.size,
            nodes=wanted.nodes,
            storage_gib=wanted.storage_gib,
        )
        return self._as_server("postgres", cluster)

    def _kafka(self) -> ManagedServer:
        wanted = self._target.kafka
        assert wanted is not None
        cluster = self._cluster(
            "kafka",
            engine="kafka",
            version=wanted.version,
            size=wanted.size,
            nodes=wanted.nodes,
            storage_gib=None,
        )
        return self._as_server("kafka", cluster)

    def _cluster(
        self, name: str, *, engine: str, version: str, size: str, nodes: int, storage_gib: int | None
    ) -> do.DatabaseCluster:
        cluster = do.DatabaseCluster(
            f"managed-{name}",
            name=f"{self._name}-{name}",
            engine=engine,
            version=version,
            size=size,
            node_count=nodes,
            region=self._target.region,
            private_network_uuid=self._vpc.id,
            storage_size_mib=str(storage_gib * 1024) if storage_gib else None,
            opts=child_opts(
                self._parent,
                protect=self._target.protect,
                additional_secret_outputs=["password", "uri", "privateUri"],
            ),
        )
        self.members.append(cluster.cluster_urn)
        return cluster

    def _as_server(self, name: str, cluster: do.DatabaseCluster) -> ManagedServer:
        firewall = do.DatabaseFirewall(
            f"managed-{name}-firewall",
            cluster_id=cluster.id,
            rules=[do.DatabaseFirewallRuleArgs(type="droplet", value=self._droplet.id)],
            opts=child_opts(self._parent),
        )
        ca = do.get_database_ca_output(
            cluster_id=cluster.id, opts=pulumi.InvokeOutputOptions(parent=self._parent)
        )
        return ManagedServer(
            host=cluster.private_host,
            port=cluster.port.apply(int),
            user=_ADMIN,
            password=pulumi.Output.secret(cluster.password),
            database=_ADMIN_DATABASE,
            ca_certificate=ca.certificate,
            ready=[cluster, firewall],
            instance=cluster.id,
        )
