"""Presto through its real clients and the proxy: logins, rights, catalogs, one query over everything.

All of it runs with Trino, one container, and again with PrestoDB, coordinator and worker, in a stack of its
own: in the one of all services everything that uses Presto would start anew, twice.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import prestodb
import pyarrow as pa
import pytest
import requests
import trino
from confluent_kafka import Producer
from deltalake import write_deltalake

from tests.integration.clients import ca_file, kafka, object_store, postgres
from tests.integration.conftest import USERS
from tests.integration.services import resolved
from tests.integration.stack import ANSWER_S, DOMAIN, Stack, crash, proxy_ports, wait_until
from tests.integration.superset import Superset
from tests.integration.web import Web, local_names

HOST = f"presto.{DOMAIN}"
WITH_A_WORKER = {"engine": "prestodb", "workers": 1, "memory_mib": 1408}
NEEDED = ("kafka", "postgres", "object_store", "presto")
TRINO = pytest.mark.parametrize("stack", ["trino"], indirect=True)
PRESTODB = pytest.mark.parametrize("stack", ["prestodb"], indirect=True)
"""Marks of tests that one of the engines is enough for, or the other cannot pass."""
PAGE = "of-test-presto"
"""Marks this module's messages in a topic that others may write to."""


@pytest.fixture(scope="module", autouse=True)
def _names() -> Iterator[None]:
    with local_names():
        yield


@pytest.fixture(scope="module", params=["trino", "prestodb"])
def stack(
    request: pytest.FixtureRequest, everything: Stack, new_stack: Callable[..., Stack]
) -> Iterator[Stack]:
    """One for each engine, with something in Postgres, in the lake and in Kafka."""
    if missing := set(NEEDED) - everything.config.keys():
        pytest.skip(f"not among the services of this run: {', '.join(sorted(missing))}")
    if request.param == "trino":
        fill(everything)
        yield everything
        return
    platform = {"proxy": proxy_ports(), "users": USERS}
    services = resolved(key for key in (*NEEDED, "bi") if key in everything.config)
    own = new_stack({**platform, **services, "presto": {**services["presto"], **WITH_A_WORKER}})
    own.up()
    fill(own)
    yield own
    own.destroy()


def fill(stack: Stack) -> None:
    """Give Postgres, the lake and Kafka what the queries ask for."""
    with postgres(stack, "shop", "shop_owner") as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS people (id int PRIMARY KEY, name text)")
        connection.execute("INSERT INTO people VALUES (1, 'Ada'), (2, 'Erin') ON CONFLICT DO NOTHING")
    write_table(stack, "sales/orders", {"id": [10, 11, 12], "buyer": [1, 2, 1], "amount": [2.5, 4.0, 1.0]})
    producer = Producer(kafka(stack, "seller"))
    for number, buyer in enumerate((1, 1, 2)):
        message = {"id": number, "page": PAGE, "who": {"id": buyer}}
        producer.produce("visits", json.dumps(message).encode())
    assert producer.flush(ANSWER_S) == 0


def write_table(stack: Stack, folder: str, columns: dict[str, list[Any]]) -> None:
    """A Delta table in the lake, written through the object store's loopback port over verified TLS."""
    options = {
        "AWS_ENDPOINT_URL": f"https://localhost:{stack.config['object_store']['loopback_port']}",
        "AWS_ACCESS_KEY_ID": "presto",
        "AWS_SECRET_ACCESS_KEY": stack.outputs_once["credentials"]["object_store"]["presto"],
        "AWS_REGION": "us-east-1",
        "AWS_S3_ALLOW_UNSAFE_RENAME": "true",
    }
    with pytest.MonkeyPatch.context() as patch:
        # The library takes its CAs from nowhere else.
        patch.setenv("SSL_CERT_FILE", ca_file(stack))
        write_deltalake(f"s3://lake/{folder}", pa.table(columns), mode="overwrite", storage_options=options)


def is_trino(stack: Stack) -> bool:
    return bool(stack.config["presto"].get("engine", "trino") == "trino")


def password(stack: Stack, user: str) -> str:
    credentials = stack.outputs_once["credentials"]
    if user == "millrace.lake":
        return str(credentials["presto"]["lake-keeper"])
    return str(credentials["users"].get(user) or credentials["presto"][user])


