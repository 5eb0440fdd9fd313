"""Delta Sharing: Delta tables of the object store, read from outside with a token for each recipient."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from xml.sax.saxutils import escape

import pulumi

from components.connection import Connection
from components.delta_sharing_settings import (
    REFERENCE,
    DeltaSharingSettings,
    SharedSchema,
    SharedTable,
    is_upstream,
    problems,
)
from components.object_store_connection import StoreConnection
from components.object_store_settings import Bucket, BucketPrivilege
from components.problems import Problem
from components.service import TLS_FOLDER, Demand, Need, Service, tls_files
from components.settings import Settings
from components.templates import render
from components.workload import Access, Endpoint, File, Group, Probe, Route, Scheme, Workload

_PORT = 8443
_UID = 65534
_HOST = "sharing"
_PREFIX = "delta-sharing"
_CACHED_TABLES = 20
_CONFIG = "/etc/millrace/delta-sharing"
_FOLDER = "/run/millrace/delta-sharing"
_TABLES = uuid.UUID("5f0f8f9e-7d0c-5d35-9f5e-2f9a4f1f8a11")
"""Namespace of the tables' ids, which stay the same as long as their names do."""


class DeltaSharing(Service):
    """Delta Sharing server: shares of Delta tables for recipients with a token each.

    Tables' files are read from the object store itself, at addresses signed for `url_minutes`.
    """

    key = "delta_sharing"
    settings_model = DeltaSharingSettings
    settings: DeltaSharingSettings

    @classmethod
    def needs(cls, settings: DeltaSharingSettings, platform: Settings) -> Iterable[Need]:
        """To read the buckets that hold shared tables."""
        return [Need(service="object_store", request=request) for request in _requests(settings)]

    @classmethod
    def credentials(cls, settings: DeltaSharingSettings, demands: Sequence[Demand]) -> Iterable[str]:
        """A token for each recipient and each service that reads shares, and the official image's one."""
        names = [recipient.name for recipient in settings.recipients]
        return dict.fromkeys([*names, *(demand.consumer for demand in demands), REFERENCE])

    @classmethod
    def check(
        cls, settings: DeltaSharingSettings, demands: Sequence[Demand], platform: Settings
    ) -> Iterable[Problem]:
        """See :func:`components.delta_sharing_settings.problems`."""
        return problems(settings, demands, platform)

    def build(self) -> None:
        """One container."""
        stores = [self.context.platform.store(self.key, request) for request in _requests(self.settings)]
        self.deploy(self._server(stores[0]))

    def connect(self, demand: Demand) -> Connection:
        """The consumer's token; the addresses of files that come with it are those inside the platform."""
        return Connection(
            scheme="https",
            host=self.hostname,
            port=_PORT,
            user=demand.consumer,
            password=self._token(demand.consumer),
            path=_PREFIX,
            ca_certificate=self.context.platform.authority.certificate,
        )

    def connections(self) -> Mapping[str, Any]:
        """Where the server is, and each recipient's profile file: what their client is given."""
        return {
            "endpoint": f"https://{self.hostname}:{_PORT}/{_PREFIX}",
            "public_endpoint": f"{self.public_url(_HOST)}/{_PREFIX}",
            "profiles": {recipient.name: self._profile(recipient.name, recipient.expires_at)
                         for recipient in self.settings.recipients},
        }  # fmt: skip

    # -- parts

    def _server(self, store: StoreConnection) -> Workload:
        upstream = is_upstream(self.settings, self.context.platform.settings)
        route = Route(
            host=_HOST,
            access=Access.PUBLIC,
            title="Delta Sharing",
            purpose="Shared tables for recipients with a token",
            group=Group.DATA,
            own_login=True,
        )
        probe = render("delta_sharing/probe.sh.j2", port=_PORT, prefix=f"/{_PREFIX}")
        return Workload(
            name=self.key,
            image="delta-sharing",
            command=("sh", f"{_CONFIG}/start.sh"),
            user=_UID,
            env={"STORE_CA": store.ca_path, **store.java_env},
            files=(
                *tls_files(self.certificate()),
                File(path=f"{_CONFIG}/start.sh", content=render("delta_sharing/start.sh")),
                File(path=f"{_CONFIG}/probe.sh", content=probe),
                *(self._reference_files(store) if upstream else self._own_files(store)),
            ),
            endpoints=(Endpoint(name="https", port=_PORT, scheme=Scheme.HTTPS, route=route),),
            probe=Probe(command=("sh", f"{_CONFIG}/probe.sh")),
            limits=self.settings.limits,
        )

    def _own_files(self, store: StoreConnection) -> tuple[File, ...]:
        """Settings, keys and recipients of the server that Millrace builds."""
        place = {
            "endpoint": store.endpoint,
            "public_endpoint": store.public_endpoint,
            "region": store.region,
        }
        keys = pulumi.Output.all(access_key=store.user, secret_key=store.password).apply(
            lambda found: {**place, **found}
        )
        recipients = [
            self._recipient(r.name, "public", r.shares, r.expires_at) for r in self.settings.recipients
        ] + [self._recipient(name, "internal") for name in self._consumers()]
        return (
            File(path=f"{_FOLDER}/server.yaml", content=_json(self._yaml(store.buckets))),
            File(path=f"{_FOLDER}/keys.json", content=_secret_json(keys), secret=True),
            File(
                path=f"{_FOLDER}/recipients.json",
                content=_secret_json(pulumi.Output.all(*recipients)),
                secret=True,
            ),
        )

    def _reference_files(self, store: StoreConnection) -> tuple[File, ...]:
        """Settings and keys of the reference server, where its image has them."""
        settings = self.credential(REFERENCE).password.apply(
            lambda token: {**self._yaml(store.buckets), "authorization": {"bearerToken": token}}
        )
        site = pulumi.Output.all(store.user, store.password).apply(
            lambda a: render(
                "delta_sharing/core-site.xml.j2",
                endpoint=store.endpoint,
                region=store.region,
                user=escape(a[0]),
                password=escape(a[1]),
            )
        )
        return (
            File(path=f"{_FOLDER}/server.yaml", content=_secret_json(settings), secret=True),
            File(path="/opt/docker/conf/core-site.xml", content=pulumi.Output.secret(site), secret=True),
        )

    def _yaml(self, buckets: Mapping[str, str]) -> dict[str, Any]:
        """The reference server's settings, which both servers read. JSON is YAML.

        ``buckets`` are their names in the object store by those in the settings.
        """

        def place(schema: SharedSchema, table: SharedTable) -> str:
            bucket, folder = self.settings.place(schema, table)
            return f"s3a://{buckets[bucket]}/{folder}"

        return {
            "version": 1,
            "shares": [
                {
                    "name": share.name,
                    "schemas": [
                        {
                            "name": schema.name,
                            "tables": [
                                {
                                    "name": table.name,
                                    "location": place(schema, table),
                                    "id": str(
                                        uuid.uuid5(_TABLES, f"{share.name}/{schema.name}/{table.name}")
                                    ),
                                    "historyShared": table.history,
                                    "startVersion": table.start_version,
                                }
                                for table in schema.tables
                            ],
                        }
                        for schema in share.schemas
                    ],
                }
                for share in self.settings.shares
            ],
            "host": "0.0.0.0",
            "port": _PORT,
            "endpoint": f"/{_PREFIX}",
            "ssl": {
                "selfSigned": False,
                "certificateFile": f"{TLS_FOLDER}/tls.crt",
                "certificateKeyFile": f"{TLS_FOLDER}/tls.key",
            },
            "preSignedUrlTimeoutSeconds": self.settings.url_minutes * 60,
            "deltaTableCacheSize": _CACHED_TABLES,
            "evaluatePredicateHints": True,
            "evaluateJsonPredicateHints": True,
            "evaluateJsonPredicateHintsV2": True,
        }

    def _recipient(
        self, name: str, urls: str, shares: Sequence[str] | None = None, expires: datetime | None = None
    ) -> pulumi.Output[dict[str, Any]]:
        """A recipient as the server knows it: without the token itself."""
        return self._token(name).apply(
            lambda token: {
                "name": name,
                "token_sha256": hashlib.sha256(token.encode()).hexdigest(),
                "shares": None if shares is None else list(shares),
                "expires": None if expires is None else expires.isoformat(),
                "urls": urls,
            }
        )

    def _profile(self, name: str, expires: datetime | None) -> pulumi.Output[str]:
        content = {"shareCredentialsVersion": 1, "endpoint": f"{self.public_url(_HOST)}/{_PREFIX}"}
        until = {} if expires is None else {"expirationTime": _utc(expires)}
        return _secret_json(self._token(name).apply(lambda token: {**content, "bearerToken": token, **until}))

    def _token(self, name: str) -> pulumi.Output[str]:
        upstream = is_upstream(self.settings, self.context.platform.settings)
        return self.credential(REFERENCE if upstream else name).password

    def _consumers(self) -> list[str]:
        return sorted({demand.consumer for demand in self.context.demands})


def _requests(settings: DeltaSharingSettings) -> list[Bucket]:
    return [Bucket(name=name, privilege=BucketPrivilege.READ_ONLY) for name in settings.buckets]


def _utc(moment: datetime) -> str:
    """As the protocol's example has it."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.0Z")


def _json(value: Any) -> str:
    return json.dumps(value, indent=2) + "\n"


def _secret_json(value: pulumi.Output[Any]) -> pulumi.Output[str]:
    return pulumi.Output.secret(value.apply(_json))
