"""What Airflow's files say: airflow.cfg, the users, the DAG files; and where they are in the containers."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence

import pulumi

from components import folders
from components.airflow_settings import AirflowSettings, is_dag_file
from components.connection import Connection
from components.credentials import Credential
from components.service import TLS_FOLDER
from components.settings import User
from components.templates import CONFIGS, render

PORT = 8443
"""Of the API server, over TLS."""

RUN, ETC = "/run/millrace/airflow", "/etc/millrace/airflow"
"""What holds secrets, and what everybody may read."""

DAGS, LOGS, SCRATCH = (f"/var/lib/millrace/airflow-{n}" for n in ("dags", "logs", "tmp"))
"""Where volumes are mounted."""

CA = f"{TLS_FOLDER}/ca.crt"

_CLEANUP = "platform_cleanup"
_SCRATCH_DAYS = 7


def database_uri(connection: Connection) -> pulumi.Output[str]:
    """Of the metadata database, for psycopg2; secret."""
    return pulumi.Output.secret(connection.uri.apply(lambda uri: f"{uri}&sslrootcert={CA}"))


def _for_asyncpg(uri: str) -> str:
    return uri.replace("postgresql://", "postgresql+asyncpg://", 1).replace("sslmode=", "ssl=")


def config(
    settings: AirflowSettings,
    database: Connection,
    credentials: Mapping[str, Credential],
    *,
    keys: pulumi.Input[str],
    log_bucket: str,
    hostname: str,
    base_url: str,
    time_zone: str,
) -> pulumi.Output[str]:
    """airflow.cfg; secret. ``keys`` are of :func:`fernet_keys`, ``log_bucket`` is for the logs of tasks,
    ``hostname`` is the API server's.

    ``base_url`` is the page's address for browsers.
    """
    plain: dict[str, object] = {
        "api_host": hostname,
        "api_port": PORT,
        "base_url": base_url,
        "bucket": log_bucket,
        "ca": CA,
        "connections": f"{RUN}/connections.json",
        "dags": DAGS,
        "logs": LOGS,
        "parallelism": settings.tasks_at_a_time,
        "pause_new_dags": settings.pause_new_dags,
        "time_zone": time_zone,
        "users": f"{RUN}/users.json",
        "variables": f"{ETC}/variables.json",
    }
    secrets = {
        "database": database_uri(database),
        "database_async": database.uri.apply(_for_asyncpg),
        "fernet": keys,
        # 64 bytes is what the signature's hash calls for.
        "jwt": credentials["jwt"].password.apply(lambda p: hashlib.sha512(p.encode()).hexdigest()),
        "session": credentials["session"].password,
    }
    return pulumi.Output.secret(
        pulumi.Output.all(**secrets).apply(lambda found: render("airflow/airflow.cfg.j2", **plain, **found))
    )


def fernet_keys(
    credential: Credential, former: pulumi.Input[Sequence[pulumi.Input[str]]]
) -> pulumi.Output[str]:
    """Fernet keys as Airflow takes them: separated by commas, the first one encrypts, all decrypt; secret."""
    passwords = pulumi.Output.all(credential.password, former)
    return pulumi.Output.secret(
        passwords.apply(lambda found: ",".join(_fernet_key(p) for p in (found[0], *found[1])))
    )


def _fernet_key(password: str) -> str:
    """32 bytes as URL-safe base64."""
    return base64.urlsafe_b64encode(hashlib.sha256(f"fernet {password}".encode()).digest()).decode()


def users(
    members: Sequence[User], credentials: Mapping[str, Credential], proxy: Credential
) -> pulumi.Output[str]:
    """What millrace_login.py reads: the proxy's secret, each user's role and password hash; secret."""
    hashes = pulumi.Output.all(*(credentials[user.name].bcrypt_hash for user in members))

    def text(found: Sequence[object]) -> str:
        secret, ordered = found
        assert isinstance(ordered, list)
        entries = {
            user.name: {"role": user.role.value, "hash": hash_}
            for user, hash_ in zip(members, ordered, strict=True)
        }
        return json.dumps({"proxy": secret, "users": entries}, indent=1)

    return pulumi.Output.secret(pulumi.Output.all(proxy.password, hashes).apply(text))


def manifest(settings: AirflowSettings, log_bucket: str) -> str:
    """All DAG files for sync_dags.py: the user's below ``own``, the platform's below ``platform``."""
    keep = {
        "metadata_days": settings.metadata_retention_days,
        "log_days": settings.log_retention_days,
        "bucket": log_bucket,
        "folders": {LOGS: settings.log_retention_days, SCRATCH: _SCRATCH_DAYS},
    }
    texts = {f"own/{name}": text for name, text in folders.texts(settings.dags_folders, is_dag_file).items()}
    ours = folders.texts([str(CONFIGS / "airflow" / "dags")], is_dag_file)
    texts |= {f"platform/{name}": text for name, text in ours.items()}
    texts[f"platform/{_CLEANUP}.json"] = json.dumps(keep, indent=1) + "\n"
    return json.dumps(texts, indent=0, sort_keys=True)
