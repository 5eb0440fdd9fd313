"""Targets: where a platform runs. A target turns workloads and jobs into resources."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import pulumi

from components.settings import ImageSource
from components.workload import Job, Workload


@dataclass(frozen=True, kw_only=True)
class Scope:
    """The service on whose behalf a target deploys.

    ``hostname`` is the service's DNS name, ``links`` are the pairs (consumer, provider) of service keys it
    takes part in: it shares a network with each partner and with nobody else.
    """

    key: str
    hostname: str
    parent: pulumi.Resource
    links: Sequence[tuple[str, str]]
    source: ImageSource
    image: str | None = None


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """A deployed workload: ``ready`` is what dependants wait for, ``hosts`` its DNS names by replica.

    ``instances`` are the ids of what runs; another one means a new start, for jobs that must follow it.
    """

    ready: Sequence[pulumi.Resource]
    hosts: Sequence[str]
    instances: Sequence[pulumi.Output[str]]


class Target(ABC):
    """Deploys workloads and runs jobs; knows how services find each other."""

    @abstractmethod
    def deploy(self, scope: Scope, workload: Workload, after: Sequence[pulumi.Resource] = ()) -> Deployment:
        """Start a workload once ``after`` is done; ready when its probe succeeds."""

    @abstractmethod
    def run(self, scope: Scope, job: Job, after: Sequence[pulumi.Resource] = ()) -> pulumi.Resource:
        """Run a job to its end once ``after`` is done; the resource exists when it succeeded."""

    @abstractmethod
    def former(
        self, name: str, value: pulumi.Input[str], parent: pulumi.Resource
    ) -> pulumi.Output[list[str]]:
        """The last values that ``value`` had before this one, newest first; secret."""


def workload_host(scope: Scope, workload: Workload) -> str:
    """DNS name of a workload: the service's own for its main one, else ``<service>-<workload>``."""
    if workload.name == scope.key:
        return scope.hostname
    return f"{scope.hostname}-{workload.name.replace('_', '-')}"


def replica_hosts(host: str, replicas: int) -> list[str]:
    """One name for one replica, ``<host>-1`` and so on for more."""
    return [host] if replicas == 1 else [f"{host}-{i + 1}" for i in range(replicas)]
