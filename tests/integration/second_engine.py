"""A second Docker engine on this machine, in a network namespace of its own: another host, as far as a
stack can tell. It listens on TCP with TLS and is reached over SSH too.

Needs root. Where the engine's machine has no way out, images come from this machine's engine.
"""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import docker
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from scripts import packages
from tests.integration.stack import Run, Stack, wait_until

BASE_IMAGE = "debian:bookworm-slim"
SSH_PORT, TLS_PORT = 2222, 2376

# The range for benchmarks between networks (RFC 2544): no real network uses it. A /30 for each engine: tests
# that run beside these have one too.
_RANGE = ipaddress.IPv4Network("198.18.78.0/24")
_BITS = 30
_SBIN = "/usr/local/sbin:/usr/sbin:/sbin"


class SecondEngine:
    """Starts the daemons; :meth:`close` removes everything again. ``address`` is the machine's."""

    def __init__(self) -> None:
        # Not below /tmp: that may be memory.
        self.folder = Path(tempfile.mkdtemp(prefix="millrace-engine-", dir="/var/tmp"))
        self._socket = self.folder / "docker.sock"
        self._undo = contextlib.ExitStack()
        self._undo.callback(shutil.rmtree, self.folder)
        self._daemon: subprocess.Popen[bytes] | None = None
        self._sshd: subprocess.Popen[bytes] | None = None
        try:
            self._name, self._here, self.address = self._namespace()
            self._network()
            self._certificates()
            self.start()
            self._undo.callback(self._stop)
            self._ssh()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Leave nothing: containers, processes, mounts, rules, namespace, files."""
        self._undo.close()

    @property
    def client(self) -> docker.DockerClient:
        """A client of the engine by its local socket."""
        return docker.DockerClient(base_url=f"unix://{self._socket}", timeout=120)

    # -- as a stack's settings name it

    @property
    def ssh_target(self) -> dict[str, object]:
        """The target setting for SSH, with the host's key checked by a file."""
        return {"host": self.ssh_host, **self.ssh_files("known_hosts")}

    @property
    def ssh_host(self) -> str:
        """The engine's address over SSH."""
        return f"ssh://root@{self.address}:{SSH_PORT}"

    def ssh_files(self, known_hosts: str) -> dict[str, object]:
        """This engine's client key, and a file of :attr:`folder` with known host keys."""
        return {"key": str(self.folder / "client_key"), "known_hosts": str(self.folder / known_hosts)}

    @property
    def host_key(self) -> str:
        """The SSH server's public key."""
        return (self.folder / "host_key.pub").read_text().strip()

    @property
    def tls_target(self) -> dict[str, object]:
        """The target setting for TCP with client certificates."""
        files = {"ca": "ca.pem", "certificate": "client.pem", "key": "client.key.pem"}
        return {
            "host": f"tcp://{self.address}:{TLS_PORT}",
            **{name: str(self.folder / file) for name, file in files.items()},
        }

    def hang_up(self) -> int:
        """End all SSH connections, as a link that breaks does; how many there were.

        A shared one would serve whoever asks next without another check.
        """
        assert self._sshd is not None
        ended = 0
        for pid in _children(self._sshd.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                ended += 1
        return ended

    # -- the daemon

    def start(self) -> None:
        """Start the daemon and wait until it answers."""
        config = self.folder / "daemon.json"
        config.write_text("{}")
        with (self.folder / "dockerd.log").open("ab") as log:
            self._daemon = subprocess.Popen(
                [
                    *self._inside(), "dockerd", "--config-file", config,
                    "--data-root", self.folder / "data", "--exec-root", self.folder / "exec",
                    "--pidfile", self.folder / "docker.pid", "-H", f"unix://{self._socket}",
                    "-H", f"tcp://{self.address}:{TLS_PORT}", "--tlsverify",
                    "--tlscacert", self.folder / "ca.pem",
                    "--tlscert", self.folder / "server.pem", "--tlskey", self.folder / "server.key.pem",
                ],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                env={**os.environ, "PATH": f"{os.environ['PATH']}:{_SBIN}"},
            )  # fmt: skip
        try:
            wait_until(lambda: self._alive() and self.client.ping(), every=0.2)
        except TimeoutError:
            log_text = (self.folder / "dockerd.log").read_text()[-3000:]
            raise RuntimeError(f"the second engine did not start:\n{log_text}") from None

    def kill(self) -> None:
        """End the daemon as a crash does, with no chance to stop its containers."""
        assert self._daemon is not None
        containerd = int((self.folder / "exec" / "containerd" / "containerd.pid").read_text())
        os.kill(self._daemon.pid, signal.SIGKILL)
        self._daemon.wait()
        # It dies of that as well, but not at once: a daemon that starts meanwhile waits for it in vain.
        wait_until(lambda: not Path(f"/proc/{containerd}").exists(), every=0.1)

    def _alive(self) -> bool:
        if self._daemon is None or self._daemon.poll() is not None:
            raise RuntimeError("dockerd ended")
        return True

    def _stop(self) -> None:
        if self._daemon is not None and self._daemon.poll() is None:
            with contextlib.suppress(Exception):
                for container in self.client.containers.list(all=True):
                    container.remove(force=True, v=True)
            self._daemon.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._daemon.wait(30)
        self._end_all()
        for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
            mount = line.split()[4]
            if mount.startswith(f"{self.folder}/"):
                _run("umount", "-l", mount)

    def _end_all(self) -> None:
        # What still runs in the namespace was started there by this fixture.
        end = time.monotonic() + 60
        while pids := _run("ip", "netns", "pids", self._name).split():
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL if time.monotonic() > end - 50 else signal.SIGTERM)
            if time.monotonic() > end:
                raise RuntimeError(f"processes {pids} of the second engine do not end")
            time.sleep(0.2)

    # -- around it

    def _inside(self) -> list[str]:
        # Not `ip netns exec`: that hides the cgroups, which dockerd needs.
        return ["nsenter", f"--net=/var/run/netns/{self._name}"]

    def _namespace(self) -> tuple[str, str, str]:
        """The first one that nobody has: its name, this machine's address and that of the other one."""
        taken = _run("ip", "netns", "list")
        for number, subnet in enumerate(_RANGE.subnets(new_prefix=_BITS)):
            name = f"millrace-tests{number}"
            if name in taken.split():
                continue
            with contextlib.suppress(RuntimeError):  # somebody was quicker
                self._do(("ip", "netns", "add", name), ("ip", "netns", "delete", name))
                here, there = subnet.hosts()
                return name, str(here), str(there)
        raise RuntimeError("all addresses for a second engine are taken: remove stale ones of `ip netns`")

    def _network(self) -> None:
        number = self._name.removeprefix("millrace-tests")
        link, peer = f"mrlink{number}", f"mrpeer{number}"
        self._do(
            ("ip", "link", "add", link, "type", "veth", "peer", "name", peer, "netns", self._name),
            ("ip", "link", "delete", link),
        )
        mtu = _mtu()
        _run("ip", "address", "add", f"{self._here}/{_BITS}", "dev", link)
        _run("ip", "link", "set", link, "mtu", mtu, "up")
        for command in (
            ("link", "set", "lo", "up"),
            ("address", "add", f"{self.address}/{_BITS}", "dev", peer),
            ("link", "set", peer, "mtu", mtu, "up"),
            ("route", "add", "default", "via", self._here),
        ):
            _run("ip", "-n", self._name, *command)
        # Packets of the other machine leave by this machine's address; Docker's own rules drop what they
        # don't know.
        for flag, table, chain, *rule in (
            ("-t", "nat", "POSTROUTING", "-s", f"{self.address}/32", "!", "-o", link, "-j", "MASQUERADE"),
            ("-t", "filter", "FORWARD", "-i", link, "-j", "ACCEPT"),
            ("-t", "filter", "FORWARD", "-o", link, "-j", "ACCEPT"),
        ):
            self._do(
                ("iptables", "-w", flag, table, "-I", chain, *rule),
                ("iptables", "-w", flag, table, "-D", chain, *rule),
            )

    def load(self, *images: str) -> None:
        """Give the engine images of this machine's, by reference."""
        here = docker.from_env(timeout=120)
        for image in images:
            self.client.images.load(here.images.get(image).save(named=True))

    def logins(self) -> int:
        """How many SSH connections there have been."""
        return (self.folder / "sshd.log").read_text().count("Accepted publickey")

    def _do(self, command: Sequence[str], undo: Sequence[str]) -> None:
        _run(*command)
        self._undo.callback(_run, *undo)

    def _certificates(self) -> None:
        ca, ca_key = _certificate("engine CA")
        _write(self.folder / "ca.pem", ca)
        for name in ("other_ca", "stranger"):
            certificate, key = _certificate(name)
            _write(self.folder / f"{name}.pem", certificate)
            _write(self.folder / f"{name}.key.pem", key)
        for name in ("server", "client"):
            address = self.address if name == "server" else None
            certificate, key = _certificate(name, issuer=(ca, ca_key), server=address)
            _write(self.folder / f"{name}.pem", certificate)
            _write(self.folder / f"{name}.key.pem", key)

    def _ssh(self) -> None:
        folder = self.folder
        for name in ("host_key", "other_host_key", "client_key", "other_key", "powerless_key"):
            _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(folder / name))
        for known, key in (("known_hosts", "host_key"), ("other_known_hosts", "other_host_key")):
            kind, text, _ = (folder / f"{key}.pub").read_text().split()
            (folder / known).write_text(f"[{self.address}]:{SSH_PORT} {kind} {text}\n")
        # Whoever has that key is nobody on the machine.
        nobody = 'command="exec setpriv --reuid=65534 --clear-groups sh -c \\"$SSH_ORIGINAL_COMMAND\\""'
        (folder / "authorized_keys").write_text(
            (folder / "client_key.pub").read_text()
            + f"restrict,{nobody} "
            + (folder / "powerless_key.pub").read_text()
        )
        (folder / "sshd_config").write_text(
            f"ListenAddress {self.address}:{SSH_PORT}\n"
            f"HostKey {folder / 'host_key'}\n"
            f"AuthorizedKeysFile {folder / 'authorized_keys'}\n"
            f"PidFile {folder / 'sshd.pid'}\n"
            f"SetEnv DOCKER_HOST=unix://{self._socket}\n"
            "PermitRootLogin prohibit-password\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
            # The folder belongs to root, but stands in one that everybody may write.
            "StrictModes no\nUsePAM no\n"
        )
        # The folder that sshd locks its unprivileged part into; a running service has made it already.
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        with (folder / "sshd.log").open("ab") as log:
            self._sshd = sshd = subprocess.Popen(
                [*self._inside(), "/usr/sbin/sshd", "-D", "-e", "-f", folder / "sshd_config"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self._undo.callback(sshd.wait)
        self._undo.callback(sshd.terminate)
        self._undo.callback(self.hang_up)
        wait_until(lambda: "listening on" in (folder / "sshd.log").read_text(), every=0.1)


@contextlib.contextmanager
def second_engine() -> Iterator[SecondEngine]:
    """The engine with the base image of all builds; skips where the machine can't have one."""
    if os.geteuid() != 0:
        pytest.skip("a second engine needs root (network namespaces)")
    if not Path("/usr/sbin/sshd").exists() and Path("/run/systemd/system").exists():
        pytest.skip("openssh-server is missing, and installing it would open this machine to SSH")
    for command, package in (("sshd", "openssh-server"), ("ssh", "openssh-client"), ("ip", "iproute2")):
        if not shutil.which(command, path=f"{os.environ['PATH']}:{_SBIN}"):
            packages.install("tests", [package])
    engine = SecondEngine()
    try:
        engine.load(BASE_IMAGE)
        yield engine
    finally:
        engine.close()


def refused(stack: Stack, cause: str) -> None:
    """An `up` of a stack that is not there yet fails with one line that names engine and cause, and makes
    nothing.
    """
    run = stack.up_fails()
    host = stack.config["target"]["host"]
    errors = {line.strip() for line in run.output.splitlines() if line.strip().startswith("error: Docker")}
    assert len(errors) == 1, run.output
    assert f"Docker engine {host}: " in errors.pop()
    explained(run, cause)
    assert stack.remains() == []


def explained(run: Run, cause: str) -> None:
    """The output names the cause and shows nothing of the program's inside."""
    assert cause in run.output, run.output
    assert "Traceback" not in run.output
    assert 'File "' not in run.output


def _children(pid: int) -> list[int]:
    return [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def _mtu() -> str:
    """The smallest of this machine's own interfaces: a larger packet of the other machine would be lost."""
    up = [p.parent for p in Path("/sys/class/net").glob("*/device")]
    return str(min((int((p / "mtu").read_text()) for p in up), default=1400))


_Pair = tuple[x509.Certificate, ec.EllipticCurvePrivateKey]


def _certificate(name: str, *, issuer: _Pair | None = None, server: str | None = None) -> _Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer[0].subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
    )
    if issuer:
        usage = ExtendedKeyUsageOID.SERVER_AUTH if server else ExtendedKeyUsageOID.CLIENT_AUTH
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    if server:
        address = x509.IPAddress(ipaddress.ip_address(server))
        builder = builder.add_extension(x509.SubjectAlternativeName([address]), critical=False)
    return builder.sign(issuer[1] if issuer else key, hashes.SHA256()), key


def _write(path: Path, what: x509.Certificate | ec.EllipticCurvePrivateKey) -> None:
    pem = serialization.Encoding.PEM
    if isinstance(what, x509.Certificate):
        path.write_bytes(what.public_bytes(pem))
    else:
        path.write_bytes(
            what.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        )
        path.chmod(0o600)
