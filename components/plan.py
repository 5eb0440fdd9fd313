"""What a platform will run, found out before any of it is made: the services describe it to a target that
deploys nothing.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pulumi
from pulumi.runtime import mocks, settings
from pulumi.runtime.stack import run_in_stack
from typing_extensions import override

from components.options import child_opts
from components.settings import ImageSource, Settings
from components.targets import Deployment, Scope, Target, replica_hosts, workload_host
from components.workload import Job, Workload


@dataclass(frozen=True, kw_only=True)
class PlannedWorkload:
    """A workload of a service. ``hosts`` are its containers' names; ``source`` and ``image_override`` say
    which image it runs.
    """

    service: str
    hosts: tuple[str, ...]
    workload: Workload
    source: ImageSource
    image_override: str | None


@dataclass(frozen=True, kw_only=True)
class PlannedJob:
    """A job of a service."""

    service: str
    host: str
    job: Job
    source: ImageSource
    image_override: str | None


@dataclass(frozen=True)
class Plan:
    """All workloads and jobs of a platform, in the order in which the services describe them."""

    workloads: list[PlannedWorkload] = field(default_factory=list)
    jobs: list[PlannedJob] = field(default_factory=list)


def plan(platform: Settings) -> Plan:
    """The workloads and jobs of a platform with these settings; nothing is created, no engine is asked.

    The services run against a stand-in for Pulumi's engine. That happens in a thread and a context of its
    own, so that it can be done while a real program runs.
    """
    from components.platform import Platform

    found = _Notes()

    def program() -> None:
        Platform(platform, target=found)

    _apart(program)
    return found.plan


class _Notes(Target):
    """Writes down what it is given."""

    def __init__(self) -> None:
        self.plan = Plan()

    @override
    def deploy(self, scope: Scope, workload: Workload, after: Sequence[pulumi.Resource] = ()) -> Deployment:
        hosts = replica_hosts(workload_host(scope, workload), workload.replicas)
        self.plan.workloads.append(
            PlannedWorkload(
                service=scope.key,
                hosts=tuple(hosts),
                workload=workload,
                source=scope.source,
                image_override=scope.image,
            )
        )
        return Deployment(ready=[], hosts=hosts, instances=[pulumi.Output.from_input(host) for host in hosts])

    @override
    def run(self, scope: Scope, job: Job, after: Sequence[pulumi.Resource] = ()) -> pulumi.Resource:
        host = f"{scope.hostname}-{job.name.replace('_', '-')}"
        self.plan.jobs.append(
            PlannedJob(
                service=scope.key,
                host=host,
                job=job,
                source=scope.source,
                image_override=scope.image,
            )
        )
        return pulumi.ComponentResource("millrace:plan:Job", host, None, child_opts(scope.parent))

    @override
    def former(
        self, name: str, value: pulumi.Input[str], parent: pulumi.Resource
    ) -> pulumi.Output[list[str]]:
        return pulumi.Output.secret([])


class _Nothing(mocks.Mocks):
    """An engine that takes everything and makes nothing."""

    @override
    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str | None, dict[str, object]]:
        return args.name, dict(args.inputs)

    @override
    def call(self, args: mocks.MockCallArgs) -> tuple[dict[str, object], None]:
        return {}, None


def _apart(program: Callable[[], None]) -> None:
    """Run a program against nothing, apart from the one that may be running."""
    failed: list[BaseException] = []

    def isolated() -> None:
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        try:
            settings.SETTINGS.outputs, settings.SETTINGS.lock = set(), threading.Lock()
            project, stack = settings.get_project(), settings.get_stack()
            mocks.set_mocks(_Nothing(), project=project, stack=stack, preview=True)
            settings.set_root_resource(None)  # type: ignore[arg-type]
            loop.run_until_complete(run_in_stack(program))
        except BaseException as error:
            failed.append(error)
        finally:
            asyncio.set_event_loop(None)
            loop.close()

    thread = threading.Thread(target=contextvars.copy_context().run, args=(isolated,))
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
