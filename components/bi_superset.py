"""Superset: the server and the job that makes its metadata what the settings say."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pulumi

from components.bi_settings import METADATA, PRESTO, postgres_sources, presto_catalogs
from components.connection import Connection
from components.service import TLS_FOLDER, ca_file, tls_files
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

PORT = 8088
_UID = 1000
_FOLDER = "/etc/millrace/bi"
_SECRETS = "/run/millrace/bi"
_STATE = "/var/lib/millrace/bi"
_CA = f"{TLS_FOLDER}/ca.crt"

SECRET_KEY = "secret_key"
"""Credential that encrypts the data sources' passwords and signs sessions."""

PROXY = "proxy"
"""Credential that the proxy proves itself with."""

PROXY_HEADER = "X-Millrace-Proxy"
"""Header that only the proxy knows the value of: Superset takes the user's name from nobody else."""

_THREADS = 8
# Loading Superset takes this much, whatever the server's limit: migrations keep more in memory than pages do.
_SETUP_MIB = 768

# Half of the job's time: what is left is enough for the migrations of a new database on a slow machine.
_PRESTO_PATIENCE_S = 300


def keep(bi: Bi) -> None:
    """What a later switch to this engine needs of the present: the keys that read what it stored."""
    bi.former(SECRET_KEY)


def build(bi: Bi) -> None:
    """Set up the metadata, then start the server on it."""
    database = bi.context.platform.connect(bi.key, "postgres", METADATA.request)
    common = _files(bi, database)
    setup = bi.run(_setup(bi, common))
    bi.deploy(_server(bi, common), after=[setup])


def _files(bi: Bi, database: Connection) -> tuple[File, ...]:
    """What server and job both read."""
    settings = bi.settings
    values = {
        "port": PORT,
        "portal_url": bi.public_url(""),
        "workers": settings.workers,
        "threads": _THREADS,
        "pool_size": _THREADS // 2,
        "row_limit": settings.row_limit,
        "query_timeout_s": settings.query_timeout_s,
        "cache_s": settings.cache_s,
    }
    return (
        File(path=f"{_FOLDER}/superset_config.py", content=render("bi/superset_config.py")),
        File(path=f"{_FOLDER}/settings.json", content=json.dumps(values, indent=2) + "\n"),
        File(path=f"{_SECRETS}/database", content=_verified(database).uri, secret=True),
        File(path=f"{_SECRETS}/secret-key", content=bi.credential(SECRET_KEY).password, secret=True),
        File(path=f"{_SECRETS}/proxy", content=bi.credential(PROXY).password, secret=True),
    )


def _verified(connection: Connection) -> Connection:
    """The connection as Postgres' own client library takes it: with the file of the CA."""
    return replace(connection, options={**connection.options, "sslrootcert": _CA})


def _env(state: str) -> Mapping[str, str]:
    return {
        "HOME": "/tmp",
        "SUPERSET_HOME": state,
        "SUPERSET_CONFIG_PATH": f"{_FOLDER}/superset_config.py",
        "FLASK_APP": "superset.app:create_app()",
        "PYTHONUNBUFFERED": "1",
    }


def _server(bi: Bi, common: tuple[File, ...]) -> Workload:
    settings = bi.settings
    route = Route(
        host=bi.hostname,
        access=Access.USER,
        title="Superset",
        purpose="Dashboards, charts and SQL",
        group=Group.ANALYTICS,
        # Uploads of dashboards that were exported elsewhere.
        body_limit_mib=64,
        headers={PROXY_HEADER: bi.credential(PROXY).password},
    )
    return Workload(
        name=bi.key,
        image="superset",
        command=("gunicorn", "--config", f"{_FOLDER}/gunicorn_config.py", "superset.app:create_app()"),
        user=_UID,
        env=_env(_STATE),
        files=(
            *common,
            *tls_files(bi.certificate(), bi.trusted),
            File(path=f"{_FOLDER}/gunicorn_config.py", content=render("bi/gunicorn_config.py")),
        ),
        # Results of charts: gone, they are asked for again.
        volumes=(Volume(name="cache", path=_STATE, data=False),),
        endpoints=(Endpoint(name="http", port=PORT, scheme=Scheme.HTTPS, route=route),),
        # A start of Python costs a tenth of a second of CPU.
        probe=Probe(command=("python", "-c", _PROBE), deadline_s=600, interval_s=30),
        limits=settings.limits,
    )


# Asks the database for a row, by way of a worker.
_PROBE = (
    "import ssl, urllib.request as r; "
    f"r.urlopen('https://localhost:{PORT}/.millrace/health', timeout=8, "
    f"context=ssl.create_default_context(cafile='{_CA}'))"
)


def _setup(bi: Bi, common: tuple[File, ...]) -> Job:
    return Job(
        name="setup",
        image="superset",
        command=("python", f"{_FOLDER}/superset_setup.py"),
        user=_UID,
        env=_env("/tmp/superset"),
        files=(
            *common,
            ca_file(bi.trusted),
            *(
                File(path=f"{_FOLDER}/{name}", content=render(f"bi/{name}"))
                for name in ("superset_setup.py", "superset_dashboards.py", "superset_charts.py")
            ),
            File(path=f"{_FOLDER}/dashboards.json", content=bi.settings.dashboards_file()),
            File(path=f"{_SECRETS}/setup.json", content=_wanted(bi), secret=True),
        ),
        limits=Limits(memory_mib=max(_SETUP_MIB, bi.settings.memory_mib), cpus=bi.settings.cpus),
        timeout_s=600,
    )


def _wanted(bi: Bi) -> pulumi.Output[str]:
    platform = bi.context.platform
    users = [
        {"name": user.name, "email": f"{user.name}@{platform.settings.domain}", "role": user.role.value}
        for user in platform.settings.users
    ]
    wanted = pulumi.Output.all(
        former_keys=bi.former(SECRET_KEY),
        data_sources=pulumi.Output.all(*_data_sources(bi)),
        users=users,
    )
    return pulumi.Output.secret(wanted.apply(lambda found: json.dumps(found, indent=2) + "\n"))


def _data_sources(bi: Bi) -> list[Mapping[str, Any]]:
    """What the setup script registers: an id that never changes, a name, an address with password."""
    platform = bi.context.platform
    found: list[Mapping[str, Any]] = []
    for source in postgres_sources(platform.settings):
        connection = _verified(platform.connect(bi.key, "postgres", source.request))
        found.append(
            {
                "id": f"postgres/{source.request.database}",
                "name": source.name,
                "uri": connection.uri,
                "extra": {"engine_params": {}, "allows_virtual_table_explore": True},
            }
        )
    if catalogs := presto_catalogs(platform.settings):
        presto = platform.connect(bi.key, "presto", PRESTO.request)
        trino = presto.scheme == "trino"
        verify = {"http_scheme": "https", "verify": _CA} if trino else {"requests_kwargs": {"verify": _CA}}
        found.append(
            {
                "id": "presto",
                "name": "Presto",
                # The catalog that a query without one means.
                "uri": replace(presto, path=catalogs[0]).uri,
                "extra": {
                    "engine_params": {"connect_args": verify},
                    "allow_multi_catalog": True,
                    "allows_virtual_table_explore": True,
                },
                # It starts while this job migrates.
                "patience_s": _PRESTO_PATIENCE_S,
            }
        )
    return found
