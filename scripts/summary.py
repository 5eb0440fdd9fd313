"""A run's report as Markdown for a reviewer: what would be lost, then what is refused, then the changes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scripts import risks
from scripts.events import Report, Step, Violation
from scripts.words import MINOR, code, differences, kind_of, listed, masked, prose, service_of

ORDER = ("created", "changed", "replaced", "deleted")


@dataclass(frozen=True, kw_only=True)
class Summary:
    """One environment's part of the comment."""

    stack: str
    headline: str
    """The counts in words, or why there are none."""
    body: str
    """Markdown without the heading."""
    failed: bool = False
    loss: bool = False
    """Whether data would be lost."""
    impossible: bool = False
    """Whether it says nothing about the environment: it could not be looked at from here."""

    @property
    def markdown(self) -> str:
        """The part with its heading."""
        return f"## {code(self.stack)}: {self.headline}\n\n{self.body}".rstrip() + "\n"


def of_preview(stack: str, report: Report, estimate: Mapping[str, Any] | None = None) -> Summary:
    """The summary of a preview; ``estimate`` is what :mod:`scripts.needs` prints."""
    broken = [v for v in report.violations if v.mandatory]
    lost = list(risks.losses(report))
    failed = bool(report.errors or broken or not report.finished)
    parts = [
        _alert("CAUTION", "Data would be lost", lost),
        _alert("WARNING", "Protected data", list(risks.kept(report))),
        _alert("CAUTION", "Hosts and addresses", list(risks.machines(report))),
        _alert("WARNING", "Credentials that change", list(risks.credentials(report))),
        _policies(report.violations),
        _errors(report.errors),
        # The program reads the same settings: what is wrong with them is said once.
        "" if report.errors and "failed" in (estimate or {}) else _estimate(estimate),
        _drift(report.drift),
        _changes(report),
        _warnings(report.warnings),
    ]
    return Summary(
        stack=stack,
        headline=_headline(report, broken),
        body="\n\n".join(part for part in parts if part),
        failed=failed,
        loss=bool(lost),
    )


def of_drift(stack: str, report: Report) -> Summary:
    """The summary of a refresh that changed nothing in the state."""
    if report.errors or (not report.finished and not report.drift):
        return Summary(
            stack=stack,
            headline="could not be compared with what runs",
            body=_errors(report.errors),
            failed=True,
        )
    if report.empty:
        body = "Nothing is there: it was never brought up, or was taken down again."
        return Summary(stack=stack, headline="nothing to compare", body=body)
    if not report.drift:
        return Summary(stack=stack, headline="no drift", body="What runs is what the last `up` made.")
    shown = _count(step for step in report.drift if kind_of(step) not in MINOR) or _count(report.drift)
    gone = [
        f"{risks.subject(step, report)} is gone, with {risks.DATA[step.type]}"
        for step in report.drift
        if step.kind == "deleted" and risks.holds_data(step)
    ]
    body = "\n\n".join(
        part for part in (_alert("CAUTION", "Data is gone", gone), _drift(report.drift, report)) if part
    )
    return Summary(stack=stack, headline=f"drift: {shown}", body=body, failed=True, loss=bool(gone))


def impossible(
    stack: str,
    reason: str,
    *,
    headline: str = "not previewed",
    estimate: Mapping[str, Any] | None = None,
) -> Summary:
    """The summary of an environment that cannot be looked at from here; its needs are known all the same."""
    body = "\n\n".join(part for part in (prose(reason), _estimate(estimate)) if part)
    return Summary(stack=stack, headline=headline, body=body, failed=True, impossible=True)


def together(summaries: Sequence[Summary], title: str) -> str:
    """All environments in one document: a table on top, the loud ones' parts first."""
    if len(summaries) == 1:
        return summaries[0].markdown
    rows = [f"| {code(s.stack)} | {_status(s)} |" for s in summaries]
    table = "\n".join(["| Environment | |", "|---|---|", *rows])
    ordered = sorted(summaries, key=lambda s: (not s.loss, not s.failed))
    return f"# {title}\n\n{table}\n\n" + "\n".join(s.markdown for s in ordered)


def _status(summary: Summary) -> str:
    text = f"**data would be lost**: {summary.headline}" if summary.loss else summary.headline
    return f"**{text}**" if summary.failed and not summary.loss else text


def _headline(report: Report, broken: Sequence[Violation]) -> str:
    if broken:
        rules = len({v.rule for v in broken})
        return f"refused by {rules} {'policy' if rules == 1 else 'policies'}"
    if report.errors or not report.finished:
        return "the preview failed"
    return _count(report.steps) if report.steps else "no changes"


def _count(steps: Iterable[Step]) -> str:
    counts = Counter(step.kind for step in steps)
    return ", ".join(f"{counts[kind]} {kind}" for kind in ORDER if counts[kind])


# -- boxes


def _alert(level: str, title: str, lines: Sequence[str]) -> str:
    """A box that GitHub and GitLab colour; elsewhere a quote that starts in bold."""
    if not lines:
        return ""
    return "\n".join([f"> [!{level}]", f"> **{title}**", ">", *(f"> - **{line}**" for line in lines)])


# -- what is refused


def _policies(violations: Sequence[Violation]) -> str:
    if not violations:
        return ""
    lines = ["### Policies", "", "| Resource | Rule | |", "|---|---|---|"]
    for violation in sorted(violations, key=lambda v: not v.mandatory):
        rule = code(violation.rule) if violation.mandatory else f"{code(violation.rule)} (advice)"
        resource = code(violation.name) if violation.name else "the whole stack"
        lines.append(f"| {resource} | {rule} | {prose(violation.message)} |")
    return "\n".join(lines)


