"""Which files may hold rows that satisfy a predicate, by their partition values and statistics.

Both forms of the protocol are hints: what can't be understood filters nothing. A file stays in unless no row
of it can satisfy the predicate.
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

Outcome = str
"""``T``, ``F`` or ``N`` (unknown, as in SQL); sets of them say what the rows of a file may come to."""
Outcomes = frozenset[Outcome]

_ANY: Outcomes = frozenset("TFN")

Lookup = Callable[[str], "Bounds | None"]


UNKNOWN: Mapping[str, Any] = {"op": "unknown"}
"""Stands for a predicate that can't be read: it may come to anything."""


class _UnclearError(Exception):
    """A predicate that can't be read or doesn't fit the table."""


@dataclass(frozen=True)
class Bounds:
    """What is known of a column in one file: least and greatest value (None: unknown), and of its nulls."""

    least: Any = None
    greatest: Any = None
    nulls: bool = True
    only_nulls: bool = False


def outcomes(node: Any, lookup: Lookup) -> Outcomes:
    """What the predicate may come to for the rows of a file; anything where it isn't clear."""
    try:
        return _outcomes(node, lookup)
    except _UnclearError:
        return _ANY


def _outcomes(node: Any, lookup: Lookup) -> Outcomes:
    if not isinstance(node, Mapping):
        raise _UnclearError
    op, children = str(node.get("op")), node.get("children", ())
    if not isinstance(children, Sequence):
        raise _UnclearError
    if op in ("and", "or") and len(children) >= 2:
        return _combined(op, [outcomes(child, lookup) for child in children])
    if op == "not" and len(children) == 1:
        inverse = {"T": "F", "F": "T", "N": "N"}
        return frozenset(inverse[outcome] for outcome in outcomes(children[0], lookup))
    if op == "isNull" and len(children) == 1:
        bounds = _column(children[0], lookup)
        return frozenset("T" if bounds.only_nulls else "TF" if bounds.nulls else "F")
    if op in _COMPARE and len(children) == 2:
        return _comparison(op, children, lookup)
    raise _UnclearError


def _combined(op: str, parts: Sequence[Outcomes]) -> Outcomes:
    # SQL's three-valued logic: `and` takes the least of F < N < T, `or` the greatest.
    rank = "FNT"
    choose = min if op == "and" else max
    found = set(parts[0])
    for part in parts[1:]:
        found = {rank[choose(rank.index(a), rank.index(b))] for a in found for b in part}
    return frozenset(found)


_COMPARE: Mapping[str, Callable[[Any, Any], bool]] = {
    "equal": operator.eq,
    "lessThan": operator.lt,
    "lessThanOrEqual": operator.le,
    "greaterThan": operator.gt,
    "greaterThanOrEqual": operator.ge,
}
_MIRRORED = {
    "equal": "equal",
    "lessThan": "greaterThan",
    "lessThanOrEqual": "greaterThanOrEqual",
    "greaterThan": "lessThan",
    "greaterThanOrEqual": "lessThanOrEqual",
}


def _comparison(op: str, children: Sequence[Any], lookup: Lookup) -> Outcomes:
    left, right = children
    if _is(left, "literal") and _is(right, "column"):
        op, left, right = _MIRRORED[op], right, left
    if not (_is(left, "column") and _is(right, "literal")):
        raise _UnclearError
    bounds = _column(left, lookup)
    if bounds.only_nulls:
        return frozenset("N")
    kind = str(left.get("valueType", ""))
    if kind != str(right.get("valueType", "")):
        raise _UnclearError
    value = _cast(right.get("value"), kind)
    least = None if bounds.least is None else _cast(bounds.least, kind)
    greatest = None if bounds.greatest is None else _cast(bounds.greatest, kind)
    found = set(_range(op, least, greatest, value))
    return frozenset(found | {"N"} if bounds.nulls else found)


def _range(op: str, least: Any, greatest: Any, value: Any) -> set[Outcome]:
    """Of values between two bounds, either of which may be unknown."""
    if op == "equal":
        if (least is not None and value < least) or (greatest is not None and value > greatest):
            return {"F"}
        return {"T"} if least is not None and least == greatest == value else {"T", "F"}
    compare = _COMPARE[op]
    # `<` is true of all values when it is of the greatest, false of all when it is of the least.
    easiest, hardest = (least, greatest) if op.startswith("less") else (greatest, least)
    found = set()
    if easiest is None or compare(easiest, value):
        found.add("T")
    if hardest is None or not compare(hardest, value):
        found.add("F")
    return found


def _is(node: Any, op: str) -> bool:
    return isinstance(node, Mapping) and node.get("op") == op


def _column(node: Any, lookup: Lookup) -> Bounds:
    bounds = lookup(str(node.get("name"))) if _is(node, "column") else None
    if bounds is None:
        raise _UnclearError
    return bounds


def _cast(value: Any, kind: str) -> Any:
    """A value as the type the predicate compares it in; a column of another kind of type is unclear."""
    try:
        return _CASTS[kind](value)
    except (KeyError, ValueError, TypeError, ArithmeticError):
        raise _UnclearError from None


