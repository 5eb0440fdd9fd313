"""Metabase's setup job against a stand-in that knows the documented API; the real one could not be had."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from components.bi_dashboards import dashboards
from tests.unit import dashboard_sample
from tests.unit.fake_metabase import FakeMetabase, serving
from tests.unit.test_bi_dashboards import script

setup = script("metabase_setup")

USERS = [
    {"name": "ada", "email": "ada@d.localhost", "role": "admin", "password": "pa"},
    {"name": "erin", "email": "erin@d.localhost", "role": "engineer", "password": "pe"},
    {"name": "uma", "email": "uma@d.localhost", "role": "user", "password": "pu"},
]
SHOP = {
    "id": "postgres/shop",
    "name": "Postgres shop",
    "engine": "postgres",
    "details": {"host": "postgres", "dbname": "shop", "user": "bi_reader", "password": "ps"},
}
WANTED: dict[str, Any] = {
    "site_name": "d.localhost",
    "admin": {
        "email": "millrace.setup@millrace.invalid",
        "email_before": "millrace.setup@d.localhost",
        "password": "p1",
        "former": [],
    },
    "users": USERS,
    "data_sources": [SHOP],
}


@pytest.fixture
def metabase() -> FakeMetabase:
    return FakeMetabase()


@pytest.fixture
def url(metabase: FakeMetabase) -> Iterator[str]:
    with serving(metabase) as address:
        yield address


def run(url: str, **changes: Any) -> None:
    setup.main({**copy.deepcopy(WANTED), "url": url, **changes})


def writers(metabase: FakeMetabase) -> set[str]:
    (group,) = [number for number, name in metabase.groups.items() if name == setup.WRITERS]
    return {metabase.users[user]["first_name"] for g, user in metabase.memberships.values() if g == group}


def test_a_fresh_one_gets_everything(url: str, metabase: FakeMetabase) -> None:
    run(url)
    assert metabase.settings == {"site_name": "d.localhost", "site_locale": "en", "allow_tracking": False}
    assert metabase.user("millrace.setup@millrace.invalid")["is_superuser"]
    assert {
        user["email"]: (user["password"], user["is_superuser"])
        for user in metabase.users.values()
        if user["first_name"] != "Millrace"
    } == {
        "ada@d.localhost": ("pa", True),
        "erin@d.localhost": ("pe", False),
        "uma@d.localhost": ("pu", False),
    }
    assert writers(metabase) == {"ada", "erin"}
    ((number, database),) = metabase.databases.items()
    assert database["details"] == SHOP["details"]
    assert database["is_full_sync"] is True
    by_group = {
        metabase.groups[int(group)]: databases[str(number)]["create-queries"]
        for group, databases in metabase.graph["groups"].items()
    }
    assert by_group == {"All Users": "query-builder", setup.WRITERS: "query-builder-and-native"}
    assert metabase.sessions == {}


def test_a_second_run_changes_nothing(url: str, metabase: FakeMetabase) -> None:
    run(url)
    before = copy.deepcopy((metabase.users, metabase.memberships, metabase.databases, metabase.graph))
    metabase.log.clear()
    run(url)
    assert (metabase.users, metabase.memberships, metabase.databases, metabase.graph) == before
    # Whether a password still is the same nobody can see.
    assert metabase.writes() == [f"PUT /api/database/{next(iter(metabase.databases))}"]


def test_roles_follow_the_platform(url: str, metabase: FakeMetabase) -> None:
    run(url)
    roles = {"ada": "user", "erin": "admin", "uma": "engineer"}
    run(url, users=[{**user, "role": roles[user["name"]]} for user in USERS])
    assert writers(metabase) == {"erin", "uma"}
    assert not metabase.user("ada@d.localhost")["is_superuser"]
    assert metabase.user("erin@d.localhost")["is_superuser"]


def test_a_removed_user_is_deactivated_and_comes_back(url: str, metabase: FakeMetabase) -> None:
    run(url)
    run(url, users=USERS[:2])
    assert not metabase.user("uma@d.localhost")["is_active"]
    assert metabase.user("millrace.setup@millrace.invalid")["is_active"]
    run(url)
    assert metabase.user("uma@d.localhost")["is_active"]


def test_an_administrator_who_comes_back_is_one_at_once(url: str, metabase: FakeMetabase) -> None:
    run(url)
    run(url, users=USERS[1:])
    run(url)
    assert metabase.user("ada@d.localhost")["is_superuser"]


def test_rotated_passwords_reach_it(url: str, metabase: FakeMetabase) -> None:
    run(url)
    admin = {**WANTED["admin"], "password": "p3", "former": ["p2", "p1"]}
    source = {**SHOP, "details": {**SHOP["details"], "password": "ps2"}}
    users = [{**user, "password": user["password"] + "2"} for user in USERS]
    run(url, admin=admin, users=users, data_sources=[source])
    assert metabase.user("millrace.setup@millrace.invalid")["password"] == "p3"
    assert metabase.user("uma@d.localhost")["password"] == "pu2"
    ((_, database),) = metabase.databases.items()
    assert database["details"]["password"] == "ps2"


def test_an_unknown_administrator_password_ends_it(url: str, metabase: FakeMetabase) -> None:
    run(url)
    with pytest.raises(SystemExit, match=r"neither the present nor .*, 'Metabase of another key'"):
        run(url, admin={**WANTED["admin"], "password": "p9", "former": ["p8"]})


def at(domain: str, **admin: Any) -> dict[str, Any]:
    """What another domain changes in the job's input."""
    return {
        "admin": {**WANTED["admin"], "email_before": f"millrace.setup@{domain}", **admin},
        "users": [{**user, "email": f"{user['name']}@{domain}"} for user in USERS],
    }


