"""A run's report as Markdown for a reviewer: what would be lost, then what is refused, then the changes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scripts.events import Report, Step, Violation
from scripts.words import MINOR, code, differences, kind_of, listed, masked, prose, service_of

ORDER = ("created", "changed", "replaced", "deleted")

NO_DATA = "dev.millrace.data"
"""Label of a volume, with the value ``false``, that holds nothing but what can be made again."""

_DATA = {
    "docker:index/volume:Volume": "everything in it",
    "digitalocean:index/volume:Volume": "everything on it",
    "digitalocean:index/databaseCluster:DatabaseCluster": "its databases",
    "digitalocean:index/databaseDb:DatabaseDb": "its tables",
    "digitalocean:index/databaseKafkaTopic:DatabaseKafkaTopic": "its messages",
    "digitalocean:index/spacesBucket:SpacesBucket": "its objects",
}
"""Types that hold data, and what goes with them."""

_MACHINES = {
    "digitalocean:index/droplet:Droplet": "the host is down until the new one is ready; volumes stay",
    "digitalocean:index/reservedIp:ReservedIp": "the platform's address changes",
    "digitalocean:index/vpc:Vpc": "everything in it is made anew",
}
_CREDENTIALS = (
    "digitalocean:index/databaseUser:DatabaseUser",
    "digitalocean:index/sshKey:SshKey",
    "digitalocean:index/spacesKey:SpacesKey",
    "random:index/randomPassword:RandomPassword",
    "tls:index/privateKey:PrivateKey",
)


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
    """The summary of a preview; ``estimate`` is what :mod:`scripts.estimate` prints."""
    broken = [v for v in report.violations if v.mandatory]
    lost = list(_losses(report))
    failed = bool(report.errors or broken or not report.finished)
    parts = [
        _alert("CAUTION", "Data would be lost", lost),
        _alert("CAUTION", "Hosts and addresses", list(_machines(report))),
        _alert("WARNING", "Credentials that change", list(_credentials(report))),
        _policies(report.violations),
        _errors(report.errors),
        _estimate(estimate),
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
    if not report.drift:
        return Summary(stack=stack, headline="no drift", body="What runs is what the last `up` made.")
    shown = _count(step for step in report.drift if kind_of(step) not in MINOR) or _count(report.drift)
    gone = [
        f"{_subject(step, report)} is gone, with {_DATA[step.type]}"
        for step in report.drift
        if step.kind == "deleted" and _holds_data(step)
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


# -- what must not be overlooked


def _losses(report: Report) -> Iterator[str]:
    for step in report.steps:
        if step.kind not in ("replaced", "deleted") or not _holds_data(step):
            continue
        what = f"{_subject(step, report)} is {step.kind}"
        if step.protected:
            yield f"{what}: it is protected, so `up` will refuse"
        elif step.retained:
            yield f"{what} in the state only: the host keeps it, and Millrace no longer knows of it"
        else:
            yield f"{what}, and {_DATA[step.type]} is lost{_because(step)}".replace("s is lost", "s are lost")


def _machines(report: Report) -> Iterator[str]:
    for step in report.steps:
        if step.kind in ("replaced", "deleted") and step.type in _MACHINES:
            then = f": {_MACHINES[step.type]}" if step.kind == "replaced" else ""
            yield f"{_subject(step, report)} is {step.kind}{then}{_because(step)}"


def _credentials(report: Report) -> Iterator[str]:
    """One line for each credential that gets another value, and one for all that a service takes with it."""
    removed: dict[str, list[str]] = {}
    seen: set[str] = set()
    for step in report.steps:
        if step.type not in _CREDENTIALS or step.kind not in ("replaced", "deleted"):
            continue
        title = _credential(step.name)
        if title in seen:
            continue
        seen.add(title)
        if step.kind == "replaced":
            yield f"{code(title)} gets a new value: whoever has the former one must get the new one"
        else:
            removed.setdefault(service_of(step, report.parents), []).append(title)
    for service, titles in removed.items():
        yield f"removed with {service}: {listed(map(code, titles))}"


def _credential(name: str) -> str:
    return re.sub(r"-(password|salt|key)$", "", name).removeprefix("credential-")


def _holds_data(step: Step) -> bool:
    if step.type not in _DATA:
        return False
    labels = step.before.get("labels")
    marks = labels if isinstance(labels, list) else []
    return {"label": NO_DATA, "value": "false"} not in marks


def _subject(step: Step, report: Report) -> str:
    service = service_of(step, report.parents)
    return f"{kind_of(step)} {code(step.name)} of {service}"


def _because(step: Step) -> str:
    names = [name for name in step.forcing if name not in ("id",)]
    return f" (because of {listed(map(code, names))})" if names else ""


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
        day = f", prices of {estimate['prices_of'][0]}" if estimate.get("prices_of") else ""
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
        yield f"- {minor} that {'follows' if minor == 1 else 'follow'}: checks, owners of volumes, requests"


def _plural(title: str, number: int) -> str:
    return title if number == 1 else f"{title}es" if title.endswith("s") else f"{title}s"


def terminal(markdown: str, *, colour: bool) -> str:
    """The same text for a terminal: without markup, what is bold in bold."""
    text = re.sub(r"^> \[!\w+\]\n", "", markdown, flags=re.MULTILINE)
    text = re.sub(r"^>$", "", re.sub(r"^> ", "", text, flags=re.MULTILINE), flags=re.MULTILINE)
    text = re.sub(r"^\|[-:|]+\|\n", "", text, flags=re.MULTILINE)
    text = re.sub(r"^#+ (.*)$", r"**\1**", text, flags=re.MULTILINE)
    text = re.sub(r"^```\w*\n", "", text, flags=re.MULTILINE)
    text = re.sub(r"\\([\\`*_{}\[\]<>#|~])", "\x00\\1", text)
    text = re.sub(r"(?<!\x00)`", "", text)
    bold, plain = ("\x1b[1m", "\x1b[0m") if colour else ("", "")
    text = _aligned(re.sub(r"\*\*(.+?)\*\*", rf"{bold}\1{plain}", text))
    return re.sub(r"\n{3,}", "\n\n", text.replace("\x00", "").replace("\u200b", ""))


def _aligned(text: str) -> str:
    """Tables with columns as wide as their widest cell."""
    out: list[str] = []
    table: list[list[str]] = []
    for line in [*text.splitlines(), ""]:
        if line.startswith("| "):
            table.append([cell.strip() for cell in re.split(r"(?<!\x00)\|", line)[1:-1]])
            continue
        if table:
            widths = [max(_width(row[i]) for row in table if i < len(row)) for i in range(len(table[0]))]
            for row in table:
                cells = [c + " " * (w - _width(c)) for c, w in zip(row, widths, strict=False)]
                out.append("  ".join(cells).rstrip())
            table = []
        out.append(line)
    return "\n".join(out)


def _width(cell: str) -> int:
    """Characters that a terminal shows."""
    return len(re.sub(r"\x1b\[\d+m|\x00|\u200b", "", cell))
