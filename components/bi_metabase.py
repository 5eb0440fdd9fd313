"""Metabase: the server (the official image alone) and the job that sets it up through its HTTP API."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pulumi
import pulumi_random as random

from components.bi_settings import METADATA, PRESTO, postgres_sources, presto_catalogs
from components.options import child_opts
from components.service import TLS_FOLDER, ca_file
from components.settings import Access
from components.templates import render
from components.workload import (
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

if TYPE_CHECKING:
    from components.services.bi import Bi

PORT = 3000
# No user of the platform has a dot in the name. The domain may change, and an account is found by its address
# alone until one is logged in: so it is one of no domain, where mail can never go.
_ADMIN_NAME = "millrace.setup"
_ADMIN_EMAIL = f"{_ADMIN_NAME}@millrace.invalid"
ADMIN = "admin"
"""Credential of the administrator that the setup job is."""

# The image has no account of its own for the server; its start script as root would make this one.
_UID = 2000
_JOB_UID = 65534
_FOLDER = "/etc/millrace/bi"
_SECRETS = "/run/millrace/bi"
_STATE = "/var/lib/millrace/bi"
_CA = f"{TLS_FOLDER}/ca.crt"
_CATALOGUE_NAME = "metabase"

# Metabase refuses greater ones.
_MOST_ROWS = 1_048_574


def keep(bi: Bi) -> None:
    """What a later switch to this engine needs of the present: the keys that read what it stored."""
    bi.former(ADMIN)
    _encryption_key(bi)


def build(bi: Bi) -> None:
    """The server migrates its metadata by itself; then the job."""
    server = bi.deploy(_server(bi))
    bi.run(_setup(bi), after=server.ready)


def _server(bi: Bi) -> Workload:
    settings = bi.settings
    database = bi.context.platform.connect(bi.key, "postgres", METADATA.request)
    options = "&".join(f"{k}={v}" for k, v in {"ssl": "true", **database.options, "sslrootcert": _CA}.items())
    rows = str(min(settings.row_limit, _MOST_ROWS))
    route = Route(
        host=bi.hostname,
        access=Access.USER,
        title="Metabase",
        purpose="Dashboards, questions and SQL",
        group=Group.ANALYTICS,
    )
    return Workload(
        name=bi.key,
        image=_CATALOGUE_NAME,
        command=("sh", f"{_FOLDER}/metabase.sh"),
        user=_UID,
        env={
            "HOME": _STATE,
            "MILLRACE_STATE": _STATE,
            # Half of the memory is Java's heap; class data, code and direct buffers take about as much again.
            "MILLRACE_JAVA_OPTIONS": "-XX:MaxRAMPercentage=55 -XX:+ExitOnOutOfMemoryError",
            "JAVA_TIMEZONE": bi.context.platform.settings.time_zone,
            "MB_DB_TYPE": "postgres",
            "MB_DB_CONNECTION_URI": pulumi.Output.concat(
                "jdbc:postgresql://",
                database.host,
                ":",
                pulumi.Output.from_input(database.port).apply(str),
                f"/{database.path}?{options}",
            ),
            "MB_DB_USER": database.user,
            "MB_PLUGINS_DIR": f"{_STATE}/plugins",
            "MB_JETTY_HOST": "0.0.0.0",
            "MB_JETTY_PORT": str(PORT),
            "MB_SITE_URL": bi.public_url(),
            "MB_SITE_NAME": bi.context.platform.settings.domain,
            "MB_REDIRECT_ALL_REQUESTS_TO_HTTPS": "false",
            "MB_AGGREGATED_QUERY_ROW_LIMIT": rows,
            "MB_UNAGGREGATED_QUERY_ROW_LIMIT": rows,
            "MB_DB_QUERY_TIMEOUT_MINUTES": str(-(-settings.query_timeout_s // 60)),
            # Generated passwords: 32 letters and digits, some without any digit.
            "MB_PASSWORD_COMPLEXITY": "weak",
            "MB_PASSWORD_LENGTH": "16",
            # Nothing here calls home, and nothing is there that nobody asked for.
            "MB_ANON_TRACKING_ENABLED": "false",
            "MB_CHECK_FOR_UPDATES": "false",
            "MB_LOAD_SAMPLE_CONTENT": "false",
        },
        files=(
            ca_file(database.ca_certificate),
            File(path=f"{_FOLDER}/metabase.sh", content=render("bi/metabase.sh")),
            File(path=f"{_SECRETS}/database-password", content=database.password, secret=True),
            File(path=f"{_SECRETS}/encryption-key", content=_encryption_key(bi), secret=True),
        ),
        # Drivers it unpacks, logs: made anew by any start.
        volumes=(Volume(name="cache", path=_STATE, data=False),),
        endpoints=(Endpoint(name="http", port=PORT, scheme=Scheme.HTTP, route=route),),
        probe=Probe(command=("bash", "-c", _PROBE), deadline_s=600),
        limits=settings.limits,
    )


# The image has bash, and an HTTP client only by accident. Metabase answers 503 until it has started.
_PROBE = (
    f"exec 3<>/dev/tcp/127.0.0.1/{PORT} && printf 'GET /api/health HTTP/1.0\\r\\n\\r\\n' >&3 && "
    "read -r _ status _ <&3 && [[ $status == 200 ]]"
)


def _encryption_key(bi: Bi) -> pulumi.Output[str]:
    """What encrypts the data sources' passwords in the metadata.

    It is not among the credentials that `rotation` replaces: to change it takes Metabase's own command, which
    reads the old key and writes the new one while the server is down.
    """
    key = random.RandomPassword(
        "bi-metabase-encryption-key",
        length=32,
        special=False,
        opts=child_opts(bi, additional_secret_outputs=["result", "bcryptHash"]),
    )
    return pulumi.Output.secret(key.result)


def _setup(bi: Bi) -> Job:
    return Job(
        name="setup",
        image="python",
        command=("python3", f"{_FOLDER}/metabase_setup.py"),
        user=_JOB_UID,
        files=(
            *(
                File(path=f"{_FOLDER}/{name}", content=render(f"bi/{name}"))
                for name in ("metabase_setup.py", "metabase_dashboards.py")
            ),
            File(path=f"{_FOLDER}/dashboards.json", content=bi.settings.dashboards_file()),
            File(path=f"{_SECRETS}/setup.json", content=_wanted(bi), secret=True),
        ),
        limits=Limits(memory_mib=128, cpus=0.5),
        # Each data source is tried before it is kept.
        timeout_s=300,
    )


def _wanted(bi: Bi) -> pulumi.Output[str]:
    platform = bi.context.platform
    domain = platform.settings.domain
    wanted = pulumi.Output.all(
        url=f"http://{bi.hostname}:{PORT}",
        site_name=domain,
        admin={
            "email": _ADMIN_EMAIL,
            # What earlier versions of this program gave it.
            "email_before": f"{_ADMIN_NAME}@{domain}",
            "password": bi.credential(ADMIN).password,
            "former": bi.former(ADMIN),
        },
        users=[
            {
                "name": user.name,
                "email": f"{user.name}@{domain}",
                "role": user.role.value,
                "password": platform.users[user.name].password,
            }
            for user in platform.settings.users
        ],
        data_sources=_data_sources(bi),
    )
    return pulumi.Output.secret(wanted.apply(lambda found: json.dumps(found, indent=2) + "\n"))


def _data_sources(bi: Bi) -> list[Mapping[str, Any]]:
    """What the setup script registers, in the form of Metabase's drivers."""
    platform = bi.context.platform
    found: list[Mapping[str, Any]] = []
    for source in postgres_sources(platform.settings):
        connection = platform.connect(bi.key, "postgres", source.request)
        found.append(
            {
                "id": f"postgres/{source.request.database}",
                "name": source.name,
                "engine": "postgres",
                "details": {
                    "host": connection.host,
                    "port": connection.port,
                    "dbname": connection.path,
                    "user": connection.user,
                    "password": connection.password,
                    "schema-filters-type": "all",
                    "ssl": True,
                    "ssl-mode": "verify-full",
                    "ssl-use-client-auth": False,
                    "ssl-root-cert-options": "local",
                    "ssl-root-cert-path": _CA,
                },
            }
        )
    catalogs = presto_catalogs(platform.settings)
    for catalog in catalogs:
        presto = platform.connect(bi.key, "presto", PRESTO.request)
        found.append(
            {
                "id": f"presto/{catalog}",
                "name": f"Presto {catalog}",
                "engine": "starburst" if presto.scheme == "trino" else "presto-jdbc",
                # To its drivers a catalog is a database. They take a CA in PEM.
                "details": {
                    "host": presto.host,
                    "port": presto.port,
                    "catalog": catalog,
                    "user": presto.user,
                    "password": presto.password,
                    "ssl": True,
                    "additional-options": f"SSLTrustStorePath={_CA}",
                },
            }
        )
    return found
