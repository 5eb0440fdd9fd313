"""Makes a running Metabase what the settings say, through its HTTP API and Python's own library alone.

The first administrator, the platform's users with their passwords, who may write SQL, data sources,
dashboards. Running it again changes nothing. What people made stays: a data source that questions build on is
not deleted.
"""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import metabase_dashboards

_WANTED = Path("/run/millrace/bi/setup.json")
_DASHBOARDS = Path(__file__).parent / "dashboards.json"

WRITERS = "Millrace SQL"
"""Group that may write SQL; all others build questions by clicking."""

_EVERYBODY = "All Users"

# Data sources of the platform carry this where Metabase keeps remarks, and what they are behind it.
_MARK = "Managed by Millrace: "

# And accounts of the platform's users carry their names in this attribute, which only administrators change:
# addresses change with the domain, and people may write another name over their own.
_USER = "millrace_user"


def say(text: str) -> None:
    """One line of the job's log."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


class ApiError(Exception):
    """An answer that is no success: status and what the server said, which may name fields but no secrets."""

    def __init__(self, method: str, path: str, status: int, text: str) -> None:
        super().__init__(f"{method} {path}: {status} {text[:500]}")
        self.status = status


class Api:
    """The HTTP API with the session of one user."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self.session: str | None = None

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """One request; the answer's JSON, or None when there is none.

        Raises:
            ApiError: when the server refuses.
        """
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self.session:
            headers["X-Metabase-Session"] = self.session
        request = urllib.request.Request(self.url + path, data, headers, method=method)  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:  # noqa: S310
                text = answer.read().decode()
        except urllib.error.HTTPError as error:
            raise ApiError(method, path, error.code, error.read().decode(errors="replace")) from None
        return json.loads(text) if text.strip().startswith(("{", "[", '"')) else None

    def log_in(self, email: str, password: str) -> bool:
        """Whether this login is right; the session is kept."""
        self.session = None
        try:
            answer = self.call("POST", "/api/session", {"username": email, "password": password})
        except ApiError as error:
            if error.status in (400, 401):
                return False
            raise
        self.session = answer["id"]
        return True

    def log_out(self) -> None:
        """End the session."""
        self.call("DELETE", "/api/session")
        self.session = None


def rows(answer: Any) -> list[dict[str, Any]]:
    """The entries of a list, which some endpoints wrap in an object with totals."""
    return list(answer["data"] if isinstance(answer, Mapping) else answer)


def open_session(api: Api, wanted: Mapping[str, Any]) -> None:
    """As the platform's own administrator, whom the first run creates and a rotation gives a new password.

    Raises:
        SystemExit: when neither the present nor a former password opens one.
    """
    admin = wanted["admin"]
    addresses = (admin["email"], admin["email_before"])
    properties = api.call("GET", "/api/session/properties")
    if not properties.get("has-user-setup") and properties.get("setup-token"):
        answer = api.call(
            "POST",
            "/api/setup",
            {
                "token": properties["setup-token"],
                "user": {
                    "first_name": "Millrace",
                    "last_name": "Setup",
                    "email": admin["email"],
                    "password": admin["password"],
                    "site_name": wanted["site_name"],
                },
                "prefs": {"site_name": wanted["site_name"], "site_locale": "en", "allow_tracking": False},
            },
        )
        api.session = answer["id"]
        say("administrator: made")
        return
    if not any(_log_in(api, email, admin) for email in addresses):
        raise SystemExit(
            "Metabase knows neither the present nor a former password of its administrator "
            f"{' or '.join(addresses)}: where millrace:domain has changed since the last `up` that reached "
            "Metabase, write the former one for one `up`; else set the password to the credential bi/admin "
            "as another administrator of Metabase, or let Metabase start anew "
            "(docs/bi.md, 'Metabase of another key')"
        )
    own = api.call("GET", "/api/user/current")
    if own["email"].lower() != admin["email"]:
        api.call("PUT", f"/api/user/{own['id']}", {"email": admin["email"]})
        say(f"administrator: now {admin['email']}, whatever the domain")


def _log_in(api: Api, email: str, admin: Mapping[str, Any]) -> bool:
    """Whether the administrator has this address; a former password is replaced."""
    if api.log_in(email, admin["password"]):
        return True
    for former in admin["former"]:
        if api.log_in(email, former):
            own = api.call("GET", "/api/user/current")
            change = {"password": admin["password"], "old_password": former}
            api.call("PUT", f"/api/user/{own['id']}/password", change)
            if api.log_in(email, admin["password"]):
                say("administrator: new password")
                return True
    return False


# -- users


def users(api: Api, wanted: Mapping[str, Any]) -> None:
    """Create, adjust and deactivate users; passwords are those of the platform.

    A user has the account of their address, or the one that this job gave them under another domain, with all
    they made.
    """
    accounts = rows(api.call("GET", "/api/user?status=all"))
    known = {u["email"].lower(): u for u in accounts}
    # An active one before others, if there are two.
    given = {_attributes(u).get(_USER): u for u in sorted(accounts, key=lambda u: u.get("is_active", True))}
    groups = {g["name"]: g["id"] for g in api.call("GET", "/api/permissions/group")}
    if WRITERS not in groups:
        groups[WRITERS] = api.call("POST", "/api/permissions/group", {"name": WRITERS})["id"]
    members: set[int] = set()
    keep = {known[wanted["admin"]["email"]]["id"]}
    for entry in wanted["users"]:
        user = known.get(entry["email"].lower()) or given.get(entry["name"])
        if user is None:
            person = {"first_name": entry["name"], "last_name": None, "email": entry["email"]}
            user = api.call("POST", "/api/user", person)
            say(f"user {entry['name']}: made")
        elif not user.get("is_active", True):
            # Who comes back is no administrator, whatever they were: it matters what they are now.
            user = {**user, **api.call("PUT", f"/api/user/{user['id']}/reactivate")}
            say(f"user {entry['name']}: active again")
        keep.add(user["id"])
        _adjust(api, user, entry)
        _password(api, user["id"], entry)
        if entry["role"] != "user":
            members.add(user["id"])
    _members(api, groups[WRITERS], members)
    for email, user in known.items():
        if user["id"] not in keep and user.get("is_active", True):
            api.call("DELETE", f"/api/user/{user['id']}")
            say(f"user {email}: deactivated")


