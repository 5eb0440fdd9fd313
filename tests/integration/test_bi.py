"""Superset as people use it: through the proxy, in a browser and by its API, on real data sources."""

from __future__ import annotations

import copy
import json
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from scripts.packages import BROWSERS
from tests.integration import clients
from tests.integration.stack import ROOT, Stack, crash, healthy, wait_until
from tests.integration.superset import Superset
from tests.integration.test_portal import person_of
from tests.integration.web import Web, local_names

TABLE = "bi_sales"
ROWS = [("north", 3), ("south", 39)]


@pytest.fixture(scope="module")
def web(everything: Stack) -> Iterator[Web]:
    """The stack's sites, with a table of sales in its database."""
    with local_names():
        with clients.postgres(everything, "shop", "shop_owner") as shop:
            shop.execute(f"DROP TABLE IF EXISTS {TABLE}")
            shop.execute(f"CREATE TABLE {TABLE} (region text, amount int)")
            shop.cursor().executemany(f"INSERT INTO {TABLE} VALUES (%s, %s)", ROWS)
        yield Web(everything)
        with clients.postgres(everything, "shop", "shop_owner") as shop:
            shop.execute(f"DROP TABLE {TABLE}")


@pytest.fixture(scope="module")
def dataset(web: Web) -> Iterator[int]:
    """A dataset on the table, made by an engineer."""
    erin = Superset(web, "erin")
    body = {"database": erin.sources()["Postgres shop"], "schema": "public", "table_name": TABLE}
    number = int(erin.json("POST", "/api/v1/dataset/", body)["id"])
    yield number
    Superset(web, "erin").json("DELETE", f"/api/v1/dataset/{number}")


# -- who may what


@pytest.mark.parametrize(
    ("user", "roles"),
    [("ada", {"Admin"}), ("erin", {"Alpha", "sql_lab"}), ("uma", {"Gamma", "Millrace data sources"})],
)
def test_the_login_at_the_proxy_is_the_login(web: Web, user: str, roles: set[str]) -> None:
    superset = Superset(web, user)
    assert superset.json("GET", "/api/v1/me/")["result"]["username"] == user
    assert set(superset.json("GET", "/api/v1/me/roles/")["result"]["roles"]) == roles
    assert "Postgres shop" in superset.sources()
    session = next(cookie for cookie in superset.cookies.jar if cookie.name == "session")
    assert session.secure
    assert session.has_nonstandard_attr("HttpOnly")


def test_another_login_in_the_same_browser_is_another_user(web: Web) -> None:
    browser = Superset(web, "ada")
    assert browser.json("GET", "/api/v1/me/")["result"]["username"] == "ada"
    browser.get("/superset/welcome/")
    browser.auth = httpx.BasicAuth("uma", web.password("uma"))
    assert browser.json("GET", "/api/v1/me/")["result"]["username"] == "uma"
    assert browser.ask("GET", "/api/v1/security/users/").status_code == 403


def test_a_user_without_login_gets_nothing(web: Web) -> None:
    assert web.get("bi", "/api/v1/me/").status_code == 401
    assert web.get("bi", "/health", auth=("uma", "wrong")).status_code == 401


def test_only_engineers_write_sql_and_only_admins_administer(web: Web) -> None:
    ada, erin, uma = (Superset(web, user) for user in ("ada", "erin", "uma"))
    run = {"database_id": uma.sources()["Postgres shop"], "sql": "SELECT 1", "client_id": "1"}
    assert uma.ask("POST", "/api/v1/sqllab/execute/", run).status_code == 403
    refused = uma.get("/sqllab/", follow_redirects=True)
    assert refused.status_code == 403
    assert "uma" in refused.text
    assert erin.get("/sqllab/").status_code == 200
    for superset, status in ((uma, 403), (erin, 403), (ada, 200)):
        assert superset.ask("GET", "/api/v1/security/users/").status_code == status
        assert superset.ask("GET", "/api/v1/security/roles/").status_code == status
    new = {"database_name": "mine", "sqlalchemy_uri": "postgresql://x:y@postgres/shop"}
    assert uma.ask("POST", "/api/v1/database/", new).status_code == 403
    assert erin.ask("POST", "/api/v1/database/", new).status_code == 403