def _errors(errors: Sequence[str]) -> str:
    if not errors:
        return ""
    lines = [_fenced(error) for error in errors[:_MOST_ERRORS]]
    more = len(errors) - _MOST_ERRORS
    return "\n".join(["### Errors", "", *lines, *([f"and {more} more"] if more > 0 else [])])


_MOST_ERRORS = 5
_MOST_LINES = 20


def _fenced(text: str) -> str:
    lines = masked(text).replace("```", "'''").splitlines()
    dropped = len(lines) - _MOST_LINES
    shown = [*lines[:_MOST_LINES], *([f"… {dropped} more lines"] if dropped > 0 else [])]
    return "\n".join(["```text", *shown, "```"])


def _warnings(warnings: Sequence[str]) -> str:
    if not warnings:
        return ""
    return "\n".join(["### Warnings", "", *(f"- {prose(warning)}" for warning in warnings[:_MOST_LINES])])


# -- what it needs


def _estimate(estimate: Mapping[str, Any] | None) -> str:
    if not estimate:
        return ""
    if failed := estimate.get("failed"):
        return f"### Needs\n\nThey could not be estimated:\n\n{_fenced(failed)}"
    lines = ["### Needs", ""]
    host = estimate.get("host")
    memory = f"- Memory: {_gib(estimate['memory_mib'])} expected, {_gib(estimate['limit_mib'])} at most"
    if host and host.get("memory_mib"):
        memory += f", of {_gib(host['memory_mib'])} that {prose(host['name'])} has"
    lines.append(memory)
    if estimate.get("disk_mb"):
        disk = f"- Disk: {_gb(estimate['disk_mb'])} still to be stored"
        free = f", of {_gb(host['disk_mb'])} that are free" if host and host.get("disk_mb") else ""
        lines.append(disk + free)
    if estimate.get("costs"):
        unknown = [cost["what"] for cost in estimate["costs"] if cost.get("monthly_usd") is None]
        day = f", prices of {estimate['prices_of']}" if estimate.get("prices_of") else ""
        total = f"- Cost: {estimate['monthly_usd']:.2f} USD a month before tax{day}"
        parts = [
            f"{prose(cost['what'])} {cost['monthly_usd']:.2f}"
            for cost in estimate["costs"]
            if cost.get("monthly_usd") is not None
        ]
        lines.append(f"{total} ({listed(parts, 12)})" if parts else total)
        if unknown:
            lines.append(f"- Without a known price: {listed(map(prose, unknown), 12)}")
    lines += [f"- **{prose(problem)}**" for problem in estimate.get("problems") or ()]
    lines += [f"- {prose(warning)}" for warning in estimate.get("warnings") or ()]
    return "\n".join(lines)


def _gb(mb: float) -> str:
    return f"{mb:.0f} MB" if mb < 1000 else f"{mb / 1000:.1f} GB"


def _gib(mib: float) -> str:
    return f"{mib:.0f} MiB" if mib < 1024 else f"{mib / 1024:.1f} GiB"


# -- what drifted, what changes


def _drift(drift: Sequence[Step], report: Report | None = None) -> str:
    shown = [step for step in drift if kind_of(step) not in MINOR]
    if not shown:
        return ""
    parents = report.parents if report else {}
    lines = ["### Drift: changed by hand since the last `up`", ""]
    for step in shown:
        what = f"{kind_of(step)} {code(step.name)} ({service_of(step, parents)})"
        if step.kind == "deleted":
            lines.append(f"- {what}: is gone")
        else:
            lines.append(f"- {what}: {'; '.join(differences(step)) or 'differs'}")
    return "\n".join([*lines, "", "The next `up` puts this back to what the settings say."])


def _changes(report: Report) -> str:
    if not report.steps:
        return ""
    services: dict[str, list[Step]] = {}
    for step in report.steps:
        services.setdefault(service_of(step, report.parents), []).append(step)
    lines = [
        "### Changes",
        "",
        "| Service | Created | Changed | Replaced | Deleted |",
        "|---|--:|--:|--:|--:|",
    ]
    for service in sorted(services):
        counts = Counter(step.kind for step in services[service])
        lines.append(f"| {service} | " + " | ".join(str(counts[kind] or "") for kind in ORDER) + " |")
    lines.append("")
    for service in sorted(services):
        lines += [f"#### {service}", "", *_service(services[service]), ""]
    return "\n".join(lines).rstrip()


def _service(steps: Sequence[Step]) -> Iterator[str]:
    """Changed things one by one, made and removed ones by kind, what only follows as a number."""
    for kind in ("replaced", "changed"):
        for step in steps:
            if step.kind == kind and kind_of(step) not in MINOR:
                phrases = differences(step)
                asked = step.forcing == ("id",)
                why = "; ".join(phrases) or ("asked for" if asked else "follows from another change")
                yield f"- {kind_of(step)} {code(step.name)} {kind}: {why}"
    for kind in ("created", "deleted"):
        names: dict[str, list[str]] = {}
        for step in steps:
            if step.kind == kind and kind_of(step) not in MINOR:
                names.setdefault(kind_of(step), []).append(step.name)
        for title, own in names.items():
            yield f"- {kind}: {_plural(title, len(own))} {listed(map(code, own))}"
    minor = sum(1 for step in steps if kind_of(step) in MINOR)
    if minor:
        # They come and go with what the other lines say.
        yield f"- {minor} that {'follows' if minor == 1 else 'follow'} from others: {_MINOR}"


_MINOR = "readiness checks, owners of volumes, certificate requests, former keys"


def _plural(title: str, number: int) -> str:
    return title if number == 1 else f"{title}es" if title.endswith("s") else f"{title}s"