def made_before(url: str, metabase: FakeMetabase) -> None:
    """As earlier versions left it: an administrator of the domain, and accounts without marks."""
    run(url)
    metabase.user("millrace.setup@millrace.invalid")["email"] = "millrace.setup@d.localhost"
    for user in metabase.users.values():
        user.pop("login_attributes", None)


def accounts(metabase: FakeMetabase) -> dict[int, tuple[str, bool]]:
    return {number: (user["email"], user["is_active"]) for number, user in metabase.users.items()}


def test_accounts_follow_another_domain(url: str, metabase: FakeMetabase) -> None:
    run(url)
    run(url, users=USERS[:2])
    # People may call themselves as they like.
    metabase.user("ada@d.localhost")["first_name"] = "Ada L."
    before = accounts(metabase)
    run(url, **at("new.example"))
    assert accounts(metabase) == {
        number: (email.replace("d.localhost", "new.example"), True) for number, (email, _) in before.items()
    }
    assert metabase.user("ada@new.example")["is_superuser"]
    metabase.log.clear()
    run(url, **at("new.example"))
    assert metabase.writes() == [f"PUT /api/database/{next(iter(metabase.databases))}"]


def test_an_account_that_somebody_else_made_is_nobodys(url: str, metabase: FakeMetabase) -> None:
    run(url, users=USERS[:2])
    number = metabase._add_user({"email": "uma@partner.example"}, is_superuser=False, password=None)
    run(url)
    assert metabase.users[number]["email"] == "uma@partner.example"
    assert not metabase.users[number]["is_active"]
    assert metabase.user("uma@d.localhost")["is_active"]


def test_an_account_of_the_new_address_is_taken_as_it_is(url: str, metabase: FakeMetabase) -> None:
    run(url)
    metabase._add_user({"email": "uma@new.example"}, is_superuser=False, password=None)
    run(url, **at("new.example"))
    assert metabase.user("uma@new.example")["password"] == "pu"
    assert not metabase.user("uma@d.localhost")["is_active"]
    run(url, **at("newer.example"))
    assert metabase.user("uma@newer.example")["is_active"]


