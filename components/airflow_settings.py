"""Settings of Airflow, the DAG files it is given, and the mistakes a single value doesn't show."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Annotated, Literal

from pydantic import Field

from components import folders
from components.checks import duplicates
from components.kafka_settings import TopicPattern
from components.object_store_settings import BucketName, Days
from components.postgres_settings import Privilege
from components.problems import Problem
from components.settings import ServiceSettings
from components.settings_types import Form, Int, Line, MiB, Model, Name, Text
from components.workload import Access

LOG_BUCKET = "airflow-logs"
BUCKETS_VARIABLE = "object_store_buckets"
"""What the buckets are called in the object store, by their names in the settings, as JSON."""
"""Where task logs go; nobody else's."""

DAGS_FOLDER = "pipelines/dags"
"""Where DAGs are looked for when the settings name no other folder; it need not exist."""

DAGS_LIMIT_MIB = 4
"""The files are part of the stack's state, so there is an end to it."""

OWN_OPTIONS = {
    "api.base_url", "api.client_use_public_certs", "api.expose_config", "api.secret_key", "api.ssl_ca_file",
    "api.workers", "api_auth.jwt_secret", "core.auth_manager", "core.dags_folder", "core.default_timezone",
    "core.execution_api_server_url", "core.executor", "core.fernet_key", "core.hostname_callable",
    "core.load_examples", "core.plugins_folder", "dag_processor.dag_bundle_config_list",
    "database.sql_alchemy_conn", "database.sql_alchemy_conn_async", "logging.base_log_folder",
    "logging.dag_processor_child_process_log_directory", "logging.delete_local_logs",
    "logging.remote_base_log_folder", "logging.remote_log_conn_id", "logging.remote_logging",
    "secrets.backend", "secrets.backend_kwargs",
}  # fmt: skip
"""What the platform sets itself and rests on."""

# What would undo them: another certificate or key, another way to the database, to users or to secrets. And
# their former names: Airflow takes those from the environment in preference to the present ones in the file.
_REFUSED = OWN_OPTIONS | {
    "api.client_ssl_cert", "api.client_ssl_key", "api.host", "api.port", "api.ssl_cert",
    "api.ssl_cert_reqs", "api.ssl_key", "api_auth.jwt_algorithm", "api_auth.jwt_audience",
    "api_auth.jwt_issuer", "api_auth.jwt_kid", "api_auth.jwt_private_key_path", "api_auth.trusted_jwks_url",
    "core.simple_auth_manager_all_admins", "core.simple_auth_manager_passwords_file",
    "core.simple_auth_manager_users", "core.sql_alchemy_conn", "core.unit_test_mode",
    "database.sql_alchemy_connect_args", "database.sql_alchemy_connect_args_async",
    "database.sql_alchemy_engine_args", "database.sql_alchemy_schema", "database.sql_alchemy_session_maker",
    "execution_api.jwt_audience", "logging.logging_config_class", "logging.remote_task_handler_kwargs",
    "logging.task_log_reader", "webserver.base_url", "webserver.expose_config", "webserver.secret_key",
    "webserver.web_server_host", "webserver.web_server_port", "webserver.web_server_ssl_cert",
    "webserver.web_server_ssl_key", "webserver.workers", "workers.execution_api_server_url",
    "workers.secrets_backend", "workers.secrets_backend_kwargs",
}  # fmt: skip


def _refused(option: str) -> bool:
    """Whether the platform rests on it, given as it is or by a command or a secret's name."""
    return option.startswith("millrace.") or any(
        option.removesuffix(suffix) in _REFUSED for suffix in ("", "_cmd", "_secret")
    )


_OWN_KEYS = {
    "core.parallelism": "parallelism",
    "core.dags_are_paused_at_creation": "pause_new_dags",
}

# Measured: the scheduler with its helper processes, and a task that imports a provider.
_SCHEDULER_MIB = 350
_TASK_MIB = 200

OptionName = Annotated[
    str,
    Form(
        r"[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*",
        "write section and option of airflow.cfg such as core.max_active_runs_per_dag",
    ),
]


ConnectionId = Annotated[
    str, Form(r"[A-Za-z0-9_.-]{1,200}", "use letters, digits, underscores, dots and hyphens, 200 at most")
]
VariableName = Annotated[
    str, Form(r"[A-Za-z0-9_.-]{1,200}", "use letters, digits, underscores, dots and hyphens, 200 at most")
]

PoolName = Annotated[
    str, Form(r"[A-Za-z0-9_.-]{1,200}", "use letters, digits, underscores, dots and hyphens, 200 at most")
]
Slots = Annotated[Int, Field(ge=1, le=10000)]


class ConnectionSettings(Model):
    """A connection of Airflow with the rights of one user that the settings declare."""

    service: Literal["postgres", "object_store", "kafka"]
    """postgres, object_store or kafka."""
    user: Name
    """One of the service's `users`, or `roles` of postgres."""
    database: Name | None = None
    """Database to use (postgres); the role's only one without it."""


