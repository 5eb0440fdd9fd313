"""Airflow: API server, scheduler, DAG processor and triggerer, and the jobs that set them up."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pulumi

from components import airflow_connections as offered
from components.airflow_settings import (
    LOG_BUCKET,
    AirflowSettings,
    dag_texts,
    environment,
    problems,
)
from components.connection import Connection
from components.object_store_settings import Bucket
from components.postgres_settings import Database, DatabaseAccess
from components.problems import Problem
from components.proxy.sites import members, port_suffix
from components.service import TLS_FOLDER, Demand, Need, Service, ca_file, tls_files
from components.services.object_store import REGION
from components.settings import Settings
from components.templates import CONFIGS, render
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

_PORT = 8443
_UID = 50000
_API_HOST = "airflow-api"
# What holds secrets, what everybody may read, what lives in volumes.
_RUN, _ETC = "/run/millrace/airflow", "/etc/millrace/airflow"
_DAGS, _LOGS, _SCRATCH, _KEYS = (f"/var/lib/millrace/airflow-{n}" for n in ("dags", "logs", "tmp", "keys"))
_CLEANUP = "platform_cleanup"
_SCRATCH_DAYS = 7

_METADATA = Database(name="airflow", role="airflow")
TASK_ROLE = "airflow_tasks"
"""Role of tasks in the declared databases; the metadata database is not for them."""


class Airflow(Service):
    """Apache Airflow 3 with the platform's users, connections and object store.

    Tasks run in the scheduler's container (LocalExecutor). DAG files come by a job into a volume that the
    programs share, so that a changed DAG restarts nothing.
    """

    key = "airflow"
    settings_model = AirflowSettings
    settings: AirflowSettings

    @classmethod
    def needs(cls, settings: AirflowSettings, platform: Settings) -> Iterable[Need]:
        """A database and a bucket of its own, and for tasks whatever else is there."""
        yield Need(service="postgres", request=_METADATA)
        for request in _warehouses(settings, platform).values():
            yield Need(service="postgres", request=request)
        for name in (LOG_BUCKET, *settings.buckets):
            yield Need(service="object_store", request=Bucket(name=name))

    @classmethod
    def credentials(cls, settings: AirflowSettings, demands: Sequence[Demand]) -> Iterable[str]:
        """Keys for encryption, tokens and cookies, and what the proxy proves itself by."""
        return ["fernet", "jwt", "proxy", "session"]

    @classmethod
    def check(
        cls, settings: AirflowSettings, demands: Sequence[Demand], platform: Settings
    ) -> Iterable[Problem]:
        """See :func:`components.airflow_settings.problems`."""
        return problems(settings)

    def build(self) -> None:
        """Database, four programs, DAG files."""
        self._database = self.context.platform.connect(self.key, "postgres", _METADATA)
        self._common = self._common_files()
        migrated = self.run(self._migrate())
        processor = self.deploy(self._dag_processor(), after=[migrated])
        # A volume that somebody emptied has no DAGs: every new container of its owner gets the job.
        self.run(self._dags(processor.instances))
        rotated = self.run(self._rotate(), after=[migrated])
        self.deploy(self._api_server(), after=[rotated])
        self.deploy(self._scheduler(), after=[rotated])
        self.deploy(self._triggerer(), after=[rotated])

    def connections(self) -> Mapping[str, Any]:
        """Addresses of the web page and the REST API."""
        out = {"url": self._public(self.hostname)}
        return out | ({"api_url": self._public(_API_HOST)} if self.settings.api_route else {})

    # -- programs

    def _api_server(self) -> Workload:
        users = File(path=f"{_RUN}/users.json", content=self._users(), secret=True)
        tls = [file for file in tls_files(self.certificate()) if not file.path.endswith("/ca.crt")]
        arguments = ("--host", "0.0.0.0", "--port", str(_PORT))
        certificate = ("--ssl-cert", f"{TLS_FOLDER}/tls.crt", "--ssl-key", f"{TLS_FOLDER}/tls.key")
        return self._workload(
            self.key,
            ("airflow", "api-server", *arguments, *certificate),
            probe="api",
            memory_mib=self.settings.memory_mib,
            files=(users, *tls),
            volumes=(self._logs(read_only=True),),
            endpoints=self._endpoints(),
        )

    def _scheduler(self) -> Workload:
        return self._workload(
            "scheduler",
            ("airflow", "scheduler", "--skip-serve-logs"),
            probe="SchedulerJob",
            memory_mib=self.settings.scheduler_memory_mib,
            # Tasks hold more than the 64 MiB of /tmp in temporary files.
            env={"TMPDIR": _SCRATCH},
            volumes=(self._dag_volume(), self._logs(), Volume(name="tmp", path=_SCRATCH, data=False)),
            egress=self.settings.egress,
            stop_grace_s=60,
        )

    def _triggerer(self) -> Workload:
        return self._workload(
            "triggerer",
            ("airflow", "triggerer", "--skip-serve-logs"),
            probe="TriggererJob",
            memory_mib=self.settings.triggerer_memory_mib,
            volumes=(self._dag_volume(), self._logs()),
            egress=self.settings.egress,
        )

    def _dag_processor(self) -> Workload:
        return self._workload(
            "dag_processor",
            ("airflow", "dag-processor"),
            probe="DagProcessorJob",
            memory_mib=self.settings.dag_processor_memory_mib,
            volumes=(
                Volume(name="dags", path=_DAGS, data=False, read_only=True),
                Volume(name="logs", path=_LOGS, data=False),
                Volume(name="keys", path=_KEYS),
            ),
        )

    def _workload(
        self,
        name: str,
        command: tuple[str, ...],
        *,
        probe: str,
        memory_mib: int,
        volumes: tuple[Volume, ...],
        files: tuple[File, ...] = (),
        env: Mapping[str, str] | None = None,
        endpoints: tuple[Endpoint, ...] = (),
        egress: bool = False,
        stop_grace_s: int = 30,
    ) -> Workload:
        return Workload(
            name=name,
            image="airflow",
            command=command,
            user=_UID,
            env=self._env() | dict(env or {}),
            files=(*self._common, *files),
            volumes=volumes,
            endpoints=endpoints,
            # Four programs that import for seconds start at the same time.
            probe=Probe(command=("python", f"{_ETC}/probe.py", probe), deadline_s=180),
            limits=Limits(memory_mib=memory_mib, cpus=self.settings.cpus),
            egress=egress,
            stop_grace_s=stop_grace_s,
        )

    def _dag_volume(self) -> Volume:
        return Volume(
            name="dags", path=_DAGS, data=False, read_only=True, of=f"{self.hostname}-dag-processor"
        )

    def _logs(self, *, read_only: bool = False) -> Volume:
        # Shared, the API server reads what a running task writes without asking a log server.
        return Volume(
            name="logs", path=_LOGS, data=False, read_only=read_only, of=f"{self.hostname}-dag-processor"
        )

    def _endpoints(self) -> tuple[Endpoint, ...]:
        page = Route(
            host=self.hostname,
            access=self.settings.access,
            title="Airflow",
            purpose="Schedule and watch pipelines",
            group=Group.PROCESSING,
            headers={"X-Millrace-Proxy": self.credential("proxy").password},
        )
        api = Route(
            host=_API_HOST,
            access=Access.PUBLIC,
            title="Airflow API",
            purpose="Airflow's REST API, with tokens",
            group=Group.PROCESSING,
            own_login=True,
        )
        endpoints = [Endpoint(name="web", port=_PORT, scheme=Scheme.HTTPS, route=page)]
        if self.settings.api_route:
            endpoints.append(Endpoint(name="api", port=_PORT, scheme=Scheme.HTTPS, route=api))
        return tuple(endpoints)

    # -- jobs

    def _migrate(self) -> Job:
        return self._job("migrate", ("airflow", "db", "migrate"), memory_mib=512, timeout_s=600)

    def _rotate(self) -> Job:
        key = File(path=f"{_RUN}/fernet", content=self._fernet(), secret=True)
        script = File(path=f"{_ETC}/rotate_fernet.py", content=render("airflow/rotate_fernet.py"))
        return self._job(
            "fernet",
            ("python", script.path, key.path, f"{_KEYS}/fernet"),
            memory_mib=512,
            timeout_s=600,
            files=(key, script),
            volumes=(Volume(name="keys", path=_KEYS, of=f"{self.hostname}-dag-processor"),),
        )

    def _job(
        self,
        name: str,
        command: tuple[str, ...],
        *,
        memory_mib: int,
        timeout_s: int,
        files: tuple[File, ...] = (),
        volumes: tuple[Volume, ...] = (),
    ) -> Job:
        return Job(
            name=name,
            image="airflow",
            command=command,
            user=_UID,
            env=self._env(),
            files=(*self._common, *files),
            volumes=volumes,
            limits=Limits(memory_mib=memory_mib, cpus=self.settings.cpus),
            timeout_s=timeout_s,
        )

    def _dags(self, instances: Sequence[pulumi.Output[str]]) -> Job:
        settings = self.settings
        folder = CONFIGS / "airflow" / "dags"
        keep = {
            "metadata_days": settings.metadata_retention_days,
            "log_days": settings.log_retention_days,
            "bucket": LOG_BUCKET,
            "folders": {_LOGS: settings.log_retention_days, _SCRATCH: _SCRATCH_DAYS},
        }
        manifest = {f"own/{name}": text for name, text in dag_texts(settings.folder).items()}
        manifest |= {f"platform/{name}": text for name, text in dag_texts(folder).items()}
        manifest[f"platform/{_CLEANUP}.json"] = json.dumps(keep, indent=1) + "\n"
        return Job(
            name="dags",
            image="airflow",
            command=("python", f"{_ETC}/sync_dags.py", f"{_ETC}/dags.json", _DAGS),
            user=_UID,
            files=(
                File(path=f"{_ETC}/sync_dags.py", content=render("airflow/sync_dags.py")),
                File(path=f"{_ETC}/dags.json", content=json.dumps(manifest, indent=0, sort_keys=True)),
            ),
            volumes=(Volume(name="dags", path=_DAGS, of=f"{self.hostname}-dag-processor"),),
            limits=Limits(memory_mib=128, cpus=settings.cpus),
            triggers=tuple(instances),
        )

    # -- configuration

    def _env(self) -> dict[str, str]:
        return {
            "AIRFLOW_CONFIG": f"{_RUN}/airflow.cfg",
            # For what Airflow might leave there; the image's own folder belongs to the image.
            "AIRFLOW_HOME": "/tmp/airflow",
            "PYTHONPATH": f"{_ETC}/python",
            "PGSSLROOTCERT": f"{TLS_FOLDER}/ca.crt",
            **environment(self.settings.options),
        }

    def _common_files(self) -> tuple[File, ...]:
        uri = self._database_uri()
        return (
            ca_file(self.context.platform.authority.certificate),
            File(path=f"{_RUN}/airflow.cfg", content=self._config(uri), secret=True),
            File(path=f"{_RUN}/database", content=uri, secret=True),
            File(path=f"{_RUN}/connections.json", content=self._offered(), secret=True),
            File(path=f"{_ETC}/probe.py", content=render("airflow/probe.py")),
            File(path=f"{_ETC}/python/millrace_login.py", content=render("airflow/millrace_login.py")),
        )

    def _database_uri(self) -> pulumi.Output[str]:
        return pulumi.Output.secret(
            self._database.uri.apply(lambda uri: f"{uri}&sslrootcert={TLS_FOLDER}/ca.crt")
        )

    def _config(self, uri: pulumi.Output[str]) -> pulumi.Output[str]:
        settings, platform = self.settings, self.context.platform.settings
        plain: dict[str, object] = {
            "time_zone": platform.time_zone,
            "parallelism": settings.tasks_at_a_time,
            "pause_new_dags": settings.pause_new_dags,
            "api_host": self.hostname,
            "api_port": _PORT,
            "base_url": self._public(self.hostname),
            "bucket": LOG_BUCKET,
            "ca": f"{TLS_FOLDER}/ca.crt",
            "connections": f"{_RUN}/connections.json",
            "dags": _DAGS,
            "logs": _LOGS,
            "users": f"{_RUN}/users.json",
        }
        secrets = {
            "database": uri,
            "database_async": self._database.uri.apply(_for_asyncpg),
            "fernet": self._fernet(),
            # 64 bytes is what the signature's hash calls for.
            "jwt": self.credential("jwt").password.apply(lambda p: hashlib.sha512(p.encode()).hexdigest()),
            "session": self.credential("session").password,
        }
        return pulumi.Output.secret(
            pulumi.Output.all(**secrets).apply(
                lambda found: render("airflow/airflow.cfg.j2", **plain, **found)
            )
        )

    def _fernet(self) -> pulumi.Output[str]:
        """A Fernet key: 32 bytes, as URL-safe base64."""
        password = self.credential("fernet").password
        return pulumi.Output.secret(
            password.apply(
                lambda p: base64.urlsafe_b64encode(hashlib.sha256(f"fernet {p}".encode()).digest()).decode()
            )
        )

    def _users(self) -> pulumi.Output[str]:
        platform = self.context.platform
        roles = {user.name: user.role.value for user in platform.settings.users}
        names = members(platform.settings.users, self.settings.access)
        hashes = pulumi.Output.all(*(platform.users[name].bcrypt_hash for name in names))
        return pulumi.Output.secret(
            pulumi.Output.all(self.credential("proxy").password, hashes).apply(
                lambda found: json.dumps(
                    {
                        "proxy": found[0],
                        "users": {
                            name: {"role": roles[name], "hash": hash_}
                            for name, hash_ in zip(names, found[1], strict=True)
                        },
                    },
                    indent=1,
                )
            )
        )

    def _offered(self) -> pulumi.Output[str]:
        """All connections of tasks, by the ids that DAGs use."""
        platform = self.context.platform
        logs = platform.connect(self.key, "object_store", Bucket(name=LOG_BUCKET))
        store = offered.object_store(logs, REGION)
        entries: dict[str, offered.Entry] = {"object_store": store, "aws_default": store}
        warehouses = _warehouses(self.settings, platform.settings)
        for name, request in warehouses.items():
            entries[f"postgres_{name}"] = offered.postgres(self._connect("postgres", request))
        if len(warehouses) == 1:
            entries["postgres_default"] = entries[f"postgres_{next(iter(warehouses))}"]
        return offered.document(entries)

    def _connect(self, service: str, request: Any) -> Connection:
        return self.context.platform.connect(self.key, service, request)

    def _public(self, host: str) -> str:
        settings = self.context.platform.settings
        return f"https://{host}.{settings.domain}{port_suffix(settings)}"


def _warehouses(settings: AirflowSettings, platform: Settings) -> dict[str, DatabaseAccess]:
    """What is requested of each database that the settings of Postgres declare."""
    postgres: Any = platform.services.get("postgres")
    return {
        database.name: DatabaseAccess(
            database=database.name, role=TASK_ROLE, privilege=settings.warehouse_privilege
        )
        for database in (postgres.databases if postgres else ())
    }


def _for_asyncpg(uri: str) -> str:
    return uri.replace("postgresql://", "postgresql+asyncpg://", 1).replace("sslmode=", "ssl=")
