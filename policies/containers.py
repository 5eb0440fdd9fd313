"""Rules for containers and the images they run."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import Any

from policies.rules import CONTAINER, IMAGE, JOB, REMOTE_IMAGE, VOLUME, Resource, Rule, Stack

_SERVICE = "dev.millrace.service"
_WORKLOAD = "dev.millrace.workload"
_PROXY = "proxy"

# Tags that mean something else tomorrow.
_MOVING = frozenset(
    ("latest", "stable", "edge", "main", "master", "nightly", "dev", "develop", "rolling", "snapshot")
)
_DIGEST = re.compile(r"@sha256:[0-9a-f]{64}$")
_ID = re.compile(r"sha256:[0-9a-f]{64}")

# Lets a server bind to a port below 1024, and nothing else.
_HARMLESS_CAPABILITIES = frozenset(("NET_BIND_SERVICE", "CAP_NET_BIND_SERVICE"))
_SOCKETS = ("/var/run/docker.sock", "/run/docker.sock")


def published_ports(resource: Resource, stack: Stack) -> Iterator[str]:
    """Ports on the host are the proxy's; others may have some on its loopback."""
    if resource.get("publishAllPorts"):
        yield "publishes all ports of its image - remove publish_all_ports"
    labels = resource.labels
    if labels.get(_SERVICE) == _PROXY and labels.get(_WORKLOAD) == _PROXY:
        return
    for port in resource.get("ports") or ():
        if isinstance(port, dict) and not _is_loopback(port.get("ip")):
            yield (
                f"publishes port {_number(port.get('external') or port.get('internal'))} on "
                f"{port.get('ip') or 'all addresses'} - give the endpoint a route through the proxy, or a "
                f"loopback_port"
            )


def _is_loopback(address: Any) -> bool:
    try:
        return ipaddress.ip_address(str(address)).is_loopback
    except ValueError:
        return False


def limits(resource: Resource, stack: Stack) -> Iterator[str]:
    """Memory and CPU of a container end somewhere."""
    memory, cpus = ("memoryMib", "cpus") if resource.type == JOB else ("memory", "cpus")
    if not resource.is_unknown(memory) and not _positive(resource.get(memory)):
        yield "has no memory limit - set limits.memory_mib of the workload or job"
    quota = resource.get("cpuQuota")
    if not resource.is_unknown(cpus) and not _positive(resource.get(cpus)) and not _positive(quota):
        yield "has no CPU limit - set limits.cpus of the workload or job"


def _positive(value: Any) -> bool:
    try:
        return float(value) > 0
    except (TypeError, ValueError):
        return False


def probe(resource: Resource, stack: Stack) -> Iterator[str]:
    """A container shows whether it works; a job ends, and fails when it does not end in time."""
    if resource.type == JOB:
        if not resource.is_unknown("timeout") and not _positive(resource.get("timeout")):
            yield "may run for ever - set timeout_s of the job"
        return
    # One-shot containers of the docker provider itself: nothing is left to probe.
    if resource.get("mustRun") is False or resource.is_unknown("healthcheck"):
        return
    tests = (resource.get("healthcheck") or {}).get("tests") or []
    if not tests or tests[0] == "NONE":
        yield "has no health check - give the workload a probe that asks the service itself"


def image_pinned(resource: Resource, stack: Stack) -> Iterator[str]:
    """The same definition runs the same image; what is built here has its content's hash in its tag."""
    if resource.type == IMAGE:
        reference = None if resource.get("context") else resource.get("reference")
    elif resource.type == REMOTE_IMAGE:
        reference = None if resource.get("build") else resource.get("name")
    else:
        reference = resource.get("image")
    if not reference or _ID.fullmatch(reference) or _DIGEST.search(reference):
        return
    tag = _tag(reference)
    if not tag or tag in _MOVING or (tag.startswith("latest-")):
        what = f"tag {tag} of {reference} moves" if tag else f"{reference} has no tag"
        yield f"{what} - name an exact version"
    elif stack.digests:
        yield (
            f"{reference} has no digest, which this stack asks for - run `make digests`, write "
            f"{reference}@sha256:…, or set millrace:policies.digests to false"
        )


def _tag(reference: str) -> str:
    return reference.rpartition("/")[2].partition(":")[2]


