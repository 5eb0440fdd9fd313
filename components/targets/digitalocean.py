"""The host of a platform at DigitalOcean: what comes before the Docker target there.

What changes what (terraform-provider-digitalocean, resource_droplet.go and its neighbours): another image,
VPC, SSH key or user data replaces the Droplet; another size turns it off and on; volume, reserved address and
DNS zone are resources of their own and stay.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pulumi
import pulumi_digitalocean as do
import pulumi_tls as tls

from components.managed import (
    ManagedBucket,
    ManagedContent,
    ManagedServer,
    ManagedStore,
    ManagedStoreUser,
    ManagedTopic,
    ManagedUser,
)
from components.options import child_opts
from components.settings import DigitalOceanTarget, Settings
from components.targets.digitalocean_cloud_init import DATA, USER, device_name, user_data
from components.targets.digitalocean_databases import Databases
from components.targets.digitalocean_spaces import spaces
from components.targets.docker_host import EngineHost, ssh_host, stop_host
from components.targets.docker_resources import HostReady, Kept, MillraceProvider
from components.targets.names import name_prefix

_SSH_PORT = 22
_TTL_S = 300
_READY_S = 1800
"""A Droplet's first start: minutes for the upgrade of its packages, up to 15 for the volume."""
_WORLD = ("0.0.0.0/0", "::/0")
_LABEL = "millrace"


