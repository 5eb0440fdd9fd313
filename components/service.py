"""What every service is: a component that describes workloads and jobs and offers connections."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import pulumi

from components.certificates import Certificate
from components.connection import Connection
from components.credentials import Credential
from components.options import child_opts
from components.problems import Problem
from components.targets import Deployment, Scope
from components.workload import Endpoint, File, Job, Workload

if TYPE_CHECKING:
    from components.platform import Platform
    from components.settings import ServiceSettings, Settings

PROXY = "proxy"
"""Key of the proxy, the consumer of every endpoint with a route."""

TLS_FOLDER = "/run/millrace/tls"
"""Where a container finds tls.crt, tls.key and ca.crt."""


@dataclass(frozen=True, kw_only=True)
class Need:
    """A service's need of another one: reach it and, by ``request``, get something of it.

    The providing service defines the types of requests it serves (a database, a bucket). An ``optional`` need
    of a service that is off is no need. With ``wait`` False nothing waits for the service to be ready: for
    who calls it only later, when somebody asks. Such a need without a request is a mere link between the two.
    """

    service: str
    request: Any = None
    optional: bool = False
    wait: bool = True

    @property
    def comes_after(self) -> bool:
        """Whether the needed service has to be described first: it makes what is requested."""
        return self.wait or self.request is not None


@dataclass(frozen=True, kw_only=True)
class Login:
    """Request of a service: to act as a user whom the settings declare, not as one of the service's own.

    It makes nothing, so the providing service doesn't see it among its demands. ``database`` is the one to
    use, where the provider has databases.
    """

    user: str
    database: str = ""


@dataclass(frozen=True, kw_only=True)
class Demand:
    """A need as the provider sees it."""

    consumer: str
    request: Any


@dataclass(frozen=True, kw_only=True)
class Published:
    """An endpoint with a route, and the host name the proxy reaches it by."""

    service: str
    host: str
    endpoint: Endpoint


@dataclass(kw_only=True)
class Context:
    """What the platform gives a service: its settings, who demands what of it, and means to deploy."""

    platform: Platform
    key: str
    settings: Any
    demands: Sequence[Demand]
    links: Sequence[tuple[str, str]]
    published: list[Published] = field(default_factory=list)

    @property
    def hostname(self) -> str:
        """DNS name of the service inside the platform's networks."""
        return dns_name(self.key)


