"""The object store: an S3 server, and the job that makes its buckets and users what the settings say."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pulumi

from components.connection import Connection
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

    MinIO over TLS. Services and declared users have an access key each, limited to their buckets.
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

    def build(self) -> None:
        """Server and setup job."""
        self._users = planned_users(self.settings, self.context.demands)
        server = self.deploy(self._server())
        # A server on a volume that somebody emptied has none of it: every new container gets the job.
        self.run(self._setup(server.instances), after=server.ready)

    def connect(self, demand: Demand) -> Connection:
        """The consumer's user; the path is the requested bucket."""
        request: Bucket = demand.request
        return self._connection(consumer_user(demand.consumer), request.name)

    @classmethod
    def logins(cls, settings: ObjectStoreSettings) -> Mapping[str, Sequence[str]]:
        """The declared users."""
        return {user.name: () for user in settings.users}

    def login(self, login: Login) -> Connection:
        """A declared user; of its buckets the connection names none."""
        return self._connection(login.user)

    def connections(self) -> Mapping[str, Any]:
        """The S3 API's addresses and its users with their buckets."""
        out: dict[str, Any] = {
            "endpoint": f"https://{self.hostname}:{_API_PORT}",
            "region": REGION,
            "users": {
                user.name: {
                    "access_key": user.name,
                    "secret_key": self.credential(user.name).password,
                    "buckets": {name: privilege.value for name, privilege in user.buckets.items()},
                }
                for user in self._users
            },
        }
        if self.settings.api_route:
            out["public_endpoint"] = self.public_url(_API_HOST)
        if port := self.settings.loopback_port:
            out["loopback"] = f"https://127.0.0.1:{port}"
        return out

    # -- parts

    def _connection(self, user: str, bucket: str = "") -> Connection:
        return Connection(
            scheme="https",
            host=self.hostname,
            port=_API_PORT,
            user=user,
            password=self.credential(user).password,
            path=bucket,
            ca_certificate=self.context.platform.authority.certificate,
        )

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
            probe=Probe(command=("timeout", "2", "mc", "--quiet", "ready", "local")),
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
