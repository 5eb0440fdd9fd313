"""``millrace:docker:Job``: a container that runs to its end."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from docker.errors import APIError, NotFound
from docker.models.containers import Container
from docker.types import LogConfig
from typing_extensions import override

from millrace.engine import LOG_LINES, archive, tail, warnings
from millrace.resources import EVERY_INPUT, Call, Props, Resource, ResourceError

_POLL_S = 0.2
_PERIOD_US = 100_000


class Job(Resource):
    """Creates the container, puts its files in, runs it, and removes it.

    Exit code 0 is success. Anything else, or ``timeout`` seconds, fails with the service's name and the last
    log lines and leaves the job out of the state, so that the next ``up`` runs it again. Runs again when any
    input changes. The container is removed either way: what it wrote is in the error message, and lines that
    start with ``WARNING`` are warnings of the update.
    """

    type_token = "millrace:docker:Job"
    # A failed update would keep the former inputs in the state: put back, they would look like done, while
    # the failed run may have got half-way.
    replace_on = EVERY_INPUT
    ignore = frozenset({"timeout"})  # counts from the next run on

    @override
    def create(self, call: Call, props: Props) -> tuple[str, dict[str, Any]]:
        name, title = str(props["name"]), str(props["service"])
        # An interrupted update may have left one behind.
        call.engine.remove_leftover(name, dict(props["labels"]))
        call.engine.ensure_image(str(props["image"]))
        try:
            container = _container(call, props)
            container.start()
            code = _wait(call, container, title, float(props["timeout"]))
            if code != 0:
                how = (
                    "was killed for want of memory"
                    if _out_of_memory(container)
                    else f"ended with exit code {code}"
                )
                raise ResourceError(
                    f"{title}: job {name} {how}\nlast {LOG_LINES} log lines:\n{tail(container)}"
                )
            for line in warnings(container):
                call.warn(f"{title}: {line}")
        except APIError as error:
            raise ResourceError(f"{title}: job {name} did not start: {error.explanation or error}") from None
        finally:
            call.engine.remove(name)
        # Files hold secrets; an output of the same name would be stored a second time.
        return name, {k: v for k, v in props.items() if k != "files"}

    @override
    def delete(self, call: Call, id_: str, props: Props) -> None:
        call.engine.remove(id_)


def _container(call: Call, props: Props) -> Container:
    api = call.engine.client.api
    networks = list(props["networks"])
    memory = int(props["memoryMib"]) * 1024 * 1024
    host_config = api.create_host_config(
        network_mode=networks[0],
        mem_limit=memory,
        memswap_limit=memory,
        cpu_period=_PERIOD_US,
        cpu_quota=int(float(props["cpus"]) * _PERIOD_US),
        cap_drop=["ALL"],
        security_opt=["no-new-privileges:true"],
        tmpfs=dict(props["tmpfs"]),
        binds=[f"{volume}:{path}" for path, volume in dict(props["volumes"]).items()],
        init=True,
        log_config=LogConfig(type="json-file", config={"max-size": "10m"}),
    )
    created = api.create_container(
        props["image"],
        entrypoint=list(props["command"]),
        command=[],
        environment=dict(props["env"]),
        user=str(int(props["uid"])),
        labels=dict(props["labels"]),
        name=str(props["name"]),
        host_config=host_config,
        healthcheck={"test": ["NONE"]},
    )
    container = call.engine.client.containers.get(created["Id"])
    for network in networks[1:]:
        call.engine.client.networks.get(network).connect(container)
    files: list[Mapping[str, Any]] = list(props["files"])
    if files:
        container.put_archive("/", archive(files, int(props["uid"])))
    return container


def _out_of_memory(container: Container) -> bool:
    return bool(container.attrs["State"].get("OOMKilled"))


def _wait(call: Call, container: Container, title: str, timeout: float) -> int:
    started = time.monotonic()
    while True:
        try:
            container.reload()
        except NotFound:
            raise ResourceError(f"{title}: somebody removed the container of job {container.name}") from None
        if container.status in ("exited", "dead"):
            return int(container.attrs["State"]["ExitCode"])
        waited = time.monotonic() - started
        if waited > timeout:
            raise ResourceError(
                f"{title}: job {container.name} still ran after {timeout:.0f} s\n"
                f"last {LOG_LINES} log lines:\n{tail(container)}"
            )
        call.say(f"{title}: job running ({waited:.0f} s)")
        call.pause(_POLL_S)
