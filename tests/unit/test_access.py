"""What a job of continuous integration is given: its variables, its SSH key and known hosts."""

from __future__ import annotations

import os
import pwd
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from scripts import access

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home folder of a job without anything set."""
    for name in access._GIVEN:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CI", "true")
    # ssh looks for its folder where the user database says, whatever HOME is.
    monkeypatch.setattr(pwd, "getpwuid", lambda _: SimpleNamespace(pw_dir=str(tmp_path)))
    for name in (access._KEY_FILE, access._HOSTS_FILE):
        monkeypatch.setenv(name, "")  # taken back after the test
        monkeypatch.delenv(name)
    return tmp_path


def test_unset_variables_count_as_missing(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PULUMI_BACKEND_URL", "")
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", "")
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    access.settle()
    assert "PULUMI_BACKEND_URL" not in os.environ and "PULUMI_CONFIG_PASSPHRASE" not in os.environ
    assert os.environ["AWS_REGION"] == "eu-central-1"
    assert not (job / ".ssh").exists()


KEY = "-----BEGIN KEY-----\nabc\n-----END KEY-----\n"


def ssh(job: Path, *options: str) -> str:
    """What ssh says of what it reads for a host of this job, which it does not reach."""
    command = ["ssh", "-v", "-F", str(job / ".ssh" / "config"), "-o", "ProxyCommand=false", *options, "box"]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    return done.stdout + done.stderr


def test_ssh_takes_key_and_known_hosts_of_the_job_that_has_them(
    job: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (job / ".ssh").mkdir()
    (job / ".ssh" / "config").write_text("Host other\n    User me")
    for _ in range(2):
        monkeypatch.setenv("MILLRACE_SSH_KEY", KEY.strip().replace("\n", "\r\n"))
        monkeypatch.setenv("MILLRACE_SSH_KNOWN_HOSTS", "stage.example ssh-ed25519 BBBB")
        access.settle()
    (key,) = (job / ".ssh").glob("*.key")
    assert key.read_text() == KEY
    assert key.stat().st_mode & 0o777 == 0o600
    assert f"identity file {key} " in ssh(job)
    (hosts,) = re.findall(r"(?m)^userknownhostsfile \S+/known_hosts (\S+)$", ssh(job, "-G"))
    assert Path(hosts).read_text() == "stage.example ssh-ed25519 BBBB\n"
    config = (job / ".ssh" / "config").read_text()
    assert config.startswith("Host other\n    User me\nMatch ") and config.count("IdentityFile") == 1
    assert "MILLRACE_SSH_KEY" not in os.environ
    # Another job of the same machine at the same time.
    for name in (access._KEY_FILE, access._HOSTS_FILE):
        monkeypatch.delenv(name)
    access.settle()
    assert key.exists()
    assert str(key) not in ssh(job) and hosts not in ssh(job, "-G")


def test_a_key_may_come_as_a_file(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (job / "variable").write_text(KEY)
    monkeypatch.setenv("MILLRACE_SSH_KEY", str(job / "variable"))
    access.settle()
    assert Path(os.environ[access._KEY_FILE]).read_text() == KEY


_JOB = """
import os, pwd, signal, sys, types
pwd.getpwuid = lambda _: types.SimpleNamespace(pw_dir=sys.argv[1])
from pathlib import Path
from types import SimpleNamespace
from scripts import access, console

def job():
    access.settle()
    for name in ("KEY", "KNOWN_HOSTS"):
        print(os.environ.get(f"MILLRACE_SSH_{name}_FILE", ""))
    sys.stdout.flush()
    if sys.argv[2] == "fails":
        raise console.SetupError("no")
    if sys.argv[2] != "ends":
        os.kill(os.getpid(), getattr(signal, sys.argv[2]))
    return 0

console.main(job)
"""


def _run_job(job: Path, end: str, **given: str) -> list[Path]:
    """The files of a job that ends in some way."""
    command = [sys.executable, "-c", _JOB, str(job), end]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **given}, capture_output=True, text=True)
    assert "Traceback" not in done.stderr, done.stderr
    return [Path(line) for line in done.stdout.splitlines() if line]


@pytest.mark.parametrize("end", ["ends", "fails", "SIGTERM"])
def test_key_and_known_hosts_end_with_their_job(job: Path, end: str) -> None:
    used = _run_job(job, end, MILLRACE_SSH_KEY=KEY, MILLRACE_SSH_KNOWN_HOSTS="box ssh-ed25519 BBBB")
    assert len(used) == 2
    assert not any(file.exists() for file in used)
    assert "abc" not in "".join(file.read_text() for file in (job / ".ssh").iterdir())


def test_what_a_killed_job_left_is_removed_by_the_next_one(job: Path) -> None:
    (key,) = _run_job(job, "SIGKILL", MILLRACE_SSH_KEY=KEY)
    assert key.exists()
    # And what was left for all jobs once.
    former = job / ".ssh" / "id_millrace"
    former.write_text(KEY)
    config = job / ".ssh" / "config"
    config.write_text(f"Host other\n    User me\nHost *\n    IdentityFile {former}\n")
    assert _run_job(job, "ends") == []
    assert not key.exists() and not former.exists()
    assert config.read_text() == "Host other\n    User me\n"


def test_ones_own_machine_is_left_alone(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI")
    monkeypatch.setenv("MILLRACE_SSH_KEY", "x")
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", "")
    access.settle()
    assert not (job / ".ssh").exists() and os.environ["PULUMI_CONFIG_PASSPHRASE"] == ""
