"""Airflow as its users have it: pages and API through the proxy, DAG files, connections, failures."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.fernet import Fernet

from tests.integration.clients import object_store, postgres
from tests.integration.stack import Stack, crash, healthy, wait_until

USES = '''
"""Uses all that the platform offers."""
from datetime import UTC, datetime
from airflow.sdk import dag, task
from helper import MARK

@dag(schedule=None, start_date=datetime(2025, 1, 1, tzinfo=UTC))
def uses():
    @task
    def rows():
        from airflow.providers.postgres.hooks.postgres import PostgresHook
        hook = PostgresHook("postgres_shop")
        print(MARK, hook.get_records("SELECT current_user, current_database()"))
        (tls,) = hook.get_first("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
        assert tls

    @task
    def objects():
        from airflow.providers.amazon.aws.hooks.s3 import S3Hook
        hook = S3Hook("object_store")
        hook.load_string("from airflow", "airflow/written.txt", "lake", replace=True)
        assert "airflow/written.txt" in hook.list_keys("lake", prefix="airflow/")

    @task
    def temporary_files():
        import os, tempfile
        with tempfile.NamedTemporaryFile() as file:
            for _ in range(100):
                file.write(os.urandom(1024 * 1024))

    [rows(), objects(), temporary_files()]

uses()
'''
OTHERS = {
    "presto": '''
    @task
    def presto():
        from airflow.providers.trino.hooks.trino import TrinoHook
        assert TrinoHook("trino_default").get_first("SELECT 6 * 7")[0] == 42
''',
    "kafka": '''
    @task
    def kafka():
        from airflow.providers.apache.kafka.hooks.client import KafkaAdminClientHook
        assert KafkaAdminClientHook("kafka_default").get_conn.list_topics(timeout=20).brokers
''',
    "spark": '''
    @task
    def spark():
        from airflow.providers.http.hooks.http import HttpHook
        hook = HttpHook("GET", "spark_default")
        answer = hook.run("/v1/submissions/status/driver-0", extra_options={"check_response": False})
        assert answer.status_code == 200, answer.text
''',
    "delta_sharing": '''
    @task
    def delta_sharing():
        from airflow.providers.http.hooks.http import HttpHook
        assert "items" in HttpHook("GET", "delta_sharing_default").run("/delta-sharing/shares").json()
''',
}  # fmt: skip


class Client:
    """Airflow's REST API through the proxy: as a user of the page, or with a token."""

    def __init__(self, stack: Stack, user: str, *, token: bool = False) -> None:
        self.stack, self.user = stack, user
        self.token = self.new_token() if token else ""

    def new_token(self, password: str | None = None) -> str:
        """A token for the API, by the user's password."""
        right = self.stack.outputs_once["credentials"]["users"][self.user]
        answer = self.stack.http(
            "airflow-api",
            "/auth/token",
            method="POST",
            json={"username": self.user, "password": password or right},
        )
        assert answer.status_code == 201, answer.text
        return str(answer.json()["access_token"])

    def __call__(self, method: str, path: str, **more: Any) -> httpx.Response:
        """One request below /api/v2."""
        if self.token:
            headers = {"Authorization": f"Bearer {self.token}"}
            return self.stack.http("airflow-api", f"/api/v2{path}", method=method, headers=headers, **more)
        return self.stack.http("airflow", f"/api/v2{path}", method=method, user=self.user, **more)

    def get(self, path: str) -> Any:
        """The document at a path."""
        answer = self("GET", path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def run(self, dag: str) -> str:
        """Run a DAG to success; the run's id."""
        wait_until(lambda: self("GET", f"/dags/{dag}").status_code == 200)
        assert self("PATCH", f"/dags/{dag}", json={"is_paused": False}).status_code == 200
        answer = self("POST", f"/dags/{dag}/dagRuns", json={"logical_date": None})
        assert answer.status_code == 200, answer.text
        run = str(answer.json()["dag_run_id"])
        path = f"/dags/{dag}/dagRuns/{run}"

        def states() -> dict[str, str]:
            tasks = self.get(f"{path}/taskInstances")["task_instances"]
            found = {str(t["task_id"]): str(t["state"]) for t in tasks}
            if bad := [task for task, state in found.items() if state in ("failed", "up_for_retry")]:
                pytest.fail("\n".join(f"{task}: {self.log(dag, run, task)}" for task in bad))
            return found

        try:
            wait_until(lambda: states() and self.get(path)["state"] == "success", seconds=900, every=1)
        except TimeoutError:
            pytest.fail(f"{dag} is still at {states()}")
        return run

    def log(self, dag: str, run: str, task: str) -> str:
        """The log of a task's first try."""
        path = f"/dags/{dag}/dagRuns/{run}/taskInstances/{task}/logs/1?full_content=true"
        return "\n".join(str(line) for line in self.get(path)["content"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("dags")


@pytest.fixture(scope="module")
def stack(everything: Stack, folder: Path) -> Iterator[Stack]:
    """The platform with DAGs of ours, which came into it without a restart of anything."""
    others = "".join(text for service, text in OTHERS.items() if service in everything.config)
    calls = "".join(f"    {service}()\n" for service in OTHERS if service in everything.config)
    (folder / "uses.py").write_text(USES.replace("    [rows()", f"{others}\n{calls}    [rows()"))
    (folder / "helper.py").write_text('MARK = "first mark"\n')
    before = containers(everything)
    with everything.changed(airflow={**everything.config["airflow"], "dags_folders": [str(folder)]}):
        everything.up()
        assert containers(everything) == before
        yield everything
    everything.up()


def containers(stack: Stack) -> dict[str, tuple[str, int]]:
    """Ids and restarts."""
    return {str(c.name): (str(c.id), c.attrs["RestartCount"]) for c in stack.containers()}


def inside(stack: Stack, path: str, headers: dict[str, str], method: str = "GET") -> int:
    """Status of a request to the API server from another container of its network."""
    code = (
        "import http.client, json, ssl, sys\n"
        "context = ssl.create_default_context(cafile='/run/millrace/tls/ca.crt')\n"
        "c = http.client.HTTPSConnection('airflow', 8443, context=context, timeout=120)\n"
        "c.request(sys.argv[1], sys.argv[2], headers=json.loads(sys.argv[3]))\n"
        "print(c.getresponse().status)\n"
    )
    done = stack.container("airflow-triggerer").exec_run(
        ["python", "-c", code, method, path, json.dumps(headers)]
    )
    assert done.exit_code == 0, done.output
    return int(done.output)


def test_a_run_reaches_success_with_all_there_is(stack: Stack) -> None:
    erin = Client(stack, "erin", token=True)
    run = erin.run("uses")
    # A task has succeeded before its log moves into the object store, and is nowhere else then.
    wait_until(
        lambda: "first mark" in (log := erin.log("uses", run, "rows")) and "('airflow_tasks', 'shop')" in log
    )
    root = object_store(stack, "root")

    def moved() -> bool:
        objects = root.list_objects("airflow-logs", f"dag_id=uses/run_id={run}/task_id=rows/", recursive=True)
        return any(objects)

    assert wait_until(moved)
    local = ["find", "/var/lib/millrace/airflow-logs/dag_id=uses", "-type", "f"]
    assert wait_until(lambda: stack.container("airflow-scheduler").exec_run(local).output == b"")


def test_the_page_opens_with_the_platforms_login(stack: Stack) -> None:
    assert stack.http("airflow", "/").status_code == 401
    page = stack.http("airflow", "/", user="uma")
    assert page.status_code == 200 and "<title>Airflow</title>" in page.text
    for user, name in (("uma", "uma"), ("ada", "ada")):
        me = stack.http("airflow", "/ui/auth/me", user=user)
        assert me.json()["username"] == name, me.text


@pytest.mark.parametrize("token", [False, True], ids=["page", "token"])
def test_roles(stack: Stack, token: bool) -> None:
    uma, erin, ada = (Client(stack, user, token=token) for user in ("uma", "erin", "ada"))
    variable = {"key": "made", "value": "of platform users"}
    assert uma("GET", "/dags").status_code == 200
    for method, path, body in (
        ("POST", "/dags/platform_cleanup/dagRuns", {"logical_date": None}),
        ("PATCH", "/dags/platform_cleanup", {"is_paused": True}),
        ("POST", "/variables", variable),
    ):
        assert uma(method, path, json=body).status_code == 403, path
    assert uma("GET", "/variables").status_code == 403
    assert erin("POST", "/variables", json=variable).status_code == 201
    assert ada("DELETE", "/variables/made").status_code == 204


def test_wrong_passwords_get_no_token(stack: Stack) -> None:
    for user, password in (("erin", "wrong"), ("nobody", "wrong"), ("airflow", "airflow")):
        answer = stack.http(
            "airflow-api", "/auth/token", method="POST", json={"username": user, "password": password}
        )
        assert (answer.status_code, answer.json()) == (401, {"detail": "Invalid credentials"})
    # Whoever goes on guessing is put off, for seconds.
    guess = {"username": "erin", "password": "wrong"}

    def refused() -> bool:
        answer = stack.http("airflow-api", "/auth/token", method="POST", json=guess)
        return answer.status_code == 429 and int(answer.headers["retry-after"]) in range(1, 7)

    # Each takes its time on busy cores, and counts for less the later the next one comes.
    assert any(refused() for _ in range(60))
    assert stack.http("airflow", "/ui/auth/me", user="uma").status_code == 200
    wait_until(lambda: Client(stack, "erin").new_token())
    forged = {"Authorization": "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJhZGEifQ."}
    assert stack.http("airflow-api", "/api/v2/dags", headers=forged).status_code in (401, 403)


def test_only_the_proxy_says_who_a_user_is(stack: Stack) -> None:
    health = "/api/v2/monitor/health"
    assert inside(stack, health, {}) == 200
    for spoof in (
        {"X-Forwarded-User": "ada"},
        {"X-Forwarded-User": "ada", "X-Millrace-Proxy": "guess"},
        {"X-Forwarded-User": "ada", "X-Millrace-Proxy": ""},
    ):
        assert inside(stack, "/api/v2/dags", spoof) == 401
    # Neither may a client of the proxy: its own header is replaced, on either host.
    ada = {"X-Forwarded-User": "ada", "X-Millrace-Proxy": "guess"}
    assert stack.http("airflow", "/ui/auth/me", user="uma", headers=ada).json()["username"] == "uma"
    assert stack.http("airflow-api", "/api/v2/dags", headers=ada).status_code == 401
    # And another site's page can't make an administrator's browser do something.
    for site, status in (("cross-site", 401), ("same-site", 401), ("same-origin", 200)):
        answer = stack.http(
            "airflow", "/api/v2/dags/uses", user="ada", method="PATCH", json={"is_paused": False},
            headers={"Sec-Fetch-Site": site},
        )  # fmt: skip
        assert answer.status_code == status, site


def test_the_api_of_tasks_stays_inside(stack: Stack) -> None:
    assert stack.http("airflow-api", "/execution/health").status_code == 404
    assert stack.http("airflow", "/execution/health", user="ada").status_code == 404
    assert inside(stack, "/execution/health", {}) == 200


def test_the_clean_up_runs(stack: Stack) -> None:
    erin = Client(stack, "erin")
    assert erin.get("/dags/platform_cleanup")["is_paused"] is False
    with postgres(stack, "airflow", "airflow") as database:
        database.execute("INSERT INTO log (dttm, event) VALUES (now() - interval '400 days', 'long ago')")
        scheduler = stack.container("airflow-scheduler")
        folder = "/var/lib/millrace/airflow-logs"
        scheduler.exec_run(["sh", "-c", f"touch -d '400 days ago' {folder}/old.log; touch {folder}/new.log"])
        erin.run("platform_cleanup")
        count = "SELECT count(*) FROM log WHERE event = 'long ago'"
        assert database.execute(count).fetchone() == (0,)
        assert database.execute("SELECT count(*) > 0 FROM log").fetchone() == (True,)
        found = scheduler.exec_run(["sh", "-c", f"ls {folder}/*.log"]).output.decode().split()
        assert found == [f"{folder}/new.log"]


def test_a_changed_dag_restarts_nothing(stack: Stack, folder: Path) -> None:
    erin = Client(stack, "erin")
    before = containers(stack)
    (folder / "helper.py").write_text('MARK = "second mark"\n')
    (folder / "added.py").write_text(USES.replace("def uses", "def added").replace("\nuses()", "\nadded()"))
    stack.up()
    assert containers(stack) == before
    wait_until(lambda: erin("GET", "/dags/added").status_code == 200)
    run = erin.run("uses")
    wait_until(lambda: "second mark" in erin.log("uses", run, "rows"))
    (folder / "added.py").unlink()
    stack.up()
    listed = "/dags?dag_id_pattern=added"
    wait_until(lambda: erin.get(listed)["total_entries"] == 0, every=2)


def test_a_killed_scheduler_heals(stack: Stack) -> None:
    name = "airflow-scheduler"
    crash(stack.container(name))
    wait_until(lambda: healthy(stack.container(name)))
    Client(stack, "erin").run("platform_cleanup")


def test_keys_rotate_and_what_they_hid_stays(stack: Stack) -> None:
    erin = Client(stack, "erin", token=True)
    # Airflow shows no value whose key has a word like "secret" in it.
    secret = {"key": "kept", "value": "known before and after"}
    assert erin("POST", "/variables", json=secret).status_code == 201
    with postgres(stack, "airflow", "airflow") as database:
        hidden = str(database.execute("SELECT val FROM variable WHERE key = 'kept'").fetchall()[0][0])
        assert secret["value"] not in hidden
        # Of a time before Airflow was taken out of the settings, say.
        foreign = Fernet(Fernet.generate_key()).encrypt(b"lost").decode()
        insert = "INSERT INTO variable (key, val, is_encrypted) VALUES ('lost', %s, true)"
        database.execute(insert, (foreign,))
        insert = (
            "INSERT INTO connection (conn_id, conn_type, password, is_encrypted, is_extra_encrypted)"
            " VALUES ('lost_connection', 'generic', %s, true, false)"
        )
        database.execute(insert, (foreign,))
    rotation = dict.fromkeys(("airflow/fernet", "airflow/jwt", "airflow/proxy"), "again")
    with stack.changed(rotation=rotation):
        stack.up()
        assert erin("GET", "/dags").status_code in (401, 403)
        erin.token = erin.new_token()
        assert erin.get("/variables/kept")["value"] == secret["value"]
        assert Client(stack, "ada").get("/dags")["total_entries"] >= 1
        with postgres(stack, "airflow", "airflow") as database:
            query = "SELECT is_encrypted, val FROM variable WHERE key = 'kept'"
            row = database.execute(query).fetchone()
            assert row is not None and row[0] is True and row[1] != hidden
            logged = database.execute(
                "SELECT extra FROM log WHERE event = 'encrypted with an unknown key'"
            ).fetchall()
        # What no key reads was named, and has stopped nothing.
        assert logged == [('["connection lost_connection: password", "variable lost: val"]',)]
        for path in ("/variables/kept", "/variables/lost"):
            assert Client(stack, "ada")("DELETE", path).status_code == 204, path
        with postgres(stack, "airflow", "airflow") as database:
            # Airflow 3.3's API reads a connection before it deletes it, and answers 500 to one it cannot.
            database.execute("DELETE FROM connection WHERE conn_id = 'lost_connection'")
    # The next rotation comes with the `up` that puts the settings back.
