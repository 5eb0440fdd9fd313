"""Services that exist for tests only: every feature of the core in as few lines as possible."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pulumi
from pydantic import SecretStr

from components.checks import duplicates
from components.connection import Connection
from components.problems import Problem
from components.service import Demand, Need, Service, ca_file, tls_files
from components.settings import Access, Model, Name, Port, ServiceSettings, Settings, Text
from components.workload import Endpoint, File, Job, Probe, Route, Scheme, Volume, Workload

PROBE = Probe(command=("true",), deadline_s=30)


class Role(Model):
    """A role of the database."""

    name: Name
    """Its name."""
    access: Access = Access.USER
    """Its level."""


class DatabaseSettings(ServiceSettings):
    """Settings of the fake database."""

    roles: tuple[Role, ...] = ()
    """Roles."""
    options: dict[str, Text] = {}
    """Server options."""
    loopback_port: Port | None = None
    """Port on 127.0.0.1."""
    token: SecretStr | None = None
    """A secret in a service's settings."""


@dataclass(frozen=True, kw_only=True)
class DatabaseRequest:
    """A database for one consumer."""

    name: str


class Database(Service):
    """A database that others need."""

    key = "database"
    settings_model = DatabaseSettings

    @classmethod
    def credentials(cls, settings: Any, demands: Sequence[Demand]) -> Iterable[str]:
        return ["admin", *(r.name for r in settings.roles), *(d.consumer for d in demands)]

    @classmethod
    def check(cls, settings: Any, demands: Sequence[Demand], platform: Settings) -> Iterable[Problem]:
        return duplicates([role.name for role in settings.roles], ("roles",), "role")

    def build(self) -> None:
        admin = self.credential("admin")
        certificate = self.certificate()
        self.endpoint = Endpoint(
            name="sql", port=5432, scheme=Scheme.TLS, loopback_port=self.settings.loopback_port
        )
        password = File(path="/run/millrace/admin", content=admin.password, secret=True)
        deployment = self.deploy(
            Workload(
                name=self.key,
                image="postgres",
                command=("database",),
                user=999,
                probe=PROBE,
                limits=self.settings.limits,
                env={"MODE": "plain"},
                files=(*tls_files(certificate), password),
                volumes=(Volume(name="data", path="/data"), Volume(name="cache", path="/cache", data=False)),
                endpoints=(self.endpoint,),
            )
        )
        self.host = deployment.hosts[0]
        secrets = [self.credential(role.name).password for role in self.settings.roles]
        secrets += [self.credential(demand.consumer).password for demand in self.context.demands]
        self.run(
            Job(
                name="roles",
                image="postgres",
                command=("roles",),
                user=999,
                limits=self.settings.limits,
                files=(
                    password,
                    File(path="/run/millrace/roles", content=_lines(secrets), secret=True),
                    ca_file(certificate.authority.certificate),
                ),
            ),
            after=deployment.ready,
        )

    def connect(self, demand: Demand) -> Connection:
        return Connection(
            scheme="postgresql",
            jdbc="postgresql",
            host=self.host,
            port=self.endpoint.port,
            user=demand.consumer,
            password=self.credential(demand.consumer).password,
            path=demand.request.name,
        )

    def connections(self) -> Mapping[str, Any]:
        return {demand.consumer: self.connect(demand).as_output() for demand in self.context.demands}


class StoreSettings(ServiceSettings):
    """Settings of the fake store."""

    host: Name = "store"
    """Host name in the domain."""


class Store(Service):
    """A store that nobody needs unless asked to."""

    key = "big_store"
    settings_model = StoreSettings

    @classmethod
    def credentials(cls, settings: Any, demands: Sequence[Demand]) -> Iterable[str]:
        return ["root"]

    def build(self) -> None:
        root = self.credential("root").password
        route = Route(host=self.settings.host, access=Access.ENGINEER, title="Store", purpose="Files")
        self.deploy(
            Workload(
                name=self.key,
                image="minio",
                command=("store",),
                user=1000,
                probe=PROBE,
                limits=self.settings.limits,
                files=(File(path="/run/millrace/root", content=root, secret=True),),
                volumes=(Volume(name="data", path="/data"),),
                endpoints=(
                    Endpoint(
                        name="s3",
                        port=9000,
                        scheme=Scheme.HTTP,
                        route=route,
                    ),
                ),
            )
        )


class AppSettings(ServiceSettings):
    """Settings of the fake application."""

    replicas: Port = 1
    """Number of containers."""
    use_store: bool = False
    """Also needs the store."""
    use_app: bool = False
    """Makes the database need nothing, but the application need the ring."""


class App(Service):
    """An application with egress that needs the database."""

    key = "app"
    settings_model = AppSettings

    @classmethod
    def needs(cls, settings: Any, platform: Any) -> Iterable[Need]:
        yield Need(service="database", request=DatabaseRequest(name="app"))
        if settings.use_store:
            yield Need(service="big_store")
        if settings.use_app:
            yield Need(service="ring")

    def build(self) -> None:
        connection = self.context.platform.connect(self.key, "database", DatabaseRequest(name="app"))
        deployment = self.deploy(
            Workload(
                name=self.key,
                image="nginx",
                command=("app",),
                user=101,
                probe=PROBE,
                limits=self.settings.limits,
                replicas=self.settings.replicas,
                egress=True,
                env={"DATABASE_HOST": connection.host},
                files=(File(path="/run/millrace/uri", content=connection.uri, secret=True),),
                tmpfs=("/var/cache",),
                endpoints=(
                    Endpoint(
                        name="web",
                        port=8080,
                        scheme=Scheme.HTTP,
                        route=Route(host="app", access=Access.USER, title="App", purpose="Work"),
                    ),
                ),
            )
        )
        self.run(
            Job(
                name="migrate",
                image="nginx",
                command=("migrate",),
                user=101,
                limits=self.settings.limits,
                files=(File(path="/run/millrace/uri", content=connection.uri, secret=True),),
                egress=True,
            ),
            after=deployment.ready,
        )


class RingSettings(ServiceSettings):
    """Settings of the service that closes a circle."""


class Ring(Service):
    """Needs the application, which may need it."""

    key = "ring"
    settings_model = RingSettings

    @classmethod
    def needs(cls, settings: Any, platform: Any) -> Iterable[Need]:
        yield Need(service="app")

    def build(self) -> None:
        """Runs nothing."""


def _lines(values: Sequence[pulumi.Output[str]]) -> pulumi.Output[str]:
    return pulumi.Output.secret(pulumi.Output.all(*values).apply(lambda v: "\n".join(v) or "#"))


FAKES: dict[str, type[Service]] = {service.key: service for service in (App, Store, Database, Ring)}