def rows(stack: Stack, sql: str, user: str = "uma", secret: str | None = None) -> list[list[Any]]:
    """Rows of a query by the engine's Python client, through the proxy."""
    address: dict[str, Any] = {
        "host": HOST,
        "port": stack.config["proxy"]["https_port"],
        "user": user,
        "http_scheme": "https",
        "request_timeout": ANSWER_S,
    }
    secret = secret or password(stack, user)
    if is_trino(stack):
        login: Any = trino.auth.BasicAuthentication(user, secret)
        session = requests.Session()
        connection: Any = trino.dbapi.connect(**address, auth=login, http_session=session)
    else:
        connection = prestodb.dbapi.connect(**address, auth=prestodb.auth.BasicAuthentication(user, secret))
        session = connection._http_session
    session.verify = ca_file(stack)
    # Otherwise a CA bundle of the environment comes first.
    session.trust_env = False
    try:
        cursor = connection.cursor()
        cursor.execute(sql)
        return [list(row) for row in cursor.fetchall()]
    finally:
        connection.close()


def tables(stack: Stack, schema: str) -> list[str]:
    """Tables of a schema of the lake."""
    sql = f"SELECT table_name FROM lake.information_schema.tables WHERE table_schema = '{schema}'"
    return [row[0] for row in rows(stack, sql)]


def until_listed(stack: Stack, table: str) -> None:
    """Wait for a table of the lake to be found."""
    schema, name = table.split(".")
    wait_until(lambda: name in tables(stack, schema), every=2)


def refusal(stack: Stack, sql: str, user: str) -> str:
    """What the server says to a statement that it refuses."""
    errors = (trino.exceptions.TrinoQueryError, prestodb.exceptions.PrestoQueryError)
    with pytest.raises(errors) as caught:
        rows(stack, sql, user)
    return str(caught.value)


def header(stack: Stack, name: str) -> str:
    return f"X-{'Trino' if is_trino(stack) else 'Presto'}-{name}"


# -- logging in


def test_people_and_services_log_in(stack: Stack) -> None:
    services = stack.outputs_once["connections"]["presto"]["users"]
    for user in ("uma", "erin", "ada", "millrace.lake", *services):
        assert rows(stack, "SELECT n_nationkey + 1 FROM (VALUES 1) AS t (n_nationkey)", user) == [[2]]


@pytest.mark.parametrize(("user", "secret"), [("uma", "wrong"), ("nobody", "wrong"), ("uma", "ada's")])
def test_a_wrong_password_is_refused(stack: Stack, user: str, secret: str) -> None:
    secret = password(stack, "ada") if secret == "ada's" else secret
    errors = (trino.exceptions.HttpError, prestodb.exceptions.HttpError)
    with pytest.raises(errors, match="401"):
        rows(stack, "SELECT 1", user, secret)


def test_who_does_not_log_in_gets_nothing(stack: Stack) -> None:
    for headers in ({}, {header(stack, "User"): "ada"}, {"X-Forwarded-User": "ada"}):
        answer = Web(stack).get(
            "presto", "/v1/statement", method="POST", content=b"SELECT 1", headers=headers
        )
        assert answer.status_code == 401, answer.text


def test_nothing_but_a_login_opens_it_inside_the_network(stack: Stack) -> None:
    # The coordinator takes forwarding headers of whoever reaches it, which is more than the proxy.
    for address in ("presto", *(["presto-worker"] if stack.config["presto"].get("workers") else [])):
        for forwarded in ("http", "https"):
            command = (
                "curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}",
                "--cacert", "/run/millrace/tls/ca.crt", "-H", f"X-Forwarded-Proto: {forwarded}",
                "-H", f"{header(stack, 'User')}: ada",
                "-d", "SELECT 1", f"https://{address}:8443/v1/statement",
            )  # fmt: skip
            code, output = stack.container("presto").exec_run(list(command))
            assert code == 0 and output.decode() in ("401", "403", "404"), output
        code, output = stack.container("presto").exec_run(["curl", "-sS", f"http://{address}:8443/v1/info"])
        assert code != 0 or b"nodeVersion" not in output


