"""The demo's operator for Spark jobs, with stand-ins for Airflow and for Spark's REST server."""

from __future__ import annotations

import importlib
import json
import runpy
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

DEMO = Path(__file__).resolve().parents[2] / "pipelines" / "demo"
RUN = "scheduled__2026-11-21T16:00:00+00:00"
REPORT = "_reports/scheduled__2026-11-21T16-00-00-00-00/bronze_retail.json"
SECRETS = ("of-bronze", "of-shop", "of-events")
CONNECTIONS = {
    "demo_bronze": SimpleNamespace(login="demo-bronze", password="of-bronze"),
    "demo_shop": SimpleNamespace(
        host="postgres", port=5432, schema="shop", login="shop_reader", password="of-shop"
    ),
    "demo_events": SimpleNamespace(
        extra_dejson={
            "bootstrap.servers": "kafka-1:9092",
            "sasl.mechanism": "SCRAM-SHA-256",
            "sasl.username": "shop-ingest",
            "sasl.password": "of-events",
        }
    ),
}


class RequestError(Exception):
    """Stands for requests' own."""


class FinalError(Exception):
    """Stands for the one that Airflow tries no task again after."""


class Rest:
    """Spark's REST server: answers in their order, exceptions among them; the last one stays."""

    def __init__(self) -> None:
        self.states: list[Any] = ["FINISHED"]
        self.asked: list[tuple[str, str, Any]] = []

    def request(self, method: str, url: str, **more: Any) -> Any:
        self.asked.append((method, url, more.get("json")))
        if url.endswith("/create"):
            return self._answer({"success": True, "submissionId": "driver-1"})
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        if isinstance(state, Callable):  # type: ignore[arg-type]
            state = state()
        if isinstance(state, Exception):
            raise state
        found = {"success": state is not None, "workerHostPort": "spark-worker-1:1", "workerId": "worker-1"}
        return self._answer(found | ({"driverState": state} if state else {}))

    def post(self, url: str, **more: Any) -> Any:
        self.asked.append(("POST", url, None))
        return self._answer({"success": True})

    def get(self, url: str, **more: Any) -> Any:
        self.asked.append(("GET", url, more.get("params")))
        return SimpleNamespace(raise_for_status=lambda: None, text="one INFO two\nTraceback: three\n")

    def _answer(self, document: Mapping[str, Any]) -> Any:
        return SimpleNamespace(raise_for_status=lambda: None, json=lambda: document)

    @property
    def paths(self) -> list[str]:
        return [url.partition("/v1/submissions/")[2] for _, url, _ in self.asked]


class Bucket(dict[str, str]):
    """The bucket of the layer."""

    def check_for_key(self, key: str, bucket: str) -> bool:
        assert bucket == "acme-bronze"
        return key in self

    def read_key(self, key: str, bucket: str) -> str:
        return self[key]

    def delete_objects(self, bucket: str, key: str) -> None:
        self.pop(key, None)


class Log(list[str]):
    """The task's log."""

    def info(self, text: str, *values: object) -> None:
        self.append(text % values)

    warning = info


class Operator:
    """Stands for Airflow's."""

    def __init__(self, **given: Any) -> None:
        self.given, self.log = given, Log()


class Resumable:
    """Stands for Airflow's mixin, as its documentation describes it."""

    external_id_key = "remote_job_id"

    def execute_resumable(self: Any, context: Any) -> Any:
        store = context["task_state_store"]
        known = store.get(self.external_id_key)
        if known:
            state = self.get_job_status(known, context)
            if self.is_job_active(state):
                return self.poll_until_complete(known, context)
            if self.is_job_succeeded(state):
                return self.get_job_result(known, context)
        made = self.submit_job(context)
        store[self.external_id_key] = made
        self.poll_until_complete(made, context)
        return self.get_job_result(made, context)


class Store(dict[str, str]):
    """What Airflow remembers of a task between its tries."""

    def delete(self, key: str) -> None:
        self.pop(key, None)


@pytest.fixture
def rest() -> Rest:
    return Rest()


@pytest.fixture
def bucket() -> Bucket:
    return Bucket()