def _bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    return {"true": True, "false": False}[str(value).lower()]


def _int(value: Any) -> int:
    if isinstance(value, bool | float | Decimal | date):
        raise TypeError
    return int(value)


def _float(value: Any) -> float:
    if isinstance(value, bool | date):
        raise TypeError
    number = float(value)
    if number != number:
        raise ValueError
    return number


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _date(value: Any) -> date:
    if isinstance(value, datetime):
        raise TypeError
    return value if isinstance(value, date) else date.fromisoformat(value)


def _timestamp(value: Any) -> datetime:
    moment = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


_CASTS: Mapping[str, Callable[[Any], Any]] = {
    "bool": _bool,
    "int": _int,
    "long": _int,
    "string": _string,
    "date": _date,
    "float": _float,
    "double": _float,
    "timestamp": _timestamp,
}


def file_bounds(
    row: Mapping[str, Any], partition_columns: Sequence[str], physical: Mapping[str, str]
) -> Lookup:
    """Looks columns up in a row of :meth:`sharing_server.deltalog.Snapshot.rows`.

    ``physical`` has the names that statistics go by.
    """
    partition = {name.lower(): (row.get("partition") or {}).get(name) for name in partition_columns}

    def lookup(name: str) -> Bounds | None:
        lower = name.lower()
        if lower in partition:
            value = partition[lower]
            return Bounds(value, value, nulls=value is None, only_nulls=value is None)
        column = physical.get(lower)
        if column is None:
            return None
        nulls, records = (row.get("null_count") or {}).get(column), row.get("num_records")
        least, greatest = (row.get("min") or {}).get(column), (row.get("max") or {}).get(column)
        if isinstance(greatest, datetime):
            # Writers cut statistics to milliseconds.
            greatest += timedelta(milliseconds=1)
        if isinstance(greatest, float):
            # NaN is greater than all, and statistics leave it out.
            greatest = None
        return Bounds(
            least if not isinstance(least, Mapping) else None,
            greatest if not isinstance(greatest, Mapping) else None,
            nulls=nulls is None or nulls > 0,
            only_nulls=nulls is not None and nulls == records,
        )

    return lookup


# -- reading the two forms


def parse_json(text: str | None) -> Any:
    """The tree of ``jsonPredicateHints``, or None when there is none."""
    if not text:
        return None
    try:
        return json.loads(text)
    except ValueError:
        return UNKNOWN


_OPERAND = r"'[^']*'|[^\s<>=']+"
_SQL = re.compile(rf"\s*(?P<left>{_OPERAND})\s*(?P<op><=|>=|<>|=|<|>)\s*(?P<right>{_OPERAND})\s*")
_SQL_NULL = re.compile(r"\s*(?P<column>\S+)\s+IS\s+(?P<no>NOT\s+)?NULL\s*", re.IGNORECASE)
_SQL_OPS = {"=": "equal", "<": "lessThan", "<=": "lessThanOrEqual", ">": "greaterThan",
            ">=": "greaterThanOrEqual"}  # fmt: skip
_TYPES = {"boolean": "bool", "byte": "int", "short": "int", "integer": "int", "long": "long",
          "string": "string", "date": "date", "float": "float", "double": "double",
          "timestamp": "timestamp"}  # fmt: skip


def parse_sql(hint: str, types: Mapping[str, str]) -> Any:
    """The tree of one of ``predicateHints``; ``types`` has the columns' types by lower-case name."""
    try:
        return _sql(hint, types)
    except _UnclearError:
        return UNKNOWN


def _sql(hint: str, types: Mapping[str, str]) -> Any:
    if match := _SQL_NULL.fullmatch(hint):
        node: dict[str, Any] = {"op": "isNull", "children": [_sql_column(match["column"], types)]}
        return {"op": "not", "children": [node]} if match["no"] else node
    match = _SQL.fullmatch(hint)
    if match is None:
        raise _UnclearError
    left, right = match["left"], match["right"]
    name = next((side for side in (left, right) if side.strip("`").lower() in types), None)
    if name is None:
        raise _UnclearError
    column = _sql_column(name, types)
    sides = [column if side is name else _sql_literal(side, column["valueType"]) for side in (left, right)]
    if match["op"] == "<>":
        return {"op": "not", "children": [{"op": "equal", "children": sides}]}
    return {"op": _SQL_OPS[match["op"]], "children": sides}


def _sql_column(name: str, types: Mapping[str, str]) -> dict[str, str]:
    kind = _TYPES.get(types.get(name.strip("`").lower(), ""))
    if kind is None:
        raise _UnclearError
    return {"op": "column", "name": name.strip("`"), "valueType": kind}


def _sql_literal(text: str, kind: str) -> dict[str, str]:
    quoted = text.startswith("'")
    if quoted != (kind in ("string", "date", "timestamp")):
        raise _UnclearError
    return {"op": "literal", "value": text.strip("'"), "valueType": kind}
