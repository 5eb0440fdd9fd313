"""Jupyter: settings and their mistakes, what it asks of other services, its helper module, both images."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from graph import PLANTED, bare, plain_texts, platform

from components.checks import needs_of
from components.problems import SettingsError
from components.settings import load

USERS = [{"name": "ada", "role": "admin"}]
EVERYTHING: dict[str, Any] = {
    "jupyter": {},
    "postgres": {"databases": [{"name": "shop"}, {"name": "crm"}]},
    "object_store": {},
    "spark": {},
    "delta_sharing": {},
    "kafka": {},
    "presto": {},
}


@pytest.fixture(scope="module")
def graph() -> Any:
    return platform(EVERYTHING)


def sent_to(graph: Any) -> dict[str, str]:
    return {upload["file"]: upload["content"] for upload in graph.container("jupyter").get("uploads")}


def connections(graph: Any) -> dict[str, Any]:
    return dict(json.loads(sent_to(graph)["/run/millrace/jupyter/connections.json"]))


def defaults(graph: Any) -> dict[str, str]:
    lines = sent_to(graph)["/run/millrace/spark/conf/spark-defaults.conf"].splitlines()
    return dict(line.split(" ", 1) for line in lines if line)


def mistakes(**values: Any) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load({"users": USERS, **values}, "Pulumi.test.yaml")
    return [line.removeprefix("Pulumi.test.yaml: millrace:") for line in caught.value.lines]


# -- settings


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"access": "public"}, "access: whoever opens it can run programs - use user or higher"),
        ({"notebooks_folders": ["nowhere"]}, 'notebooks_folders[0]: no folder "nowhere" - give a path'),
        ({"memory_mib": 256}, "memory_mib: must be greater than or equal to 512"),
        ({"driver_memory_mib": 128}, "driver_memory_mib: must be greater than or equal to 512"),
        ({"lake_privilege": "all"}, "lake_privilege: must be"),
        ({"postgres_privilege": "read"}, "postgres_privilege: must be"),
        ({"kafka_read": ["a b"]}, "kafka_read[0]: not a topic name"),
        ({"kafka_write": ["*-orders"]}, "kafka_write[0]: not a topic name"),
    ],
)
def test_each_mistake_is_one_line(values: dict[str, Any], line: str) -> None:
    (found,) = mistakes(jupyter=values)
    assert found.startswith(f"jupyter.{line}")


def test_memory_has_to_do_for_a_driver() -> None:
    settings = {"memory_mib": 1024, "driver_memory_mib": 768}
    load({"users": USERS, "jupyter": settings}, "Pulumi.test.yaml")
    (line,) = mistakes(jupyter=settings, spark={}, object_store={})
    assert line.startswith("jupyter.memory_mib: too little for one notebook with Spark: ")
    assert "1510" in line


def test_examples(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.ipynb").write_text("{}")
    (tmp_path / "b.py").write_text("print(1)")
    (tmp_path / "data.bin").write_bytes(b"\xff")
    made = platform({"jupyter": {"notebooks_folders": [str(tmp_path)]}})
    sent = {p: c for p, c in sent_to(made).items() if p.startswith("/etc/millrace/jupyter/examples/")}
    assert sent == {
        "/etc/millrace/jupyter/examples/deep/a.ipynb": "{}",
        "/etc/millrace/jupyter/examples/b.py": "print(1)",
    }
    (tmp_path / "empty.md").write_text("")
    (line,) = mistakes(jupyter={"notebooks_folders": [str(tmp_path)]})
    assert line.startswith("jupyter.notebooks_folders: empty.md is empty - remove it")
    (tmp_path / "empty.md").write_bytes(b"\xff")
    (line,) = mistakes(jupyter={"notebooks_folders": [str(tmp_path)]})
    assert line.startswith(f"jupyter.notebooks_folders[0]: {tmp_path}/empty.md cannot be read")
    (tmp_path / "empty.md").write_text("x" * 1024 * 1025)
    (line,) = mistakes(jupyter={"notebooks_folders": [str(tmp_path)]})
    assert line.startswith("jupyter.notebooks_folders: 1025 KiB in all, more than 1024")


def test_the_examples_that_come_along_have_no_outputs(graph: Any) -> None:
    notebook = json.loads(sent_to(graph)["/etc/millrace/jupyter/examples/getting-started.ipynb"])
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert code and all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)


# -- other services


def test_it_connects_to_what_is_on(graph: Any) -> None:
    found = connections(graph)
    assert set(found) == set(EVERYTHING) - {"jupyter"}
    assert found["postgres"]["databases"] == ["shop", "crm"]
    assert (
        found["postgres"]["user"]
        == found["kafka"]["user"]
        == found["object_store"]["access_key"]
        == "jupyter"
    )
    assert found["delta_sharing"]["endpoint"] == "https://delta-sharing:8443/delta-sharing"
    assert bare(graph.outputs["connections"])["jupyter"] == {
        "url": "https://jupyter:8888",
        "public_url": "https://jupyter.data.localhost",
        "services": sorted(found),
    }


@pytest.mark.parametrize("off", ["postgres", "spark", "delta_sharing", "kafka", "presto"])
def test_what_is_off_is_not_asked_for(off: str) -> None:
    left = {key: value for key, value in EVERYTHING.items() if key != off}
    settings = load({"users": USERS, **left}, "Pulumi.test.yaml")
    assert {need.service for need in needs_of(settings, "jupyter")} == set(left) - {"jupyter"}


def test_what_is_off_leaves_nothing_behind() -> None:
    alone = platform({"jupyter": {}})
    assert connections(alone) == {}
    assert "/run/millrace/spark/conf/spark-defaults.conf" not in sent_to(alone)
    networks = {entry["name"] for entry in alone.container("jupyter").get("networksAdvanced")}
    assert not any(name.endswith(tuple(key.replace("_", "-") for key in EVERYTHING)[1:]) for name in networks)


def test_nothing_is_needed() -> None:
    settings = load({"users": USERS, "jupyter": {}}, "Pulumi.test.yaml")
    assert needs_of(settings, "jupyter") == []


def test_rights_are_those_of_the_settings() -> None:
    rights = {"postgres_privilege": "read-write", "lake_privilege": "read-only", "presto_write": True,
              "kafka_write": ["*"], "lake_bucket": "pond"}  # fmt: skip
    settings = load({"users": USERS, **EVERYTHING, "jupyter": rights}, "Pulumi.test.yaml")
    needs = {need.service: need.request for need in needs_of(settings, "jupyter")}
    assert needs["postgres"].privilege == "read-write"
    assert (needs["object_store"].name, needs["object_store"].privilege) == ("pond", "read-only")
    assert needs["presto"].write is True
    assert needs["kafka"].write == ("*",) and needs["kafka"].read == ("*",)
    settings = load({"users": USERS, **EVERYTHING}, "Pulumi.test.yaml")
    needs = {need.service: need.request for need in needs_of(settings, "jupyter")}
    assert needs["postgres"].privilege == "read-only"
    assert needs["object_store"].privilege == "read-write"
    assert needs["presto"].write is False
    assert needs["kafka"].write == ()


def test_drivers_run_on_the_cluster(graph: Any) -> None:
    found = defaults(graph)
    assert found["spark.master"] == "spark://spark:7077"
    assert found["spark.driver.host"] == "jupyter"
    assert found["spark.driver.memory"] == "512m"
    assert found["spark.hadoop.fs.s3a.access.key"] == "jupyter"
    assert found["spark.eventLog.enabled"] == "true"
    # /tmp is small and nothing may be executed there.
    assert found["spark.driver.extraJavaOptions"].endswith("-Djava.io.tmpdir=/var/lib/millrace/jupyter/tmp")
    assert "trustStore" in found["spark.driver.extraJavaOptions"]
    assert found["spark.local.dir"] == "/var/lib/millrace/jupyter/tmp"
    # Its page asks nobody who they are.
    assert found["spark.ui.killEnabled"] == "false"


def start(tmp_path: Path, program: str, **env: str) -> subprocess.CompletedProcess[str]:
    """What the start script does in a folder of its own, with this shell program as JupyterLab."""
    (tmp_path / "bin").mkdir(exist_ok=True)
    started = tmp_path / "bin" / "jupyter"
    started.write_text(f"#!/bin/sh\n{program}\n")
    started.chmod(0o755)
    for name in ("roots", "platform"):
        (tmp_path / f"{name}.crt").write_text(f"{name}\n")
    script = Path("configs/jupyter/start.sh").read_text()
    for path, own in (
        ("/etc/ssl/certs/ca-certificates.crt", "roots.crt"),
        ("/run/millrace/tls/ca.crt", "platform.crt"),
        ("/tmp/ca.crt", "made.crt"),
        ("/etc/millrace/jupyter", "config"),
        ("/var/lib/millrace/jupyter", "home"),
        ("/run/millrace/spark", "spark"),
        ("/opt/jupyter/bin/jupyter", "none"),
    ):
        assert path in script
        script = script.replace(path, str(tmp_path / own))
    environment = {"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin", **env}
    done = subprocess.run(["sh", "-c", script], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.parametrize("given", [None, "given.crt"])
def test_clients_trust_the_platform_and_what_they_are_given(tmp_path: Path, given: str | None) -> None:
    names = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "AWS_CA_BUNDLE")
    (tmp_path / "given.crt").write_text("given\n")
    # As the platform sets them where it gives a bundle, which has the public roots already.
    bundle = dict.fromkeys(names, str(tmp_path / given)) if given else {}
    done = start(tmp_path, "cat " + " ".join(f'"${name}"' for name in names), **bundle)
    assert done.stdout == f"{'given' if given else 'roots'}\nplatform\n" * len(names)


def test_examples_are_a_link_that_comes_and_goes(tmp_path: Path) -> None:
    offered, shown = tmp_path / "config/examples", tmp_path / "home/notebooks/examples"
    for _ in range(2):
        offered.mkdir(parents=True, exist_ok=True)
        (offered / "one.ipynb").write_text("{}")
        done = start(tmp_path, "")
        assert shown.is_symlink() and [file.name for file in shown.iterdir()] == ["one.ipynb"]
        assert done.stderr == ""
    (offered / "one.ipynb").unlink()
    offered.rmdir()
    start(tmp_path, "")
    assert not shown.is_symlink()


@pytest.mark.parametrize("offered", [True, False])
def test_a_folder_of_the_examples_name_is_left_to_its_owner(tmp_path: Path, offered: bool) -> None:
    own = tmp_path / "home/notebooks/examples"
    own.mkdir(parents=True)
    (own / "mine.ipynb").write_text("{}")
    if offered:
        (tmp_path / "config/examples").mkdir(parents=True)
    done = start(tmp_path, "echo started")
    assert done.stdout == "started\n"
    assert [file.name for file in own.iterdir()] == ["mine.ipynb"]
    assert ("is somebody's own and stays" in done.stderr) is offered


# -- security


def test_secrets_are_in_files_alone(graph: Any) -> None:
    container = graph.container("jupyter")
    assert not any(PLANTED in text for text in plain_texts(container.inputs))
    for key in ("envs", "entrypoints", "command", "labels", "healthcheck"):
        assert not any(PLANTED in text for text in plain_texts(container.get(key)))
    for upload in container.get("uploads"):
        if PLANTED in upload["content"]:
            assert upload["permissions"] == "0440", upload["file"]


def test_only_the_proxy_has_the_secret_that_lets_in(graph: Any) -> None:
    secret = sent_to(graph)["/run/millrace/jupyter/proxy"]
    holders = {
        node.name
        for node in graph.containers
        for upload in node.get("uploads") or ()
        if secret in upload["content"]
    }
    assert holders == {"jupyter", "proxy"}


def test_notebooks_stay_inside_unless_the_settings_say_so() -> None:
    def networks(of: Any) -> set[str]:
        return {entry["name"] for entry in of.container("jupyter").get("networksAdvanced")}

    inside, outside = platform({"jupyter": {}}), platform({"jupyter": {"internet": True}})
    assert len(networks(outside) - networks(inside)) == 1


# -- images


def test_both_images_run_by_the_same_command() -> None:
    graph, official = platform({"jupyter": {}}), platform({"jupyter": {"images": "upstream"}})
    own, other = graph.container("jupyter"), official.container("jupyter")
    for key in ("entrypoints", "command", "user", "healthcheck", "envs", "volumes"):
        assert own.get(key) == other.get(key), key
    assert sent_to(graph).keys() == sent_to(official).keys()
    texts = json.dumps([bare(dict(node.inputs)) for node in official.nodes], default=str)
    assert "quay.io/jupyter/pyspark-notebook:" in texts


# -- the helper module


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("millrace_helper", "configs/jupyter/millrace.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "_FILE", tmp_path / "connections.json")
    return module


def test_the_helper_reads_what_it_is_sent(helper: ModuleType, graph: Any) -> None:
    helper._FILE.write_text(json.dumps(connections(graph)))
    assert helper.services() == sorted(set(EVERYTHING) - {"jupyter"})
    assert helper.lake("a/b") == "s3://lake/a/b"
    assert helper.lake("a/b", "s3a") == "s3a://lake/a/b"
    assert helper.storage_options()["aws_access_key_id"] == "jupyter"
    kafka = helper.kafka(linger_ms=5)
    assert kafka["sasl.mechanism"] == "SCRAM-SHA-512" and kafka["linger_ms"] == 5
    assert kafka["bootstrap.servers"] == "kafka-1:9092"
    profile = Path(helper.sharing_profile())
    assert profile.stat().st_mode & 0o077 == 0
    assert json.loads(profile.read_text())["endpoint"] == "https://delta-sharing:8443/delta-sharing"
    profile.unlink()
    with pytest.raises(LookupError, match="no database 'x': there are shop, crm"):
        helper.postgres_engine("x")


class Reader:
    """Spark's session, reader and data frame in one; a table's files have ten rows, whatever is asked."""

    def __init__(self) -> None:
        self.dataSource = self.read = self
        self.told: dict[str, object] = {}
        self.address = ""
        self.rows = 10

    def register(self, source: object) -> None:
        """Nothing."""

    def format(self, name: str) -> Reader:
        return self

    def option(self, name: str, value: object) -> Reader:
        self.told[name] = value
        return self

    def load(self, address: str) -> Reader:
        self.address = address
        return self

    def limit(self, rows: int) -> Reader:
        self.rows = min(self.rows, rows)
        return self


@pytest.mark.parametrize(("limit", "rows"), [(None, 10), (7, 7), (70, 10), (0, 0)])
def test_a_share_in_spark_has_no_more_rows_than_asked_for(
    helper: ModuleType, graph: Any, monkeypatch: pytest.MonkeyPatch, limit: int | None, rows: int
) -> None:
    helper._FILE.write_text(json.dumps(connections(graph)))
    session = Reader()
    members: dict[str, dict[str, Any]] = {
        "spark_share": {"SharedTable": object},
        "pyspark": {"cloudpickle": SimpleNamespace(register_pickle_by_value=lambda module: None)},
        "pyspark.sql": {"SparkSession": SimpleNamespace(getActiveSession=lambda: session)},
    }
    for name, own in members.items():
        module = ModuleType(name)
        vars(module).update(own)
        monkeypatch.setitem(sys.modules, name, module)
    found = helper.spark_share("sales.shop.orders", limit=limit)
    assert found.rows == rows
    # The server may leave out files that it takes no more of.
    assert session.told == ({"limit": limit} if limit else {})
    profile, _, table = session.address.partition("#")
    Path(profile).unlink()
    assert table == "sales.shop.orders"


@pytest.mark.parametrize(
    "call", ["spark", "presto", "presto_engine", "s3", "kafka", "producer", "consumer", "shares", "lake"]
)
def test_the_helper_says_which_service_is_off(helper: ModuleType, call: str) -> None:
    helper._FILE.write_text(json.dumps({"postgres": {"databases": []}}))
    with pytest.raises(
        LookupError, match="is not among this platform's services \\(postgres\\): add its key"
    ):
        getattr(helper, call)()
    with pytest.raises(LookupError, match="no database 'shop': there are none"):
        helper.postgres("shop")