@pytest.fixture
def spark(rest: Rest, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module, as Airflow would import it."""

    def module(name: str, **members: Any) -> None:
        made = ModuleType(name)
        vars(made).update(members)
        monkeypatch.setitem(sys.modules, name, made)

    def variable(name: str, default: str = "", *, deserialize_json: bool = False) -> Any:
        if name == "object_store_buckets" and deserialize_json:
            return {name: f"acme-{name}" for name in ("jobs", "raw", "bronze", "silver", "lake")}
        return "none"

    hook = SimpleNamespace(get_conn=lambda: rest, base_url="https://spark:6066")
    for name in ("airflow", "airflow.providers", "airflow.providers.amazon", "airflow.providers.amazon.aws",
                 "airflow.providers.amazon.aws.hooks", "airflow.providers.http",
                 "airflow.providers.http.hooks"):  # fmt: skip
        module(name)
    module("airflow.providers.amazon.aws.hooks.s3", S3Hook=lambda name: bucket)
    module("airflow.providers.http.hooks.http", HttpHook=lambda method, name: hook)
    module("requests", RequestException=RequestError, Session=object)
    module(
        "airflow.sdk",
        BaseOperator=Operator,
        ResumableJobMixin=Resumable,
        Connection=SimpleNamespace(get=CONNECTIONS.__getitem__),
        Context=dict,
        Variable=SimpleNamespace(get=variable),
    )
    address = "https://airflow.data.test:8443/"
    module("airflow.sdk.configuration", conf=SimpleNamespace(get=lambda *key, fallback: address))
    module("airflow.sdk.exceptions", AirflowException=RuntimeError, AirflowFailException=FinalError)
    monkeypatch.syspath_prepend(str(DEMO / "dags"))
    found = importlib.import_module("demo_lib.spark")
    clock = iter(range(10**6))
    monkeypatch.setattr(
        found, "time", SimpleNamespace(monotonic=lambda: next(clock) * 10, sleep=lambda seconds: None)
    )
    yield found
    for name in ("demo_lib.spark", "demo_lib"):
        sys.modules.pop(name, None)


def job(spark: Any) -> Any:
    return spark.SparkJob(task_id="bronze", program="bronze_retail", layer="bronze", sources=True)


def context(known: str | None = None) -> dict[str, Any]:
    return {"run_id": RUN, "task_state_store": Store({"remote_job_id": known} if known else {})}


def ends(rest: Rest, bucket: Bucket, last: Any, **report: Any) -> None:
    """The driver runs, writes this report, and ends."""

    def end() -> Any:
        if report:
            bucket[REPORT] = json.dumps({"application": "app-1", "counts": {}, **report})
        return last

    rest.states = ["SUBMITTED", "RUNNING", end, last]


def test_a_job_is_submitted_and_waited_for(spark: Any, rest: Rest, bucket: Bucket) -> None:
    ends(rest, bucket, "FINISHED", state="succeeded", counts={"retail/orders": {"read": 7}})
    task, given = job(spark), context()
    result = task.execute(given)
    assert result["counts"] == {"retail/orders": {"read": 7}} and result["driver"] == "driver-1"
    assert rest.paths[:2] == ["create", "status/driver-1"]
    # Whoever clears the task gets another run of the job.
    assert given["task_state_store"] == {}
    assert "retail/orders: 7 read" in task.log
    history = "https://spark-history.data.test:8443/history/app-1/jobs/"
    assert f"Spark keeps its history at {history}" in task.log


class Stream:
    """Spark's session, and the reader of a stream that it gives."""

    def __init__(self) -> None:
        self.readStream = self
        self.given: dict[str, str] = {}

    def format(self, name: str) -> Stream:
        assert name == "kafka"
        return self

    def options(self, **given: str) -> Stream:
        self.given = given
        return self

    def load(self) -> Stream:
        return self


def test_events_are_read_by_the_mechanism_of_the_connection(
    spark: Any, rest: Rest, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A managed Kafka has another one than brokers of the platform."""
    ends(rest, bucket, "FINISHED", state="succeeded")
    job(spark).execute(context())
    for name, value in rest.asked[0][2]["environmentVariables"].items():
        monkeypatch.setenv(name, value)
    members = {
        "common": ("Job", "JobError", "run"),
        "headers": ("LIMIT", "header_problem"),
        "tables": ("append", "exists", "finish", "renew", "written"),
        "pyspark": (),
        "pyspark.sql": ("DataFrame", "functions"),
    }
    for name, own in members.items():
        module = ModuleType(name)
        vars(module).update(dict.fromkeys(own))
        monkeypatch.setitem(sys.modules, name, module)
    program = runpy.run_path(str(DEMO / "jobs" / "bronze_retail.py"))
    given = program["messages"](SimpleNamespace(spark=Stream())).given
    assert given["kafka.sasl.mechanism"] == "SCRAM-SHA-256"
    assert 'username="shop-ingest" password="of-events"' in given["kafka.sasl.jaas.config"]


def test_secrets_are_in_the_environment_alone(spark: Any, rest: Rest, bucket: Bucket) -> None:
    ends(rest, bucket, "FINISHED", state="succeeded")
    task = job(spark)
    task.execute(context())
    body = dict(rest.asked[0][2])
    environment = body.pop("environmentVariables")
    assert {environment[n] for n in ("AWS_SECRET_ACCESS_KEY", "SHOP_JDBC_PASSWORD", "KAFKA_PASSWORD")} == {
        *SECRETS
    }
    assert not [secret for secret in SECRETS if secret in json.dumps(body) or secret in str(task.log)]
    arguments = body["appArgs"]
    program = arguments.index("s3a://acme-jobs/demo/bronze_retail.py")
    assert arguments[program + 1 :] == [
        "--run", RUN, "--raw", "s3a://acme-raw", "--bronze", "s3a://acme-bronze",
        "--silver", "s3a://acme-silver", "--lake", "s3a://acme-lake",
    ]  # fmt: skip
    modules = arguments[arguments.index("--py-files") + 1].split(",")
    assert modules[0] == "s3a://acme-jobs/demo/common.py"
    # Driver and executor fit a worker of the smallest size, and the choice of executors is the settings'.
    assert "spark.driver.memory=512m" in arguments
    assert not [a for a in arguments if a.startswith(("spark.executor.memory", "spark.cores.max"))]


def test_modules_are_those_that_programs_import(spark: Any) -> None:
    programs = {
        f"{task}.py"
        for task in ("maintenance", *(f"{a}_{b}" for a in spark.BUCKETS for b in ("retail", "flights")))
    }
    there = {path.name for path in (DEMO / "jobs").glob("*.py")}
    assert there == programs | {f"{name}.py" for name in spark.MODULES}


@pytest.mark.parametrize(("retry", "error"), [(True, RuntimeError), (False, FinalError)])
def test_a_failure_is_the_jobs_own_words(
    spark: Any, rest: Rest, bucket: Bucket, retry: bool, error: type[Exception]
) -> None:
    ends(rest, bucket, "FAILED", state="failed", error="checks failed: orders", retry=retry)
    with pytest.raises(error, match="bronze_retail failed: checks failed: orders"):
        job(spark).execute(context())


def test_a_driver_that_died_shows_where_its_log_is(spark: Any, rest: Rest, bucket: Bucket) -> None:
    ends(rest, bucket, "ERROR", state="running")
    task = job(spark)
    with pytest.raises(RuntimeError, match="was cut short: driver-1 is ERROR") as raised:
        task.execute(context())
    log = "https://spark.data.test:8443/proxy/worker-1/logPage/?driverId=driver-1&logType=stderr"
    assert log in str(raised.value)
    assert [line for line in task.log if line.startswith("|")] == ["| Traceback: three"]


def test_a_report_of_a_former_try_is_not_this_ones(spark: Any, rest: Rest, bucket: Bucket) -> None:
    bucket[REPORT] = json.dumps({"state": "succeeded", "application": "app-0", "counts": {}})
    ends(rest, bucket, "ERROR")
    with pytest.raises(RuntimeError, match="cut short"):
        job(spark).execute(context())


def test_another_try_waits_for_the_driver_that_runs(spark: Any, rest: Rest, bucket: Bucket) -> None:
    ends(rest, bucket, "FINISHED", state="succeeded")
    assert job(spark).execute(context("driver-0"))["driver"] == "driver-0"
    assert "create" not in rest.paths


@pytest.mark.parametrize("state", ["FAILED", None])
def test_another_try_submits_anew_after_a_failure(spark: Any, rest: Rest, bucket: Bucket, state: Any) -> None:
    ends(rest, bucket, "FINISHED", state="succeeded")
    rest.states.insert(0, state)
    assert job(spark).execute(context("driver-0"))["driver"] == "driver-1"


def test_a_master_that_restarts_is_waited_for(spark: Any, rest: Rest, bucket: Bucket) -> None:
    # A driver that ended before is unknown to the new master; its report is there.
    ends(rest, bucket, None, state="succeeded")
    rest.states[1:1] = [RequestError("refused"), RequestError("refused")]
    assert job(spark).execute(context())["state"] == "succeeded"


def test_a_master_that_stays_away_ends_the_task(spark: Any, rest: Rest) -> None:
    rest.states = ["RUNNING", RequestError("refused")]
    with pytest.raises(RuntimeError, match="does not answer: refused"):
        job(spark).execute(context())
    assert rest.paths[-1] == "kill/driver-1"


def test_a_killed_task_kills_its_driver_without_asking_airflow(
    spark: Any, rest: Rest, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = job(spark)

    def kill() -> str:
        # From here on Airflow answers no more.
        monkeypatch.setattr(spark, "HttpHook", None)
        task.on_kill()
        return "RUNNING"

    rest.states = ["RUNNING", kill, "KILLED"]
    with pytest.raises(RuntimeError, match="driver-1 was killed, as the task was"):
        task.execute(context())
    assert rest.paths.count("kill/driver-1") == 1


def test_pipelines_by_hand_only(spark: Any) -> None:
    assert spark.schedule() is None