def test_what_earlier_versions_made_is_ready_for_another_domain(url: str, metabase: FakeMetabase) -> None:
    made_before(url, metabase)
    numbers = set(metabase.users)
    run(url, admin={**WANTED["admin"], "password": "p2", "former": ["p1"]})
    assert metabase.user("millrace.setup@millrace.invalid")["password"] == "p2"
    run(url, **at("new.example", password="p2"))
    assert set(metabase.users) == numbers
    assert metabase.user("uma@new.example")["is_active"]


def test_another_domain_at_once_with_an_update_is_told(url: str, metabase: FakeMetabase) -> None:
    made_before(url, metabase)
    before = copy.deepcopy(metabase.users)
    with pytest.raises(
        SystemExit, match=r"millrace:domain has changed .*, write the former one for one `up`"
    ):
        run(url, **at("new.example"))
    assert metabase.users == before


def test_a_data_source_of_a_service_that_is_off_goes(url: str, metabase: FakeMetabase) -> None:
    run(url)
    own = {"name": "own", "engine": "postgres", "details": {}, "caveats": "mine"}
    metabase.databases[99] = dict(own)
    run(url, data_sources=[])
    assert metabase.databases == {99: own}


def test_a_data_source_that_questions_build_on_stays(url: str, metabase: FakeMetabase) -> None:
    run(url)
    (number,) = metabase.databases
    metabase.uses[number] = 1
    run(url, data_sources=[])
    assert list(metabase.databases) == [number]
    run(url)
    assert list(metabase.databases) == [number]


def test_a_data_source_that_does_not_answer_fails_the_job(url: str, metabase: FakeMetabase) -> None:
    metabase.broken.add("Postgres shop")
    with pytest.raises(setup.ApiError, match=r"POST /api/database: 400 .*Connection refused"):
        run(url)


def test_more_permissions_that_somebody_gave_stay(url: str, metabase: FakeMetabase) -> None:
    run(url)
    (number,) = metabase.databases
    metabase.graph["groups"]["1"][str(number)]["download"] = {"schemas": "full"}
    metabase.graph["groups"]["1"][str(number)]["create-queries"] = "no"
    run(url)
    assert metabase.graph["groups"]["1"][str(number)] == {
        "view-data": "unrestricted",
        "create-queries": "query-builder",
        "download": {"schemas": "full"},
    }


# -- dashboards

PRESTO = {
    "id": "presto/lake",
    "name": "Presto lake",
    "engine": "starburst",
    "details": {"host": "presto", "catalog": "lake", "user": "bi", "password": "pp"},
}
TPCH = {**PRESTO, "id": "presto/tpch", "name": "Presto tpch"}


def shop(tmp_path: Path, text: str = dashboard_sample.SHOP) -> list[dict[str, Any]]:
    return dashboards([str(dashboard_sample.write(tmp_path, text))])


def run_with(url: str, wanted: list[dict[str, Any]]) -> None:
    values = {**copy.deepcopy(WANTED), "url": url, "data_sources": [SHOP, TPCH, PRESTO]}
    setup.main(values, wanted)


