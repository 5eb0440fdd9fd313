"""What a reviewer must not overlook: data, hosts and credentials that would go."""

from __future__ import annotations

import re
from collections.abc import Iterator

from scripts.events import Report, Step
from scripts.words import code, kind_of, listed, service_of

NO_DATA = "dev.millrace.data"
"""Label of a volume, with the value ``false``, that holds nothing but what can be made again."""

DATA = {
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


def losses(report: Report) -> Iterator[str]:
    """A line for each thing whose data would be lost."""
    for step in _gone(report):
        if not step.protected and not step.retained:
            lost = f"{DATA[step.type]} is lost".replace("s is lost", "s are lost")
            yield f"{subject(step, report)} is {step.kind}, and {lost}{_because(step)}"


def kept(report: Report) -> Iterator[str]:
    """A line for each thing whose data would be lost if it were not protected."""
    for step in _gone(report):
        what = f"{subject(step, report)} is {step.kind}"
        if step.protected:
            yield f"{what}: it is protected, so `up` will refuse"
        elif step.retained:
            yield f"{what} in the state only: the host keeps it, and Millrace no longer knows of it"


def _gone(report: Report) -> Iterator[Step]:
    return (step for step in report.steps if step.kind in ("replaced", "deleted") and holds_data(step))


def machines(report: Report) -> Iterator[str]:
    """A line for each host and address that would go."""
    for step in report.steps:
        if step.kind in ("replaced", "deleted") and step.type in _MACHINES:
            then = f": {_MACHINES[step.type]}" if step.kind == "replaced" else ""
            yield f"{subject(step, report)} is {step.kind}{then}{_because(step)}"


def credentials(report: Report) -> Iterator[str]:
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


def holds_data(step: Step) -> bool:
    """Whether data goes with it; a volume that is marked as a cache has none."""
    if step.type not in DATA:
        return False
    labels = step.before.get("labels")
    marks = labels if isinstance(labels, list) else []
    return {"label": NO_DATA, "value": "false"} not in marks


def subject(step: Step, report: Report) -> str:
    """What it is, with its service."""
    service = service_of(step, report.parents)
    return f"{kind_of(step)} {code(step.name)} of {service}"


def _because(step: Step) -> str:
    names = [name for name in step.forcing if name != "id"]
    return f" (because of {listed(map(code, names))})" if names else ""
