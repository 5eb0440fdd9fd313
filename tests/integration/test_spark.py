"""Spark as its users see it: jobs from a driver and by REST, the pages through the proxy, and failures."""

from __future__ import annotations

import base64
import hashlib
import hmac
import io
import json
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.integration.clients import object_store, postgres
from tests.integration.spark_driver import SHORT_LIVED, Driver, driver
from tests.integration.stack import Stack, wait_until

IDLE_MIB = 800

# Everything a job does that an outside part has a hand in, each result under a name of its own.
PROGRAM = """
import json, os, sys
from pyspark.sql import SparkSession
from delta.tables import DeltaTable

spark = SparkSession.builder.appName("everything").getOrCreate()
sc = spark.sparkContext
found = {}

path = "s3a://raw/spark-test/table"
rows = spark.range(1000).selectExpr("id", "id % 7 AS k").coalesce(1)
rows.write.format("delta").mode("overwrite").save(path)
DeltaTable.forPath(spark, path).update("id < 10", {"k": "100"})
found["delta"] = spark.read.format("delta").load(path).where("k = 100").count()

spark.range(100).coalesce(1).write.mode("overwrite").parquet("s3a://raw/spark-test/parquet")
found["parquet"] = spark.read.parquet("s3a://raw/spark-test/parquet").count()

found["python"] = [sys.version, sc.range(1).map(lambda _: sys.version).first()]
# Results over a megabyte come by another way than small ones: the driver fetches them from the executor.
found["large"] = sum(len(x) for x in sc.range(0, 2, numSlices=2).map(lambda _: "x" * 3_000_000).collect())

jdbc = {"user": "reader", "password": os.environ["READER"], "driver": "org.postgresql.Driver"}
url = "jdbc:postgresql://postgres:5432/shop?sslmode=verify-full&sslrootcert=/run/millrace/tls/ca.crt"
found["jdbc"] = spark.read.jdbc(url, "spark_test", properties=jdbc).agg({"n": "sum"}).first()[0]

options = {"kafka.bootstrap.servers": "127.0.0.1:1", "subscribe": "t"}
options |= {"kafka.default.api.timeout.ms": "2000", "kafka.request.timeout.ms": "1500"}
try:
    spark.read.format("kafka").options(**options).load().count()
except Exception as error:
    found["kafka"] = str(error)
for name in ("com.mysql.cj.jdbc.Driver", "com.mongodb.spark.sql.connector.MongoTableProvider"):
    sc._jvm.java.lang.Class.forName(name)
found["id"] = sc.applicationId
# In one piece: what the JVM says goes to the same place.
print(f"FOUND {json.dumps(found)}")
spark.stop()
"""

SLOW = """
import time
from pyspark import TaskContext
from pyspark.sql import SparkSession

spark = SparkSession.builder.appName("slow").getOrCreate()

def work(rows):
    # Not done before its executor is lost, however long it takes to look at the job.
    time.sleep(2 if TaskContext.get().attemptNumber() else 400)
    yield sum(rows)

print("STARTED", flush=True)
total = spark.sparkContext.range(0, 10, numSlices=1).mapPartitions(work).sum()
print(f"SUM {total}")
spark.stop()
"""

IN_CLUSTER = """
from pyspark.sql import SparkSession

spark = SparkSession.builder.appName("in-cluster").getOrCreate()
spark.range(42).coalesce(1).write.format("delta").mode("overwrite").save("s3a://raw/spark-test/in-cluster")
spark.stop()
"""


@pytest.fixture(scope="module")
def stack(everything: Stack) -> Stack:
    """The stack, with a table in Postgres."""
    if "postgres" not in everything.config:
        pytest.fail("these tests want postgres too: MILLRACE_TEST_SERVICES=spark,postgres")
    with postgres(everything, "shop", "shop_owner") as connection:
        connection.execute("DROP TABLE IF EXISTS spark_test")
        connection.execute("CREATE TABLE spark_test AS SELECT n FROM generate_series(1, 100) n")
    return everything


@pytest.fixture(scope="module")
def keys(stack: Stack) -> dict[str, str]:
    """The environment of a job that may use the bucket raw and read the database."""
    credentials = stack.outputs_once["credentials"]
    return {
        "AWS_ACCESS_KEY_ID": "loader",
        "AWS_SECRET_ACCESS_KEY": credentials["object_store"]["loader"],
        "READER": credentials["postgres"]["reader"],
    }


@pytest.fixture(scope="module")
def runner(stack: Stack) -> Iterator[Driver]:
    """A container for drivers."""
    with driver(stack) as found:
        yield found


@pytest.fixture(scope="module")
def job(runner: Driver, keys: dict[str, str]) -> dict[str, Any]:
    """What the program found, and what it wrote."""
    # By default a driver logs whole events, secrets included, once it took a second to handle one.
    slow = {"spark.scheduler.listenerbus.logSlowEvent.threshold": "1ms"}
    code, output = runner.submit(PROGRAM, environment=keys, changed=slow)
    assert code == 0, output[-6000:]
    (line,) = [line for line in output.splitlines() if line.startswith("FOUND ")]
    return {**json.loads(line.removeprefix("FOUND ")), "output": output}