def test_log_out_leads_to_the_portal(web: Web) -> None:
    answer = Superset(web, "uma").get("/logout/")
    assert answer.status_code == 302
    assert answer.headers["location"] == web.url("", "")


SPOOF = """
import ssl, sys, urllib.error, urllib.request
context = ssl.create_default_context(cafile="/run/millrace/tls/ca.crt")
for headers in ({}, {"X-Forwarded-User": "ada"}, {"X-Forwarded-User": "ada", "X-Millrace-Proxy": "guess"},
                {"X-Forwarded-User": "ada", "X-Millrace-Proxy": ""}, {"Remote-User": "ada"}):
    for path in ("/api/v1/me/", "/health", "/login/", "/superset/welcome/"):
        try:
            request = urllib.request.Request("https://bi:8088" + path, None, headers)
            urllib.request.urlopen(request, context=context)
            print(200, path, headers)
        except urllib.error.HTTPError as error:
            print(error.code, path, headers)
"""


def test_a_neighbour_in_the_network_cannot_say_who_it_is(everything: Stack) -> None:
    done = everything.container("bi").exec_run(["python", "-c", SPOOF])
    lines = done.output.decode().splitlines()
    assert len(lines) == 20
    assert [line for line in lines if not line.startswith("403 ")] == []


# -- queries


def test_sql_on_postgres_returns_what_is_there(web: Web) -> None:
    erin = Superset(web, "erin")
    assert erin.query("Postgres shop", f"SELECT region, amount FROM {TABLE} ORDER BY region") == [
        ["north", 3],
        ["south", 39],
    ]
    assert erin.query("Postgres shop", f"SELECT sum(amount) FROM {TABLE}") == [[42]]


def test_the_reader_cannot_write(web: Web) -> None:
    erin = Superset(web, "erin")
    run = {
        "database_id": erin.sources()["Postgres shop"],
        "sql": f"DELETE FROM {TABLE}",
        "runAsync": False,
        "client_id": uuid.uuid4().hex[:10],
    }
    assert not erin.ask("POST", "/api/v1/sqllab/execute/", run).is_success
    assert erin.query("Postgres shop", f"SELECT count(*) FROM {TABLE}") == [[2]]


def test_sql_on_presto_returns_what_is_there(web: Web) -> None:
    if "presto" not in web.stack.config:
        pytest.skip("the stack has no Presto")
    erin = Superset(web, "erin")
    assert erin.query("Presto", "SELECT count(*) AS n FROM tpch.tiny.nation") == [[25]]
    sql = f"SELECT region, amount FROM postgres.public.{TABLE} ORDER BY region"
    assert erin.query("Presto", sql) == [["north", 3], ["south", 39]]


def test_a_user_sees_a_chart_of_a_dataset(web: Web, dataset: int) -> None:
    assert Superset(web, "uma").rows_of(dataset) == [["north", 3], ["south", 39]]


# -- dashboards by code: defined before there was the table


def test_a_user_sees_a_dashboard_made_by_code(web: Web) -> None:
    uma = Superset(web, "uma")
    dashboard = uma.json("GET", "/api/v1/dashboard/sales")["result"]
    assert (dashboard["dashboard_title"], dashboard["url"]) == ("Sales", "/superset/dashboard/sales/")
    assert dashboard["is_managed_externally"] is True
    charts = uma.charts("sales")
    assert uma.data(charts["Sales in all"]) == [{"Amount (EUR)": 42}]
    assert uma.data(charts["Sales by region"]) == [
        {"region": "south", "Amount sold (EUR)": 39},
        {"region": "north", "Amount sold (EUR)": 3},
    ]
    assert uma.data(charts["All sales"]) == [
        {"region": "south", "amount": 39},
        {"region": "north", "amount": 3},
    ]


# -- the page


