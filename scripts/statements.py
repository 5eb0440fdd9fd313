"""SQL by the REST protocol that both descendants of Presto speak."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from scripts.console import SetupError
from scripts.https import Site


def rows(site: Site, engine: str, sql: str) -> list[list[Any]]:
    """Rows of a statement; ``engine`` is trino or prestodb.

    Raises:
        SetupError: the server refuses it.
        UnreachableError: it does not answer.
    """
    prefix = "X-Trino" if engine == "trino" else "X-Presto"
    headers = {f"{prefix}-User": site.user, f"{prefix}-Source": "make demo"}
    found: list[list[Any]] = []
    answer = site.ask("POST", "/v1/statement", sql, headers)
    while True:
        if answer.status != 200:
            raise SetupError(f"{site.url} answers {answer.status} to a query")
        page = answer.json
        if "error" in page:
            raise SetupError(f"query failed: {page['error']['message']}")
        found += page.get("data") or []
        if "nextUri" not in page:
            return found
        # The server holds that request until there is something to say, for a second at most.
        address = urlsplit(page["nextUri"])
        path = f"{address.path}?{address.query}" if address.query else address.path
        answer = site.ask("GET", path, None, headers)
