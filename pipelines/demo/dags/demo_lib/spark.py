"""An operator that runs one of the demo's Spark jobs in the cluster, and waits for it."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import requests
from airflow.providers.amazon.aws.hooks.s3 import S3Hook
from airflow.providers.http.hooks.http import HttpHook
from airflow.sdk import BaseOperator, Connection, Context, ResumableJobMixin, Variable
from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import AirflowException, AirflowFailException

POOL = "demo_spark"
"""Has one slot. A driver and an executor fill a small worker, and two drivers alone would wait for ever for
their executors; and Delta tables in S3 have one writer at a time."""

BUCKETS = {"bronze": "bronze", "silver": "silver", "gold": "lake"}
"""The bucket that a layer's jobs write. Airflow's connection ``demo_<layer>`` has the keys."""

PLACES = ("raw", "bronze", "silver", "lake")
"""Buckets that programs are told the addresses of."""

MODULES = ("common", "flights", "gold", "headers", "reports", "storage", "tables")
"""What the programs import of each other."""

_SPARK = "4.2.0"
"""The protocol requires a version; the server compares it with nothing."""
_ACTIVE = ("SUBMITTED", "RUNNING", "RELAUNCHING", "UNKNOWN")
_LOST = "LOST"
_EVERY_S = 2
_SILENCE_S = 180
"""How long Spark's master may be away before the task gives up; its restart takes seconds."""
_KILL_S = 4
"""Airflow gives a task that it kills five seconds before it uses force."""
_WORKER_PORT = 8480
"""Of a worker's pages, inside the platform."""
_LOG_BYTES, _LOG_LINES = 30_000, 40
"""How much of the end of a driver's log is fetched, and how much of that is shown."""

# They live for less than a minute: the collector with the least overhead, and no second compilation.
_JAVA = "-XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xss512k"

_PROPERTIES = {
    # Of the worker's own choice are executor memory and cores, which the settings of Spark say.
    "spark.driver.memory": "512m",
    "spark.driver.extraJavaOptions": _JAVA,
    "spark.executor.extraJavaOptions": _JAVA,
    # Kafka's login is one text with the password in it.
    "spark.redaction.regex": "(?i)secret|password|token|access[.]?key|jaas",
    "spark.sql.redaction.options.regex": "(?i)secret|password|token|access[.]?key|jaas|url",
}


def bucket(name: str) -> str:
    """What a bucket of the settings is called in the object store."""
    return str(Variable.get("object_store_buckets", deserialize_json=True)[name])


def schedule() -> str | None:
    """When the pipelines run, as the settings say."""
    found = Variable.get("demo_schedule", default="@hourly")
    return None if found == "none" else str(found)


def shop_and_events() -> dict[str, str]:
    """Where the shop's database and its events are, for a job's environment."""
    shop, events = Connection.get("demo_shop"), Connection.get("demo_events")
    kafka = events.extra_dejson
    tls = "sslmode=verify-full&sslrootcert=/run/millrace/tls/ca.crt"
    return {
        "SHOP_JDBC_URL": f"jdbc:postgresql://{shop.host}:{shop.port}/{shop.schema}?{tls}",
        "SHOP_JDBC_USER": shop.login,
        "SHOP_JDBC_PASSWORD": shop.password,
        "KAFKA_BOOTSTRAP": kafka["bootstrap.servers"],
        "KAFKA_MECHANISM": kafka["sasl.mechanism"],
        "KAFKA_USER": kafka["sasl.username"],
        "KAFKA_PASSWORD": kafka["sasl.password"],
    }