@pytest.mark.skipif(
    not any(shutil.which(name) for name in BROWSERS),
    reason="no Chromium on PATH (Debian: apt-get install chromium)",
)
@pytest.mark.parametrize(
    ("user", "path", "words", "drawings"),
    [
        ("uma", "/superset/welcome/", "Recents", 0),
        ("erin", "/sqllab/", "Select schema", 0),
        ("uma", "/superset/dashboard/sales/", "42", 2),
    ],
)
def test_page_loads_in_a_browser(
    web: Web, tmp_path: Path, user: str, path: str, words: str, drawings: int
) -> None:
    with person_of(web, tmp_path, (user, web.password(user))) as person:
        text = "document.querySelector('#app')?.innerText ?? ''"
        drawn = "document.querySelectorAll('canvas').length"
        # Bars and lines are drawn, and of those that have no data there is none.

        def visit() -> None:
            person.open(web.url("bi", path))
            wait_until(
                lambda: person.broken_off() or (words in person.ask(text) and person.ask(drawn) >= drawings)
            )

        person.undisturbed(visit)
        person.picture(f"bi-{user}-{words.split()[-1].lower()}")
        own = web.url("bi", "")
        answers = [e["response"] for e in person.of("Network.responseReceived")]
        failed = {r["url"] for r in answers if r["status"] >= 400 and r["url"].startswith(own)}
        # Browsers ask for the manifest of a web application without the login.
        assert [url for url in failed if "pwa-manifest.json" not in url] == []
        assert person.of("Runtime.exceptionThrown") == []
        assert any(r["url"].endswith(".js") for r in answers)


# -- what stays


def test_a_killed_server_comes_back_with_all_it_had(web: Web, dataset: int) -> None:
    crash(web.stack.container("bi"))
    wait_until(lambda: healthy(web.stack.container("bi")))
    assert Superset(web, "uma").rows_of(dataset) == [["north", 3], ["south", 39]]


def _of_another_key(stack: Stack) -> None:
    """The stored passwords, as a metadata database of before the keys of now has them."""
    password = stack.outputs_once["credentials"]["postgres"]["bi"]
    with clients.postgres(stack, "bi", "bi", password=password) as metadata:
        # In the form of what Superset stores, but of no key.
        noise = "encode(sha512(database_name::bytea), 'base64')::bytea"
        metadata.execute(f"UPDATE dbs SET password = {noise} WHERE password IS NOT NULL")


def _number(superset: Superset, dashboard: str) -> int:
    return int(superset.json("GET", f"/api/v1/dashboard/{dashboard}")["result"]["id"])


def _titles(superset: Superset) -> set[str]:
    found = superset.json("GET", "/api/v1/dashboard/?q=(page_size:100)")["result"]
    return {entry["dashboard_title"] for entry in found}