def no_root(resource: Resource, stack: Stack) -> Iterator[str]:
    """No process is root, not even in its container."""
    key = "uid" if resource.type == JOB else "user"
    if resource.is_unknown(key):
        return
    user = resource.get(key)
    name = str(int(user)) if isinstance(user, float) else str(user or "").partition(":")[0]
    if name in ("", "0", "root"):
        what = f"as {name}" if name else "as whoever its image names, root perhaps"
        yield f"runs {what} - set user of the workload or job to a uid above 0"


def no_privileged(resource: Resource, stack: Stack) -> Iterator[str]:
    """Nothing has rights on the host: no privileged mode, added capabilities, devices, lifted confinement."""
    if resource.get("privileged"):
        yield "is privileged - remove it"
    added = (resource.get("capabilities") or {}).get("adds") or ()
    for capability in added:
        if str(capability).upper() not in _HARMLESS_CAPABILITIES:
            yield f"adds the capability {capability} - remove it"
    for option in resource.get("securityOpts") or ():
        if str(option).endswith(("=unconfined", ":unconfined", "=disable", ":disable")):
            yield f"lifts its confinement with {option} - remove it"
    if resource.get("devices"):
        yield "gets devices of the host - remove them"


def no_host_namespaces(resource: Resource, stack: Stack) -> Iterator[str]:
    """Network, processes, shared memory and users are the container's own."""
    for key, what in (
        ("networkMode", "network"),
        ("pidMode", "processes"),
        ("ipcMode", "shared memory"),
        ("usernsMode", "users"),
        ("cgroupnsMode", "cgroups"),
    ):
        mode = str(resource.get(key) or "")
        if mode == "host" or mode.startswith("container:"):
            whose = "the host" if mode == "host" else "another container"
            yield f"shares the {what} of {whose} ({key} {mode}) - remove it"
    if resource.type == JOB and "host" in (resource.get("networks") or ()):
        yield "shares the network of the host - remove it from networks"


def docker_socket(resource: Resource, stack: Stack) -> Iterator[str]:
    """Who has the engine's socket is root on the host: only services that the stack file names."""
    if resource.labels.get(_SERVICE) in stack.docker_socket:
        return
    for source in filter(None, _mounted(resource)):
        path = source.rstrip("/") or "/"
        folders = {socket[: i or 1] for socket in _SOCKETS for i, c in enumerate(socket) if c == "/"}
        if path in folders or path.endswith("/docker.sock"):
            yield (
                f"mounts {source} of the host, and so the engine's socket - remove it, or name the service "
                f"in millrace:policies.docker_socket"
            )


def _mounted(resource: Resource) -> Iterator[str]:
    """Paths of the host that a container or a volume mounts."""
    for volume in _dicts(resource.get("volumes")):
        yield str(volume.get("hostPath") or "")
    for mount in _dicts(resource.get("mounts")):
        if mount.get("type") == "bind":
            yield str(mount.get("source") or "")
    if resource.type == JOB:
        names = (resource.get("volumes") or {}).values()
        yield from (str(name) for name in names if str(name).startswith("/"))
    # A volume may be a folder of the host under another name.
    yield str((resource.get("driverOpts") or {}).get("device") or "")


def _dicts(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, list):
        yield from (entry for entry in value if isinstance(entry, dict))


def _number(value: Any) -> str:
    return f"{value:.0f}" if isinstance(value, int | float) else "of the engine's choice"


_RUNNING = frozenset((CONTAINER, JOB))

RULES = (
    Rule(
        name="published-ports",
        description="Only the proxy publishes ports.",
        check=published_ports,
        types=frozenset((CONTAINER,)),
    ),
    Rule(
        name="limits",
        description="Every container has a memory and a CPU limit.",
        check=limits,
        types=_RUNNING,
    ),
    Rule(
        name="probe",
        description="Every container has a health check, every job a time limit.",
        check=probe,
        types=_RUNNING,
    ),
    Rule(
        name="image-pinned",
        description="Every image has an exact tag, in production a digest.",
        check=image_pinned,
        types=frozenset((CONTAINER, JOB, IMAGE, REMOTE_IMAGE)),
    ),
    Rule(name="no-root", description="No container runs as root.", check=no_root, types=_RUNNING),
    Rule(
        name="no-privileged",
        description="No container has rights on its host.",
        check=no_privileged,
        types=_RUNNING,
    ),
    Rule(
        name="no-host-namespaces",
        description="No container shares network, processes or memory of its host.",
        check=no_host_namespaces,
        types=_RUNNING,
    ),
    Rule(
        name="docker-socket",
        description="The engine's socket is mounted where the stack file allows it, nowhere else.",
        check=docker_socket,
        types=_RUNNING | {VOLUME},
    ),
)
