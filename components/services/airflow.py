"""Airflow: API server, scheduler, DAG processor and triggerer, and the jobs that set them up."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pulumi

from components import airflow_config, airflow_connections
from components.airflow_config import DAGS, ETC, LOGS, PORT, RUN, SCRATCH
from components.airflow_settings import BUCKETS_VARIABLE, AirflowSettings, environment, problems
from components.postgres_settings import Database
from components.problems import Problem
from components.proxy.sites import members
from components.service import TLS_FOLDER, Demand, Need, Service, ca_file, tls_files
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

_UID = 50000
_API_HOST = "airflow-api"
_METADATA = Database(name="airflow", role="airflow")


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
        yield from airflow_connections.needs(settings, platform)

    @classmethod
    def credentials(cls, settings: AirflowSettings, demands: Sequence[Demand]) -> Iterable[str]:
        """Keys for encryption, tokens and cookies, and what the proxy proves itself by."""
        return ["fernet", "jwt", "proxy", "session"]

    @classmethod
    def calls_out(cls, settings: AirflowSettings, platform: Settings) -> bool:
        """DAGs do, if the settings say so."""
        return settings.egress

    @classmethod
    def check(
        cls, settings: AirflowSettings, demands: Sequence[Demand], platform: Settings
    ) -> Iterable[Problem]:
        """Those of the settings by themselves, and connections as users that there are not."""
        return [*problems(settings), *airflow_connections.problems(settings, platform)]

    def build(self) -> None:
        """Database, four programs, DAG files."""
        self._database = self.context.platform.connect(self.key, "postgres", _METADATA)
        self._keys = airflow_config.fernet_keys(self.credential("fernet"), self.former("fernet"))
        self._common = self._common_files()
        migrated = self.run(self._migrate())
        if self.settings.pools:
            self.run(self._pools(), after=[migrated])
        processor = self.deploy(self._dag_processor(), after=[migrated])
        # A volume that somebody emptied has no DAGs: every new container of its owner gets the job.
        self.run(self._dags(processor.instances))
        others = [
            self.deploy(workload, after=[migrated])
            for workload in (self._api_server(), self._scheduler(), self._triggerer())
        ]
        # Programs that knew the former key alone could not read what the job writes.
        self.run(self._rotate(), after=[ready for d in (processor, *others) for ready in d.ready])

    def connections(self) -> Mapping[str, Any]:
        """Addresses of the web page and the REST API: one inside the platform, two through the proxy."""
        out = {"url": f"https://{self.hostname}:{PORT}", "public_url": self.public_url()}
        return out | ({"public_api_url": self.public_url(_API_HOST)} if self.settings.api_route else {})

    # -- programs

    def _api_server(self) -> Workload:
        users = File(path=f"{RUN}/users.json", content=self._users(), secret=True)
        tls = [file for file in tls_files(self.certificate()) if not file.path.endswith("/ca.crt")]
        arguments = ("--host", "0.0.0.0", "--port", str(PORT))
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
            env={"TMPDIR": SCRATCH},
            volumes=(self._dag_volume(), self._logs(), Volume(name="tmp", path=SCRATCH, data=False)),
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
                Volume(name="dags", path=DAGS, data=False, read_only=True),
                Volume(name="logs", path=LOGS, data=False),
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
            probe=Probe(command=("python", f"{ETC}/probe.py", probe), deadline_s=600),
            limits=Limits(memory_mib=memory_mib, cpus=self.settings.cpus),
            egress=egress,
            stop_grace_s=stop_grace_s,
        )

    def _dag_volume(self) -> Volume:
        return Volume(name="dags", path=DAGS, data=False, read_only=True, of=f"{self.hostname}-dag-processor")

    def _logs(self, *, read_only: bool = False) -> Volume:
        # Shared, the API server reads what a running task writes without asking a log server.
        return Volume(
            name="logs", path=LOGS, data=False, read_only=read_only, of=f"{self.hostname}-dag-processor"
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
        endpoints = [Endpoint(name="web", port=PORT, scheme=Scheme.HTTPS, route=page)]
        if self.settings.api_route:
            endpoints.append(Endpoint(name="api", port=PORT, scheme=Scheme.HTTPS, route=api))
        return tuple(endpoints)

    # -- jobs

    def _migrate(self) -> Job:
        return Job(
            name="migrate",
            image="airflow",
            command=("airflow", "db", "migrate"),
            user=_UID,
            env=self._env(),
            files=self._common,
            limits=Limits(memory_mib=512, cpus=self.settings.cpus),
            timeout_s=600,
        )

    def _pools(self) -> Job:
        pools = File(path=f"{ETC}/pools.json", content=json.dumps(self.settings.pools, indent=1) + "\n")
        return self._database_job("pools", "pools.py", pools, memory_mib=128)

    def _rotate(self) -> Job:
        keys = File(path=f"{RUN}/fernet", content=self._keys, secret=True)
        return self._database_job("fernet", "rotate_fernet.py", keys, memory_mib=256, timeout_s=600)

    def _database_job(
        self, name: str, program: str, given: File, *, memory_mib: int, timeout_s: int = 300
    ) -> Job:
        """Runs a program of ours on a file and the database."""
        script = File(path=f"{ETC}/{program}", content=render(f"airflow/{program}"))
        return Job(
            name=name,
            image="airflow",
            command=("python", script.path, given.path, f"{RUN}/database"),
            user=_UID,
            files=(*self._database_files(), given, script),
            limits=Limits(memory_mib=memory_mib, cpus=self.settings.cpus),
            timeout_s=timeout_s,
        )

    def _dags(self, instances: Sequence[pulumi.Output[str]]) -> Job:
        script = File(path=f"{ETC}/sync_dags.py", content=render("airflow/sync_dags.py"))
        bucket = self._log_bucket
        manifest = File(path=f"{ETC}/dags.json", content=airflow_config.manifest(self.settings, bucket))
        return Job(
            name="dags",
            image="airflow",
            command=("python", script.path, manifest.path, DAGS),
            user=_UID,
            files=(script, manifest),
            volumes=(Volume(name="dags", path=DAGS, of=f"{self.hostname}-dag-processor"),),
            limits=Limits(memory_mib=128, cpus=self.settings.cpus),
            triggers=tuple(instances),
        )

    # -- configuration

    def _env(self) -> dict[str, str]:
        return {
            "AIRFLOW_CONFIG": f"{RUN}/airflow.cfg",
            # For what Airflow might leave there; the image's own folder belongs to the image.
            "AIRFLOW_HOME": "/tmp/airflow",
            "PYTHONPATH": f"{ETC}/python",
            "PGSSLROOTCERT": f"{TLS_FOLDER}/ca.crt",
            **environment(self.settings.options),
        }

    def _common_files(self) -> tuple[File, ...]:
        platform = self.context.platform
        config = airflow_config.config(
            self.settings,
            self._database,
            {name: self.credential(name) for name in ("jwt", "session")},
            keys=self._keys,
            log_bucket=self._log_bucket,
            hostname=self.hostname,
            base_url=self.public_url(),
            time_zone=platform.settings.time_zone,
        )
        offered = airflow_connections.document(self.key, self.settings, platform)
        names = airflow_connections.bucket_names(self.key, self.settings, platform)
        variables = {**self.settings.variables, BUCKETS_VARIABLE: json.dumps(names, sort_keys=True)}
        login = render("airflow/millrace_login.py")
        return (
            *self._database_files(),
            File(path=f"{RUN}/airflow.cfg", content=config, secret=True),
            File(path=f"{RUN}/connections.json", content=offered, secret=True),
            File(path=f"{ETC}/variables.json", content=json.dumps(variables, indent=1) + "\n"),
            File(path=f"{ETC}/probe.py", content=render("airflow/probe.py")),
            File(path=f"{ETC}/python/millrace_login.py", content=login),
        )

    @property
    def _log_bucket(self) -> str:
        return self.context.platform.store(self.key, airflow_connections.LOGS).path

    def _database_files(self) -> tuple[File, File]:
        uri = airflow_config.database_uri(self._database)
        return (
            ca_file(self.trusted),
            File(path=f"{RUN}/database", content=uri, secret=True),
        )

    def _users(self) -> pulumi.Output[str]:
        platform = self.context.platform
        names = members(platform.settings.users, self.settings.access)
        wanted = [user for user in platform.settings.users if user.name in names]
        return airflow_config.users(wanted, platform.users, self.credential("proxy"))
