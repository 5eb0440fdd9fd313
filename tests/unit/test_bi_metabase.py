"""Metabase's setup job against a stand-in that knows the documented API; the real one could not be had."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.unit.fake_metabase import FakeMetabase, serving

SCRIPT = Path("configs/bi/metabase_setup.py")


def _script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("metabase_setup", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


setup = _script()

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
    "admin": {"email": "millrace.setup@d.localhost", "password": "p1", "former": []},
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
    assert metabase.user("millrace.setup@d.localhost")["is_superuser"]
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
    assert metabase.user("millrace.setup@d.localhost")["is_active"]
    run(url)
    assert metabase.user("uma@d.localhost")["is_active"]


def test_rotated_passwords_reach_it(url: str, metabase: FakeMetabase) -> None:
    run(url)
    admin = {**WANTED["admin"], "password": "p3", "former": ["p2", "p1"]}
    source = {**SHOP, "details": {**SHOP["details"], "password": "ps2"}}
    users = [{**user, "password": user["password"] + "2"} for user in USERS]
    run(url, admin=admin, users=users, data_sources=[source])
    assert metabase.user("millrace.setup@d.localhost")["password"] == "p3"
    assert metabase.user("uma@d.localhost")["password"] == "pu2"
    ((_, database),) = metabase.databases.items()
    assert database["details"]["password"] == "ps2"


def test_an_unknown_administrator_password_ends_it(url: str, metabase: FakeMetabase) -> None:
    run(url)
    with pytest.raises(SystemExit, match=r"neither the present nor .*, 'Metabase of another key'"):
        run(url, admin={**WANTED["admin"], "password": "p9", "former": ["p8"]})


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
