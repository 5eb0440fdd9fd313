"""Readiness of a host that the program made, against a stand-in for ssh."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import millrace.host
import pytest
from millrace import ssh_key, ssh_options
from millrace.engine import Engine, HostSettings
from millrace.host import HostReady
from millrace.kept import Kept
from millrace.resources import Call, ResourceError
from millrace.server import RESOURCES, _diff
from test_provider_server import struct

PROPS: dict[str, Any] = {
    "hostId": "4711",
    "data": "/mnt/millrace",
    "device": "scsi-0DO_Volume_x",
    "deadline": 5,
    "size": "s-4vcpu-8gb",
    "volumeGib": 100,
}
GOOD = "cloud-init done\ndata /dev/sda\nengine 20.10.24"
Ssh = Callable[..., None]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.fixture
def ssh(tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch) -> Ssh:
    """Makes an ``ssh`` that gives one answer after the other, the last one for ever."""

    def make(*answers: tuple[int, str]) -> None:
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        cases = "".join(
            f"{n}) cat <<'END' {'>&2' if code == 255 else ''}\n{text}\nEND\nexit {code};;\n"
            for n, (code, text) in enumerate(answers)
        )
        program = folder / "ssh"
        program.write_text(
            f'#!/bin/sh\necho "$@" >>{log}\ncat >>{log}.stdin\ncase "$*" in *\'-O exit\'*) exit 0;; esac\n'
            f"n=$(cat {tmp_path}/n 2>/dev/null || echo 0)\n[ $n -ge {len(answers) - 1} ] || echo $((n+1)) "
            f">{tmp_path}/n\ncase $n in\n{cases}esac\n"
        )
        program.chmod(0o755)

    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setattr(millrace.host, "_POLL_S", 0.001)
    monkeypatch.setattr(millrace.host, "_GRACE_S", 0.05)
    return make


@pytest.fixture
def warnings() -> list[str]:
    return []


@pytest.fixture
def call(warnings: list[str]) -> Call:
    settings = HostSettings(host="ssh://millrace@203.0.113.80:22", ssh_options=("-o", "Pinned=yes"))
    return Call(
        engine=Engine(settings),
        progress=lambda text: None,
        cancelled=threading.Event(),
        warn=warnings.append,
    )


def failure(call: Call, **changed: Any) -> str:
    with pytest.raises(ResourceError) as error:
        HostReady().create(call, {**PROPS, **changed})
    return str(error.value)


def test_a_host_that_is_set_up_is_ready(call: Call, ssh: Ssh, log: Path) -> None:
    ssh((0, GOOD))
    assert HostReady().create(call, PROPS) == ("4711", PROPS)
    said = log.read_text()
    assert "-o Pinned=yes -l millrace -p 22 -- 203.0.113.80 sudo -n sh -s -- /mnt/millrace" in said
    # The script goes through standard input: nothing is expected of the host.
    assert "cloud-init status" in Path(f"{log}.stdin").read_text()


def test_it_is_waited_for(call: Call, ssh: Ssh, log: Path) -> None:
    ssh(
        (255, "ssh: connect to host 203.0.113.80 port 22: Connection refused"),
        (255, "millrace@203.0.113.80: Permission denied (publickey)."),
        (1, "sudo: a password is required"),
        (0, "cloud-init running"),
        (0, "cloud-init running\ndata /dev/sda"),
        (0, GOOD),
    )
    HostReady().create(call, {**PROPS, "deadline": 30})
    assert len(log.read_text().splitlines()) == 6


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ((255, "ssh: connect to host h port 22: Connection timed out"), "no SSH connection: ssh: connect"),
        ((255, "millrace@h: Permission denied (publickey)."), "Permission denied"),
        ((0, "cloud-init running"), "cloud-init is running"),
        ((0, ""), "cloud-init is unknown"),
    ],
)
def test_what_was_seen_last_is_told(call: Call, ssh: Ssh, answer: tuple[int, str], expected: str) -> None:
    ssh(answer)
    message = failure(call, deadline=0.05)
    assert message.startswith("host millrace@203.0.113.80:22: not ready after 0 s: ")
    assert expected in message
    assert "\n" not in message


def test_why_nobody_connects_is_found_out(call: Call, ssh: Ssh, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(address: tuple[str, int], timeout: float) -> None:
        assert address == ("203.0.113.80", 22)
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr("millrace.host.socket.create_connection", refuse)
    # What ssh says whatever happened to the program that connects for it.
    ssh(
        (
            255,
            "mm_receive_fd: recvmsg: expected received 1 got 0\nproxy dialer did not pass back a connection",
        )
    )
    assert failure(call, deadline=0.05).endswith("no SSH connection: Connection refused")


def test_a_failed_setup_ends_the_wait_with_its_log(call: Call, ssh: Ssh, log: Path) -> None:
    ssh((0, "cloud-init error\nlog E: Unable to locate package docker.io\nlog the end"))
    message = failure(call, deadline=1000)
    assert "cloud-init failed\n  last lines of its log:\n  E: Unable to locate" in message
    assert len(log.read_text().splitlines()) == 1


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ((255, "No ED25519 host key is known\nHost key verification failed."), "another machine answers"),
        ((0, "cloud-init done\ndata /dev/sda\nlog no space left"), "engine does not answer\n  last lines"),
        ((0, "cloud-init done\nengine 20.10.24"), "the data volume is not mounted"),
    ],
)
def test_what_does_not_mend_itself_is_given_up_soon(
    call: Call, ssh: Ssh, answer: tuple[int, str], expected: str
) -> None:
    ssh(answer)
    assert expected in failure(call, deadline=1000)


def test_what_mends_itself_is_no_failure(call: Call, ssh: Ssh) -> None:
    other = (255, "Host key verification failed.")
    ssh(other, (255, "Connection refused"), other, (0, GOOD))
    HostReady().create(call, PROPS)


def test_a_wait_can_be_cancelled(call: Call, ssh: Ssh) -> None:
    ssh((0, "cloud-init running"))
    call.cancelled.set()
    assert failure(call, deadline=1000) == "cancelled"


def test_a_host_that_no_longer_answers_is_looked_at_again(call: Call, ssh: Ssh) -> None:
    ssh((0, GOOD), (255, "Connection refused"))
    assert HostReady().read(call, "4711", PROPS) == PROPS
    assert HostReady().read(call, "4711", PROPS) is None


def test_what_changes(call: Call) -> None:
    def diff(**changed: Any) -> tuple[list[str], list[str]]:
        resource = RESOURCES["millrace:host:Ready"]
        found = _diff(struct(PROPS), struct({**PROPS, **changed}), resource.replace_on, resource.ignore)
        return list(found.diffs), list(found.replaces)

    assert diff() == ([], [])
    assert diff(volumeGib=200) == (["volumeGib"], [])
    assert diff(size="m-4vcpu-32gb") == (["size"], [])
    assert diff(hostId="4712") == (["hostId"], ["hostId"])


def test_the_volume_is_left_whole(call: Call, ssh: Ssh, log: Path, warnings: list[str]) -> None:
    ssh((0, ""))
    HostReady().delete(call, "4711", PROPS)
    assert warnings == []
    stop, leave = log.read_text().splitlines()
    assert stop.endswith("sudo -n sh -s -- /mnt/millrace scsi-0DO_Volume_x")
    script = Path(f"{log}.stdin").read_text()
    assert script.index("docker stop") < script.index("systemctl stop") < script.index("umount")
    # The next machine at this address must not be looked for at the end of the shared connection.
    assert "-O exit" in leave


def test_a_host_that_is_gone_does_not_hold_up_its_successor(
    call: Call, ssh: Ssh, warnings: list[str]
) -> None:
    ssh((255, "ssh: connect to host h port 22: No route to host"))
    HostReady().delete(call, "4711", PROPS)
    (warning,) = warnings
    assert "No route to host" in warning
    assert "power cut" in warning


def test_the_key_is_there_when_ssh_looks(ssh: Ssh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    placed: list[int] = []
    text = "-----BEGIN OPENSSH PRIVATE KEY-----\nplanted\n-----END OPENSSH PRIVATE KEY-----"
    monkeypatch.setattr("millrace.ssh_options.expand", lambda path: str(path).replace("~", str(tmp_path)))
    monkeypatch.setattr("millrace.ssh_key.expand", lambda path: str(path).replace("~", str(tmp_path)))
    engine = Engine(HostSettings(host="ssh://millrace@h", ssh_key=text))
    ssh((0, GOOD))
    real = millrace.host._ssh

    def spy(*arguments: Any) -> Any:
        done = real(*arguments)
        path = Path(ssh_key.file_of(text).replace("~", str(tmp_path)))
        placed.append(stat.S_IMODE(path.stat().st_mode))
        return done

    monkeypatch.setattr(millrace.host, "_ssh", spy)
    HostReady().create(Call(engine=engine, progress=print, cancelled=threading.Event()), PROPS)
    engine.close()
    assert placed == [0o600]
    assert not list((tmp_path / ".ssh").glob("*.key"))


def test_without_ssh_one_line_says_so(call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Exception, match="ssh is not installed"):
        HostReady().create(call, PROPS)


# -- Kept


def test_a_kept_value_stays_until_something_else_changes(call: Call) -> None:
    kept = Kept()
    _, made = kept.create(call, {"value": "one", "until": "a"})
    assert made["kept"] == "one"

    def diff(**changed: str) -> list[str]:
        old = {"value": "one", "until": "a"}
        return list(_diff(struct(old), struct({**old, **changed}), kept.replace_on, kept.ignore).replaces)

    assert diff(value="two") == []
    assert diff(until="b") == ["until"]
    assert kept.create(call, {"value": "two", "until": "b"})[1]["kept"] == "two"


def test_the_server_knows_both() -> None:
    assert {"millrace:host:Ready", "millrace:core:Kept"} <= RESOURCES.keys()


# -- over SSH


@pytest.mark.skipif(
    os.getuid() != 0 or not Path("/usr/sbin/sshd").exists(), reason="needs root and an SSH server"
)
def test_a_real_ssh_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warnings: list[str]) -> None:
    """Key from text, pinned host key, the script by standard input; another host key is not accepted."""
    monkeypatch.setattr(millrace.host, "_GRACE_S", 0.1)
    monkeypatch.setattr(millrace.host, "_POLL_S", 0.1)
    for name in ("host", "login", "other"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / name)]
        subprocess.run(command, check=True)
    tools = {
        "sudo": 'shift; exec "$@"',
        "cloud-init": "echo status: done",
        "findmnt": 'case "$*" in *TARGET*) ;; *) echo /dev/none;; esac',
        "docker": f'echo "$*" >>{tmp_path}/calls; [ "$1" = version ] && echo 20.10.24; true',
        "systemctl": f'echo "$*" >>{tmp_path}/calls',
        "mountpoint": "exit 1",
        "sync": "true",
    }
    (tmp_path / "bin").mkdir()
    for name, body in tools.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (tmp_path / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {tmp_path}/host\nPidFile none\nStrictModes no\n"
        f"AuthorizedKeysFile {tmp_path}/login.pub\nUsePAM no\nSetEnv PATH={tmp_path}/bin:/usr/bin:/bin\n"
    )
    Path("/run/sshd").mkdir(exist_ok=True)
    server = subprocess.Popen(["/usr/sbin/sshd", "-D", "-f", str(tmp_path / "sshd_config")])

    def calling(host_key: str) -> Call:
        key, address = (tmp_path / "login").read_text(), f"ssh://root@127.0.0.1:{port}"
        pinned = " ".join((tmp_path / f"{host_key}.pub").read_text().split()[:2])
        options = ssh_options.arguments(
            address, key_file=ssh_key.file_of(key), key_is_placed=True, host_key=pinned
        )
        engine = Engine(HostSettings(host=address, ssh_options=options, ssh_key=key))
        return Call(engine=engine, progress=print, cancelled=threading.Event(), warn=warnings.append)

    call, stranger = calling("host"), calling("other")
    try:
        assert HostReady().create(call, {**PROPS, "deadline": 20})[0] == "4711"
        HostReady().delete(call, "4711", PROPS)
        assert "another machine answers" in failure(stranger, deadline=20)
    finally:
        call.engine.close()
        stranger.engine.close()
        server.terminate()
        server.wait()
    assert warnings == []
    assert "stop docker.socket docker.service containerd.service" in (tmp_path / "calls").read_text()
