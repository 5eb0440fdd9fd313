"""A container with Spark drivers that join a stack's cluster, as a service with drivers of its own has."""

from __future__ import annotations

import contextlib
import io
import shlex
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from docker.models.containers import Container

from tests.integration.stack import ROOT, Stack

# A JVM that lives for seconds has no use for code that took seconds of two cores to optimize.
SHORT_LIVED = {"JAVA_TOOL_OPTIONS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"}
_OWN = "/run/millrace/spark"
_TRUST = "-Djavax.net.ssl.trustStore=/tmp/truststore.p12 -Djavax.net.ssl.trustStorePassword=changeit"


class Driver:
    """Runs PySpark programs by ``spark-submit`` in client mode."""

    def __init__(self, container: Container, properties: str) -> None:
        self.container = container
        self.properties = properties

    def submit(
        self,
        program: str,
        *,
        environment: Mapping[str, str] | None = None,
        changed: Mapping[str, str] | None = None,
        seconds: int = 900,
    ) -> tuple[int, str]:
        """Exit code and output of a program; ``changed`` are properties of this run."""
        name = self._place(program, changed or {})
        code, output = self.container.exec_run(
            ["timeout", str(seconds), "/opt/spark/bin/spark-submit", f"{_OWN}/{name}.py"],
            environment={"SPARK_CONF_DIR": f"{_OWN}/{name}", **SHORT_LIVED, **(environment or {})},
        )
        return code, output.decode(errors="replace")

    def watch(self, program: str, *, changed: Mapping[str, str], until: str, more: float) -> str:
        """Output of a program up to ``more`` seconds after a text came, or what came in ten minutes."""
        name = self._place(program, changed)
        script = (
            f"timeout 600 /opt/spark/bin/spark-submit {_OWN}/{name}.py >/tmp/{name} 2>&1 & "
            f"while kill -0 $! 2>/dev/null && ! grep -qs {shlex.quote(until)} /tmp/{name}; "
            "do sleep 0.5; done; "
            f"sleep {more}; kill $! 2>/dev/null; wait; cat /tmp/{name}"
        )
        _, output = self.container.exec_run(
            ["sh", "-c", script], environment={"SPARK_CONF_DIR": f"{_OWN}/{name}", **SHORT_LIVED}
        )
        return str(output.decode(errors="replace"))

    def _place(self, program: str, changed: Mapping[str, str]) -> str:
        name = f"p{abs(hash((program, str(changed)))):x}"
        executors = {f"spark.executorEnv.{variable}": value for variable, value in SHORT_LIVED.items()}
        more = "".join(f"{key} {value}\n" for key, value in {**executors, **changed}.items())
        put(
            self.container,
            {f"{_OWN}/{name}/spark-defaults.conf": self.properties + more, f"{_OWN}/{name}.py": program},
        )
        return name


def put(container: Container, files: Mapping[str, str]) -> None:
    """Write files, readable by all."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path, text in files.items():
            entry = tarfile.TarInfo(path.removeprefix("/"))
            entry.size, entry.mode = len(text.encode()), 0o444
            archive.addfile(entry, io.BytesIO(text.encode()))
    container.put_archive("/", buffer.getvalue())


@contextmanager
def driver(stack: Stack, name: str = "driver") -> Iterator[Driver]:
    """A container in the networks of the stack's Spark with the configuration its drivers get."""
    worker = stack.container("spark-worker-1")
    read = worker.exec_run(["cat", f"{_OWN}/spark-defaults.conf"])
    assert read.exit_code == 0, read.output
    lines = read.output.decode().splitlines()
    lines += [
        f"spark.driver.host {name}",
        "spark.driver.memory 512m",
        f"spark.driver.extraJavaOptions {_TRUST}",
    ]
    # The pages of drivers elsewhere have no filter: only the cluster reaches them.
    lines = [line for line in lines if not line.startswith(("spark.ui.filters", "spark.ssl."))]
    networks = [n for n in worker.attrs["NetworkSettings"]["Networks"] if "--proxy" not in n]
    container = stack.docker.containers.run(
        worker.image.id, ["sleep", "7200"], name=f"{stack.prefix}-test-{name}", detach=True, init=True,
        hostname=name, network=networks[0], mem_limit="1200m", user="185",
    )  # fmt: skip
    try:
        for network in networks[1:]:
            stack.docker.networks.get(network).connect(container, aliases=[name])
        # The first one gave it no alias.
        first = stack.docker.networks.get(networks[0])
        first.disconnect(container)
        first.connect(container, aliases=[name])
        put(
            container,
            {
                "/run/millrace/tls/ca.crt": stack.outputs_once["ca_certificate"],
                f"{_OWN}/truststore.sh": (ROOT / "configs/spark/truststore.sh").read_text(),
            },
        )
        made = container.exec_run(["sh", f"{_OWN}/truststore.sh"])
        assert made.exit_code == 0, made.output
        yield Driver(container, "\n".join(lines) + "\n")
    finally:
        with contextlib.suppress(Exception):
            container.remove(force=True)
