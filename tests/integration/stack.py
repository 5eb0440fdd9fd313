"""A stack of the real project in a folder of its own: another project name, state and configuration."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import httpx
import yaml
from docker.models.containers import Container

ROOT = Path(__file__).resolve().parents[2]
LINKED = ("components", "configs", "images", "policies", "provider", "pipelines", "__main__.py", ".venv")
DOMAIN = "data.localhost"
# Another run of the tests on the same engine has other names.
PROJECT = f"mrt{os.getpid()}"
UP_TIMEOUT_S = 1800
PATIENCE_S = 600
"""How long what should happen may take: tests are not timed, and two cores are shared with other work."""
ANSWER_S = 120
"""How long one answer of a server may take, for the same reason."""


def pulumi_command() -> str:
    """The CLI that `make setup` chose, else the one on PATH."""
    own = ROOT / ".millrace" / "bin" / "pulumi"
    return str(own) if own.exists() else shutil.which("pulumi") or "pulumi"


_given: deque[int] = deque(maxlen=300)
"""The ports that were given last; there are 500 to choose from."""


def free_port() -> int:
    """A TCP port nobody listens on, below the range that outgoing connections take theirs from.

    Neither it nor one of the three after it, which more brokers of Kafka take, is soon given a second time:
    what asked for it may not listen yet. Tests that run beside this process choose from other ports.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 6
    while True:
        port = random.randrange(20000 + 2000 * worker, 22000 + 2000 * worker, 4)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("0.0.0.0", port))
            if port not in _given:
                _given.append(port)
                return port


def proxy_ports() -> dict[str, int]:
    """The proxy's settings in a stack that runs beside others."""
    return {"http_port": free_port(), "https_port": free_port()}


@dataclass(frozen=True)
class Run:
    """One run of the CLI: exit code and everything it wrote."""

    code: int
    output: str


class PulumiError(AssertionError):
    """A run that should have succeeded did not; the message is its output."""