def test_dashboards_are_made_of_questions_in_sql(tmp_path: Path, url: str, metabase: FakeMetabase) -> None:
    run_with(url, shop(tmp_path))
    (dashboard,) = metabase.dashboards.values()
    assert (dashboard["name"], dashboard["description"]) == ("Shop", "What the shop sells.")
    cards = {card["name"]: card for card in metabase.cards.values()}
    assert {name: card["display"] for name, card in cards.items()} == {
        "Orders in all": "scalar",
        "Orders by branch": "row",
        "Orders by day": "line",
        "All branches": "table",
    }
    names = {number: database["name"] for number, database in metabase.databases.items()}
    assert names[cards["Orders in all"]["dataset_query"]["database"]] == "Postgres shop"
    # The catalog of its table, though another one comes first.
    assert names[cards["Orders by branch"]["dataset_query"]["database"]] == "Presto lake"
    bar = cards["Orders by branch"]
    assert bar["dataset_query"]["native"]["query"].endswith('ORDER BY "average_delivery_hours" DESC')
    look = bar["visualization_settings"]
    assert (look["graph.x_axis.title_text"], look["graph.y_axis.title_text"]) == (
        "Branch",
        "Delivery (hours)",
    )
    assert look["column_settings"]['["name","average_delivery_hours"]'] == {
        "column_title": "Delivery (hours)", "decimals": 1,
    }  # fmt: skip
    assert cards["Orders by day"]["visualization_settings"]["graph.dimensions"] == ["day", "state"]
    placed = dashboard["dashcards"]
    assert [c["card_id"] for c in placed] == [None, *(cards[name]["id"] for name in cards)]
    assert all(c["col"] + c["size_x"] <= 24 for c in placed)


def test_everybody_reads_dashboards_and_administrators_change_them(
    tmp_path: Path, url: str, metabase: FakeMetabase
) -> None:
    run_with(url, shop(tmp_path))
    (number,) = metabase.collections
    rights = {
        metabase.groups[int(group)]: levels.get(str(number))
        for group, levels in metabase.collection_graph["groups"].items()
    }
    assert rights == {"All Users": "read"}


def test_dashboards_of_a_second_run_change_nothing(tmp_path: Path, url: str, metabase: FakeMetabase) -> None:
    run_with(url, shop(tmp_path))
    before = copy.deepcopy((metabase.cards, metabase.dashboards, metabase.collections))
    metabase.log.clear()
    run_with(url, shop(tmp_path))
    assert (metabase.cards, metabase.dashboards, metabase.collections) == before
    assert [line for line in metabase.writes() if "/api/database" not in line] == []


def test_a_changed_definition_keeps_its_numbers(tmp_path: Path, url: str, metabase: FakeMetabase) -> None:
    run_with(url, shop(tmp_path))
    dashboard, cards = set(metabase.dashboards), {c["name"]: n for n, c in metabase.cards.items()}
    text = dashboard_sample.SHOP.replace("unit: hours", "unit: h").replace(
        "title: Orders by day", "title: Days"
    )
    run_with(url, shop(tmp_path, text))
    now = {c["name"]: n for n, c in metabase.cards.items()}
    assert set(metabase.dashboards) == dashboard
    assert now["Orders by branch"] == cards["Orders by branch"]
    bar = metabase.cards[now["Orders by branch"]]["visualization_settings"]
    assert bar["graph.y_axis.title_text"] == "Delivery (h)"
    assert "Orders by day" not in now
    assert {c["card_id"] for c in metabase.dashboards[dashboard.pop()]["dashcards"]} == {None, *now.values()}


def test_what_has_no_definition_goes_and_what_people_made_stays(
    tmp_path: Path, url: str, metabase: FakeMetabase
) -> None:
    run_with(url, shop(tmp_path))
    kept = next(n for n, c in metabase.cards.items() if c["name"] == "Orders by day")
    (collection,) = metabase.collections
    own = {"name": "Shop", "description": "mine", "caveats": None, "dashcards": [{"card_id": kept}]}
    metabase.dashboards[900] = {"id": 900, "collection_id": None, **copy.deepcopy(own)}
    metabase.dashboards[901] = {"id": 901, "collection_id": collection, **copy.deepcopy(own), "dashcards": []}
    run_with(url, [])
    assert set(metabase.dashboards) == {900, 901}
    assert metabase.dashboards[900]["dashcards"] == [{"card_id": kept}]
    assert set(metabase.cards) == {kept}


def test_a_dashboard_does_not_keep_a_data_source(tmp_path: Path, url: str, metabase: FakeMetabase) -> None:
    run_with(url, shop(tmp_path))
    setup.main({**copy.deepcopy(WANTED), "url": url, "data_sources": []}, [])
    assert metabase.databases == {}
