"""The object store: an S3 server, and the job that makes its buckets and users what the settings say."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pulumi

from components import object_store_managed
from components.managed import AccessKey, ManagedStore
from components.object_store_connection import StoreConnection, endpoint
from components.object_store_settings import (
    ROOT,
    Bucket,
    ObjectStoreSettings,
    PlannedUser,
    consumer_user,
    lifecycle_json,
    planned_buckets,
    planned_users,
    policy_json,
    problems,
)
from components.problems import Problem
from components.service import TLS_FOLDER, Demand, Login, Service, ca_file
from components.settings import Settings
from components.targets.names import name_prefix
from components.templates import render
from components.workload import (
    Access,
    Endpoint,
    File,
    Group,
    Job,
    Limits,
    Probe,
    Route,
    Scheme,
    Volume,
    Workload,
)

_API_PORT = 9000
_HTTPS = 443
_CONSOLE_PORT = 9001
_UID = 1000
_FOLDER = "/run/millrace/minio"
_SETUP = "/run/millrace/setup"
_API_HOST = "s3"
REGION = "us-east-1"
"""What clients that insist on a region should name; the server takes any."""

# Not the official image's own folder: see components.workload.Volume.
_DATA = "/var/lib/millrace/object-store"


class ObjectStore(Service):
    """S3 object store with buckets, users and policies of the settings, and a web console.

    MinIO over TLS, or what the target's provider has. Services and declared users have an access key each,
    limited to their buckets.
    """

    key = "object_store"
    settings_model = ObjectStoreSettings
    settings: ObjectStoreSettings

    @classmethod
    def credentials(cls, settings: ObjectStoreSettings, demands: Sequence[Demand]) -> Iterable[str]:
        """The administrator and each user."""
        return [ROOT, *(user.name for user in planned_users(settings, demands))]

    @classmethod
    def check(
        cls, settings: ObjectStoreSettings, demands: Sequence[Demand], platform: Settings
    ) -> Iterable[Problem]:
        """See :func:`components.object_store_settings.problems`."""
        return problems(settings, demands)

    @classmethod
    def routed(cls, settings: ObjectStoreSettings, platform: Settings) -> bool:
        """Console and API, where the server is the platform's own."""
        return platform.managed_store is None

    def build(self) -> None:
        """Server and setup job; or buckets and keys of a store that somebody else runs."""
        self._users = planned_users(self.settings, self.context.demands)
        self._names = {b.name: b.name for b in planned_buckets(self.settings, self.context.demands)}
        self._managed = self._elsewhere()
        if self._managed is not None:
            self._host, self._port, self._region = self._managed.host, _HTTPS, self._managed.region
            self.ready += self._managed.ready
            return
        self._host, self._port, self._region = self.hostname, _API_PORT, REGION
        server = self.deploy(self._server())
        # A server on a volume that somebody emptied has none of it: every new container gets the job.
        self.run(self._setup(server.instances), after=server.ready)

    def credential_outputs(self) -> Mapping[str, pulumi.Output[str]]:
        """Secret keys by user, whoever chose them."""
        if self._managed is None:
            return super().credential_outputs()
        return {name: key.secret for name, key in self._managed.keys.items()}

    def connect(self, demand: Demand) -> StoreConnection:
        """The consumer's user; the path is the requested bucket."""
        request: Bucket = demand.request
        return self._connection(consumer_user(demand.consumer), request.name)

    @classmethod
    def logins(cls, settings: ObjectStoreSettings) -> Mapping[str, Sequence[str]]:
        """The declared users."""
        return {user.name: () for user in settings.users}

    def login(self, login: Login) -> StoreConnection:
        """A declared user; the path is empty."""
        return self._connection(login.user)

    def connections(self) -> Mapping[str, Any]:
        """The S3 API's addresses and its users with their buckets."""
        out: dict[str, Any] = {
            "endpoint": endpoint(self._host, self._port),
            "region": self._region,
            "users": {
                user.name: {
                    "access_key": self._key(user.name).id,
                    "secret_key": self._key(user.name).secret,
                    "buckets": {
                        self._names[name]: privilege.value for name, privilege in user.buckets.items()
                    },
                }
                for user in self._users
            },
        }
        if self._public is not None:
            out["public_endpoint"] = self._public
        if port := self.settings.loopback_port:
            out["loopback"] = f"https://127.0.0.1:{port}"
        return out

    # -- parts

    def _elsewhere(self) -> ManagedStore | None:
        """Buckets and keys of a store that the target's provider runs, if it does."""
        platform, demands = self.context.platform, self.context.demands
        wanted = platform.settings.managed_store
        if wanted is None:
            return None
        stem = name_prefix(pulumi.get_project(), pulumi.get_stack())
        start = wanted.names_start(stem, platform.settings.domain)
        buckets = object_store_managed.buckets(self.settings, demands, start)
        self._names = {bucket.declared: bucket.name for bucket in buckets}
        rotations = {user.name: platform.rotation_of(f"{self.key}/{user.name}") for user in self._users}
        return platform.managed_store(buckets, object_store_managed.users(self._users, rotations))

    def _connection(self, name: str, bucket: str = "") -> StoreConnection:
        key = self._key(name)
        (user,) = (user for user in self._users if user.name == name)
        return StoreConnection(
            scheme="https",
            host=self._host,
            port=self._port,
            user=key.id,
            password=key.secret,
            path=self._names[bucket] if bucket else "",
            region=self._region,
            buckets={name: self._names[name] for name in user.buckets},
            public_endpoint=self._public,
            own=self._managed is None,
            ca_certificate=self.context.platform.authority.certificate if self._managed is None else "",
        )

    def _key(self, user: str) -> AccessKey:
        if self._managed is not None:
            return self._managed.keys[user]
        return AccessKey(id=user, secret=self.credential(user).password)

    @property
    def _public(self) -> str | None:
        if self._managed is not None:
            return endpoint(self._host, self._port)
        return self.public_url(_API_HOST) if self.settings.api_route else None

    def _server(self) -> Workload:
        certificate = self.certificate()
        root = self.credential(ROOT).password
        return Workload(
            name=self.key,
            image="minio",
            command=(
                "minio",
                "server",
                _DATA,
                f"--address=:{_API_PORT}",
                f"--console-address=:{_CONSOLE_PORT}",
                f"--certs-dir={_FOLDER}/certs",
            ),
            user=_UID,
            env={
                "MINIO_CONFIG_ENV_FILE": f"{_FOLDER}/env",
                # Where the server sends browsers that open the API. MINIO_SERVER_URL is left out on purpose:
                # with it the console would log in at the public address, which no container reaches.
                "MINIO_BROWSER_REDIRECT_URL": self.public_url(),
                # Nothing here calls home.
                "MINIO_UPDATE": "off",
                # A user may ask for temporary keys (STS), which a rotation does not end: they last as long as
                # in S3 by default. Without this a client may have them for a year.
                "MINIO_STS_DURATION": "1h",
                # For the probe: no keys needed, the certificate verified.
                "MC_CONFIG_DIR": "/tmp/mc",
                "MC_HOST_local": f"https://localhost:{_API_PORT}",
                "SSL_CERT_FILE": f"{TLS_FOLDER}/ca.crt",
            },
            files=(
                ca_file(certificate.authority.certificate),
                File(path=f"{_FOLDER}/certs/public.crt", content=certificate.certificate),
                File(path=f"{_FOLDER}/certs/private.key", content=certificate.key, secret=True),
                File(path=f"{_FOLDER}/certs/CAs/millrace.crt", content=certificate.authority.certificate),
                File(
                    path=f"{_FOLDER}/env",
                    content=pulumi.Output.secret(
                        root.apply(lambda p: f"MINIO_ROOT_USER={ROOT}\nMINIO_ROOT_PASSWORD={p}\n")
                    ),
                    secret=True,
                ),
            ),
            volumes=(Volume(name="data", path=_DATA),),
            endpoints=self._endpoints(),
            # `mc ready` looks again only after seconds; a fresh one sees sooner that the server is up.
            probe=Probe(command=("timeout", "4", "mc", "--quiet", "ready", "local")),
            limits=self.settings.limits,
        )

    def _endpoints(self) -> tuple[Endpoint, Endpoint]:
        api = Route(
            host=_API_HOST,
            access=Access.PUBLIC,
            title="S3 API",
            purpose="Object store for S3 clients, with access keys",
            group=Group.DATA,
            body_limit_mib=0,
            own_login=True,
        )
        console = Route(
            host=self.hostname,
            access=self.settings.console_access,
            title="Object store",
            purpose="Browse buckets and objects",
            group=Group.DATA,
            body_limit_mib=0,
        )
        return (
            Endpoint(
                name="api",
                port=_API_PORT,
                scheme=Scheme.HTTPS,
                route=api if self.settings.api_route else None,
                loopback_port=self.settings.loopback_port,
            ),
            Endpoint(name="console", port=_CONSOLE_PORT, scheme=Scheme.HTTPS, route=console),
        )

    def _setup(self, triggers: Sequence[pulumi.Output[str]]) -> Job:
        buckets = planned_buckets(self.settings, self.context.demands)
        rules = {bucket.name: lifecycle_json(bucket) for bucket in buckets}
        lifecycles = {name: text for name, text in rules.items() if text is not None}
        script = render(
            "object_store/setup.sh.j2",
            folder=_SETUP,
            buckets=buckets,
            lifecycles=lifecycles,
            users=self._users,
        )
        return Job(
            name="setup",
            image="minio",
            command=("sh", f"{_SETUP}/setup.sh"),
            user=_UID,
            env={"MC_CONFIG_DIR": "/tmp/mc", "SSL_CERT_FILE": f"{TLS_FOLDER}/ca.crt"},
            files=(
                ca_file(self.context.platform.authority.certificate),
                File(path=f"{_SETUP}/setup.sh", content=script),
                File(path=f"{_SETUP}/mc.json", content=self._client_settings(), secret=True),
                *(
                    File(path=f"{_SETUP}/lifecycle/{name}.json", content=text)
                    for name, text in lifecycles.items()
                ),
                *(
                    File(path=f"{_SETUP}/policies/{user.name}.json", content=policy_json(user))
                    for user in self._users
                ),
                *(self._user_file(user) for user in self._users),
            ),
            limits=Limits(memory_mib=256, cpus=self.settings.cpus),
            triggers=tuple(triggers),
        )

    def _client_settings(self) -> pulumi.Output[str]:
        """Settings of mc with the administrator's keys: it takes them from there or from its arguments."""
        url = f"https://{self.hostname}:{_API_PORT}"
        return pulumi.Output.secret(
            self.credential(ROOT).password.apply(
                lambda password: json.dumps(
                    {
                        "version": "10",
                        "aliases": {
                            "store": {
                                "url": url,
                                "accessKey": ROOT,
                                "secretKey": password,
                                "api": "S3v4",
                                "path": "on",
                            }
                        },
                    }
                )
            )
        )

    def _user_file(self, user: PlannedUser) -> File:
        """The two lines that `mc admin user add` reads."""
        name = user.name
        content = self.credential(name).password.apply(lambda password: f"{name}\n{password}\n")
        return File(path=f"{_SETUP}/users/{name}", content=pulumi.Output.secret(content), secret=True)
