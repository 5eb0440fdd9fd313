"""What an engine run of Pulumi reported, read from its JSON event stream.

`pulumi preview --json` with ``PULUMI_ENABLE_STREAMING_JSON_PREVIEW`` and `pulumi refresh --json` write one
event a line (``apitype.EngineEvent`` of the Pulumi SDK). Without the variable, a preview gives a digest that
lacks what the policies say.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

_WRAPPER = "4dabf18193072939515e22adb298388d"
"""Key of a value that stands for more than itself: a secret, an asset, an output (sdk/go/common/resource)."""

_SECRET_WRAPPER = "1b47061264138c4ac30d75fd1eb44270"

UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
"""Stands for a value that only `up` will know."""

SECRET = "[secret]"
_SCALARS = (str, int, float, bool)

_EXIT = "an unhandled error occurred: program exited with non-zero exit code"
"""What Pulumi adds to a program's own last words."""

_CREATED = ("create", "import")
_REPLACED = ("replace", "create-replacement", "delete-replaced", "import-replacement", "discard-replaced")
_DELETED = ("delete", "discard")


@dataclass(frozen=True, kw_only=True)
class Step:
    """What one resource would go through, or has gone through unasked (drift)."""

    kind: str
    """created, changed, replaced or deleted."""
    urn: str
    parent: str = ""
    before: Mapping[str, Any] = field(default_factory=dict)
    after: Mapping[str, Any] = field(default_factory=dict)
    changed: tuple[str, ...] = ()
    """Properties that differ, top level, as far as Pulumi names them."""
    forcing: tuple[str, ...] = ()
    """Properties whose change forces the replacement."""
    protected: bool = False
    retained: bool = False
    """What it stands for stays when the resource is deleted."""

    @property
    def type(self) -> str:
        """The type token, such as ``docker:index/volume:Volume``."""
        return self.urn.split("::")[2].rsplit("$", 1)[-1]

    @property
    def name(self) -> str:
        """The resource's name."""
        return self.urn.split("::", 3)[3]


@dataclass(frozen=True, kw_only=True)
class Violation:
    """A policy that a resource breaks."""

    rule: str
    message: str
    urn: str = ""
    mandatory: bool = True

    @property
    def name(self) -> str:
        """The resource's name; empty for a rule about the whole stack."""
        if not self.urn or "::pulumi:pulumi:Stack::" in self.urn:
            return ""
        return self.urn.split("::", 3)[3]


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything a run reported that a reader wants to know."""

    steps: tuple[Step, ...] = ()
    drift: tuple[Step, ...] = ()
    unchanged: int = 0
    violations: tuple[Violation, ...] = ()
    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    parents: Mapping[str, str] = field(default_factory=dict)
    """Parent of each resource, by URN: a step's service is found by climbing it."""
    empty: bool = False
    """Whether no resource was looked at, old or new."""
    finished: bool = False
    """Whether the engine came to its end; what a broken-off run lists is not all there is."""


def parse(text: str) -> Report:
    """The report of an event stream; lines that are not events are left out."""
    return read(_decode(text.splitlines()))


def _decode(lines: Iterable[str]) -> Iterable[Mapping[str, Any]]:
    for line in lines:
        if line.startswith("{"):
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict):
                yield event


def read(events: Iterable[Mapping[str, Any]]) -> Report:
    """The report of a run's events."""
    planned: dict[str, Step] = {}
    drift: dict[str, Step] = {}
    refreshed: set[str] = set()
    parents: dict[str, str] = {}
    unchanged: set[str] = set()
    violations: list[Violation] = []
    errors: list[str] = []
    warnings: list[str] = []
    finished = False
    for event in events:
        if found := event.get("resourcePreEvent"):
            meta = found["metadata"]
            parents[meta["urn"]] = _state(meta).get("parent", "")
            if meta["op"] == "refresh":
                refreshed.add(meta["urn"])
            elif not _is_resource(meta):
                continue
            elif meta["op"] == "same":
                unchanged.add(meta["urn"])
            elif step := _step(meta):
                # A replacement comes as three steps; whichever names its reasons is the one to keep.
                former = planned.get(step.urn)
                if former is None or len(step.changed) > len(former.changed):
                    planned[step.urn] = step
        elif found := event.get("resOutputsEvent"):
            meta = found["metadata"]
            if meta["urn"] in refreshed and _is_resource(meta) and (step := _drifted(meta)):
                drift[step.urn] = step
            refreshed.discard(meta["urn"])
        elif found := event.get("policyEvent"):
            violations.append(_violation(found))
        elif found := event.get("diagnosticEvent"):
            _diagnose(found, errors, warnings)
        elif found := event.get("summaryEvent"):
            finished = found.get("result", "succeeded") == "succeeded"
    # What the program said itself is why it ended.
    told = [error for error in errors if not error.startswith(_EXIT)]
    return Report(
        steps=tuple(planned.values()),
        drift=tuple(drift.values()),
        unchanged=len(unchanged - planned.keys()),
        violations=tuple(dict.fromkeys(violations)),
        errors=tuple(dict.fromkeys(told or errors)),
        warnings=tuple(dict.fromkeys(warnings)),
        parents=parents,
        # The stack itself and its providers may be left of an `up` that failed.
        empty=finished and all(urn.split("::")[2].startswith("pulumi:") for urn in parents),
        finished=finished,
    )


