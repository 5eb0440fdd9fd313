"""Who may log in to Presto, and what they may do there."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from components.presto_catalogs import LAKE
from components.presto_settings import Engine
from components.settings import Role, User

# People's and services' names have no dot.
PROBE = "millrace.probe"
"""User of the health check; may query nothing."""
KEEPER = "millrace.lake"
"""User of the workload that keeps the lake's list of tables."""

_BCRYPT = re.compile(r"^\$2[abxy]\$")


@dataclass(frozen=True, kw_only=True)
class Rights:
    """Users by what they may do: ``admins`` all, ``writers`` change the lake, ``nobody`` not even read."""

    admins: tuple[str, ...]
    writers: tuple[str, ...]
    nobody: tuple[str, ...] = (PROBE,)


def rights(users: Sequence[User], services: Mapping[str, bool]) -> Rights:
    """People by their role, services by what they asked for."""
    return Rights(
        admins=tuple(user.name for user in users if user.role is Role.ADMIN),
        writers=(
            *(user.name for user in users if user.role is Role.ENGINEER),
            *(name for name, write in services.items() if write),
        ),
    )


def password_file(hashes: Mapping[str, str]) -> str:
    """``user:hash`` lines. Both engines know bcrypt by the prefix $2y$, another name of $2a$ and $2b$."""
    return "".join(f"{user}:{_BCRYPT.sub('$2y$', found)}\n" for user, found in hashes.items())


def rules(engine: Engine, given: Rights) -> str:
    """The file-based access control's rules; the first that fits decides."""
    made = _trino(given) if engine is Engine.TRINO else _prestodb(given)
    return json.dumps(made, indent=2) + "\n"


def _users(names: Iterable[str]) -> str:
    return "|".join(re.escape(name) for name in names)


def _catalogs(given: Rights, none: object) -> list[dict[str, object]]:
    found: list[dict[str, object]] = [{"user": _users(given.nobody), "allow": none}]
    if given.admins:
        found.append({"user": _users(given.admins), "allow": "all"})
    found += [
        {"user": _users([*given.writers, KEEPER]), "catalog": LAKE, "allow": "all"},
        {"allow": "read-only"},
    ]
    return found


def _trino(given: Rights) -> dict[str, object]:
    writers = _users([*given.admins, *given.writers, KEEPER])
    found: dict[str, object] = {
        "catalogs": _catalogs(given, "none"),
        "procedures": [
            {"user": writers, "catalog": LAKE, "schema": "system", "privileges": ["EXECUTE"]},
            {"privileges": []},
        ],
        # A catalog's own functions may hand a query's text to the database behind it, as Postgres' one does,
        # past all rules on tables.
        "functions": [
            {"user": _users(given.nobody), "privileges": []},
            {"catalog": "system", "schema": "builtin", "privileges": ["EXECUTE", "GRANT_EXECUTE"]},
            {"catalog": LAKE, "schema": "system", "function": "table_changes", "privileges": ["EXECUTE"]},
            {"privileges": []},
        ],
        "queries": [{"allow": ["execute"]}],
    }
    if given.admins:
        admins = _users(given.admins)
        found["procedures"] = [{"user": admins, "privileges": ["EXECUTE"]}, *_list(found["procedures"])]
        found["queries"] = [{"user": admins, "allow": ["execute", "kill", "view"]}, *_list(found["queries"])]
        found["system_information"] = [{"user": admins, "allow": ["read"]}]
    return found


def _list(value: object) -> list[object]:
    assert isinstance(value, list)
    return value


def _prestodb(given: Rights) -> dict[str, object]:
    # Without the second part anybody could take anybody's name by a request header.
    return {
        "catalogs": _catalogs(given, "none"),
        # A certificate's name, which has a = in it, is nobody's.
        "principals": [{"principal": "([a-z0-9_.-]+)", "principal_to_user": "$1", "allow": True}],
    }