def test_rotation_users_databases_and_dashboards_are_followed(web: Web, dataset: int, tmp_path: Path) -> None:
    """One `up` that changes all of them, and one that takes it back, with passwords that no key reads."""
    stack = web.stack
    ada = Superset(web, "ada")
    # A dashboard of ada's own, with a chart that was made by code.
    shared = Superset(web, "uma").charts("sales")["Sales by region"]
    mine = ada.json("POST", "/api/v1/dashboard/", {"dashboard_title": "Ada's", "slug": "adas"})["id"]
    ada.json("PUT", f"/api/v1/chart/{shared}", {"dashboards": [mine, _number(ada, "sales")]})
    text = (ROOT / "tests/integration/dashboards/sales.yaml").read_text()
    (tmp_path / "trade.yaml").write_text(text.replace("title: Sales\n", "title: Trade\n"))
    # A data source of ada's own: nobody but Superset's metadata knows its password.
    password = stack.outputs_once["credentials"]["postgres"]["reader"]
    own = {
        "database_name": "ada's",
        "sqlalchemy_uri": f"postgresql://reader:{password}@postgres:5432/shop"
        "?sslmode=verify-full&sslrootcert=/run/millrace/tls/ca.crt",
        "expose_in_sqllab": True,
    }
    number = ada.json("POST", "/api/v1/database/", own)["id"]
    count = f"SELECT count(*) FROM {TABLE}"
    assert ada.query("ada's", count) == [[2]]
    before = copy.deepcopy(stack.config)
    credentials = stack.outputs_once["credentials"]
    users = [{**u, "role": "engineer"} if u["name"] == "uma" else u for u in before["users"]]
    more = [{"name": name, "owner": "shop_owner"} for name in ("archive", "attic")]
    changes: dict[str, Any] = {
        "rotation": dict.fromkeys(("postgres/bi", "postgres/bi_reader", "bi/secret_key", "bi/proxy"), "2"),
        "users": [*users, {"name": "ivo", "role": "user"}],
        "postgres": {**before["postgres"], "databases": [*before["postgres"]["databases"], *more]},
        "bi": {**before["bi"], "dashboards_folders": [str(tmp_path)]},
    }
    try:
        with stack.changed(**changes):
            stack.up()
            now = stack.outputs_once["credentials"]
            assert now["postgres"]["bi_reader"] != credentials["postgres"]["bi_reader"]
            assert now["bi"]["secret_key"] != credentials["bi"]["secret_key"]
            assert Superset(web, "erin").query("Postgres shop", count) == [[2]]
            assert Superset(web, "ada").query("ada's", count) == [[2]]
            erin = Superset(web, "erin")
            assert erin.query("Postgres archive", "SELECT 6 * 7") == [[42]]
            assert erin.query("Postgres attic", "SELECT 6 * 7") == [[42]]
            saved = {"db_id": erin.sources()["Postgres archive"], "label": "answer", "sql": "SELECT 6 * 7"}
            query = erin.json("POST", "/api/v1/saved_query/", saved)["id"]
            assert Superset(web, "ivo").rows_of(dataset) == [["north", 3], ["south", 39]]
            assert Superset(web, "uma").get("/sqllab/").status_code == 200
            ada = Superset(web, "ada")
            assert _titles(ada) == {"Trade", "Ada's"}
            # The one that ada shows is hers now.
            assert ada.charts("adas") == {"Sales by region": shared}
            assert ada.data(shared)[0]["region"] == "south"
            _of_another_key(stack)
    finally:
        output = stack.up().output
    assert "data source ada's: no key that is still known reads its password; emptied" in output
    assert "data source Postgres shop: no key that is still known reads its password; emptied" in output
    ada = Superset(web, "ada")
    assert _titles(ada) == {"Sales", "Regions", "Ada's"}
    assert Superset(web, "uma").charts("sales")["Sales by region"] == shared
    ada.json("DELETE", f"/api/v1/dashboard/{mine}")
    assert ada.sources().keys() >= {"Postgres shop", "Postgres archive", "ada's"}
    assert "Postgres attic" not in ada.sources()
    # What erin saved outlives the database; nobody logs in to it any more.
    assert Superset(web, "erin").json("GET", f"/api/v1/saved_query/{query}")["result"]["label"] == "answer"
    archive = ada.json("GET", f"/api/v1/database/{ada.sources()['Postgres archive']}")["result"]
    assert archive["expose_in_sqllab"] is False
    with pytest.raises(AssertionError):
        ada.query("ada's", count)
    assert Superset(web, "erin").query("Postgres shop", count) == [[2]]
    erin = Superset(web, "erin")
    erin.json("DELETE", f"/api/v1/saved_query/{query}")
    ada.json("DELETE", f"/api/v1/database/{archive['id']}")
    active = {
        user["username"]: user["active"]
        for user in ada.json("GET", "/api/v1/security/users/?q=(page_size:100)")["result"]
    }
    assert active["ivo"] is False
    assert active["uma"] is True
    ada.json("DELETE", f"/api/v1/database/{number}")
    assert Superset(web, "uma").get("/sqllab/", follow_redirects=True).status_code == 403
    assert Superset(web, "uma").rows_of(dataset) == [["north", 3], ["south", 39]]


def test_no_secret_in_log_environment_or_command(everything: Stack) -> None:
    container = everything.container("bi")
    secrets = {
        everything.outputs_once["credentials"]["bi"]["secret_key"],
        everything.outputs_once["credentials"]["bi"]["proxy"],
        everything.outputs_once["credentials"]["postgres"]["bi"],
        everything.outputs_once["credentials"]["postgres"]["bi_reader"],
    }
    seen = container.logs().decode(errors="replace") + json.dumps(container.attrs)
    seen += json.dumps(container.top(ps_args="-ww -eo pid,args"))
    assert [secret for secret in secrets if secret in seen] == []
    assert "in-memory" not in container.logs().decode(errors="replace")
