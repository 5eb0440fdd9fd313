"""Resources of Millrace's own provider (``provider/``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pulumi

from components.workload import File, Job, Probe

LABEL_STACK = "dev.millrace.stack"
"""Label of everything on the engine: project and stack."""

LABEL_IDENTITY = "dev.millrace.identity"
"""Label of containers and networks: a random number of the state, so that two of one name stay apart."""


class MillraceProvider(pulumi.ProviderResource):
    """One Docker engine, by the props of :class:`components.targets.docker_host.EngineHost`."""

    def __init__(
        self, name: str, props: Mapping[str, pulumi.Input[str]], opts: pulumi.ResourceOptions
    ) -> None:
        super().__init__("millrace", name, dict(props), opts)


class Ready(pulumi.CustomResource):
    """A container whose probe has succeeded; see ``provider/millrace/ready.py``."""

    def __init__(
        self,
        name: str,
        *,
        container: pulumi.Input[str],
        service: str,
        probe: Probe,
        opts: pulumi.ResourceOptions,
    ) -> None:
        props = {
            "container": container,
            "service": service,
            "probe": list(probe.command),
            "timeout": probe.timeout_s,
            "deadline": probe.deadline_s,
        }
        super().__init__("millrace:docker:Ready", name, props, opts)


class JobRun(pulumi.CustomResource):
    """A job that ended with exit code 0; see ``provider/millrace/job.py``."""

    def __init__(
        self,
        name: str,
        *,
        container_name: str,
        image: pulumi.Input[str],
        service: str,
        job: Job,
        env: Mapping[str, pulumi.Input[str]],
        files: Sequence[File],
        tmpfs: Mapping[str, str],
        networks: Sequence[pulumi.Input[str]],
        volumes: Mapping[str, pulumi.Input[str]],
        labels: Mapping[str, pulumi.Input[str]],
        opts: pulumi.ResourceOptions,
    ) -> None:
        contents = [
            {"path": f.path, "content": f.content, "secret": f.secret, "executable": f.executable}
            for f in files
        ]
        props = {
            "name": container_name,
            "image": image,
            "service": service,
            "command": list(job.command),
            "uid": job.user,
            "env": dict(env),
            "files": pulumi.Output.secret(contents) if any(f.secret for f in files) else contents,
            "tmpfs": dict(tmpfs),
            "networks": list(networks),
            "volumes": dict(volumes),
            "labels": dict(labels),
            "memoryMib": job.limits.memory_mib,
            "cpus": job.limits.cpus,
            "timeout": job.timeout_s,
            "triggers": list(job.triggers),
        }
        super().__init__("millrace:docker:Job", name, props, opts)


class Image(pulumi.CustomResource):
    """An image on the engine; see ``provider/millrace/image.py``, also for ``how``."""

    image: pulumi.Output[str]

    def __init__(
        self,
        name: str,
        *,
        title: str,
        reference: str,
        how: Mapping[str, object],
        opts: pulumi.ResourceOptions,
    ) -> None:
        props = {"title": title, "reference": reference, "image": None, **how}
        super().__init__("millrace:docker:Image", name, props, opts)


class Network(pulumi.CustomResource):
    """A bridge network with a free address range; see ``provider/millrace/network.py``."""

    name: pulumi.Output[str]

    def __init__(
        self,
        name: str,
        *,
        network_name: str,
        pool: str,
        prefix: int,
        internal: bool,
        masquerade: bool,
        labels: Mapping[str, pulumi.Input[str]],
        opts: pulumi.ResourceOptions,
    ) -> None:
        props = {
            "name": network_name,
            "pool": pool,
            "prefix": prefix,
            "internal": internal,
            "masquerade": masquerade,
            "labels": dict(labels),
            "cidr": None,
        }
        super().__init__("millrace:docker:Network", name, props, opts)


class VolumeOwner(pulumi.CustomResource):
    """A volume that its user may write; see ``provider/millrace/volume_owner.py``."""

    def __init__(
        self,
        name: str,
        *,
        volume: pulumi.Input[str],
        uid: int,
        image: pulumi.Input[str],
        labels: Mapping[str, pulumi.Input[str]],
        opts: pulumi.ResourceOptions,
    ) -> None:
        props = {"volume": volume, "uid": uid, "image": image, "labels": dict(labels)}
        super().__init__("millrace:docker:VolumeOwner", name, props, opts)


class Former(pulumi.CustomResource):
    """What a secret value was before; see ``provider/millrace/former.py``."""

    former: pulumi.Output[list[str]]

    def __init__(
        self, name: str, *, value: pulumi.Input[str], keep: int, opts: pulumi.ResourceOptions
    ) -> None:
        props = {"value": pulumi.Output.secret(value), "keep": keep, "former": None}
        super().__init__("millrace:core:Former", name, props, opts)


class Kept(pulumi.CustomResource):
    """A value that stays until ``until`` changes; see ``provider/millrace/kept.py``."""

    kept: pulumi.Output[str]

    def __init__(
        self, name: str, *, value: pulumi.Input[str], until: pulumi.Input[str], opts: pulumi.ResourceOptions
    ) -> None:
        props = {"value": pulumi.Output.secret(value), "until": until, "kept": None}
        super().__init__("millrace:core:Kept", name, props, opts)


class HostReady(pulumi.CustomResource):
    """A host that is set up and whose engine answers; see ``provider/millrace/host.py``."""

    def __init__(
        self,
        name: str,
        *,
        host_id: pulumi.Input[str],
        data: str,
        device: str,
        asks_again: Mapping[str, pulumi.Input[object]],
        deadline_s: int,
        opts: pulumi.ResourceOptions,
    ) -> None:
        props: dict[str, pulumi.Input[object]] = {
            "hostId": host_id,
            "data": data,
            "device": device,
            "deadline": deadline_s,
            **asks_again,
        }
        super().__init__("millrace:host:Ready", name, props, opts)
