"""`make demo`: what it says and how it ends, against a fake of Airflow's API."""

from __future__ import annotations

import datetime
import http.server
import ipaddress
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from fake_airflow import FakeAirflow, Task

from scripts import dag_runs, demo
from scripts.console import SetupError
from scripts.https import Site, UnreachableError, trusting

OK: list[str | None] = [None, "queued", "running", "success"]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dag_runs, "_POLL_S", 0)
    monkeypatch.setattr(dag_runs, "_PATIENCE_S", 0.2)


def airflow(**tasks: list[Task]) -> FakeAirflow:
    """One with the demo's DAGs, of which some have other tasks."""
    dags = {dag: [Task(f"{dag.removeprefix('demo_')}_step", OK)] for dag in demo.DAGS}
    return FakeAirflow({**dags, **tasks})


def run(fake: FakeAirflow, monkeypatch: pytest.MonkeyPatch, *users: str) -> int:
    """The command on a stack that is up."""
    sites = [fake.site(user) for user in users or ("analyst", "engineer")]
    monkeypatch.setattr(demo, "sites", lambda outputs: sites)
    monkeypatch.setattr(demo.demo_result, "text", lambda *arguments: "THE TABLE")
    return demo.run({}, "dev")


def test_it_follows_both_pipelines_as_somebody_who_may(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = airflow(demo_retail=[Task("bronze", OK), Task("silver", [None, None, *OK])])
    assert run(fake, monkeypatch) == 0
    lines = [line[9:] for line in capsys.readouterr().out.splitlines() if line.startswith("[")]
    assert lines == [
        "airflow     flights and retail started, as engineer",
        "flights     flights_step: running",
        "retail      bronze: running",
        "flights     flights_step: done in 12 s",
        "retail      bronze: done in 12 s",
        "retail      silver: running",
        "retail      silver: done in 12 s",
    ]
    assert fake.paused == set()


def test_the_table_comes_last(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(airflow(), monkeypatch) == 0
    assert capsys.readouterr().out.endswith("\n\nTHE TABLE\n")


def test_runs_going_already_are_waited_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = airflow()
    fake.going = {"scheduled__1": "demo_retail"}
    assert run(fake, monkeypatch) == 0
    printed = capsys.readouterr().out
    assert "retail going already, waiting for the end" in printed
    asked = [seen for seen in fake.seen if "dagRuns" in seen]
    last_of_old = max(i for i, seen in enumerate(asked) if "scheduled__1" in seen)
    assert min(i for i, seen in enumerate(asked) if seen.startswith("POST")) > last_of_old


def test_a_dag_that_airflow_has_not_read_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = airflow()
    fake.unread = {"demo_flights": 5, "demo_retail": 2}
    assert run(fake, monkeypatch, "engineer") == 0
    assert "has not read demo_flights yet, waiting" in capsys.readouterr().out


def test_a_failed_task_is_named_with_its_last_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log = [
        *({"event": f"line {number}"} for number in range(40)),
        {"event": "::group::of Airflow's own"},
        {"event": "Could not read served logs: Connection refused"},
        {
            "event": "Task failed with exception",
            "error_detail": [{"exc_type": "RuntimeError", "exc_value": "driver-1 ended as FAILED\nsecond"}],
        },
    ]
    fake = airflow(
        demo_flights=[
            Task("bronze", OK),
            Task("silver", [None, None, "running", "up_for_retry", "running", "failed"], log=log),
            Task("gold", [None, None, None, None, None, "upstream_failed"]),
        ]
    )
    assert run(fake, monkeypatch) == 1
    printed, error = capsys.readouterr()
    assert "flights     silver: failed, will be tried again: second" in printed
    assert "flights     silver: running, try 2" in printed
    assert "flights     silver: FAILED" in printed
    assert "retail_step: done" in printed
    assert "THE TABLE" not in printed
    lines = error.splitlines()
    assert lines[-4:-1] == [
        "  | Task failed with exception",
        "  | RuntimeError: driver-1 ended as FAILED",
        "  | second",
    ]
    assert "line 39" in error and "line 10" not in error and "::group::" not in error
    assert "served logs" not in error
    assert lines[-1].startswith(
        "error: demo_flights: task silver failed; its last lines are above; all of it: "
    )
    assert "https://airflow.example/dags/demo_flights/runs/manual__2026-01-01T00%3A00%3A00%2B00%3A00" in error


def test_interrupted_it_says_that_the_runs_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(dag_runs.time, "sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(airflow(), monkeypatch, "engineer")
    assert capsys.readouterr().err == "the runs go on: https://airflow.example/dags\n"


def test_airflow_may_be_away_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = airflow()
    fake.away = 3
    assert run(fake, monkeypatch) == 0


def test_airflow_stays_away(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = airflow()
    fake.away = 10**9
    with pytest.raises(SetupError, match="Airflow does not answer: connection refused"):
        run(fake, monkeypatch)


def test_a_start_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    # It may have got through, and the answer not.
    fake = airflow()
    client = dag_runs.Airflow(fake.site("engineer"))  # type: ignore[arg-type]
    fake.away = 1
    with pytest.raises(SetupError, match="does not answer"):
        client.start("demo_retail")
    assert len(fake.seen) == 1


def test_nobody_may_run_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SetupError, match="one with role engineer is needed"):
        run(airflow(), monkeypatch, "analyst")


def test_a_broken_dag_file_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = airflow()
    fake.unread = {"demo_flights": 99}
    fake.import_errors = [{"filename": "retail.py", "stack_trace": "Traceback …\nKeyError: 'x'\n"}]
    with pytest.raises(SetupError, match=r"Airflow cannot read retail\.py: KeyError: 'x'"):
        run(fake, monkeypatch, "engineer")


def test_a_dag_that_never_appears(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = airflow()
    fake.unread = {"demo_retail": 10**9}
    with pytest.raises(SetupError, match="Airflow knows no DAG demo_retail"):
        run(fake, monkeypatch, "engineer")


# -- the stack


def test_the_demo_is_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "file_of", lambda stack: tmp_path / f"Pulumi.{stack}.yaml")
    (tmp_path / "Pulumi.minimal.yaml").write_text("config:\n  millrace:postgres: {}\n  # millrace:demo: {}\n")
    with pytest.raises(SetupError) as caught:
        demo._platform("minimal")
    assert str(caught.value) == (
        "stack minimal: the demo is off: add `millrace:demo: {}` to Pulumi.minimal.yaml, "
        "then run `make demo STACK=minimal` again"
    )


@pytest.fixture
def with_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """A stack file with the demo; what was brought up or down."""
    monkeypatch.setattr(demo, "file_of", lambda stack: tmp_path / f"Pulumi.{stack}.yaml")
    (tmp_path / "Pulumi.dev.yaml").write_text("config:\n  millrace:demo: {}\n")
    return []


def test_a_stack_that_is_not_up_is_brought_up(
    with_demo: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: Iterator[Any] = iter([None, {"connections": {}}])
    monkeypatch.setattr(demo, "outputs_of", lambda stack: next(answers))
    monkeypatch.setattr(demo.up, "bring", lambda *what: with_demo.append(what) or 0)  # type: ignore[func-returns-value]
    assert demo._platform("dev") == {"connections": {}}
    assert with_demo == [("up", "dev")]


def test_a_stack_that_is_up_is_left_alone(
    with_demo: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "outputs_of", lambda stack: {"connections": {}})
    monkeypatch.setattr(demo.up, "bring", lambda *what: with_demo.append(what))
    assert demo._platform("dev") == {"connections": {}}
    assert with_demo == []


def test_a_stack_that_does_not_come_up(
    with_demo: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "outputs_of", lambda stack: None)
    monkeypatch.setattr(demo.up, "bring", lambda *what: 3)
    assert demo._platform("dev") == 3


# -- requests


def _certificate(folder: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "server")])
    now = datetime.datetime.now(datetime.UTC)
    names: list[x509.GeneralName] = [
        x509.DNSName("airflow.data.localhost"),
        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
    ]
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    (folder / "ca.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    (folder / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return folder / "ca.pem", folder / "key.pem"


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        status = 502 if self.path == "/away" else 200
        self.send_response(status)
        self.end_headers()
        self.wfile.write(f'["{self.headers["Host"]}", "{self.headers["Authorization"]}", {body}]'.encode())

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[int, str]]:
    """A TLS server: its port, and the CA that verifies it."""
    certificate, key = _certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as running:
        running.socket = context.wrap_socket(running.socket, server_side=True)
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running.server_address[1], certificate.read_text()
        running.shutdown()


def test_a_site_is_asked_over_verified_tls(server: tuple[int, str]) -> None:
    port, ca = server
    url = f"https://airflow.data.localhost:{port}"
    site = Site(url, trusting(ca), "ada", "pass:word")
    answer = site.ask("POST", "/x", {"a": 1})
    assert answer.json == [f"airflow.data.localhost:{port}", "Basic YWRhOnBhc3M6d29yZA==", {"a": 1}]
    with pytest.raises(UnreachableError, match="answers 502"):
        site.ask("POST", "/away", {})
    with pytest.raises(UnreachableError, match="CERTIFICATE_VERIFY_FAILED"):
        Site(url, trusting(""), "ada", "x").ask("POST", "/x", {})
    with pytest.raises(UnreachableError, match="CERTIFICATE_VERIFY_FAILED"):
        Site(f"https://other.localhost:{port}", trusting(ca), "ada", "x").ask("POST", "/x", {})


def test_a_site_that_nobody_serves() -> None:
    with pytest.raises(UnreachableError, match=r"https://127\.0\.0\.1:1: "):
        Site("https://127.0.0.1:1", trusting("")).ask("GET", "/")