def test_nobody_takes_anothers_name(stack: Stack) -> None:
    web = Web(stack)
    login = ("uma", password(stack, "uma"))
    with httpx.Client(verify=web.context(), auth=login, trust_env=False, timeout=ANSWER_S) as client:
        url, headers = web.url("presto", "/v1/statement"), {header(stack, "User"): "ada"}
        answer = client.post(url, content=b"SELECT current_user", headers=headers)
        while answer.status_code == 200 and "nextUri" in answer.json():
            answer = client.get(answer.json()["nextUri"], headers=headers)
    if answer.status_code == 200:
        assert "Access Denied" in answer.json()["error"]["message"]
    else:
        assert answer.status_code in (401, 403), answer.text


def test_the_user_interface_asks_for_a_login(stack: Stack) -> None:
    web = Web(stack)
    if not is_trino(stack):
        # Its pages are open, what they show is not.
        answer = web.get("presto", "/v1/cluster")
        assert answer.status_code == 401 and "Basic" in answer.headers["www-authenticate"]
        assert web.get("presto", "/v1/cluster", user="uma").status_code == 200
        return
    answer = web.get("presto", "/ui/")
    assert answer.is_redirect and "/ui/login.html" in answer.headers["location"]
    with httpx.Client(verify=web.context(), trust_env=False, timeout=ANSWER_S) as client:
        form = {"username": "uma", "password": password(stack, "uma")}
        done = client.post(web.url("presto", "/ui/login"), data=form)
        assert done.is_redirect and "login" not in done.headers["location"]
        assert client.get(web.url("presto", "/ui/api/stats")).status_code == 200


# -- rights


def test_readers_cannot_write(stack: Stack) -> None:
    until_listed(stack, "sales.orders")
    assert "Access Denied" in refusal(stack, "DROP TABLE lake.sales.orders", "uma")
    assert "Access Denied" in refusal(stack, "CREATE TABLE lake.sales.mine (a integer)", "uma")
    for user in ("uma", "erin"):
        assert "Access Denied" in refusal(stack, "CREATE TABLE postgres.public.mine (a integer)", user)
    # Postgres itself knows a reader only, whoever asks.
    assert "permission denied" in refusal(
        stack, "INSERT INTO postgres.public.people VALUES (9, 'Eve')", "ada"
    )
    assert rows(stack, "SELECT count(*) FROM postgres.public.people") == [[2]]


@TRINO
def test_nobody_hands_a_query_to_the_database_behind_a_catalog(stack: Stack) -> None:
    # PrestoDB has no functions that do.
    sql = "SELECT * FROM TABLE(postgres.system.query(query => 'SELECT name FROM people'))"
    for user in ("uma", "erin", "ada"):
        assert "Access Denied" in refusal(stack, sql, user)
    # Procedures are the other way.
    execute = "CALL postgres.system.execute(query => 'SELECT 1')"
    for user in ("uma", "erin"):
        assert "Access Denied" in refusal(stack, execute, user)
    unregister = "CALL lake.system.unregister_table(schema_name => 'sales', table_name => 'orders')"
    assert "Access Denied" in refusal(stack, unregister, "uma")


@TRINO
def test_engineers_write_to_the_lake(stack: Stack) -> None:
    # PrestoDB's Delta connector only reads.
    until_listed(stack, "sales.orders")
    sql = "SELECT buyer, sum(amount) AS amount FROM lake.sales.orders GROUP BY 1"
    rows(stack, f"CREATE TABLE lake.sales.totals AS {sql}", "erin")
    try:
        assert rows(stack, "SELECT amount FROM lake.sales.totals ORDER BY buyer") == [[3.5], [4.0]]
        assert "Access Denied" in refusal(stack, "DELETE FROM lake.sales.totals", "uma")
        # Views use functions with their owner's rights, and the lake's history is a function of its own.
        rows(
            stack,
            "CREATE VIEW lake.sales.most AS SELECT max(amount) AS amount FROM lake.sales.totals",
            "erin",
        )
        assert rows(stack, "SELECT amount FROM lake.sales.most") == [[4.0]]
        rows(stack, "DROP VIEW lake.sales.most", "erin")
        # It lies where other programs look for it.
        assert objects(stack, "sales/totals/_delta_log/")
    finally:
        rows(stack, "DROP TABLE lake.sales.totals", "erin")
    assert not objects(stack, "sales/totals/")