class Service(pulumi.ComponentResource):
    """Base of the services; a subclass in ``components/services/`` is found by the registry.

    A subclass sets ``key`` (settings key and identity), ``settings_model``, and implements :meth:`build`.
    ``needs``, ``credentials`` and ``check`` are answered from settings alone, before anything is created.
    """

    key: ClassVar[str]
    settings_model: ClassVar[type[ServiceSettings]]

    def __init__(self, context: Context, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(f"millrace:services:{type(self).__name__}", dns_name(self.key), None, opts)
        self.context = context
        self.settings = context.settings
        self.hostname = context.hostname
        self.ready: list[pulumi.Resource] = []
        self._credentials: dict[str, Credential] = {}
        self.build()
        self.register_outputs({})

    # -- from settings alone

    @classmethod
    def needs(cls, settings: Any, platform: Settings) -> Iterable[Need]:
        """Other services this one uses; they are started first and reachable from it.

        ``platform`` is the whole of the settings: what else is on, which databases there are.
        """
        return ()

    @classmethod
    def credentials(cls, settings: Any, demands: Sequence[Demand]) -> Iterable[str]:
        """Names of all credentials :meth:`credential` will be asked for."""
        return ()

    @classmethod
    def routed(cls, settings: Any, platform: Settings) -> bool:
        """Whether the proxy publishes an endpoint of it: one more network to have room for."""
        return True

    @classmethod
    def calls_out(cls, settings: Any, platform: Settings) -> bool:
        """Whether a workload or job of it has ``egress``: one more network to have room for."""
        return False

    @classmethod
    def check(cls, settings: Any, demands: Sequence[Demand], platform: Settings) -> Iterable[Problem]:
        """Mistakes that no single value shows; paths start at the service's key."""
        return ()

    @classmethod
    def logins(cls, settings: Any) -> Mapping[str, Sequence[str]]:
        """Users whom the settings declare and :meth:`login` serves, each with the databases it may use."""
        return {}

    # -- for the subclass

    @abstractmethod
    def build(self) -> None:
        """Create credentials, workloads and jobs."""

    def connect(self, demand: Demand) -> Connection:
        """What a consumer needs to know to use what it requested.

        Raises:
            NotImplementedError: when this service serves no requests.
        """
        raise NotImplementedError(f"{self.key} serves no requests")

    def login(self, login: Login) -> Connection:
        """What a consumer needs to know to act as a declared user, one of :meth:`logins`.

        Raises:
            NotImplementedError: when this service has no such users.
        """
        raise NotImplementedError(f"{self.key} has no users to act as")

    def connections(self) -> Mapping[str, Any]:
        """Part of the stack output ``connections``."""
        return {}

    def public_url(self, host: str | None = None) -> str:
        """Address of the service through the proxy, or of another host of the domain."""
        return self.context.platform.settings.public_url(self.hostname if host is None else host)

    @property
    def trusted(self) -> pulumi.Output[str]:
        """CAs that its containers verify servers with, as one PEM text."""
        return self.context.platform.trusted(self.key)

    def credential(self, name: str) -> Credential:
        """The credential ``<service>/<name>``, made once."""
        if name not in self._credentials:
            self._credentials[name] = self.context.platform.new_credential(
                f"{self.key}/{name}", child_opts(self)
            )
        return self._credentials[name]

    def former(self, name: str) -> pulumi.Output[list[str]]:
        """Passwords that the credential ``<service>/<name>`` had before it was rotated, newest first; secret.

        For keys that encrypt stored data, which has to be read once more to encrypt it anew.
        """
        return self.context.platform.target.former(
            f"former-{self.hostname}-{name.replace('_', '-')}", self.credential(name).password, self
        )

    def credential_outputs(self) -> Mapping[str, pulumi.Output[str]]:
        """Part of the stack output ``credentials``: passwords by name."""
        return {name: credential.password for name, credential in self._credentials.items()}

    def certificate(
        self, name: str = "server", *, names: Sequence[str] = (), client: str = ""
    ) -> Certificate:
        """A certificate for this service's DNS names (or ``names``), or one for the client ``client``.

        With both ``names`` and ``client`` it is for a server that is also a client of its like.
        """
        if not client:
            names = names or [self.hostname]
        return self.context.platform.new_certificate(
            f"{self.hostname}-{name}",
            common_name=client or self.hostname,
            names=[*names, "localhost"] if names else [],
            client=bool(client),
            opts=child_opts(self),
        )

    def deploy(
        self,
        workload: Workload,
        after: Sequence[pulumi.Resource] = (),
        *,
        links: Sequence[tuple[str, str]] | None = None,
    ) -> Deployment:
        """Deploy a workload after the services this one needs; its routes go to the proxy.

        With ``links``, some of the context's, it shares networks with those services alone, not with all that
        this service needs or that need it.
        """
        routed = any(endpoint.route for endpoint in workload.endpoints)
        deployment = self.context.platform.target.deploy(
            self._scope(routed=routed, links=links),
            workload,
            [*self.context.platform.ready_before(self.key), *after],
        )
        self.ready.extend(deployment.ready)
        for endpoint in workload.endpoints:
            if endpoint.route is not None:
                self.context.published.append(
                    Published(service=self.key, host=deployment.hosts[0], endpoint=endpoint)
                )
        return deployment

    def run(self, job: Job, after: Sequence[pulumi.Resource] = ()) -> pulumi.Resource:
        """Run a job after ``after`` and the services this one needs; dependants wait for it too."""
        done = self.context.platform.target.run(
            self._scope(), job, [*self.context.platform.ready_before(self.key), *after]
        )
        self.ready.append(done)
        return done

    def _scope(self, *, routed: bool = False, links: Sequence[tuple[str, str]] | None = None) -> Scope:
        shared = self.context.links if links is None else links
        return Scope(
            key=self.key,
            hostname=self.hostname,
            parent=self,
            links=[*shared, (PROXY, self.key)] if routed else shared,
            source=self.settings.images or self.context.platform.settings.images,
            image=self.settings.image,
        )


def dns_name(key: str) -> str:
    """A service's settings key as a DNS label."""
    return key.replace("_", "-")


def tls_files(certificate: Certificate, trusted: pulumi.Input[str] | None = None) -> tuple[File, File, File]:
    """Certificate, key and CA (or all CAs that are trusted) as files in :data:`TLS_FOLDER`."""
    return (
        File(path=f"{TLS_FOLDER}/tls.crt", content=certificate.certificate),
        File(path=f"{TLS_FOLDER}/tls.key", content=certificate.key, secret=True),
        ca_file(certificate.authority.certificate if trusted is None else trusted),
    )


def ca_file(certificate: pulumi.Input[str]) -> File:
    """The platform's CA, or several in one text, as a file for clients."""
    return File(path=f"{TLS_FOLDER}/ca.crt", content=certificate)
