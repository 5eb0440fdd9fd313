"""Spark: settings and their mistakes, tokens, what gets deployed, and what a consumer is told."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Iterable
from typing import Any

import pytest
from graph import PLANTED, bare, plain_texts, platform

from components.images import IMAGES
from components.service import Need, Service
from components.services.kafka import Kafka
from components.services.object_store import ObjectStore
from components.services.postgres import Postgres
from components.services.spark import Spark
from components.settings import ServiceSettings, Settings
from components.spark_settings import SparkCluster, SparkConnection, SparkSettings, encoded_key, token
from components.workload import Job, Limits

OWN = "/run/millrace/spark"


class Notebook(Service):
    """A service with drivers of its own."""

    key = "note_book"
    settings_model = ServiceSettings

    @classmethod
    def needs(cls, settings: Any, platform: Settings) -> Iterable[Need]:
        return [Need(service="spark", request=SparkCluster())]

    def build(self) -> None:
        cluster = self.context.platform.connect(self.key, "spark", SparkCluster())
        assert isinstance(cluster, SparkConnection)
        self.run(
            Job(
                name="use",
                image="spark",
                command=("true",),
                user=1000,
                limits=Limits(memory_mib=64),
                env={
                    "DEFAULTS": cluster.defaults_file({"spark.cores.max": "9"}),
                    "TOKEN": cluster.rest_token,
                    "REST": cluster.rest_url,
                    "MASTER": cluster.master,
                    "PASSWORD": cluster.password,
                },
            )
        )


ALL: dict[str, type[Service]] = {
    "kafka": Kafka,
    "note_book": Notebook,
    "object_store": ObjectStore,
    "postgres": Postgres,
    "spark": Spark,
}


def deployed(
    *, with_: Iterable[str] = ("note_book", "postgres"), images: str = "build", **values: Any
) -> Any:
    keys = {"object_store", "spark", *with_}
    return platform(
        {
            "domain": "data.test.example",
            "images": images,
            "proxy": {"https_port": 8443},
            **{key: values if key == "spark" else {} for key in sorted(keys)},
        },
        services={key: ALL[key] for key in sorted(keys)},
    )


@pytest.fixture(scope="module")
def graph() -> Any:
    return deployed(workers=2)


def mistakes(**values: Any) -> list[str]:
    found = Spark.check(SparkSettings.model_validate(values), (), None)  # type: ignore[arg-type]
    return [problem.line("f", "m") for problem in found]


def uploaded(graph: Any, container: str) -> dict[str, Any]:
    return {upload["file"]: upload for upload in graph.container(container).get("uploads")}


def properties(text: str) -> dict[str, str]:
    lines = (line.partition(" ") for line in text.splitlines())
    return {name: value for name, _, value in lines}


def defaults(graph: Any, container: str) -> dict[str, str]:
    return properties(uploaded(graph, container)[f"{OWN}/spark-defaults.conf"]["content"])


def environment(graph: Any, container: str) -> dict[str, str]:
    return dict(pair.split("=", 1) for pair in graph.container(container).get("envs"))


# -- settings


@pytest.mark.parametrize(
    ("values", "line"),
    [
        (
            {"executor_memory_mib": 1300},
            "f: m:executor_memory_mib: no worker could run one: of worker_memory_mib 2048 executors get 1209",
        ),
        ({"job_cores": 3}, "f: m:job_cores: all workers together have 2 - lower it or give more"),
        ({"ui_access": "public"}, "f: m:ui_access: jobs' data shows on these pages, and they know no logins"),
    ],
)
def test_each_mistake_is_one_line(values: dict[str, Any], line: str) -> None:
    (found,) = mistakes(**values)
    assert found.startswith(line)


@pytest.mark.parametrize("wanted", [512, 513, 777, 1024, 1300, 4096])
def test_the_advice_on_memory_is_enough(wanted: int) -> None:
    needed = -(-wanted * 10 // 7) + 320
    assert mistakes(worker_memory_mib=max(needed, 1088), executor_memory_mib=wanted) == []


def test_every_worker_can_run_an_executor() -> None:
    smallest = SparkSettings.model_fields["worker_memory_mib"].metadata[-1].ge
    assert mistakes(worker_memory_mib=smallest) == []
    assert mistakes() == []
    assert mistakes(workers=2, job_cores=4) == []


# -- tokens


def decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def test_a_token_is_a_signed_json_web_token() -> None:
    key = "k" * 32
    head, body, signature = token(key, "me").split(".")
    assert json.loads(decoded(head)) == {"alg": "HS256", "typ": "JWT"}
    assert json.loads(decoded(body)) == {"sub": "me"}
    assert decoded(signature) == hmac.new(key.encode(), f"{head}.{body}".encode(), hashlib.sha256).digest()
    assert decoded(encoded_key(key)) == key.encode()
    assert token(key, "me") == token(key, "me")
    assert len({token(key, "me"), token(key, "you"), token("l" * 32, "me")}) == 3


# -- what gets deployed


def test_a_container_for_each_part(graph: Any) -> None:
    names = {node.name for node in graph.containers if node.name.startswith("spark")}
    assert names == {"spark", "spark-worker-1", "spark-worker-2", "spark-history"}
    assert not [job for job in graph.jobs if job.name.startswith("spark")]
    requests = [n for n in graph.of("tls:index/certRequest:CertRequest") if n.name.startswith("spark")]
    assert {tuple(n.get("dnsNames")) for n in requests} == {(name, "localhost") for name in names}


def test_each_part_listens_in_all_its_networks(graph: Any) -> None:
    for name in ("spark", "spark-worker-1", "spark-worker-2", "spark-history"):
        node = graph.container(name)
        assert node.get("hosts") == [{"host": name, "ip": "0.0.0.0"}]
        # The engine writes this name with each of the container's addresses into the same file.
        assert node.get("hostname") != name


def test_secrets_are_in_secret_files_alone(graph: Any) -> None:
    for node in graph.containers:
        if not node.name.startswith("spark"):
            continue
        assert not any(PLANTED in text for text in plain_texts(node.inputs))
        for key in ("envs", "entrypoints", "labels"):
            assert not any(PLANTED in text for text in plain_texts(node.get(key)))
        for upload in node.get("uploads"):
            if PLANTED in upload["content"]:
                assert upload["permissions"] == "0440", upload["file"]


def test_the_parts_encrypt_what_they_say(graph: Any) -> None:
    for name in ("spark", "spark-worker-1"):
        found = defaults(graph, name)
        assert found["spark.authenticate"] == "true"
        assert found["spark.network.crypto.enabled"] == "true"
        assert found["spark.network.crypto.cipher"] == "AES/GCM/NoPadding"
        assert found["spark.ssl.standalone.enabled"] == "true"
    assert defaults(graph, "spark-history")["spark.ssl.historyServer.enabled"] == "true"


def test_pages_and_rest_ask_for_a_token(graph: Any) -> None:
    for name in ("spark", "spark-worker-1", "spark-history"):
        found = defaults(graph, name)
        assert found["spark.ui.filters"] == "org.apache.spark.ui.JWSFilter"
        key = found["spark.org.apache.spark.ui.JWSFilter.param.secretKey"]
        assert PLANTED in decoded(key).decode()
    master = defaults(graph, "spark")
    assert master["spark.master.rest.filters"] == "org.apache.spark.ui.JWSFilter"
    assert master["spark.master.rest.host"] == "127.0.0.1"
    headers = [u for u in graph.container("proxy").get("uploads") if "headers/spark" in u["file"]]
    assert {u["file"].rpartition("/")[2] for u in headers} == {"spark.conf", "spark-history.conf"}
    assert all("Bearer " in u["content"] and u["permissions"] == "0440" for u in headers)


def test_the_secret_reaches_who_needs_it(graph: Any) -> None:
    assert f"{OWN}/secret" in uploaded(graph, "spark")
    assert "spark.authenticate.secret" not in defaults(graph, "spark")
    assert PLANTED in defaults(graph, "spark-worker-1")["spark.authenticate.secret"]
    assert f"{OWN}/secret" not in uploaded(graph, "spark-history")
    assert "spark.authenticate.secret" not in defaults(graph, "spark-history")


def test_event_logs_have_a_user_of_their_own(graph: Any) -> None:
    for name in ("spark-worker-1", "spark-history"):
        found = defaults(graph, name)
        assert found["spark.hadoop.fs.s3a.bucket.spark-events.access.key"] == "spark"
        assert "spark.hadoop.fs.s3a.access.key" not in found
    users = bare(graph.outputs["connections"])["object_store"]["users"]
    assert users["spark"]["buckets"] == {"spark-events": "read-write"}


def test_memory_follows_the_limits() -> None:
    graph = deployed(memory_mib=1024, worker_memory_mib=4320, worker_cores=3)
    assert environment(graph, "spark")["SPARK_DAEMON_MEMORY"] == "512m"
    worker = environment(graph, "spark-worker-1")
    assert (worker["SPARK_WORKER_MEMORY"], worker["SPARK_WORKER_CORES"]) == ("2800m", "3")
    assert graph.container("spark-worker-1").get("memory") == 4320


def test_jobs_reach_what_is_there() -> None:
    def linked(graph: Any, provider: str) -> bool:
        names = {n.get("name") for n in graph.of("millrace:docker:Network")}
        return f"millrace-test-spark--{provider}" in names

    with_both = deployed(with_=("postgres", "kafka"))
    assert linked(with_both, "postgres")
    assert linked(with_both, "kafka")
    # A mere link: neither waits for the other.
    spark, database = with_both.container("spark"), with_both.container("postgres")
    assert database.urn not in with_both.waits_for(spark)
    alone = deployed(with_=())
    assert not linked(alone, "postgres")
    assert not linked(alone, "kafka")


@pytest.mark.parametrize("access", ["user", "engineer", "admin"])
def test_no_page_stops_jobs(access: str) -> None:
    graph = deployed(ui_access=access)
    # Master and its jobs' drivers, REST drivers on workers.
    assert defaults(graph, "spark")["spark.ui.killEnabled"] == "false"
    assert defaults(graph, "spark-worker-1")["spark.ui.killEnabled"] == "false"
    assert graph.outputs["urls"]["spark"]["access"] == access


def test_rest_can_stay_inside() -> None:
    graph = deployed(api_route=False)
    assert "spark-api" not in graph.outputs["urls"]
    assert "public_rest" not in bare(graph.outputs["connections"])["spark"]


def test_outputs(graph: Any) -> None:
    offered = bare(graph.outputs["connections"])["spark"]
    assert offered["master"] == "spark://spark:7077"
    assert offered["public_rest"] == "https://spark-api.data.test.example:8443"
    assert set(bare(graph.outputs["credentials"])["spark"]) == {"secret", "tokens"}
    assert defaults(graph, "spark")["spark.ui.reverseProxyUrl"] == "https://spark.data.test.example:8443"


# -- the official image


def test_the_official_image_gets_its_connectors_by_a_job() -> None:
    graph = deployed(images="upstream", with_=())
    (job,) = [node for node in graph.jobs if node.name == "spark-connectors"]
    files = {file["path"]: file["content"] for file in job.get("files")}
    assert files[f"{OWN}/connectors.lock"] == (IMAGES / "spark/connectors.lock").read_text()
    folder = job.get("command")[-1]
    for name in ("spark-worker-1", "spark-history"):
        assert environment(graph, name)["SPARK_DIST_CLASSPATH"] == f"{folder}/*"
        assert job.urn in graph.waits_for(graph.container(name))
        (volume,) = [v for v in graph.container(name).get("volumes") if v["containerPath"] in folder]
        assert volume["readOnly"]
        assert volume["volumeName"] == "millrace-test-spark-connectors"
    assert graph.container("spark").urn in graph.waits_for(job)


def test_the_built_image_has_them(graph: Any) -> None:
    assert "SPARK_DIST_CLASSPATH" not in environment(graph, "spark-worker-1")
    paths = {v["containerPath"] for v in graph.container("spark-worker-1").get("volumes")}
    assert paths == {"/var/lib/millrace/spark-scratch"}


# -- a consumer


def test_a_consumer_gets_what_a_driver_needs(graph: Any) -> None:
    (job,) = [node for node in graph.jobs if node.name == "note-book-use"]
    env = job.get("env")
    found = properties(env["DEFAULTS"])
    assert found["spark.master"] == env["MASTER"] == "spark://spark:7077"
    assert found["spark.authenticate.secret"] == env["PASSWORD"]
    assert found["spark.driver.host"] == "note-book"
    assert found["spark.cores.max"] == "9"
    assert found["spark.eventLog.dir"] == "s3a://spark-events/"
    # Whole events in a log hold the secrets above.
    assert found["spark.scheduler.listenerbus.logSlowEvent"] == "false"
    assert found["spark.hadoop.fs.s3a.endpoint"] == "https://object-store:9000"
    assert json.loads(decoded(env["TOKEN"].split(".")[1])) == {"sub": "note_book"}
    assert env["REST"] == "https://spark:6066"
    # The key that tokens are signed with is the cluster's alone.
    assert not any("secretKey" in name for name in found)


def test_a_consumers_values_are_secret(graph: Any) -> None:
    (job,) = [node for node in graph.jobs if node.name == "note-book-use"]
    assert not any(PLANTED in text for text in plain_texts(job.inputs))
