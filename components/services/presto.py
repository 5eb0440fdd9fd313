"""Presto: coordinator, workers, and the workload that keeps the lake's list of tables."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pulumi

from components.certificates import Certificate
from components.presto_access import KEEPER, PROBE, password_file, rights, rules
from components.presto_catalogs import FOLDER, buckets, files, has_lake, names, needs
from components.presto_settings import (
    Engine,
    PrestoConnection,
    PrestoSettings,
    consumers,
    memory,
    problems,
)
from components.problems import Problem
from components.service import TLS_FOLDER, Demand, Need, Service, ca_file
from components.settings import Settings
from components.templates import render
from components.workload import (
    Access,
    Endpoint,
    File,
    Group,
    Limits,
    Probe,
    Route,
    Scheme,
    Volume,
    Workload,
)

_PORT = 8443
_UID = 1000
_DATA = "/var/lib/millrace/presto"
_WORKER = "worker"
_LAKE_FOLDER = "/etc/millrace/presto-lake"
_NOBODY = 65534

# Names of credentials; services' keys have no hyphen.
_INTERNAL, _PROBE, _KEEPER = "internal-secret", "health-check", "lake-keeper"

_HOME = {Engine.TRINO: "/usr/lib/trino", Engine.PRESTODB: "/opt/presto-server"}
_MAIN = {
    Engine.TRINO: "io.trino.server.TrinoServer",
    Engine.PRESTODB: "com.facebook.presto.server.PrestoServer",
}
_PACKAGE = {Engine.TRINO: "io.trino", Engine.PRESTODB: "com.facebook.presto"}
_IMAGE = {Engine.TRINO: "trino", Engine.PRESTODB: "presto"}

# What PrestoDB and its libraries look into (its official image's jvm.config has the same list in essence).
_OPENS = (
    "java.base/java.io",
    "java.base/java.lang",
    "java.base/java.lang.ref",
    "java.base/java.lang.reflect",
    "java.base/java.net",
    "java.base/java.nio",
    "java.base/java.security",
    "java.base/java.text",
    "java.base/java.util",
    "java.base/java.util.concurrent",
    "java.base/java.util.concurrent.atomic",
    "java.base/java.util.regex",
    "java.base/javax.security.auth",
    "java.base/javax.security.auth.login",
    "java.base/jdk.internal.loader",
    "java.base/sun.security.action",
    "java.security.jgss/sun.security.krb5",
)


class Presto(Service):
    """SQL over all the data: Trino or PrestoDB with catalogs of Postgres, Kafka and the lake.

    Platform users and services log in with their passwords over TLS, inside the platform and through the
    proxy alike.
    """

    key = "presto"
    settings_model = PrestoSettings
    settings: PrestoSettings

    @classmethod
    def needs(cls, settings: PrestoSettings, platform: Settings) -> Iterable[Need]:
        """See :func:`components.presto_catalogs.needs`."""
        return needs(settings, platform)

    @classmethod
    def credentials(cls, settings: PrestoSettings, demands: Sequence[Demand]) -> Iterable[str]:
        """The cluster's own, and one for each service that queries."""
        return [_INTERNAL, _PROBE, _KEEPER, *consumers(demands)]

    @classmethod
    def check(
        cls, settings: PrestoSettings, demands: Sequence[Demand], platform: Settings
    ) -> Iterable[Problem]:
        """See :func:`components.presto_settings.problems`."""
        return problems(settings, demands, platform)

    def build(self) -> None:
        """Coordinator, workers, keeper of the lake's tables."""
        self._services = consumers(self.context.demands)
        self._memory = memory(self.settings)
        self._client = self._client_certificate()
        catalogs = files(self.settings, self.context.platform)
        coordinator = self.deploy(self._server(catalogs))
        after = coordinator.ready
        if self.settings.workers:
            workers = self.deploy(self._server(catalogs, worker=True), after=after)
            after = [*after, *workers.ready]
        if has_lake(self.context.platform.settings):
            self.deploy(self._keeper(), after=after)

    def connect(self, demand: Demand) -> PrestoConnection:
        """The consumer's user."""
        return self._connection(demand.consumer)

    def connections(self) -> Mapping[str, Any]:
        """Addresses inside the network and through the proxy, the catalogs, the services' users."""
        host = f"{self.hostname}.{self.context.platform.settings.domain}"
        port = self.context.platform.settings.proxy.https_port
        name = self._scheme
        query = "?protocol=https" if name == "presto" else ""
        return {
            "engine": self.settings.engine.value,
            "host": self.hostname,
            "port": _PORT,
            "jdbc_url": f"jdbc:{name}://{self.hostname}:{_PORT}?SSL=true",
            "public_url": self.public_url(),
            "public_jdbc_url": f"jdbc:{name}://{host}:{port}?SSL=true",
            "public_sqlalchemy_uri": f"{name}://<user>:<password>@{host}:{port}/{query}",
            "catalogs": names(self.settings, self.context.platform.settings),
            "users": {name: self._connection(name).as_output() for name in self._services},
        }

    # -- parts

    @property
    def _scheme(self) -> str:
        return "trino" if self.settings.engine is Engine.TRINO else "presto"

    def _connection(self, consumer: str) -> PrestoConnection:
        return PrestoConnection(
            scheme=self._scheme,
            host=self.hostname,
            port=_PORT,
            user=consumer,
            password=self.credential(consumer).password,
            jdbc=self._scheme,
            options={} if self._scheme == "trino" else {"protocol": "https"},
            ca_certificate=self.context.platform.authority.certificate,
        )

    def _server(self, catalogs: Sequence[File], *, worker: bool = False) -> Workload:
        settings = self.settings
        route = Route(
            host=self.hostname,
            access=Access.USER,
            title="Trino" if settings.engine is Engine.TRINO else "Presto",
            purpose="SQL over all data; JDBC and Python clients use the same address",
            group=Group.ANALYTICS,
            own_login=True,
            body_limit_mib=64,
        )
        workload = _WORKER if worker else self.key
        return Workload(
            name=workload,
            image=_IMAGE[settings.engine],
            command=("sh", f"{FOLDER}/start.sh"),
            user=_UID,
            # glibc otherwise keeps an arena of its own for each thread.
            env={"MALLOC_ARENA_MAX": "2", **self._java_env()},
            files=(
                *self._tls(self._certificate(workload)),
                *self._client,
                *self._configuration(coordinator=not worker),
                *catalogs,
            ),
            volumes=(Volume(name="data", path=_DATA, data=False),),
            endpoints=(
                Endpoint(name="https", port=_PORT, scheme=Scheme.HTTPS, route=None if worker else route),
            ),
            # Plugins and catalogs load for long on a machine that is busy with other services too.
            probe=Probe(command=("sh", f"{FOLDER}/probe.sh"), deadline_s=600),
            limits=settings.limits,
            replicas=settings.workers if worker else 1,
        )

    def _java_env(self) -> dict[str, str]:
        platform = self.context.platform
        lake = buckets(self.settings)[0]
        return platform.store(self.key, lake).java_env if has_lake(platform.settings) else {}

    def _certificate(self, workload: str) -> Certificate:
        if workload == self.key:
            return self.certificate()
        host = f"{self.hostname}-{workload}"
        hosts = [host, *(f"{host}-{number}" for number in range(1, self.settings.workers + 1))]
        return self.certificate("worker", names=hosts)

    def _client_certificate(self) -> list[File]:
        """What PrestoDB's servers log in to each other with; Trino's do with the secret alone."""
        if self.settings.engine is Engine.TRINO:
            return []
        return [_pem("client", self.certificate("internal", client="presto-internal"))]

    def _tls(self, certificate: Certificate) -> tuple[File, File]:
        return _pem("server", certificate), ca_file(self.trusted)

    def _configuration(self, *, coordinator: bool) -> list[File]:
        engine = self.settings.engine
        users = self.context.platform.settings.users
        values = {
            "engine": engine.value,
            "home": _HOME[engine],
            "coordinator": coordinator,
            "workers": self.settings.workers,
            "memory": self._memory,
            "host": self.hostname,
            "port": _PORT,
            "tls_folder": TLS_FOLDER,
        }
        config = self.credential(_INTERNAL).password.apply(
            lambda secret: render("presto/config.properties.j2", **values, secret=secret)
        )
        probe = self.credential(_PROBE).password.apply(lambda password: f'user = "{PROBE}:{password}"\n')
        jvm = render(
            "presto/jvm.config.j2",
            engine=engine.value,
            heap=self._memory.heap,
            home=_HOME[engine],
            main=_MAIN[engine],
            opens=_OPENS if engine is Engine.PRESTODB else (),
        )
        return [
            File(path=f"{FOLDER}/start.sh", content=render("presto/start.sh")),
            File(path=f"{FOLDER}/probe.sh", content=render("presto/probe.sh")),
            File(path=f"{FOLDER}/probe.curl", content=pulumi.Output.secret(probe), secret=True),
            File(path=f"{FOLDER}/jvm.config", content=jvm),
            File(
                path=f"{FOLDER}/log.properties",
                content=render("presto/log.properties.j2", package=_PACKAGE[engine]),
            ),
            File(path=f"{FOLDER}/config.properties", content=pulumi.Output.secret(config), secret=True),
            File(
                path=f"{FOLDER}/password-authenticator.properties",
                content=f"password-authenticator.name=file\nfile.password-file={FOLDER}/passwords\n",
            ),
            File(path=f"{FOLDER}/passwords", content=self._passwords(), secret=True),
            File(
                path=f"{FOLDER}/access-control.properties",
                content=f"access-control.name=file\nsecurity.config-file={FOLDER}/rules.json\n",
            ),
            File(path=f"{FOLDER}/rules.json", content=rules(engine, rights(users, self._services))),
        ]

    def _passwords(self) -> pulumi.Output[str]:
        hashes = {name: credential.bcrypt_hash for name, credential in self.context.platform.users.items()}
        hashes |= {name: self.credential(name).bcrypt_hash for name in self._services}
        hashes |= {PROBE: self.credential(_PROBE).bcrypt_hash, KEEPER: self.credential(_KEEPER).bcrypt_hash}
        found = pulumi.Output.all(*hashes.values())
        return pulumi.Output.secret(
            found.apply(lambda values: password_file(dict(zip(hashes, values, strict=True))))
        )

    def _keeper(self) -> Workload:
        lake, metastore = (self.context.platform.store(self.key, b) for b in buckets(self.settings))
        settings = {
            "engine": self.settings.engine.value,
            "presto": f"https://{self.hostname}:{_PORT}",
            "user": KEEPER,
            "endpoint": lake.endpoint,
            "region": lake.region,
            "store_ca": lake.ca_path,
            "bucket": lake.path,
            "metastore": metastore.path,
            "tables": {table.name: table.folder for table in self.settings.lake_tables},
            "refresh_s": self.settings.lake_refresh_s,
        }
        secrets = {
            "password": self.credential(_KEEPER).password,
            "store_user": lake.user,
            "store_password": lake.password,
        }
        content = pulumi.Output.all(**secrets).apply(lambda found: json.dumps({**settings, **found}))
        return Workload(
            name="lake",
            image="python",
            command=("python3", f"{_LAKE_FOLDER}/lake.py"),
            user=_NOBODY,
            files=(
                ca_file(self.context.platform.authority.certificate),
                *(
                    File(path=f"{_LAKE_FOLDER}/{name}", content=render(f"presto/{name}"))
                    for name in ("lake.py", "lake_clients.py")
                ),
                File(
                    path=f"{_LAKE_FOLDER}/settings.json",
                    content=pulumi.Output.secret(content),
                    secret=True,
                ),
            ),
            probe=Probe(command=("python3", f"{_LAKE_FOLDER}/lake.py", "probe")),
            limits=Limits(memory_mib=64, cpus=0.5),
            stop_grace_s=10,
        )


def _pem(name: str, certificate: Certificate) -> File:
    """Key and certificate in one file, as both engines read it."""
    both = pulumi.Output.all(certificate.key, certificate.certificate).apply("".join)
    return File(path=f"{TLS_FOLDER}/{name}.pem", content=pulumi.Output.secret(both), secret=True)
