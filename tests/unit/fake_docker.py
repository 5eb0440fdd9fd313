"""A Docker client that keeps its containers in memory."""

from __future__ import annotations

import io
import tarfile
import threading
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

from docker.errors import APIError, ImageNotFound, NotFound
from docker.types import HostConfig

STARTED = "2026-01-01T12:00:00.123456789Z"
NOW = "2026-01-01T12:00:01.987654321Z"


def api_error(status: int, text: str) -> APIError:
    """As the engine's client raises it."""
    response = SimpleNamespace(status_code=status, url="/", reason=text)
    return APIError(text, response=response, explanation=text)  # type: ignore[arg-type]


class FakeContainer:
    """A container whose life a test writes as steps: each reload takes the next state."""

    def __init__(self, client: FakeDocker, name: str, **state: Any) -> None:
        self.client = client
        self.id = f"id-{name}"
        self.name = name
        self.labels: dict[str, str] = {}
        self.steps: list[dict[str, Any]] = []
        self.probe: Callable[[], tuple[int, bytes]] = lambda: (0, b"")
        self.probes: list[list[str]] = []
        self.log = b""
        self.archives: list[tuple[str, bytes]] = []
        self.started = False
        self.on_start: Callable[[], None] = lambda: None
        self.options: dict[str, Any] = {}
        self.attrs: dict[str, Any] = {}
        self.become(**state)

    @property
    def status(self) -> str:
        return str(self.attrs["State"]["Status"])

    def become(self, status: str = "running", code: int = 0, restarts: int = 0, **extra: Any) -> None:
        running = status in ("running", "restarting")
        self.attrs = {
            "RestartCount": restarts,
            "State": {
                "Status": status,
                "Running": running,
                "Restarting": status == "restarting",
                "ExitCode": code,
                "StartedAt": STARTED,
                "OOMKilled": False,
                **extra,
            },
        }

    def reload(self) -> None:
        if self.id not in self.client.by_id:
            raise NotFound("gone")
        if self.steps:
            self.become(**self.steps.pop(0))

    def exec_run(self, command: list[str], demux: bool = False) -> Any:
        self.probes.append(command)
        code, output = self.probe()
        return SimpleNamespace(exit_code=code, output=output)

    def logs(self, tail: int = 1000, **_: Any) -> bytes:
        return b"\n".join(self.log.split(b"\n")[-tail:])

    def start(self) -> None:
        self.on_start()
        self.started = True

    def put_archive(self, path: str, data: bytes) -> bool:
        self.archives.append((path, data))
        return True

    def members(self) -> dict[str, tarfile.TarInfo]:
        (archive,) = self.archives
        with tarfile.open(fileobj=io.BytesIO(archive[1])) as tar:
            return {info.name: info for info in tar.getmembers()}

    def remove(self, **_: Any) -> None:
        self.client.removed.append(self.name)
        del self.client.by_id[self.id]


class FakeDocker:
    """Enough of ``docker.DockerClient`` for the provider."""

    def __init__(self) -> None:
        self.by_id: dict[str, FakeContainer] = {}
        self.removed: list[str] = []
        self.created: list[FakeContainer] = []
        self.missing_images: set[str] = set()
        self.volume_names = {"data"}
        self.prepare: Callable[[FakeContainer], None] = lambda container: None
        self.ranges: list[tuple[str, str | None]] = []
        self.joined: list[tuple[str, str]] = []
        self.lock = threading.Lock()
        self.containers = SimpleNamespace(get=self._get, create=self._create)
        self.images = SimpleNamespace(get=self._image)
        self.volumes = SimpleNamespace(get=self._volume)
        self.overlapping: set[str] = set()
        self.made_networks: dict[str, FakeNetwork] = {}
        self.networks = SimpleNamespace(list=self._networks, get=self._network, create=self._create_network)
        self.api = SimpleNamespace(
            create_host_config=lambda **options: HostConfig(version="1.41", **options),
            create_container=lambda image, **options: {"Id": self._create(image, **options).id},
        )

    def ping(self) -> bool:
        return True

    def info(self) -> dict[str, str]:
        return {"SystemTime": NOW}

    def add(self, name: str, **state: Any) -> FakeContainer:
        container = FakeContainer(self, name, **state)
        self.by_id[container.id] = container
        return container

    def _get(self, key: str) -> FakeContainer:
        for container in self.by_id.values():
            if key in (container.id, container.name):
                container.reload()
                return container
        raise NotFound("no such container")

    def _create(self, image: str, *, name: str, **options: Any) -> FakeContainer:
        if any(container.name == name for container in self.by_id.values()):
            raise api_error(409, "name is taken")
        container = self.add(name, status="created")
        container.options = {"image": image, **options}
        self.created.append(container)
        self.prepare(container)
        return container

    def _image(self, image: str) -> None:
        if image in self.missing_images:
            raise ImageNotFound("no such image")

    def _volume(self, name: str) -> None:
        if name not in self.volume_names:
            raise NotFound("no such volume")

    def _networks(self, names: list[str] | None = None) -> Iterable[Any]:
        with self.lock:
            if names is not None:
                return [n for n in self.made_networks.values() if f"^{n.name}$" in names]
            return [*(_range(cidr) for cidr, _ in self.ranges), *self.made_networks.values()]

    def _network(self, name: str) -> Any:
        for network in self.made_networks.values():
            if name in (network.id, network.name):
                return network
        if name.startswith("id-"):
            raise NotFound("no such network")
        return SimpleNamespace(connect=lambda container: self.joined.append((name, container.name)))

    def _create_network(self, name: str, *, ipam: Any, labels: dict[str, str], **options: Any) -> FakeNetwork:
        cidr = ipam["Config"][0]["Subnet"]
        with self.lock:
            if cidr in self.overlapping:
                raise api_error(403, "Pool overlaps with other one on this address space")
            network = FakeNetwork(self, name, cidr, labels, options)
            self.made_networks[network.id] = network
        return network


class FakeNetwork:
    """A network as the engine's client shows it."""

    def __init__(
        self, docker: FakeDocker, name: str, cidr: str, labels: dict[str, str], options: dict[str, Any]
    ) -> None:
        self.docker, self.name, self.id, self.options = docker, name, f"id-{name}", options
        self.attrs: dict[str, Any] = {
            "IPAM": {"Config": [{"Subnet": cidr}]},
            "Labels": labels,
            "Containers": {},
        }

    def reload(self) -> None:
        pass

    def disconnect(self, container: str, *, force: bool) -> None:
        assert force
        self.attrs["Containers"].pop(container)

    def remove(self) -> None:
        assert not self.attrs["Containers"], "the engine refuses while a container is attached"
        del self.docker.made_networks[self.id]


def _range(cidr: str) -> Any:
    return SimpleNamespace(attrs={"IPAM": {"Config": [{"Subnet": cidr}] if cidr else None}, "Labels": None})