def objects(stack: Stack, prefix: str) -> list[str]:
    found = object_store(stack, "presto").list_objects("lake", prefix, recursive=True)
    return [str(entry.object_name) for entry in found]


def test_catalogs_are_those_of_the_outputs(stack: Stack) -> None:
    shown = {row[0] for row in rows(stack, "SHOW CATALOGS", "ada")}
    assert shown == {*stack.outputs_once["connections"]["presto"]["catalogs"], "system"}


# -- data


def test_one_query_joins_everything(stack: Stack) -> None:
    until_listed(stack, "sales.orders")
    sql = f"""
        SELECT p.name, o.amount, v.visits, n.name
        FROM postgres.public.people p
        JOIN (SELECT buyer, sum(amount) AS amount FROM lake.sales.orders GROUP BY 1) o ON o.buyer = p.id
        JOIN (SELECT customer, count(DISTINCT id) AS visits FROM kafka.default.visits
              WHERE page = '{PAGE}' GROUP BY 1) v ON v.customer = p.id
        JOIN tpch.tiny.nation n ON n.nationkey = p.id
        ORDER BY 1"""
    assert rows(stack, sql) == [["Ada", 3.5, 2, "ARGENTINA"], ["Erin", 4.0, 1, "BRAZIL"]]


def test_tables_come_and_go_with_their_folders(stack: Stack) -> None:
    write_table(stack, "fresh/one", {"a": [1]})
    write_table(stack, "old/orders", {"b": [7]})
    until_listed(stack, "fresh.one")
    assert rows(stack, "SELECT a FROM lake.fresh.one") == [[1]]
    until_listed(stack, "sales.archive")
    assert rows(stack, "SELECT b FROM lake.sales.archive") == [[7]]
    client = object_store(stack, "presto")
    for name in objects(stack, "fresh/") + objects(stack, "old/"):
        client.remove_object("lake", name)
    wait_until(lambda: not tables(stack, "fresh"), every=2)
    wait_until(lambda: "archive" not in tables(stack, "sales"), every=2)


def test_the_keeper_mends_after_a_restart_what_it_had_listed_elsewhere(stack: Stack) -> None:
    until_listed(stack, "sales.orders")
    client = object_store(stack, "presto")
    key = f"keeper/{stack.config['presto'].get('engine', 'trino')}.json"

    def record() -> dict[str, str]:
        return dict(client.get_object("presto-metastore", key).json())

    right = wait_until(lambda: record() if "sales.orders" in record() else None)
    assert right["sales.orders"] == "s3://lake/sales/orders"
    # As if other settings had been in force before.
    wrong = json.dumps({**right, "sales.orders": "s3://lake/elsewhere"}).encode()
    stack.container("presto-lake").stop()
    client.put_object("presto-metastore", key, io.BytesIO(wrong), len(wrong))
    stack.container("presto-lake").start()
    wait_until(lambda: record() == right, every=1)
    assert b"sales.orders taken off the list" in stack.container("presto-lake").logs()
    assert rows(stack, "SELECT count(*) FROM lake.sales.orders") == [[3]]


@PRESTODB
def test_superset_asks_it(stack: Stack) -> None:
    """With Trino, Superset's own tests see to it."""
    if "bi" not in stack.config:
        pytest.skip("bi is not among the services of this run")
    erin = Superset(Web(stack), "erin")
    assert erin.query("Presto", "SELECT count(*) AS n FROM tpch.tiny.nation") == [[25]]


# -- the cluster


@PRESTODB
def test_a_second_up_changes_nothing(stack: Stack) -> None:
    # With Trino, the tests of the whole stack see to it.
    stack.up("--expect-no-changes")


@PRESTODB
def test_it_goes_on_after_the_loss_of_a_worker(stack: Stack) -> None:
    crash(stack.container("presto-worker"))
    sql = "SELECT count(*) FROM tpch.tiny.orders"
    assert wait_until(lambda: rows(stack, sql), every=1) == [[15000]]
    nodes = "SELECT count(*) FROM system.runtime.nodes WHERE state = 'active'"
    wait_until(lambda: rows(stack, nodes, "ada") == [[2]], every=1)