class AirflowSettings(ServiceSettings):
    """Apache Airflow 3: scheduled pipelines, in Python."""

    memory_mib: Annotated[MiB, Field(ge=512)] = 768
    """Memory limit of the API server, in MiB."""
    scheduler_memory_mib: Annotated[MiB, Field(ge=640)] = 1024
    """Memory limit of the scheduler with all tasks it runs, in MiB."""
    dag_processor_memory_mib: Annotated[MiB, Field(ge=320)] = 512
    """Memory limit of the DAG processor, in MiB."""
    triggerer_memory_mib: Annotated[MiB, Field(ge=320)] = 512
    """Memory limit of the triggerer, which waits for deferred tasks, in MiB."""
    parallelism: Annotated[Int, Field(ge=1, le=256)] | None = None
    """Most tasks at a time; without it as many as the scheduler's memory holds, 200 MiB each."""
    access: Access = Access.USER
    """Who may open https://airflow.<domain>, and get tokens for the API. Airflow shows nothing to who has not
    logged in, so nothing below user."""
    api_route: bool = True
    """Offer the REST API at https://airflow-api.<domain>; its clients authenticate with tokens."""
    dags_folders: tuple[Line, ...] = (DAGS_FOLDER,)
    """Folders with your DAGs, relative to Pulumi.yaml; `pipelines/dags`, where it exists, without it. A
    changed file reaches Airflow with the next `up`, which restarts nothing."""
    pause_new_dags: bool = True
    """Whether a new DAG waits until somebody turns it on."""
    warehouse_privilege: Privilege = Privilege.READ_WRITE
    """What tasks may do in each database of `postgres.databases`: read-only, read-write or owner."""
    buckets: tuple[BucketName, ...] = ("lake",)
    """Buckets that tasks may read and write, `lake` without it; made when nobody declares them."""
    kafka_read: tuple[TopicPattern, ...] = ("*",)
    """Topics that tasks may read, where Kafka is on; `x*` for all that start with x; all without it."""
    kafka_write: tuple[TopicPattern, ...] = ("*",)
    """Topics that tasks may write, where Kafka is on, likewise."""
    connections: dict[ConnectionId, ConnectionSettings] = {}
    """More connections by their ids, each with the rights of one declared user or role of another service."""
    variables: dict[VariableName, Text] = {}
    """Airflow variables by their names. Not for secrets."""
    pools: dict[PoolName, Slots] = {}
    """Pools by their names, each with its number of slots: so many of its tasks run at a time, whatever DAG
    they are of. Taking one out keeps it."""
    egress: bool = False
    """Let tasks and triggers open connections to the outside."""
    log_retention_days: Days = 30
    """Delete logs of tasks that are older, in days."""
    metadata_retention_days: Days = 90
    """Delete runs and events that are older from the metadata database, in days."""
    options: dict[OptionName, Text] = {}
    """More options of airflow.cfg, such as `core.max_active_runs_per_dag: 4`. Not for secrets."""

    @property
    def tasks_at_a_time(self) -> int:
        """Given, or what the scheduler's memory holds."""
        room = (self.scheduler_memory_mib - _SCHEDULER_MIB) // _TASK_MIB
        return self.parallelism or max(1, min(room, 256))


def environment(options: Mapping[str, str]) -> dict[str, str]:
    """Options as the variables by which Airflow takes them, in preference to airflow.cfg."""
    return {f"AIRFLOW__{name.replace('.', '__').upper()}": value for name, value in options.items()}


def is_dag_file(path: PurePath) -> bool:
    """All files, but byte code and hidden ones (``.airflowignore`` is not)."""
    hidden = any(part.startswith(".") and part != ".airflowignore" for part in path.parts)
    return not hidden and "__pycache__" not in path.parts


def problems(settings: AirflowSettings) -> Iterator[Problem]:
    """A page for nobody, folders that can't be taken, options that are the platform's, buckets twice."""
    if settings.access is Access.PUBLIC:
        # The proxy would ask nobody who they are, and Airflow's users are those that it names.
        yield Problem(("access",), "Airflow shows nothing to who has not logged in - use user or higher")
    yield from folders.problems(
        settings.dags_folders,
        "dags_folders",
        is_dag_file,
        may_lack=DAGS_FOLDER,
        limit_kib=DAGS_LIMIT_MIB * 1024,
        advice="keep data elsewhere, such as in a bucket",
    )
    for name in settings.options:
        if key := _OWN_KEYS.get(name):
            yield Problem(("options", name), f"has a key of its own - write `{key}` beside `options`")
        elif _refused(name):
            yield Problem(("options", name), "is set by the platform itself - remove it")
    for field, names in (
        ("buckets", settings.buckets),
        ("kafka_read", settings.kafka_read),
        ("kafka_write", settings.kafka_write),
    ):
        for problem in duplicates(names, (field,), "bucket" if field == "buckets" else "topic"):
            yield Problem(problem.path[:-1], problem.text)
    if BUCKETS_VARIABLE in settings.variables:
        yield Problem(("variables", BUCKETS_VARIABLE), "is a variable of the platform itself - rename it")
    if LOG_BUCKET in settings.buckets:
        place = settings.buckets.index(LOG_BUCKET)
        yield Problem(("buckets", place), f'"{LOG_BUCKET}" holds the logs - remove it')