def test_idle_memory(everything: Stack) -> None:
    used = {}
    for container in everything.containers():
        name = str(container.name).removeprefix(f"{everything.prefix}-")
        if name.split("-")[0] == "spark":
            stats = container.stats(stream=False)["memory_stats"]
            cache = stats["stats"].get("inactive_file", stats["stats"].get("total_inactive_file", 0))
            used[name] = (stats["usage"] - cache) // 2**20
    assert set(used) == {"spark", "spark-worker-1", "spark-history"}
    assert sum(used.values()) <= IDLE_MIB, used


def test_a_job_writes_and_reads_a_delta_table(job: dict[str, Any]) -> None:
    assert (job["delta"], job["parquet"]) == (10, 100)


def test_driver_and_executors_have_one_python(job: dict[str, Any]) -> None:
    of_driver, of_executor = job["python"]
    assert of_driver == of_executor
    assert of_driver.startswith("3.11.")


def test_large_results_reach_the_driver(job: dict[str, Any]) -> None:
    assert job["large"] == 6_000_000


def test_a_job_reads_postgres_over_verified_tls(job: dict[str, Any]) -> None:
    assert job["jdbc"] == 5050


def test_the_kafka_connector_is_whole(job: dict[str, Any]) -> None:
    assert "Timed out" in job["kafka"] or "TimeoutException" in job["kafka"], job["kafka"]


def test_no_secret_is_in_a_jobs_log(stack: Stack, job: dict[str, Any], keys: dict[str, str]) -> None:
    secrets = [*stack.outputs_once["credentials"]["spark"].values(), keys["AWS_SECRET_ACCESS_KEY"]]
    assert not [secret for secret in secrets if secret in job["output"]]


def test_the_history_server_shows_the_job(stack: Stack, job: dict[str, Any]) -> None:
    path = f"/api/v1/applications/{job['id']}"
    shown = wait_until(lambda: _finished(stack, path))
    assert shown["name"] == "everything"
    address = f"/history/{job['id']}/jobs/"
    page = stack.http("spark-history", address, user="erin")
    if page.status_code == 302:
        # Who asks first makes the server read the job's log, and is sent to the same address again.
        host = f"https://spark-history.data.localhost:{stack.config['proxy']['https_port']}"
        assert page.headers["location"].removeprefix(host) == address
        page = stack.http("spark-history", address, user="erin")
    assert page.status_code == 200
    assert "everything" in page.text
    environment = stack.http("spark-history", f"{path}/environment", user="erin").text
    assert "spark.authenticate.secret" in environment
    for secret in stack.outputs_once["credentials"]["spark"].values():
        assert secret not in environment
    assert stack.outputs_once["credentials"]["object_store"]["spark"] not in environment


def _finished(stack: Stack, path: str) -> Any:
    answer = stack.http("spark-history", path, user="erin")
    shown = answer.json()
    return shown if answer.status_code == 200 and shown["attempts"][0]["completed"] else None


def test_pages_are_for_engineers_and_link_to_each_other(stack: Stack) -> None:
    for host in ("spark", "spark-history"):
        assert stack.http(host).status_code == 401
        assert stack.http(host, user="uma").status_code == 401
        assert stack.http(host, user="erin").status_code == 200
    worker = _workers(stack)[0]
    page = stack.http("spark", f"/proxy/{worker['id']}/", user="erin")
    assert page.status_code == 200
    assert worker["id"] in page.text
    address = f"https://spark.data.localhost:{stack.config['proxy']['https_port']}"
    assert f"{address}/proxy/{worker['id']}" in stack.http("spark", user="erin").text


def _workers(stack: Stack) -> list[dict[str, Any]]:
    listed = stack.http("spark", "/json/", user="erin").json()["workers"]
    return [worker for worker in listed if worker["state"] == "ALIVE"]


def test_who_shares_a_network_with_spark_cannot_use_its_pages(runner: Driver) -> None:
    program = (
        "import ssl, urllib.request, urllib.error\n"
        "context = ssl.create_default_context(cafile='/run/millrace/tls/ca.crt')\n"
        "for url in ('https://spark:8480/', 'https://spark-history:18480/', 'https://spark-worker-1:8480/',"
        " 'https://spark:6066/v1/submissions/status/none'):\n"
        "    try:\n"
        "        urllib.request.urlopen(url, context=context, timeout=120)\n"
        "    except urllib.error.HTTPError as error:\n"
        "        print(error.code)\n"
    )
    found = runner.container.exec_run(["python3", "-c", program])
    assert found.output.decode().split() == ["403"] * 4


# -- REST


def _rest(stack: Stack, path: str, token: str | None, body: Any = None) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    method = "POST" if body is not None else "GET"
    return stack.http("spark-api", f"/v1/submissions/{path}", method=method, headers=headers, json=body)


