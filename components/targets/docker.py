"""The Docker target: containers on one engine, local or reached over TCP with TLS or SSH."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pulumi
import pulumi_docker as docker
import pulumi_random as random
from typing_extensions import override

from components import ca_bundle
from components.options import child_opts
from components.settings import Settings
from components.targets import Deployment, Scope, Target, replica_hosts, workload_host
from components.targets.docker_hooks import DockerHooks
from components.targets.docker_host import EngineHost, named_engine, of_settings
from components.targets.docker_images import DockerImages
from components.targets.docker_networks import DockerNetworks
from components.targets.docker_resources import (
    LABEL_IDENTITY,
    LABEL_STACK,
    Former,
    JobRun,
    MillraceProvider,
    Ready,
    VolumeOwner,
)
from components.targets.names import name_prefix
from components.workload import File, Job, Limits, Volume, Workload

LABEL_SERVICE = "dev.millrace.service"
LABEL_WORKLOAD = "dev.millrace.workload"
LABEL_DATA = "dev.millrace.data"
"""``false`` on a volume that holds nothing but what can be made again; the summary of a preview reads it."""

_ANY, _LOOPBACK = "0.0.0.0", "127.0.0.1"

_CA_BUNDLE = "/etc/millrace/ca-bundle.crt"
# Every runtime reads another one: OpenSSL and Go, Python requests, curl, Node.js, AWS SDKs.
_CA_VARIABLES = (
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "NODE_EXTRA_CA_CERTS",
    "AWS_CA_BUNDLE",
)

_TMP = "/tmp"
_TMPFS = "rw,noexec,nosuid,nodev,size=64m,mode=1777"
_FORMER = 5
_FILE_MODE = {(False, False): "0444", (False, True): "0555", (True, False): "0440", (True, True): "0550"}


class DockerTarget(pulumi.ComponentResource, Target):
    """Networks, images, volumes and containers of a platform on one Docker engine.

    Everything is named ``<project>-<stack>-…`` and labelled with stack and service, so that stacks share an
    engine without touching each other. The containers' parents are their services; images and networks
    belong to this component.
    """

    def __init__(
        self,
        settings: Settings,
        opts: pulumi.ResourceOptions | None = None,
        *,
        host: EngineHost | None = None,
    ) -> None:
        """``host`` is the engine, when it is not the one that the settings name."""
        super().__init__("millrace:docker:Target", "docker", None, opts)
        self._settings = settings
        self.prefix = name_prefix(pulumi.get_project(), pulumi.get_stack())
        self.stack_label = f"{pulumi.get_project()}/{pulumi.get_stack()}"
        host = host or of_settings(named_engine(settings))
        props = host.millrace_props()
        gated = child_opts(self, depends_on=host.after)
        self._docker = docker.Provider("docker-engine", **host.docker_args(), opts=gated)
        self._millrace = MillraceProvider("docker-engine-extras", props, gated)
        self._identity = random.RandomId("docker-identity", byte_length=8, opts=child_opts(self)).hex
        self._networks = DockerNetworks(
            parent=self,
            millrace_provider=self._millrace,
            prefix=self.prefix,
            pool=settings.network.pool,
            labels=self._owned("network"),
            managed=settings.managed,
        )
        self.images = DockerImages(
            parent=self,
            provider=self._millrace,
            registry=settings.registry,
            build_args=settings.package_mirrors.build_args,
        )
        self._hooks = DockerHooks(props)
        self._ca_bundle = ca_bundle.combined(settings.ca_bundle)
        ca_bundle.place_for_builds(settings.ca_bundle)
        self._volumes_made: dict[str, tuple[docker.Volume, pulumi.Resource]] = {}
        self.register_outputs({})

    # -- Target

    @override
    def deploy(self, scope: Scope, workload: Workload, after: Sequence[pulumi.Resource] = ()) -> Deployment:
        image = self.images.image(workload.image, scope.source, scope.image)
        host = workload_host(scope, workload)
        hosts = replica_hosts(host, workload.replicas)
        published = any(e.loopback_port or e.public_port for e in workload.endpoints)
        networks = self._networks.of(scope, outside=published or workload.egress, egress=workload.egress)
        ready: list[pulumi.Resource] = []
        instances: list[pulumi.Output[str]] = []
        for index, name in enumerate(hosts):
            volumes = self._volumes(scope, workload, name, image)
            container = self._container(scope, workload, index, host, image, networks, volumes, after)
            instances.append(container.id)
            ready.append(
                Ready(
                    f"{name}-ready",
                    container=container.id,
                    service=name,
                    probe=replace(workload.probe, deadline_s=self._scaled(workload.probe.deadline_s)),
                    opts=child_opts(
                        scope.parent, provider=self._millrace, deleted_with=container, depends_on=[container]
                    ),
                )
            )
        return Deployment(ready=ready, hosts=hosts, instances=instances)

    @override
    def run(self, scope: Scope, job: Job, after: Sequence[pulumi.Resource] = ()) -> pulumi.Resource:
        image = self.images.image(job.image, scope.source, scope.image)
        name = f"{scope.hostname}-{job.name.replace('_', '-')}"
        networks = self._networks.of(scope, outside=job.egress, egress=job.egress)
        volumes = [(v, *self._volumes_made[f"{v.of}-{v.name}"]) for v in job.volumes]
        return JobRun(
            name,
            container_name=f"{self.prefix}-{name}",
            image=image,
            service=scope.hostname,
            job=replace(job, timeout_s=self._scaled(job.timeout_s)),
            env=self._env(job.env, egress=job.egress),
            files=self._files(job.files, egress=job.egress),
            tmpfs=_tmpfs(job.tmpfs),
            networks=networks,
            volumes={volume.path: resource.name for volume, resource, _ in volumes},
            labels=self._owned(scope.key, job.name),
            opts=child_opts(
                scope.parent,
                provider=self._millrace,
                depends_on=[*after, *(owner for _, _, owner in volumes)],
            ),
        )

    @override
    def former(
        self, name: str, value: pulumi.Input[str], parent: pulumi.Resource
    ) -> pulumi.Output[list[str]]:
        opts = child_opts(parent, provider=self._millrace, additional_secret_outputs=["value", "former"])
        return pulumi.Output.secret(Former(name, value=value, keep=_FORMER, opts=opts).former)

    # -- parts of a container

    def _container(
        self,
        scope: Scope,
        workload: Workload,
        index: int,
        host: str,
        image: pulumi.Output[str],
        networks: Sequence[pulumi.Input[str]],
        volumes: Sequence[tuple[Volume, docker.Volume, pulumi.Resource]],
        after: Sequence[pulumi.Resource],
    ) -> docker.Container:
        name = replica_hosts(host, workload.replicas)[index]
        probe = workload.probe
        memory = workload.limits.memory_mib
        files = self._files(workload.files, egress=workload.egress)
        uploads = [
            docker.ContainerUploadArgs(
                file=file.path, content=file.content, permissions=_FILE_MODE[file.secret, file.executable]
            )
            for file in files
        ]
        return docker.Container(
            name,
            name=f"{self.prefix}-{name}",
            image=image,
            entrypoints=list(workload.command),
            envs=[
                pulumi.Output.concat(key, "=", value)
                for key, value in sorted(self._env(workload.env, egress=workload.egress).items())
            ],
            user=str(workload.user),
            # Secret files are root's and readable by its group; no other account of the container is in it.
            group_adds=["0"],
            # The engine adds this name with each address to /etc/hosts, and lookups would prefer those.
            hostname=f"{name}-host" if workload.binds_own_name else name,
            hosts=[docker.ContainerHostArgs(host=alias, ip=_ANY) for alias in sorted({host, name})]
            if workload.binds_own_name
            else None,
            init=True,
            # "unless-stopped" leaves them down when the daemon was killed: to the next one they were stopped.
            restart="always",
            memory=memory,
            memory_swap=memory,
            cpus=_cpus(workload.limits),
            capabilities=docker.ContainerCapabilitiesArgs(drops=["ALL"]),
            security_opts=["no-new-privileges:true"],
            tmpfs=_tmpfs(workload.tmpfs),
            shm_size=workload.shm_mib,
            stop_signal=workload.stop_signal,
            stop_timeout=workload.stop_grace_s,
            destroy_grace_seconds=workload.stop_grace_s,
            log_driver="json-file",
            log_opts={"max-size": "10m", "max-file": "3"},
            healthcheck=docker.ContainerHealthcheckArgs(
                tests=["CMD", *probe.command],
                interval=_duration(probe.interval_s),
                timeout=_duration(probe.timeout_s),
                start_period=_duration(probe.deadline_s),
                retries=3,
            ),
            labels=[
                docker.ContainerLabelArgs(label=key, value=value)
                for key, value in self._owned(scope.key, name).items()
            ],
            network_mode="bridge",
            networks_advanced=[
                docker.ContainerNetworksAdvancedArgs(name=network, aliases=sorted({host, name}))
                for network in networks
            ],
            ports=[
                docker.ContainerPortArgs(
                    internal=endpoint.port,
                    external=(endpoint.public_port or endpoint.loopback_port or 0) + index,
                    ip=_ANY if endpoint.public_port else _LOOPBACK,
                    protocol="tcp",
                )
                for endpoint in workload.endpoints
                if endpoint.public_port or endpoint.loopback_port
            ]
            or None,
            volumes=[
                docker.ContainerVolumeArgs(
                    volume_name=resource.name, container_path=volume.path, read_only=volume.read_only
                )
                for volume, resource, _ in volumes
            ]
            or None,
            uploads=pulumi.Output.secret(uploads) if any(f.secret for f in files) else uploads or None,
            must_run=True,
            opts=child_opts(
                scope.parent,
                provider=self._docker,
                depends_on=[*after, *(owner for _, _, owner in volumes)],
                # Names and ports are taken until the old one is gone (pulumi-docker#1356).
                delete_before_replace=True,
                # An edited probe is otherwise saved but never applied (terraform-provider-docker#988).
                replace_on_changes=["healthcheck", "tmpfs", "init", "cpus"],
                # An output in the random order of a Go map: a refresh would report it as drift.
                ignore_changes=["networkDatas"],
                hooks=self._hooks.of_container,
            ),
        )

    def _volumes(
        self, scope: Scope, workload: Workload, name: str, image: pulumi.Output[str]
    ) -> list[tuple[Volume, docker.Volume, pulumi.Resource]]:
        made: list[tuple[Volume, docker.Volume, pulumi.Resource]] = []
        for volume in workload.volumes:
            if volume.of is not None:
                made.append((volume, *self._volumes_made[f"{volume.of}-{volume.name}"]))
                continue
            resource_name = f"{name}-{volume.name}"
            keep = volume.data and self._settings.protect_data
            resource = docker.Volume(
                resource_name,
                name=f"{self.prefix}-{resource_name}",
                labels=[
                    docker.VolumeLabelArgs(label=key, value=value)
                    for key, value in {
                        **self._labels(scope.key, name),
                        **({} if volume.data else {LABEL_DATA: "false"}),
                    }.items()
                ],
                opts=child_opts(
                    scope.parent,
                    provider=self._docker,
                    protect=keep,
                    retain_on_delete=keep,
                    # The engine cannot relabel a volume: another label would replace it, data and all.
                    ignore_changes=["labels"],
                    hooks=self._hooks.of_volume,
                ),
            )
            owner = VolumeOwner(
                f"{resource_name}-owner",
                volume=resource.name,
                uid=workload.user,
                image=image,
                labels=self._labels(scope.key, name),
                opts=child_opts(scope.parent, provider=self._millrace, deleted_with=resource),
            )
            self._volumes_made[resource_name] = (resource, owner)
            made.append((volume, resource, owner))
        return made

    def _env(self, own: Mapping[str, pulumi.Input[str]], *, egress: bool) -> dict[str, pulumi.Input[str]]:
        env: dict[str, pulumi.Input[str]] = {"TZ": self._settings.time_zone}
        if egress and self._ca_bundle:
            env |= dict.fromkeys(_CA_VARIABLES, _CA_BUNDLE)
        return env | dict(own)

    def _files(self, own: Sequence[File], *, egress: bool) -> list[File]:
        files = list(own)
        if egress and self._ca_bundle:
            files.append(File(path=_CA_BUNDLE, content=self._ca_bundle))
        return files

    def _scaled(self, seconds: int) -> int:
        return math.ceil(seconds * self._settings.timeout_scale)

    def _owned(self, service: str, workload: str | None = None) -> dict[str, pulumi.Input[str]]:
        """Labels of what an interrupted update may leave behind and the next one clear away."""
        return {**self._labels(service, workload), LABEL_IDENTITY: self._identity}

    def _labels(self, service: str, workload: str | None = None) -> dict[str, str]:
        labels = {LABEL_STACK: self.stack_label, LABEL_SERVICE: service}
        return labels | ({LABEL_WORKLOAD: workload} if workload else {})


def _duration(seconds: int) -> str:
    # As Go writes durations, and the provider reads them back: 1m0s, not 60s.
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if hours or minutes else "") + f"{rest}s"


def _cpus(limits: Limits) -> str:
    # Exactly what the provider reads back (helpers.go, nanoInt64ToDecimalString): another form would be
    # a change at every refresh.
    text = f"{limits.cpus:.9f}"
    return f"{limits.cpus:.1f}" if text.count("0") == 9 else text.rstrip("0")


def _tmpfs(extra: Sequence[str]) -> dict[str, str]:
    return dict.fromkeys((_TMP, *extra), _TMPFS)