def _attributes(user: Mapping[str, Any]) -> dict[str, str]:
    return dict(user.get("login_attributes") or {})


def _adjust(api: Api, user: Mapping[str, Any], entry: Mapping[str, Any]) -> None:
    """An active account's address, mark and rank are those of the platform's user."""
    change: dict[str, Any] = {}
    if user["email"].lower() != entry["email"].lower():
        change["email"] = entry["email"]
        say(f"user {entry['name']}: now {entry['email']}")
    if _attributes(user).get(_USER) != entry["name"]:
        change["login_attributes"] = _attributes(user) | {_USER: entry["name"]}
    is_admin = entry["role"] == "admin"
    if bool(user.get("is_superuser")) is not is_admin:
        change["is_superuser"] = is_admin
    if change:
        api.call("PUT", f"/api/user/{user['id']}", change)


def _password(api: Api, number: int, entry: Mapping[str, Any]) -> None:
    """Give a user the platform's password, unless it is theirs: a change would end their sessions."""
    other = Api(api.url)
    if other.log_in(entry["email"], entry["password"]):
        other.log_out()
        return
    api.call("PUT", f"/api/user/{number}/password", {"password": entry["password"]})


def _members(api: Api, group: int, wanted: set[int]) -> None:
    """The group's members are exactly these."""
    by_user = api.call("GET", "/api/permissions/membership")
    present = {
        int(m["user_id"]): m["membership_id"]
        for memberships in by_user.values()
        for m in memberships
        if m["group_id"] == group
    }
    for user in sorted(wanted - present.keys()):
        api.call("POST", "/api/permissions/membership", {"group_id": group, "user_id": user})
    for user in sorted(present.keys() - wanted):
        api.call("DELETE", f"/api/permissions/membership/{present[user]}")


# -- data sources


def data_sources(api: Api, wanted: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Register and adjust the data sources of the platform's services; their numbers by id."""
    known = _known(api)
    numbers = {}
    for source in wanted:
        body = {"name": source["name"], "engine": source["engine"], "details": source["details"]}
        database = known.get(source["id"])
        if database is None:
            database = api.call("POST", "/api/database", {**body, "is_full_sync": True})
            say(f"data source {source['name']}: made")
        # The password is never shown, so nobody can tell whether it still is the same.
        api.call("PUT", f"/api/database/{database['id']}", {**body, "caveats": _MARK + source["id"]})
        numbers[source["id"]] = int(database["id"])
    return numbers


def _known(api: Api) -> dict[str, dict[str, Any]]:
    """The data sources that this job made, by id."""
    return {
        str(d["caveats"]).removeprefix(_MARK): d
        for d in rows(api.call("GET", "/api/database"))
        if str(d.get("caveats") or "").startswith(_MARK)
    }


def retire(api: Api, wanted: Sequence[Mapping[str, Any]]) -> None:
    """Remove the data sources that are none of the platform's any more."""
    known = _known(api)
    for id_ in sorted(known.keys() - {source["id"] for source in wanted}):
        _retire(api, known[id_])


def _retire(api: Api, database: Mapping[str, Any]) -> None:
    """Delete a data source whose service is off, unless questions would go with it."""
    uses = api.call("GET", f"/api/database/{database['id']}/usage_info")
    if any(uses.values()):
        say(f"data source {database['name']}: its service is off, kept for what builds on it")
        return
    api.call("DELETE", f"/api/database/{database['id']}")
    say(f"data source {database['name']}: deleted")


def permissions(api: Api, databases: Collection[int]) -> None:
    """Everybody may build questions on the platform's data sources, the writers' group write SQL."""
    groups = {g["name"]: str(g["id"]) for g in api.call("GET", "/api/permissions/group")}
    graph = api.call("GET", "/api/permissions/graph")
    levels = {groups[_EVERYBODY]: "query-builder", groups[WRITERS]: "query-builder-and-native"}
    changed: dict[str, dict[str, Any]] = {}
    for group, level in levels.items():
        present = graph["groups"].get(group, {})
        for number in map(str, databases):
            own = present.get(number, {})
            if own.get("create-queries") != level or own.get("view-data") != "unrestricted":
                entry = {**own, "view-data": "unrestricted", "create-queries": level}
                changed.setdefault(group, {})[number] = entry
    if changed:
        api.call("PUT", "/api/permissions/graph", {"revision": graph["revision"], "groups": changed})
        say("permissions: adjusted")


def main(wanted: Mapping[str, Any], dashboards: Sequence[Mapping[str, Any]] = ()) -> None:
    """Everything, in the order in which one needs the other."""
    api = Api(wanted["url"])
    open_session(api, wanted)
    users(api, wanted)
    numbers = data_sources(api, wanted["data_sources"])
    permissions(api, numbers.values())
    # Before a data source goes: the platform's own questions don't hold it.
    metabase_dashboards.write(api, dashboards, numbers, say)
    retire(api, wanted["data_sources"])
    api.log_out()
    say("done")


if __name__ == "__main__":
    try:
        main(json.loads(_WANTED.read_text()), json.loads(_DASHBOARDS.read_text()))
    except ApiError as refused:
        raise SystemExit(f"Metabase refused: {refused}") from None