def _state(meta: Mapping[str, Any]) -> Mapping[str, Any]:
    state: Mapping[str, Any] = meta.get("new") or meta.get("old") or {}
    return state


def _kind(op: str) -> str | None:
    if op in _CREATED:
        return "created"
    if op in _REPLACED:
        return "replaced"
    if op in _DELETED:
        return "deleted"
    return "changed" if op == "update" else None


def _step(meta: Mapping[str, Any]) -> Step | None:
    kind = _kind(meta["op"])
    if kind is None:
        return None
    old, new = meta.get("old") or {}, meta.get("new") or {}
    before, after = _plain(old.get("inputs") or {}), _plain(new.get("inputs") or {})
    named = [*(meta.get("diffs") or ()), *(meta.get("detailedDiff") or ())]
    actual = _plain(old.get("outputs") or {})
    # Where something drifted, the program asks for the same as before and finds something else.
    before |= {
        key: actual[key]
        for key in map(_top, named)
        if key in actual
        and before.get(key) == after.get(key) != actual[key]
        and isinstance(actual[key], _SCALARS)
    }
    return Step(
        kind=kind,
        urn=meta["urn"],
        parent=_state(meta).get("parent", ""),
        before=before,
        after=after,
        changed=tuple(dict.fromkeys(_top(path) for path in named)),
        forcing=tuple(dict.fromkeys(_top(path) for path in meta.get("keys") or ())),
        protected=bool(old.get("protect")),
        retained=bool(old.get("retainOnDelete")),
    )


def _drifted(meta: Mapping[str, Any]) -> Step | None:
    """What a refresh found: of a change only the properties that it names, of outputs."""
    old, new = meta.get("old") or {}, meta.get("new") or {}
    parent = _state(meta).get("parent", "")
    if meta["op"] == "delete" or not new:
        return Step(kind="deleted", urn=meta["urn"], parent=parent)
    names = tuple(dict.fromkeys(_top(path) for path in meta.get("detailedDiff") or ()))
    if not names:
        return None
    before, after = (_plain(state.get("outputs") or {}) for state in (old, new))
    return Step(kind="changed", urn=meta["urn"], parent=parent, before=before, after=after, changed=names)


def _top(path: str) -> str:
    """The property that a path such as ``labels[0].value`` or ``["a.b"].c`` starts with."""
    if path.startswith('["'):
        return path[2:].split('"]', 1)[0]
    return path.split(".", 1)[0].split("[", 1)[0]


def _is_resource(meta: Mapping[str, Any]) -> bool:
    """Whether there is something behind it: components only group, providers are Pulumi's own affair."""
    return bool(_state(meta).get("custom")) and not meta["type"].startswith("pulumi:")


def _plain(value: Any) -> Any:
    """A property without Pulumi's wrappers: secrets masked, assets by their digest."""
    if isinstance(value, dict):
        if value.get(_WRAPPER) == _SECRET_WRAPPER:
            return SECRET
        if _WRAPPER in value:
            return str(value.get("hash", UNKNOWN))
        return {key: _plain(item) for key, item in value.items() if key not in ("__defaults", "__meta")}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value


def _violation(event: Mapping[str, Any]) -> Violation:
    rule, message = event["policyName"], str(event.get("message", ""))
    return Violation(
        rule=rule,
        # The policy's description, then on lines of their own the pack's words about the resource.
        message=" ".join(message.split()),
        urn=event.get("resourceUrn") or "",
        mandatory=event.get("enforcementLevel", "mandatory") in ("mandatory", "remediate"),
    )


def _diagnose(event: Mapping[str, Any], errors: list[str], warnings: list[str]) -> None:
    severity, message = event.get("severity"), str(event.get("message", "")).strip()
    # The last word of a failed run only says that there was an error.
    if event.get("ephemeral") or not message or message in ("preview failed", "update failed"):
        return
    if severity == "error":
        errors.append(message)
    elif severity == "warning":
        warnings.append(message)
