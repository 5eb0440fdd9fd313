"""Superset's API as people's browsers use it."""

from __future__ import annotations

import uuid
from typing import Any

import httpx

from tests.integration.stack import ANSWER_S
from tests.integration.web import Web


class Superset(httpx.Client):
    """Its API as one user, with the login, the referrer and the CSRF token that a browser would send."""

    def __init__(self, web: Web, user: str) -> None:
        url = web.url("bi", "/")
        super().__init__(
            verify=web.context(),
            base_url=url,
            auth=(user, web.password(user)),
            timeout=ANSWER_S,
            trust_env=False,
            headers={"Referer": url},
        )

    def ask(self, method: str, path: str, body: Any = None) -> httpx.Response:
        """A request; one that changes something carries the token."""
        headers = {}
        if method != "GET":
            token = self.get("/api/v1/security/csrf_token/")
            headers["X-CSRFToken"] = token.json()["result"] if token.status_code == 200 else "none"
        return self.request(method, path, json=body, headers=headers)

    def json(self, method: str, path: str, body: Any = None) -> Any:
        """The answer of a request that has to succeed."""
        answer = self.ask(method, path, body)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text[:800]}"
        return answer.json()

    def sources(self) -> dict[str, int]:
        """Data sources this user sees, with their numbers."""
        found = self.json("GET", "/api/v1/database/")["result"]
        return {entry["database_name"]: entry["id"] for entry in found}

    def query(self, source: str, sql: str) -> list[list[Any]]:
        """Rows of a query in SQL Lab."""
        body = {
            "database_id": self.sources()[source],
            "sql": sql,
            "runAsync": False,
            "client_id": uuid.uuid4().hex[:10],
        }
        return [list(row.values()) for row in self.json("POST", "/api/v1/sqllab/execute/", body)["data"]]

    def charts(self, dashboard: str) -> dict[str, int]:
        """Numbers of a dashboard's charts by title."""
        found = self.json("GET", f"/api/v1/dashboard/{dashboard}/charts")["result"]
        return {entry["slice_name"]: entry["id"] for entry in found}

    def data(self, chart: int) -> list[dict[str, Any]]:
        """Rows of a chart as it was defined."""
        answer = self.json("GET", f"/api/v1/chart/{chart}/data/?force=true")
        return list(answer["result"][0]["data"])

    def rows_of(self, dataset: int) -> list[list[Any]]:
        """All rows of a dataset, as a chart gets them."""
        query = {"columns": ["region", "amount"], "orderby": [["region", True]], "row_limit": 100}
        body = {
            "datasource": {"id": dataset, "type": "table"},
            "queries": [query],
            "result_format": "json",
            "result_type": "results",
            "force": True,
        }
        answer = self.json("POST", "/api/v1/chart/data", body)
        return [[row["region"], row["amount"]] for row in answer["result"][0]["data"]]