class DigitalOceanHost(pulumi.ComponentResource):
    """A Droplet with a Docker engine whose data is on a volume, behind a fixed address and a firewall.

    ``engine`` is how the Docker target reaches it; its providers wait until the host is set up.
    """

    def __init__(
        self, settings: Settings, target: DigitalOceanTarget, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("millrace:digitalocean:Host", "digitalocean", None, opts)
        self._settings, self._target = settings, target
        # Volumes have the strictest rule for names: lower-case letters, digits, hyphens, 64 at most.
        self.name = name_prefix(pulumi.get_project(), pulumi.get_stack())[:60].rstrip("-")
        self.vpc = do.Vpc(
            "vpc", name=self.name, region=target.region, ip_range=target.vpc_range, opts=child_opts(self)
        )
        self._tag = do.Tag("tag", name=self.name, opts=child_opts(self))
        self._login, self._host_key = self._keys()
        firewall = self._firewall()
        self.volume = self._volume()
        self.droplet = self._droplet(firewall)
        self.address = do.ReservedIp(
            "address", region=target.region, droplet_id=self.droplet.id.apply(int), opts=self._kept()
        )
        attachment = do.VolumeAttachment(
            "data-attachment",
            droplet_id=self.droplet.id.apply(int),
            volume_id=self.volume.id,
            # A volume is attached to one Droplet at a time.
            opts=child_opts(self, delete_before_replace=True),
        )
        ready = self._ready(attachment)
        self.engine = self._engine_host(ready)
        members = [self.droplet.droplet_urn, self.volume.volume_urn, self.address.reserved_ip_urn]
        members += self._dns()
        self._alerts()
        self._members = members
        self._databases = Databases(
            parent=self, target=target, name=self.name, vpc=self.vpc, droplet=self.droplet
        )
        self.register_outputs({})

    def outputs(self) -> Mapping[str, Any]:
        """The stack output ``host``: its address, and what an SSH client needs to log in."""
        return {
            "address": self.address.ip_address,
            "user": USER,
            "host_key": self._host_key.public_key_openssh.apply(str.strip),
            "private_key": pulumi.Output.secret(self._login.private_key_openssh),
            "private_network": self.droplet.ipv4_address_private,
        }

    def server(self, key: str) -> ManagedServer | None:
        """A managed cluster in place of a service's containers."""
        return self._databases.server(key)

    def kafka(self, topics: Sequence[ManagedTopic], users: Sequence[ManagedUser]) -> ManagedContent:
        """Topics and users of the managed Kafka cluster."""
        return self._databases.kafka(topics, users)

    def store(self, buckets: Sequence[ManagedBucket], users: Sequence[ManagedStoreUser]) -> ManagedStore:
        """Buckets in Spaces, and a key for each user."""
        made, urns = spaces(self, self._target, buckets, users)
        self._members += urns
        return made

    def finish(self) -> None:
        """Put everything into a DigitalOcean project, once services have added what is theirs."""
        do.Project(
            "project",
            name=self.name,
            description=f"Millrace stack {pulumi.get_stack()}",
            purpose="Service or API",
            resources=[*self._members, *self._databases.members],
            opts=child_opts(self),
        )

    # -- parts

    def _kept(self, ignore_changes: Sequence[str] = ()) -> pulumi.ResourceOptions:
        """Options of what outlives the Droplet."""
        return child_opts(self, protect=self._target.protect, ignore_changes=list(ignore_changes) or None)

    def _keys(self) -> tuple[tls.PrivateKey, tls.PrivateKey]:
        """The key that logs in and the server's own: who connects first knows whom to expect."""
        secret = ["privateKeyOpenssh", "privateKeyPem", "privateKeyPemPkcs8"]
        login, host = (
            tls.PrivateKey(name, algorithm="ED25519", opts=child_opts(self, additional_secret_outputs=secret))
            for name in ("ssh-login-key", "ssh-host-key")
        )
        return login, host

    def _firewall(self) -> do.Firewall:
        """In front of the Droplet, where Docker's own rules do not count. By tag: it comes first."""
        web = [
            do.FirewallInboundRuleArgs(protocol="tcp", port_range=str(port), source_addresses=list(_WORLD))
            for port in (self._settings.proxy.http_port, self._settings.proxy.https_port)
        ]
        ssh = do.FirewallInboundRuleArgs(
            protocol="tcp", port_range=str(_SSH_PORT), source_addresses=list(self._target.ssh_networks)
        )
        outbound = [
            do.FirewallOutboundRuleArgs(
                protocol=protocol, port_range=ports, destination_addresses=list(_WORLD)
            )
            for protocol, ports in (("tcp", "1-65535"), ("udp", "1-65535"), ("icmp", None))
        ]
        return do.Firewall(
            "firewall",
            name=self.name,
            tags=[self._tag.name],
            inbound_rules=[*web, ssh],
            outbound_rules=outbound,
            opts=child_opts(self),
        )

    def _volume(self) -> do.Volume:
        """Formatted by DigitalOcean when it is made, by nobody ever after."""
        return do.Volume(
            "data",
            name=self.name,
            region=self._target.region,
            size=self._target.volume_gib,
            initial_filesystem_type="ext4",
            initial_filesystem_label=_LABEL,
            # They say how it was made; another word here must not make another volume.
            opts=self._kept(ignore_changes=["initialFilesystemType", "initialFilesystemLabel"]),
        )

    def _droplet(self, firewall: do.Firewall) -> do.Droplet:
        target = self._target
        key = do.SshKey(
            "ssh-key",
            name=self.name,
            public_key=self._login.public_key_openssh.apply(str.strip),
            opts=child_opts(self),
        )
        made = pulumi.Output.all(
            self._login.public_key_openssh,
            self._host_key.private_key_openssh,
            self._host_key.public_key_openssh,
        ).apply(
            lambda keys: user_data(
                target, volume=self.name, login_key=keys[0], host_key=keys[1], host_public_key=keys[2]
            )
        )
        # A newer program, or another hour for reboots, must not replace the host; with whatever does, it gets
        # the present data.
        until = json.dumps([target.region, target.image, target.revision])
        kept = Kept(
            "user-data",
            value=made,
            until=pulumi.Output.all(until, self._host_key.id, self._login.id).apply(json.dumps),
            opts=child_opts(
                self, provider=self._local_provider(), additional_secret_outputs=["value", "kept"]
            ),
        )
        data: pulumi.Output[str] = pulumi.Output.secret(kept.kept)
        policy = do.DropletBackupPolicyArgs(plan=target.backups, hour=4) if target.backups else None
        return do.Droplet(
            "droplet",
            name=self.name,
            region=target.region,
            size=target.size,
            image=target.image,
            vpc_uuid=self.vpc.id,
            ssh_keys=[key.id],
            user_data=data,
            tags=[self._tag.name],
            monitoring=True,
            droplet_agent=False,
            ipv6=False,
            backups=target.backups is not None,
            backup_policy=policy,
            # Its own disk keeps its size, so that sizes can be changed both ways; data is on the volume.
            resize_disk=False,
            graceful_shutdown=True,
            opts=child_opts(
                self,
                depends_on=[firewall],
                # The volume serves one at a time, and what is on it must be at rest when it changes hands.
                delete_before_replace=True,
                hooks=pulumi.ResourceHookBinding(before_update=[self._stop_hook()]),
            ),
        )

    def _stop_hook(self) -> pulumi.ResourceHook:
        """Before another size: the provider turns the Droplet off as by a power cut."""
        known: dict[str, str] = {}
        keys = pulumi.Output.all(
            login=self._login.private_key_openssh, host=self._host_key.public_key_openssh
        )
        keys.apply(known.update)

        def stop(args: pulumi.ResourceHookArgs) -> None:
            old, new = args.old_inputs or {}, args.new_inputs or {}
            # The reserved address comes after the Droplet in the program; its own is as good for this.
            address = (args.old_outputs or {}).get("ipv4Address")
            if old.get("size") != new.get("size") and address:
                problem = stop_host(
                    f"ssh://{USER}@{address}",
                    private_key=known["login"],
                    host_key=known["host"],
                    data=DATA,
                    device=device_name(self.name),
                )
                if problem:
                    pulumi.log.warn(f"{problem}; it will be turned off as by a power cut", self)

        return pulumi.ResourceHook("stop-before-resize", stop)

    def _local_provider(self) -> MillraceProvider:
        """For what needs no engine."""
        return MillraceProvider("digitalocean-extras", {"host": "unix:///nowhere"}, child_opts(self))

    def _engine_host(self, *ready: pulumi.Resource) -> EngineHost:
        return ssh_host(
            user=USER,
            address=self.address.ip_address,
            private_key=self._login.private_key_openssh,
            host_key=self._host_key.public_key_openssh,
            after=ready,
        )

    def _ready(self, attachment: do.VolumeAttachment) -> HostReady:
        target = self._target
        props = self._engine_host().millrace_props()
        return HostReady(
            "host-ready",
            host_id=self.droplet.id,
            data=DATA,
            device=device_name(self.name),
            asks_again={"size": target.size, "volumeGib": self.volume.size},
            deadline_s=_READY_S,
            opts=child_opts(
                self,
                provider=MillraceProvider("digitalocean-host", props, child_opts(self)),
                depends_on=[self.address, attachment],
            ),
        )

    def _dns(self) -> list[pulumi.Output[str]]:
        target, domain = self._target, self._settings.domain
        if target.dns == "none":
            return []
        zone = target.zone(domain)
        name = domain.removesuffix(zone).rstrip(".")
        made = do.Domain("dns-zone", name=zone, opts=self._kept()) if target.dns == "zone" else None
        for kind, record in (("apex", name or "@"), ("wildcard", f"*.{name}" if name else "*")):
            do.DnsRecord(
                f"dns-{kind}",
                domain=made.name if made else zone,
                type="A",
                name=record,
                value=self.address.ip_address,
                ttl=_TTL_S,
                opts=child_opts(self),
            )
        return [made.domain_urn] if made else []

    def _alerts(self) -> None:
        alerts = self._target.alerts
        if alerts is None:
            return
        limits = {
            "cpu": alerts.cpu_percent,
            "memory_utilization_percent": alerts.memory_percent,
            "disk_utilization_percent": alerts.disk_percent,
        }
        for kind, percent in limits.items():
            what = kind.partition("_")[0]
            do.MonitorAlert(
                f"alert-{what}",
                type=f"v1/insights/droplet/{kind}",
                description=f"{self.name}: {what} above {percent} %",
                compare="GreaterThan",
                value=percent,
                window=alerts.window,
                enabled=True,
                entities=[self.droplet.id],
                alerts=do.MonitorAlertAlertsArgs(emails=[alerts.email]),
                opts=child_opts(self),
            )