def _forged(key: str, algorithm: str = "HS256") -> str:
    def encode(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    parts = ({"alg": algorithm, "typ": "JWT"}, {"sub": "stack"})
    text = ".".join(encode(json.dumps(part).encode()) for part in parts)
    if algorithm == "none":
        return f"{text}."
    return f"{text}.{encode(hmac.new(key.encode(), text.encode(), hashlib.sha256).digest())}"


def _submission(stack: Stack, keys: dict[str, str]) -> dict[str, Any]:
    return {
        "action": "CreateSubmissionRequest",
        "clientSparkVersion": "4.2.0",
        "appResource": "",
        "mainClass": "org.apache.spark.deploy.SparkSubmit",
        "appArgs": ["s3a://raw/spark-test/in_cluster.py"],
        "sparkProperties": {
            "spark.app.name": "in-cluster",
            "spark.driver.memory": "512m",
            **{f"spark.executorEnv.{name}": value for name, value in SHORT_LIVED.items()},
        },
        "environmentVariables": {**SHORT_LIVED, **{n: keys[n] for n in keys if n.startswith("AWS_")}},
    }


def test_submissions_need_a_token(stack: Stack, keys: dict[str, str]) -> None:
    body = _submission(stack, keys)
    tokens = (None, "x", _forged("0" * 32), _forged("", "none"))
    assert [_rest(stack, "create", token, body).status_code for token in tokens] == [403] * 4


def test_a_job_runs_in_the_cluster_by_rest(stack: Stack, keys: dict[str, str]) -> None:
    store = object_store(stack, "loader")
    program = IN_CLUSTER.encode()
    store.put_object("raw", "spark-test/in_cluster.py", io.BytesIO(program), len(program))
    token = stack.outputs_once["connections"]["spark"]["rest_token"]
    made = _rest(stack, "create", token, _submission(stack, keys)).json()
    assert made["success"], made

    def ended() -> Any:
        status = _rest(stack, f"status/{made['submissionId']}", token).json()
        return status if status["driverState"] not in ("SUBMITTED", "RUNNING") else None

    status = wait_until(ended, seconds=900, every=2)
    assert status["driverState"] == "FINISHED", status
    written = [o.object_name for o in store.list_objects("raw", "spark-test/in-cluster/", recursive=True)]
    assert any("_delta_log" in str(name) for name in written)


# -- failures


def test_a_driver_with_another_secret_is_refused(runner: Driver) -> None:
    # It would try again and again for a minute. All that it does within seconds of an answer is enough.
    wrong = {"spark.authenticate.secret": "wrong" * 8}
    output = runner.watch(SLOW, changed=wrong, until="Failed to connect to master", more=5)
    assert "Failed to connect to master" in output, output[-3000:]
    # That of authentication, so the master was there to say no.
    assert "New auth protocol failed" in output, output[-3000:]
    assert "STARTED" not in output


def test_a_job_outlives_its_worker(stack: Stack, runner: Driver, keys: dict[str, str]) -> None:
    before = {worker["id"] for worker in _workers(stack)}
    done: list[tuple[int, str]] = []
    running = threading.Thread(target=lambda: done.append(runner.submit(SLOW, environment=keys)))
    running.start()
    container = stack.container("spark-worker-1")

    def at_work() -> dict[str, Any] | None:
        """The application, once its task is under way. Its driver answers by way of the master."""
        (app,) = stack.http("spark", "/json/", user="erin").json()["activeapps"]
        path = f"/proxy/{app['id']}/api/v1/applications/{app['id']}/executors"
        executors = stack.http("spark", path, user="erin").json()
        return dict(app) if sum(executor["activeTasks"] for executor in executors) else None

    app = wait_until(at_work)
    # The page of a driver that runs elsewhere, by way of the master.
    page = stack.http("spark", f"/proxy/{app['id']}/jobs/", user="erin")
    assert page.status_code == 200
    assert "slow" in page.text
    # What buttons would send, and any site could make browsers send. The sum below shows that it did nothing.
    stack.http("spark", f"/proxy/{app['id']}/jobs/job/kill/?id=0", user="erin")
    for path, what in ((f"/proxy/{app['id']}/jobs/job/kill/", "0"), ("/app/kill/", app["id"])):
        stack.http("spark", path, user="erin", method="POST", data={"id": what, "terminate": "true"})
    # As a crash does: what is killed by the engine's API is not started again.
    os.kill(container.attrs["State"]["Pid"], signal.SIGKILL)
    running.join(900)
    ((code, output),) = done
    assert code == 0, output[-4000:]
    assert "SUM 45" in output
    assert "Lost executor" in output
    # The master drops the lost one once it notices.
    assert wait_until(lambda: (now := _workers(stack)) and before.isdisjoint(worker["id"] for worker in now))


def test_a_new_master_knows_its_workers(stack: Stack) -> None:
    before = {worker["id"] for worker in _workers(stack)}
    stack.container("spark").restart(timeout=20)
    wait_until(lambda: {worker["id"] for worker in _workers(stack)} == before)
