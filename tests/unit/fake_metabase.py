"""A stand-in for Metabase: the part of its documented HTTP API that the setup job uses, with its refusals."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import Any

PASSWORD_MASK = "**MetabasePass**"


class RefusedError(Exception):
    """An answer other than success."""

    def __init__(self, status: int, text: str = "") -> None:
        super().__init__(text)
        self.status, self.text = status, text


class FakeMetabase:
    """Its state, and one method for each endpoint."""

    def __init__(self) -> None:
        self.token: str | None = "setup-token"
        self.settings: dict[str, Any] = {}
        self.users: dict[int, dict[str, Any]] = {}
        self.groups = {1: "All Users", 2: "Administrators"}
        self.memberships: dict[int, tuple[int, int]] = {}
        self.databases: dict[int, dict[str, Any]] = {}
        self.uses: dict[int, int] = {}
        self.sessions: dict[str, int] = {}
        self.graph: dict[str, Any] = {"revision": 0, "groups": {}}
        self.broken: set[str] = set()
        self.collections: dict[int, dict[str, Any]] = {}
        self.collection_graph: dict[str, Any] = {"revision": 0, "groups": {}}
        self.cards: dict[int, dict[str, Any]] = {}
        self.dashboards: dict[int, dict[str, Any]] = {}
        self.log: list[str] = []
        self._numbers = count(3)

    # -- what a test looks at

    def user(self, email: str) -> dict[str, Any]:
        """The user of this address."""
        (found,) = [user for user in self.users.values() if user["email"] == email]
        return found

    def writes(self) -> list[str]:
        """Requests that changed something, sessions apart."""
        return [line for line in self.log if not line.startswith("GET") and "/api/session" not in line]

    # -- requests

    def answer(self, method: str, path: str, body: Any, session: str | None) -> Any:
        """What the server says to a request."""
        path = path.partition("?")[0]
        self.log.append(f"{method} {path}")
        open_to_all = {("GET", "/api/session/properties"), ("POST", "/api/setup"), ("POST", "/api/session")}
        if (method, path) not in open_to_all:
            if session not in self.sessions:
                raise RefusedError(401, "Unauthenticated")
            if not self.users[self.sessions[session]]["is_superuser"] and path != "/api/session":
                raise RefusedError(403, "You don't have permissions to do that.")
        numbers = [int(n) for n in re.findall(r"/(\d+)", path)]
        name = re.sub(r"/\d+", "/:id", path)
        handler = getattr(self, f"{method.lower()}{re.sub(r'[^a-z]+', '_', name)}", None)
        if handler is None:
            raise RefusedError(404, "API endpoint does not exist.")
        arguments = [*numbers, *([body] if body is not None else [])]
        if path in ("/api/session", "/api/user/current") and method != "POST":
            arguments = [session]
        return handler(*arguments)

    def get_api_session_properties(self) -> Any:
        return {"setup-token": self.token, "has-user-setup": bool(self.users)}

    def post_api_setup(self, body: Any) -> Any:
        if self.users:
            raise RefusedError(403, "The /api/setup route can only be used to create the first user")
        if body["token"] != self.token:
            raise RefusedError(400, "Token does not match the setup token.")
        for key in ("email", "password"):
            if not body["user"][key]:
                raise RefusedError(400, key)
        self.settings = dict(body["prefs"])
        number = self._add_user(body["user"], is_superuser=True, password=body["user"]["password"])
        self.token = None
        return {"id": self._session(number)}

    def post_api_session(self, body: Any) -> Any:
        for number, user in self.users.items():
            right = user["email"] == body["username"] and user["password"] == body["password"]
            if right and user["is_active"]:
                return {"id": self._session(number)}
        raise RefusedError(401, '{"errors":{"password":"did not match stored password"}}')

    def delete_api_session(self, session: str) -> None:
        del self.sessions[session]

    def get_api_user_current(self, session: str) -> Any:
        return self._shown(self.sessions[session])

    def get_api_user(self) -> Any:
        return {"data": [self._shown(n) for n in self.users], "total": len(self.users)}

    def post_api_user(self, body: Any) -> Any:
        if any(user["email"] == body["email"] for user in self.users.values()):
            raise RefusedError(400, "Email address already in use.")
        if body.get("last_name") == "" or "password" in body:
            raise RefusedError(400, "value must be a non-blank string.")
        return self._shown(self._add_user(body, is_superuser=False, password=None))

    def put_api_user_id(self, number: int, body: Any) -> Any:
        if not self.users[number]["is_active"]:
            raise RefusedError(404, "Not found.")
        if any(u["email"] == body.get("email") for n, u in self.users.items() if n != number):
            raise RefusedError(400, "Email address already associated to another user.")
        self.users[number] |= body
        return self._shown(number)

    def put_api_user_id_password(self, number: int, body: Any) -> None:
        self.users[number]["password"] = body["password"]
        self.sessions = {s: n for s, n in self.sessions.items() if n != number}

    def put_api_user_id_reactivate(self, number: int) -> Any:
        if self.users[number]["is_active"]:
            raise RefusedError(400, "Not able to reactivate an active user")
        self.users[number] |= {"is_active": True, "is_superuser": False}
        return self._shown(number)

    def delete_api_user_id(self, number: int) -> Any:
        self.users[number]["is_active"] = False
        return {"success": True}

    def get_api_permissions_group(self) -> Any:
        return [{"id": number, "name": name} for number, name in self.groups.items()]

    def post_api_permissions_group(self, body: Any) -> Any:
        number = next(self._numbers)
        self.groups[number] = body["name"]
        return {"id": number, "name": body["name"]}

    def get_api_permissions_membership(self) -> Any:
        found: dict[str, list[dict[str, int]]] = {}
        for number, (group, user) in self.memberships.items():
            entry = {"membership_id": number, "group_id": group, "user_id": user}
            found.setdefault(str(user), []).append(entry)
        return found

    def post_api_permissions_membership(self, body: Any) -> Any:
        pair = (body["group_id"], body["user_id"])
        if pair in self.memberships.values():
            raise RefusedError(400, "is already a member")
        self.memberships[next(self._numbers)] = pair
        return []

    def delete_api_permissions_membership_id(self, number: int) -> None:
        del self.memberships[number]

    def get_api_permissions_graph(self) -> Any:
        return self.graph

    def put_api_permissions_graph(self, body: Any) -> Any:
        if body["revision"] != self.graph["revision"]:
            raise RefusedError(409, "Looks like someone else edited the permissions")
        for group, databases in body["groups"].items():
            self.graph["groups"].setdefault(group, {}).update(databases)
        self.graph["revision"] += 1
        return self.graph

    def get_api_database(self) -> Any:
        return {"data": [self._database(number) for number in self.databases], "total": len(self.databases)}

    def post_api_database(self, body: Any) -> Any:
        self._connects(body)
        number = next(self._numbers)
        self.databases[number] = {"caveats": None, **body}
        # A new database is open to everybody, SQL included.
        everybody = {"view-data": "unrestricted", "create-queries": "query-builder-and-native"}
        self.graph["groups"].setdefault("1", {})[str(number)] = everybody
        return self._database(number)

    def put_api_database_id(self, number: int, body: Any) -> Any:
        self._connects(body)
        self.databases[number] |= body
        return self._database(number)

    def get_api_database_id_usage_info(self, number: int) -> Any:
        asking = [c for c in self.cards.values() if c["dataset_query"]["database"] == number]
        questions = self.uses.get(number, 0) + len(asking)
        return {"question": questions, "dataset": 0, "metric": 0, "segment": 0}

    def delete_api_database_id(self, number: int) -> None:
        del self.databases[number]

    # -- collections, questions, dashboards

    def get_api_collection(self) -> Any:
        return [{"id": "root", "name": "Our analytics"}, *map(dict, self.collections.values())]

    def post_api_collection(self, body: Any) -> Any:
        number = next(self._numbers)
        self.collections[number] = {"id": number, "archived": False, **body}
        # A new collection has the rights of the one it is in: everybody may write.
        self.collection_graph["groups"].setdefault("1", {})[str(number)] = "write"
        return self.collections[number]

    def get_api_collection_id_items(self, number: int) -> Any:
        found = [
            {"id": n, "model": "dashboard", "name": d["name"]}
            for n, d in self.dashboards.items()
            if d["collection_id"] == number
        ]
        return {"data": found, "total": len(found)}

    def get_api_collection_graph(self) -> Any:
        return self.collection_graph

    def put_api_collection_graph(self, body: Any) -> Any:
        if body["revision"] != self.collection_graph["revision"]:
            raise RefusedError(409, "Looks like someone else edited the permissions")
        for group, levels in body["groups"].items():
            if self.groups[int(group)] == "Administrators":
                raise RefusedError(400, "You cannot change permissions for the Administrators group.")
            self.collection_graph["groups"].setdefault(group, {}).update(levels)
        self.collection_graph["revision"] += 1
        return self.collection_graph

    def post_api_card(self, body: Any) -> Any:
        for key in ("name", "display", "visualization_settings", "dataset_query"):
            if not isinstance(body[key], str | dict):
                raise RefusedError(400, key)
        self._question(body)
        number = next(self._numbers)
        self.cards[number] = {"id": number, **body}
        return self.cards[number]

    def put_api_card_id(self, number: int, body: Any) -> Any:
        self._question(body)
        self.cards[number] |= body
        return self.cards[number]

    def get_api_card_id_dashboards(self, number: int) -> Any:
        return [
            {"id": n, "name": d["name"]}
            for n, d in self.dashboards.items()
            if any(card["card_id"] == number for card in d["dashcards"])
        ]

    def delete_api_card_id(self, number: int) -> None:
        del self.cards[number]
        for dashboard in self.dashboards.values():
            dashboard["dashcards"] = [c for c in dashboard["dashcards"] if c["card_id"] != number]

    def post_api_dashboard(self, body: Any) -> Any:
        number = next(self._numbers)
        given = {key: body.get(key) for key in ("name", "description", "collection_id")}
        self.dashboards[number] = {"id": number, **given, "caveats": None, "dashcards": []}
        return self.get_api_dashboard_id(number)

    def get_api_dashboard_id(self, number: int) -> Any:
        dashboard = self.dashboards[number]
        shown = [{**card, "card": self.cards.get(card["card_id"])} for card in dashboard["dashcards"]]
        return {**dashboard, "dashcards": shown}

    def put_api_dashboard_id(self, number: int, body: Any) -> Any:
        for card in body.get("dashcards", ()):
            if card["card_id"] is not None and card["card_id"] not in self.cards:
                raise RefusedError(400, "card_id")
            if card["col"] + card["size_x"] > 24:
                raise RefusedError(400, "size_x")
            if card["id"] < 0:
                card["id"] = next(self._numbers)
        self.dashboards[number] |= body
        return self.get_api_dashboard_id(number)

    def delete_api_dashboard_id(self, number: int) -> None:
        del self.dashboards[number]

    def _question(self, body: Any) -> None:
        if body["dataset_query"]["database"] not in self.databases:
            raise RefusedError(400, "database")

    # -- parts

    def _add_user(self, body: Any, *, is_superuser: bool, password: str | None) -> int:
        number = next(self._numbers)
        names = {key: body.get(key) for key in ("email", "first_name", "last_name")}
        self.users[number] = {
            **names, "is_superuser": is_superuser, "is_active": True, "password": password,
        }  # fmt: skip
        return number

    def _session(self, number: int) -> str:
        session = f"session-{next(self._numbers)}"
        self.sessions[session] = number
        return session

    def _shown(self, number: int) -> dict[str, Any]:
        return {"id": number, **{k: v for k, v in self.users[number].items() if k != "password"}}

    def _database(self, number: int) -> dict[str, Any]:
        database = self.databases[number]
        return {"id": number, **database, "details": {**database["details"], "password": PASSWORD_MASK}}

    def _connects(self, body: Any) -> None:
        if body["name"] in self.broken:
            raise RefusedError(400, '{"message":"Connection refused"}')


@contextmanager
def serving(metabase: FakeMetabase) -> Iterator[str]:
    """The stand-in's address while it listens."""

    class Handler(BaseHTTPRequestHandler):
        def _handle(self) -> None:
            text = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            body = json.loads(text) if text else None
            try:
                found = metabase.answer(self.command, self.path, body, self.headers.get("X-Metabase-Session"))
                status, data = (204, b"") if found is None else (200, json.dumps(found).encode())
            except RefusedError as refused:
                status, data = refused.status, refused.text.encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = do_DELETE = _handle  # noqa: N815

        def log_message(self, *args: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
