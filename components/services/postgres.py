"""Postgres: the server, and the job that makes its databases, roles and privileges what the settings say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pulumi

from components.connection import Connection
from components.managed import ManagedServer
from components.postgres_plan import (
    init_sql,
    passwords_sql,
    plan,
    scram_verifier,
    setup_sql,
    tuning,
)
from components.postgres_settings import (
    Database,
    DatabaseAccess,
    PostgresSettings,
    declared_roles,
    problems,
    role_names,
)
from components.problems import Problem
from components.service import TLS_FOLDER, Demand, Login, Service, ca_file, tls_files
from components.settings import Settings
from components.templates import render
from components.workload import Endpoint, File, Job, Limits, Probe, Scheme, Volume, Workload

_PORT = 5432
_UID = 999
_FOLDER = "/etc/millrace/postgres"
# Not the official image's own folder: see components.workload.Volume.
_DATA = "/var/lib/millrace/postgres"
_SUPERUSER_NAME = "postgres-superuser"
"""Common name of the certificate that logs in as superuser; configs/postgres/pg_ident.conf has it too. Not
just ``postgres``: that is the server certificate's."""


class Postgres(Service):
    """PostgreSQL with TLS, declared databases, roles and privileges, and init SQL of one's own.

    The superuser has no password: the setup job logs in with a client certificate, the health check by the
    socket inside the container. Roles log in with SCRAM-SHA-256 over TLS only; the server is given the
    verifiers, never the passwords.
    """

    key = "postgres"
    settings_model = PostgresSettings
    settings: PostgresSettings

    @classmethod
    def credentials(cls, settings: PostgresSettings, demands: Sequence[Demand]) -> Iterable[str]:
        """One for each role that logs in."""
        return role_names(settings, demands)

    @classmethod
    def routed(cls, settings: PostgresSettings, platform: Settings) -> bool:
        """It has no page."""
        return False

    @classmethod
    def calls_out(cls, settings: PostgresSettings, platform: Settings) -> bool:
        """The setup job, when the server is elsewhere."""
        return cls.key in platform.managed

    @classmethod
    def check(
        cls, settings: PostgresSettings, demands: Sequence[Demand], platform: Settings
    ) -> Iterable[Problem]:
        """See :func:`components.postgres_settings.problems`."""
        return problems(settings, demands)

    def build(self) -> None:
        """Server and setup job."""
        self._plan = plan(self.settings, self.context.demands)
        self._managed = self.context.platform.managed(self.key)
        if self._managed is not None:
            self.ready.extend(self._managed.ready)
            self.run(self._managed_setup(self._managed), after=self._managed.ready)
            return
        certificate = self.certificate()
        server = self.deploy(self._server(tls_files(certificate)))
        superuser = self.certificate("superuser", client=_SUPERUSER_NAME)
        client_files = (
            ca_file(superuser.authority.certificate),
            File(path=f"{TLS_FOLDER}/client.crt", content=superuser.certificate),
            File(path=f"{TLS_FOLDER}/client.key", content=superuser.key, secret=True),
        )
        # A server on a volume that somebody emptied has none of it: every new container gets the job.
        self.run(self._setup(client_files, server.instances), after=server.ready)

    def connect(self, demand: Demand) -> Connection:
        """The consumer's role in its database."""
        request: Database | DatabaseAccess = demand.request
        database = request.name if isinstance(request, Database) else request.database
        return self._connection(database, request.role)

    @classmethod
    def logins(cls, settings: PostgresSettings) -> Mapping[str, Sequence[str]]:
        """The roles, with the databases that they own or have a grant on."""
        return declared_roles(settings)

    def login(self, login: Login) -> Connection:
        """A declared role in one of its databases."""
        return self._connection(login.database, login.user)

    def connections(self) -> Mapping[str, Any]:
        """Each database with the roles that may use it, inside the network and on the host's loopback."""
        host, port_inside = self._address
        out: dict[str, Any] = {
            "host": host,
            "port": port_inside,
            "databases": self._offer(host, port_inside),
        }
        if port := self.settings.loopback_port:
            out["loopback"] = {"host": "127.0.0.1", "port": port, "databases": self._offer("127.0.0.1", port)}
        return out

    # -- parts

    @property
    def _address(self) -> tuple[pulumi.Input[str], pulumi.Input[int]]:
        if self._managed is not None:
            return self._managed.host, self._managed.port
        return self.hostname, _PORT

    def _server(self, tls: tuple[File, ...]) -> Workload:
        settings = self.settings
        conf = render(
            "postgres/postgresql.conf.j2",
            port=_PORT,
            max_connections=settings.max_connections,
            tls_folder=TLS_FOLDER,
            tuning=tuning(settings.memory_mib, settings.cpus, settings.max_connections),
            time_zone=self.context.platform.settings.time_zone,
            parameters=settings.parameters,
        )
        return Workload(
            name=self.key,
            image="postgres",
            command=("sh", f"{_FOLDER}/start.sh"),
            user=_UID,
            env={"PGDATA": f"{_DATA}/pgdata"},
            files=(
                *tls,
                File(path=f"{_FOLDER}/start.sh", content=render("postgres/start.sh")),
                File(path=f"{_FOLDER}/postgresql.conf", content=conf),
                File(path=f"{_FOLDER}/pg_hba.conf", content=render("postgres/pg_hba.conf")),
                File(path=f"{_FOLDER}/pg_ident.conf", content=render("postgres/pg_ident.conf")),
            ),
            volumes=(Volume(name="data", path=_DATA),),
            endpoints=(
                Endpoint(
                    name="postgres", port=_PORT, scheme=Scheme.TLS, loopback_port=settings.loopback_port
                ),
            ),
            # Memory that parallel workers share; it counts against the container's limit.
            shm_mib=max(64, settings.memory_mib // 4),
            # It starts in a second; most of the rest is for what it may have to recover.
            probe=Probe(
                command=("psql", "-X", "-qAt", "-U", "postgres", "-d", "postgres", "-c", "SELECT 1"),
                deadline_s=120,
            ),
            limits=settings.limits,
            # The "fast" shutdown: end sessions, write a checkpoint. SIGTERM would wait for every client.
            stop_signal="SIGINT",
            stop_grace_s=60,
        )

    def _setup(self, client_files: tuple[File, ...], triggers: Sequence[pulumi.Output[str]]) -> Job:
        owners = self._init_owners()
        return self._job(
            script={"tls_folder": TLS_FOLDER, "managed": False},
            sql=setup_sql(self._plan),
            files=client_files,
            env={"PGHOST": self.hostname, "PGPORT": str(_PORT)},
            logins={owner: self.credential(owner).password for owner in owners},
            triggers=tuple(triggers),
        )

    def _managed_setup(self, server: ManagedServer) -> Job:
        """The same on a cluster that somebody else runs, as its administrator, who is no superuser."""
        owners = self._init_owners()
        return self._job(
            script={"managed": True, "admin_user": server.user, "admin_database": server.database},
            sql=setup_sql(self._plan, managed=True, admin_database=server.database),
            files=(ca_file(server.ca_certificate),),
            env={"PGHOST": server.host, "PGPORT": pulumi.Output.from_input(server.port).apply(str)},
            logins={
                server.user: server.password,
                **{owner: self.credential(owner).password for owner in owners},
            },
            triggers=(server.instance,),
            egress=True,
        )

    def _job(
        self,
        *,
        script: Mapping[str, object],
        sql: str,
        files: tuple[File, ...],
        env: Mapping[str, pulumi.Input[str]],
        logins: Mapping[str, pulumi.Output[str]],
        triggers: tuple[pulumi.Input[str], ...],
        egress: bool = False,
    ) -> Job:
        databases = self._plan.init_databases
        found = [
            *files,
            File(
                path=f"{_FOLDER}/setup.sh",
                content=render("postgres/setup.sh.j2", databases=databases, **script),
            ),
            File(path=f"{_FOLDER}/setup.sql", content=sql),
            File(path=f"{_FOLDER}/passwords.sql", content=self._passwords(), secret=True),
        ]
        own = {
            **env,
            "PGSSLMODE": "verify-full",
            "PGSSLROOTCERT": f"{TLS_FOLDER}/ca.crt",
            "PGCONNECT_TIMEOUT": "10",
        }
        if logins:
            own["PGPASSFILE"] = f"{_FOLDER}/pgpass"
            found.append(File(path=f"{_FOLDER}/pgpass", content=_pgpass(logins), secret=True))
        for database in databases:
            found.append(File(path=f"{_FOLDER}/{database.name}.init.sql", content=init_sql(database)))
            found += [
                File(path=f"{_FOLDER}/init/{database.name}/{file.name}", content=file.text)
                for file in database.init
            ]
        return Job(
            name="setup",
            image="postgres",
            command=("sh", f"{_FOLDER}/setup.sh"),
            user=_UID,
            env=own,
            files=tuple(found),
            limits=Limits(memory_mib=128, cpus=self.settings.cpus),
            triggers=triggers,
            # Init SQL may load data.
            timeout_s=900 if databases else 300,
            egress=egress,
        )

    def _init_owners(self) -> list[str]:
        # Init SQL runs in sessions that really are the owner's: after SET ROLE a file, or a trigger that it
        # fires, could go back to being superuser.
        return sorted({database.owner for database in self._plan.init_databases})

    def _passwords(self) -> pulumi.Output[str]:
        roles = [role.name for role in self._plan.roles]
        if not roles:
            return pulumi.Output.secret("-- no roles\n")
        parts = [(self.credential(role).password, self.credential(role).salt) for role in roles]
        verifiers = [pulumi.Output.all(*part).apply(lambda p: scram_verifier(*p)) for part in parts]
        return pulumi.Output.secret(
            pulumi.Output.all(*verifiers).apply(
                lambda found: passwords_sql(dict(zip(roles, found, strict=True)))
            )
        )

    def _connection(
        self,
        database: str,
        role: str,
        host: pulumi.Input[str] | None = None,
        port: pulumi.Input[int] | None = None,
    ) -> Connection:
        own_host, own_port = self._address
        return Connection(
            scheme="postgresql",
            host=own_host if host is None else host,
            port=own_port if port is None else port,
            user=role,
            password=self.credential(role).password,
            path=database,
            jdbc="postgresql",
            options={"sslmode": "verify-full"},
            ca_certificate=self._ca,
        )

    @property
    def _ca(self) -> pulumi.Output[str]:
        own = self.context.platform.authority.certificate
        if self._managed is None:
            return own
        # The platform's too: many a client has one file for all servers.
        return pulumi.Output.concat(own, self._managed.ca_certificate)

    def _offer(self, host: pulumi.Input[str], port: pulumi.Input[int]) -> dict[str, Any]:
        return {
            database.name: {
                role: self._connection(database.name, role, host, port).as_output()
                for role in self._plan.roles_of(database)
            }
            for database in self._plan.databases
        }


def _pgpass(logins: Mapping[str, pulumi.Output[str]]) -> pulumi.Output[str]:
    """Passwords as libpq reads them from a file."""
    return pulumi.Output.secret(
        pulumi.Output.all(*logins.values()).apply(
            lambda found: "".join(
                f"*:*:*:{user}:{password}\n" for user, password in zip(logins, found, strict=True)
            )
        )
    )