class Stack:
    """Drives one stack by the command line, as a user does."""

    def __init__(
        self,
        folder: Path,
        name: str,
        config: Mapping[str, Any],
        project: str = PROJECT,
        *,
        engine: docker.DockerClient | None = None,
        address: str = "127.0.0.1",
    ) -> None:
        """``engine`` and ``address`` are those of another machine the stack runs on."""
        self.folder, self.name, self.project = folder, name, project
        self.prefix = f"{project}-{name}"
        self.docker = engine or docker.from_env(timeout=120)
        self.address = address
        folder.mkdir(parents=True, exist_ok=True)
        for entry in filter(lambda name: (ROOT / name).exists(), LINKED):
            (folder / entry).symlink_to(ROOT / entry)
        definition = yaml.safe_load((ROOT / "Pulumi.yaml").read_text())
        definition["name"] = project
        (folder / "Pulumi.yaml").write_text(yaml.safe_dump(definition, sort_keys=False))
        (folder / ".millrace" / "state").mkdir(parents=True)
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("PULUMI_")},
            "PATH": f"{ROOT / '.venv' / 'bin'}:{os.environ['PATH']}",
            "PULUMI_CONFIG_PASSPHRASE": "integration-tests",
            "PULUMI_SKIP_UPDATE_CHECK": "true",
            "PULUMI_PARALLEL": "32",
            "PYTHONDONTWRITEBYTECODE": "",
        }
        if engine:
            # Whatever went to this machine's own engine would fail.
            self.environment["DOCKER_HOST"] = "unix:///nonexistent/docker.sock"
        self.first_up = ""
        """What the `up` that made the stack has written, where somebody keeps it."""
        self._salt: str | None = None
        self.config: dict[str, Any] = {}
        self.configure(config)
        self.pulumi("stack", "init", name)
        self._salt = yaml.safe_load(self.file.read_text()).get("encryptionsalt")

    @property
    def file(self) -> Path:
        """The stack file."""
        return self.folder / f"Pulumi.{self.name}.yaml"

    def configure(self, config: Mapping[str, Any]) -> None:
        """Replace the settings (keys without namespace)."""
        self.config = copy.deepcopy(dict(config))
        document: dict[str, Any] = {"config": {f"millrace:{k}": v for k, v in self.config.items()}}
        if self._salt:
            document["encryptionsalt"] = self._salt
        self.file.write_text(yaml.safe_dump(document, sort_keys=False))

    @contextmanager
    def changed(self, **changes: Any) -> Iterator[None]:
        """Settings with top-level keys replaced (None removes one), and the old ones afterwards."""
        before = copy.deepcopy(self.config)
        merged = {**before, **changes}
        self.configure({k: v for k, v in merged.items() if v is not None})
        try:
            yield
        finally:
            self.configure(before)

    # -- commands

    def pulumi(self, *arguments: str, check: bool = True, timeout: float = UP_TIMEOUT_S) -> Run:
        """Run the CLI in the stack's folder."""
        done = subprocess.run(
            [pulumi_command(), *arguments, "--non-interactive"],
            cwd=self.folder, env=self.environment, text=True, timeout=timeout,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        if check and done.returncode != 0:
            raise PulumiError(f"pulumi {' '.join(arguments)} ended with {done.returncode}\n{done.stdout}")
        return Run(done.returncode, done.stdout)

    def up(self, *arguments: str) -> Run:
        """Bring the stack up; fails the test when that fails."""
        return self.pulumi("up", "--yes", "--skip-preview", "--stack", self.name, *arguments)

    def up_fails(self) -> Run:
        """Bring the stack up, expecting that it can't."""
        run = self.pulumi("up", "--yes", "--skip-preview", "--stack", self.name, check=False)
        assert run.code != 0, f"up succeeded\n{run.output}"
        return run

    def interrupted_up(self, *, when: Callable[[str], bool], kill: bool = False) -> Run:
        """Start `up`; press Ctrl-C (or kill the CLI) once ``when`` is true of what it has written."""
        log = self.folder / "interrupted.log"
        with log.open("w") as out:
            process = subprocess.Popen(
                [pulumi_command(), "up", "--yes", "--skip-preview", "--non-interactive",
                 "--stack", self.name],
                cwd=self.folder, env=self.environment, stdin=subprocess.DEVNULL,
                stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + UP_TIMEOUT_S
        while process.poll() is None and time.monotonic() < deadline:
            if when(log.read_text()):
                process.send_signal(signal.SIGKILL if kill else signal.SIGINT)
                break
            time.sleep(0.05)
        code = process.wait(timeout=UP_TIMEOUT_S)
        return Run(code, log.read_text())

    def no_change(self) -> None:
        """Assert that neither `up` nor `refresh` has anything to do."""
        self.up("--expect-no-changes")
        # A container whose probes were late on busy cores is unhealthy until the next one, which is a change.
        wait_until(lambda: not any(_unhealthy(container) for container in self.containers()))
        self.pulumi("refresh", "--yes", "--skip-preview", "--expect-no-changes", "--stack", self.name)

    def outputs(self) -> dict[str, Any]:
        """Stack outputs with secrets in plain."""
        out = self.pulumi("stack", "output", "--json", "--show-secrets", "--stack", self.name).output
        return dict(json.loads(out))

    def state(self) -> str:
        """The state as stored, secrets encrypted."""
        return self.pulumi("stack", "export", "--stack", self.name).output

    def destroy(self) -> None:
        """Remove everything, protected or not, and the stack itself."""
        if self.config.get("protect_data"):
            self.pulumi("state", "unprotect", "--all", "--yes", "--stack", self.name, check=False)
        self.pulumi("destroy", "--yes", "--skip-preview", "--stack", self.name)
        self.pulumi("stack", "rm", "--yes", "--force", self.name)

    # -- what is on the engine

    def container(self, name: str) -> Container:
        """A container by its name without the stack's prefix."""
        return self.docker.containers.get(f"{self.prefix}-{name}")

    def containers(self) -> list[Container]:
        """All containers of the stack."""
        label = f"dev.millrace.stack={self.project}/{self.name}"
        return self.docker.containers.list(all=True, filters={"label": label}, ignore_removed=True)

    def remains(self) -> list[str]:
        """Names of all containers, networks and volumes of the stack on the engine."""
        named = [c.name for c in self.docker.containers.list(all=True, ignore_removed=True)]
        named += [n.name for n in self.docker.networks.list()]
        named += [v.name for v in self.docker.volumes.list()]
        return sorted(n for n in named if n.startswith(f"{self.prefix}-"))

    # -- over HTTP

    def http(
        self,
        host: str,
        path: str = "/",
        *,
        user: str | None = None,
        password: str | None = None,
        method: str = "GET",
        **more: Any,
    ) -> httpx.Response:
        """One request through the proxy over verified TLS; ``host`` is a label below the domain or ""."""
        outputs = self.outputs_once
        ca = self.folder / "ca.crt"
        ca.write_text(outputs["ca_certificate"])
        name = f"{host}.{DOMAIN}" if host else DOMAIN
        if user is not None and password is None:
            password = outputs["credentials"]["users"][user]
        port = self.config["proxy"]["https_port"]
        headers = {"Host": f"{name}:{port}", **more.pop("headers", {})}
        with httpx.Client(verify=_context(ca), http2=True, timeout=ANSWER_S, trust_env=False) as client:
            return client.request(
                method,
                f"https://{self.address}:{port}{path}",
                auth=(user, password or "") if user else None,
                headers=headers,
                extensions={"sni_hostname": name},
                **more,
            )

    @property
    def outputs_once(self) -> dict[str, Any]:
        """Outputs, read again only after the state changed."""
        state = self.folder / ".millrace/state/.pulumi/stacks" / self.project / f"{self.name}.json"
        stamp = state.stat().st_mtime_ns
        if getattr(self, "_stamp", None) != stamp:
            self._outputs, self._stamp = self.outputs(), stamp
        return self._outputs


def _context(ca: Path) -> Any:
    import ssl

    context = ssl.create_default_context(cafile=str(ca))
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


def _unhealthy(container: Container) -> bool:
    return bool(container.attrs["State"].get("Health", {}).get("Status") == "unhealthy")


def healthy(container: Container) -> bool:
    """Whether it runs and its last probes succeeded, as of now."""
    container.reload()
    state = container.attrs["State"]
    return bool(state["Running"]) and state["Health"]["Status"] == "healthy"


def crash(container: Container) -> None:
    """Kill a container's processes and wait until the engine has started it again.

    From within: what is killed by the engine's own command counts as stopped on purpose and stays so.
    """
    container.reload()
    restarts, started = container.attrs["RestartCount"], container.attrs["State"]["StartedAt"]
    # Not by `exec_run`: that asks for an exit code, which the engine forgets once it sees the container end.
    engine = container.client.api
    engine.exec_start(engine.exec_create(container.id, ["sh", "-c", "kill -9 -1"])["Id"])

    def again() -> bool:
        container.reload()
        now = container.attrs
        return bool(now["RestartCount"] > restarts and now["State"]["StartedAt"] != started)

    wait_until(again)


def wait_until(what: Callable[[], Any], *, seconds: float = PATIENCE_S, every: float = 0.5) -> Any:
    """The first true result of ``what``, errors counting as false.

    Raises:
        TimeoutError: with the last error, when there is none in time.
    """
    deadline = time.monotonic() + seconds
    last: Exception | None = None
    while time.monotonic() < deadline:
        try:
            if result := what():
                return result
        except Exception as error:  # the thing waited for decides which
            last = error
        time.sleep(every)
    raise TimeoutError(f"still not after {seconds} s: {last}")