class SparkJob(ResumableJobMixin, BaseOperator):
    """Submits ``<program>.py`` of the bucket ``jobs`` by Spark's REST server, and waits for its end.

    A task that is tried again while its driver still runs waits for that driver. One that is killed, or
    takes too long, kills it. Spark's own supervision of drivers stays off: it would start a job that found
    a mistake again and again, while a task of Airflow's has its ``retries``.

    What went wrong is in the task's log: the job's own report, else the end of the driver's log.

    Args:
        program: name of the program, which is the job's name in reports.
        layer: whose keys it gets: bronze, silver or gold.
        arguments: more arguments of the program.
        job: name of its report, where it is another than the program's.
        sources: whether it reads the shop's database and events.
    """

    def __init__(
        self,
        *,
        program: str,
        layer: str,
        arguments: Sequence[str] = (),
        job: str | None = None,
        sources: bool = False,
        **more: Any,
    ) -> None:
        more.setdefault("pool", POOL)
        more.setdefault("retries", 2)
        more.setdefault("retry_delay", timedelta(seconds=20))
        more.setdefault("execution_timeout", timedelta(minutes=30))
        super().__init__(**more)
        self.program, self.layer, self.arguments = program, layer, tuple(arguments)
        self.job, self.sources = job or program, sources
        self._driver: str | None = None
        self._outcome: dict[str, Any] | None = None
        self._killed = False
        self._session: requests.Session | None = None
        self._killer: requests.Session | None = None
        self._base = ""

    def execute(self, context: Context) -> Any:
        """Submit the job, or find the one that a former try submitted, and wait for it."""
        try:
            return self.execute_resumable(context)
        except Exception:
            # A try that lost sight of its driver must not leave it writing beside the next one.
            self._kill()
            raise

    def on_kill(self) -> None:
        """Kill the driver, when the task is killed or takes too long."""
        self._killed = True
        self._kill()

    # -- for the mixin

    def submit_job(self, context: Context) -> str:
        """The id of a new driver."""
        # Whatever report is there in the end is the new driver's.
        S3Hook(f"demo_{self.layer}").delete_objects(bucket(BUCKETS[self.layer]), self._report_key(context))
        made = self._request("POST", "create", json=self._submission(str(context["run_id"])))
        if not made.get("success"):
            raise AirflowException(f"Spark took no submission: {made.get('message')}")
        self._driver = str(made["submissionId"])
        self.log.info("%s submitted as %s; it is shown at %s", self.program, self._driver, page("spark"))
        return self._driver

    def get_job_status(self, external_id: Any, context: Context) -> str:
        """State of a driver."""
        return str(self._status(str(external_id))["driverState"])

    def is_job_active(self, status: str) -> bool:
        """Whether it has yet to end."""
        return status in _ACTIVE

    def is_job_succeeded(self, status: str) -> bool:
        """Whether it ended well."""
        return status == "FINISHED"

    def poll_until_complete(self, external_id: Any, context: Context) -> Any:
        """Wait for the driver's end, and return what the job reports."""
        self._driver = driver = str(external_id)
        shown, since = "", time.monotonic()
        while True:
            status = self._status(driver)
            state = str(status["driverState"])
            if self._killed:
                raise AirflowException(f"{driver} was killed, as the task was")
            if state != shown:
                where = f" on {status['workerHostPort']}" if status.get("workerHostPort") else ""
                self.log.info("%s: %s%s", driver, state, where)
                shown = state
            if state not in _ACTIVE:
                break
            if state == "SUBMITTED" and time.monotonic() - since > 60:
                self.log.info("%s waits for a worker with a free core and memory", driver)
                since = time.monotonic()
            time.sleep(_EVERY_S)
        self._driver = None
        self._outcome = self._result(driver, status, context)
        return self._outcome

    def get_job_result(self, external_id: Any, context: Context) -> Any:
        """What the job reports, also that of a former try."""
        return self._outcome or self._result(str(external_id), self._status(str(external_id)), context)

    # -- Spark's REST server

    def _submission(self, run: str) -> dict[str, Any]:
        keys = Connection.get(f"demo_{self.layer}")
        environment = {"AWS_ACCESS_KEY_ID": keys.login, "AWS_SECRET_ACCESS_KEY": keys.password}
        # spark-submit takes these from its arguments alone where the worker's file has others.
        chosen = [part for item in _PROPERTIES.items() for part in ("--conf", "=".join(item))]
        jobs = f"s3a://{bucket('jobs')}/demo"
        modules = ",".join(f"{jobs}/{name}.py" for name in MODULES)
        places = [part for name in PLACES for part in (f"--{name}", f"s3a://{bucket(name)}")]
        return {
            "action": "CreateSubmissionRequest",
            "clientSparkVersion": _SPARK,
            "appResource": "",
            "mainClass": "org.apache.spark.deploy.SparkSubmit",
            "appArgs": [
                *chosen,
                "--py-files",
                modules,
                f"{jobs}/{self.program}.py",
                "--run",
                run,
                *places,
                *self.arguments,
            ],
            "sparkProperties": {"spark.app.name": self.job, **_PROPERTIES},
            "environmentVariables": environment | (shop_and_events() if self.sources else {}),
        }

    def _status(self, driver: str) -> dict[str, Any]:
        """A driver's status. A master that restarts forgets those that had ended: their state is LOST."""
        found = self._request("GET", f"status/{driver}")
        return found if found.get("driverState") else {**found, "driverState": _LOST}

    def _request(self, method: str, path: str, **more: Any) -> dict[str, Any]:
        """An answer of the REST server, waited for while the master is away. A creation is sent once."""
        deadline = time.monotonic() + (_SILENCE_S if method == "GET" else 0)
        while True:
            try:
                answer = self._client().request(method, self._url(path), timeout=30, **more)
                answer.raise_for_status()
                return dict(answer.json())
            except requests.RequestException as error:
                if time.monotonic() >= deadline or self._killed:
                    raise AirflowException(f"Spark's REST server does not answer: {error}") from error
                self.log.warning("Spark's REST server does not answer, asking again: %s", error)
                time.sleep(5)

    def _client(self) -> requests.Session:
        """A session with the token of the connection ``spark_default``."""
        if self._session is None:
            hook = HttpHook("GET", "spark_default")
            self._session, self._killer = hook.get_conn(), hook.get_conn()
            self._base = hook.base_url
        return self._session

    def _url(self, path: str) -> str:
        return f"{self._base}/v1/submissions/{path}"

    def _kill(self) -> None:
        driver, self._driver = self._driver, None
        if driver is None or self._killer is None:
            return
        # By a session that is there: a task that is killed is answered no more when it asks Airflow for a
        # connection. And by one of its own: the other may be in the middle of a request.
        self.log.info("killing %s", driver)
        try:
            self._killer.post(self._url(f"kill/{driver}"), timeout=_KILL_S).raise_for_status()
        except requests.RequestException as error:
            self.log.warning("%s may still run: %s", driver, error)

    # -- the end

    def _result(self, driver: str, status: Mapping[str, Any], context: Context) -> dict[str, Any]:
        state = status["driverState"]
        # Whoever clears the task wants the job to run again.
        context["task_state_store"].delete(self.external_id_key)
        report = self._report(context)
        if report:
            address = page("spark-history", f"/history/{quote(report['application'])}/jobs/")
            self.log.info("Spark keeps its history at %s", address)
        if report and report["state"] == "succeeded" and state in ("FINISHED", _LOST):
            for table, counts in report["counts"].items():
                self.log.info("%s: %s", table, ", ".join(f"{n} {what}" for what, n in counts.items()))
            return {**report, "driver": driver}
        if report and report["state"] == "failed":
            message = f"{self.job} failed: {report['error']}"
            # Another try would find the same.
            raise (AirflowException if report["retry"] else AirflowFailException)(message)
        told = f" {status['message']}" if status.get("message") else ""
        self._show_log(driver, status)
        worker = quote(str(status.get("workerId")))
        log = page("spark", f"/proxy/{worker}/logPage/?driverId={driver}&logType=stderr")
        raise AirflowException(f"{self.job} was cut short: {driver} is {state}.{told} Its log: {log}")

    def _report_key(self, context: Context) -> str:
        folder = re.sub(r"[^A-Za-z0-9_.-]", "-", str(context["run_id"]))
        return f"_reports/{folder}/{self.job}.json"

    def _report(self, context: Context) -> dict[str, Any] | None:
        """The job's report, if it wrote one."""
        hook, key = S3Hook(f"demo_{self.layer}"), self._report_key(context)
        place = bucket(BUCKETS[self.layer])
        if not hook.check_for_key(key, place):
            return None
        return dict(json.loads(hook.read_key(key, place)))

    def _show_log(self, driver: str, status: Mapping[str, Any]) -> None:
        """The end of the driver's log, from the worker that ran it, if that is there."""
        host = str(status.get("workerHostPort") or "").partition(":")[0]
        if not host:
            return
        query = {"driverId": driver, "logType": "stderr", "byteLength": str(_LOG_BYTES)}
        try:
            # Pages of the cluster take the same token as its REST server.
            answer = self._client().get(f"https://{host}:{_WORKER_PORT}/log/", params=query, timeout=15)
            answer.raise_for_status()
            lines = [line for line in answer.text.splitlines() if " INFO " not in line]
            for line in lines[-_LOG_LINES:]:
                self.log.info("| %s", line)
        except Exception as error:
            self.log.info("its worker's log is not to be had: %s", error)


def page(host: str, path: str = "/") -> str:
    """Public address of a page of another service: they differ from Airflow's own in the first label."""
    return re.sub(r"//airflow\.", f"//{host}.", conf.get("api", "base_url", fallback="").rstrip("/")) + path
