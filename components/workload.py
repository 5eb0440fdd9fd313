"""What a service runs, in terms free of any provider: a target turns it into resources.

Memory is in MiB, CPU in cores, times in seconds. Everything is a frozen dataclass; only fields typed
``Input`` may hold a Pulumi Output, and those are never validated here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import pulumi


class Access(StrEnum):
    """Who may open an endpoint through the proxy, from everyone to administrators only."""

    PUBLIC = "public"
    USER = "user"
    ENGINEER = "engineer"
    ADMIN = "admin"

    @property
    def rank(self) -> int:
        """0 for public up to 3 for admin; a user may open what ranks no higher than their role."""
        return list(Access).index(self)


class Group(StrEnum):
    """What an endpoint is for; the portal lists the groups in this order."""

    DATA = "data"
    PROCESSING = "processing"
    ANALYTICS = "analytics"
    OPERATIONS = "operations"


class Scheme(StrEnum):
    """Protocol an endpoint speaks. ``https`` and ``tls`` are verified with the platform's CA."""

    HTTP = "http"
    HTTPS = "https"
    TCP = "tcp"
    TLS = "tls"


@dataclass(frozen=True, kw_only=True)
class Route:
    """Makes an endpoint reachable at ``https://<host>.<domain>`` through the proxy.

    ``host`` is one DNS label, or ``""`` for the domain itself. ``body_limit_mib`` 0 means no limit (object
    uploads). ``own_login`` is for endpoints that authenticate by themselves with the Authorization header
    (the S3 API): the proxy passes that header through and adds no check of its own. ``listed`` False keeps
    it off the portal. ``title``, ``purpose`` and ``group`` are what the portal shows.

    ``headers`` go with each request from the proxy to the endpoint, in place of what the client sent: an
    application that takes the user's name from the proxy asks for a secret one to know that it is the proxy.
    """

    host: str
    access: Access
    title: str
    purpose: str
    body_limit_mib: int = 16
    own_login: bool = False
    listed: bool = True
    group: Group = Group.OPERATIONS
    headers: Mapping[str, pulumi.Input[str]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """A port a workload listens on.

    With a ``route`` the proxy publishes it; with ``loopback_port`` it is also bound to 127.0.0.1 of the host
    (the second replica to the port above, and so on); otherwise only services that need it reach it.
    """

    name: str
    port: int
    scheme: Scheme = Scheme.TCP
    route: Route | None = None
    loopback_port: int | None = None
    public_port: int | None = None
    """Published on all addresses of the host. The proxy is the only service that may set this."""


@dataclass(frozen=True, kw_only=True)
class File:
    """A file put into the container before it starts, owned by root.

    ``secret`` files are readable by the workload's processes alone (by way of their supplementary group 0),
    others by all. A changed content replaces the container; an empty one is not allowed.
    """

    path: str
    content: pulumi.Input[str]
    secret: bool = False
    executable: bool = False


@dataclass(frozen=True, kw_only=True)
class Volume:
    """A named volume that outlives its containers.

    ``path`` is a folder that no image has: Docker gives a volume the owner and mode of the image's folder
    that it is mounted over. ``data`` False marks what can be recreated (caches): it is never protected.
    ``of`` is the DNS name of another workload, deployed before with the same user, whose volume of this name
    is mounted here too.
    """

    name: str
    path: str
    data: bool = True
    read_only: bool = False
    of: str | None = None


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A command run inside the container that exits 0 when the service really answers.

    ``deadline_s``: how long a start may take before it counts as failed: minutes, as a machine whose cores
    are busy takes many times longer, and a container that exits fails at once anyway. ``interval_s``: how
    often the engine repeats the probe afterwards. ``timeout_s``: how long one probe may take; three that fail
    or take longer make a service unhealthy, which a refresh reports.
    """

    command: tuple[str, ...]
    deadline_s: int = 300
    interval_s: int = 15
    timeout_s: int = 10


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Hard limits of one container: memory in MiB (no swap on top), CPU in cores.

    ``cpus_key`` is the service's setting that ``cpus`` comes from.
    """

    memory_mib: int
    cpus: float = 1.0
    cpus_key: str = "cpus"


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A long-running container (or ``replicas`` of it).

    ``image`` is a name of the catalogue in :mod:`components.images`. ``command`` replaces the image's own
    entrypoint, so that built and official images behave alike. ``user`` is the numeric uid; it owns the
    volumes. ``egress`` allows connections to the outside, ``stop_grace_s`` is the time between
    SIGTERM and SIGKILL. ``tmpfs`` adds writable folders in memory (``/tmp`` always is one).
    """

    name: str
    image: str
    command: tuple[str, ...]
    user: int
    probe: Probe
    limits: Limits
    env: Mapping[str, pulumi.Input[str]] = field(default_factory=dict)
    files: tuple[File, ...] = ()
    volumes: tuple[Volume, ...] = ()
    endpoints: tuple[Endpoint, ...] = ()
    tmpfs: tuple[str, ...] = ()
    replicas: int = 1
    egress: bool = False
    stop_grace_s: int = 30
    stop_signal: str | None = None
    shm_mib: int | None = None
    binds_own_name: bool = False
    """Inside the container its own name means all its addresses (0.0.0.0): for a server that binds to the
    name it advertises and would else listen in only one of its networks."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A container that does one thing and ends: create databases, buckets, users.

    It must be idempotent: it runs again whenever anything below changes or ``triggers`` do, and on the next
    ``up`` after a failure. Exit code 0 is success; anything else fails the update with the last log lines.
    ``volumes`` are those of workloads deployed before (``of``), which run as the same user.
    """

    name: str
    image: str
    command: tuple[str, ...]
    user: int
    limits: Limits
    env: Mapping[str, pulumi.Input[str]] = field(default_factory=dict)
    files: tuple[File, ...] = ()
    volumes: tuple[Volume, ...] = ()
    tmpfs: tuple[str, ...] = ()
    triggers: tuple[pulumi.Input[str], ...] = ()
    timeout_s: int = 300
    egress: bool = False
