"""The local provider against a fake engine: what it waits for, what it says, what it leaves."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import millrace.job
import millrace.network
import millrace.ready
import pytest
from fake_docker import NOW, STARTED, FakeContainer, FakeDocker, api_error
from millrace.engine import Engine, HostSettings
from millrace.job import Job
from millrace.network import Network
from millrace.ready import Ready
from millrace.resources import Call, ResourceError
from millrace.volume_owner import VolumeOwner


@pytest.fixture
def docker() -> FakeDocker:
    return FakeDocker()


@pytest.fixture
def call(docker: FakeDocker, monkeypatch: pytest.MonkeyPatch) -> Iterator[Call]:
    monkeypatch.setattr(millrace.job, "_POLL_S", 0.001)
    monkeypatch.setattr(millrace.ready, "_POLL_S", 0.001)
    monkeypatch.setattr(millrace.network, "_taken", set())
    engine = Engine(HostSettings(host="unix:///nowhere.sock"))
    engine._client = docker
    yield Call(engine=engine, progress=lambda text: None, cancelled=threading.Event())
    engine.close()


def message(error: pytest.ExceptionInfo[ResourceError]) -> str:
    text = str(error.value)
    assert text
    assert "Traceback" not in text
    return text


# -- Ready

READY = {"container": "id-web", "service": "web", "probe": ["ask", "it"], "deadline": 5.0, "timeout": 1.0}


def test_a_container_is_ready_when_its_probe_succeeds(call: Call, docker: FakeDocker) -> None:
    container = docker.add("web")
    answers = iter([(1, b"connecting\nrefused"), (1, b""), (0, b"")])
    container.probe = lambda: next(answers)
    assert Ready().create(call, READY) == ("id-web", READY)
    assert container.probes == [["ask", "it"]] * 3


def test_a_container_that_exits_fails_at_once_with_its_last_lines(call: Call, docker: FakeDocker) -> None:
    container = docker.add("web")
    container.probe = lambda: (1, b"")
    container.steps = [{}, {"status": "exited", "code": 3}]
    container.log = b"\n".join(b"line %d" % n for n in range(100)) + b"\nbad \xff config"
    with pytest.raises(ResourceError) as error:
        Ready().create(call, {**READY, "deadline": 1000.0})
    said = message(error).splitlines()
    assert said[0] == "web: container web exited with code 3"
    assert len(said) == 2 + 30
    assert said[-1] == "  bad \ufffd config"


def test_a_container_that_restarts_fails_at_once(call: Call, docker: FakeDocker) -> None:
    container = docker.add("web", restarts=2)
    container.probe = lambda: (1, b"")
    container.steps = [{"restarts": 2}, {"restarts": 2}, {"status": "restarting", "code": 78, "restarts": 3}]
    with pytest.raises(ResourceError) as error:
        Ready().create(call, READY)
    assert message(error).startswith("web: container web exited with code 78\n")


def test_one_that_restarted_long_ago_is_fine(call: Call, docker: FakeDocker) -> None:
    docker.add("web", restarts=7, StartedAt="2025-12-31T12:00:00Z")
    assert Ready().create(call, READY)
    assert NOW > STARTED


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ({"status": "created", "Error": "port is taken"}, "did not start: port is taken"),
        ({"status": "created"}, "did not start: unknown reason"),
        ({"status": "exited", "code": 137, "OOMKilled": True}, "was killed for want of memory"),
        ({"status": "dead", "code": 1}, "exited with code 1"),
    ],
)
def test_what_is_wrong_with_a_container(
    call: Call, docker: FakeDocker, state: dict[str, Any], expected: str
) -> None:
    docker.add("web", **state)
    with pytest.raises(ResourceError) as error:
        Ready().create(call, READY)
    assert expected in message(error).splitlines()[0]
    assert "(it wrote no logs)" in message(error)


def test_a_probe_that_never_succeeds_ends_at_the_deadline(call: Call, docker: FakeDocker) -> None:
    container = docker.add("web")
    container.probe = lambda: (1, b"first\nno such database\n")
    container.log = b"started"
    with pytest.raises(ResourceError) as error:
        Ready().create(call, {**READY, "deadline": 0.02})
    said = message(error)
    assert said.startswith("web: not ready after 0 s; the probe says: no such database\n")
    assert said.endswith("  started")


def test_a_probe_that_hangs_is_given_up(call: Call, docker: FakeDocker) -> None:
    released = threading.Event()
    container = docker.add("web")
    container.probe = lambda: (0 if released.wait(5) else 1, b"")
    with pytest.raises(ResourceError) as error:
        Ready().create(call, {**READY, "deadline": 0.05, "timeout": 0.1})
    released.set()
    assert "no answer within" in message(error)


def test_a_probe_that_cannot_run_is_told(call: Call, docker: FakeDocker) -> None:
    def no_such_program() -> tuple[int, bytes]:
        raise api_error(400, "exec: no such program")

    docker.add("web").probe = no_such_program
    with pytest.raises(ResourceError) as error:
        Ready().create(call, {**READY, "deadline": 0.01})
    assert "exec: no such program" in message(error)


def test_cancel_ends_the_wait(call: Call, docker: FakeDocker) -> None:
    docker.add("web").probe = lambda: (1, b"")
    threading.Timer(0.05, call.cancelled.set).start()
    started = time.monotonic()
    with pytest.raises(ResourceError, match="cancelled"):
        Ready().create(call, {**READY, "deadline": 60.0})
    assert time.monotonic() - started < 2


def test_a_container_that_is_gone(call: Call, docker: FakeDocker) -> None:
    with pytest.raises(ResourceError, match="web: its container is gone"):
        Ready().create(call, READY)


@pytest.mark.parametrize(
    ("state", "there"),
    [
        (None, False),
        ({}, True),
        ({"status": "exited"}, False),
        ({"status": "restarting"}, False),
        ({"Health": {"Status": "unhealthy"}}, False),
        ({"Health": {"Status": "starting"}}, True),
        ({"Health": {"Status": "healthy"}}, True),
    ],
)
def test_refresh_finds_what_no_longer_answers(
    call: Call, docker: FakeDocker, state: dict[str, Any] | None, there: bool
) -> None:
    if state is not None:
        docker.add("web", **state)
    assert (Ready().read(call, "id-web", READY) == READY) is there


# -- Job

FILES = [
    {"path": "/run/millrace/password", "content": "hunter2", "secret": True, "executable": False},
    {"path": "/etc/plan.sql", "content": "select 'ü';", "secret": False, "executable": False},
    {"path": "/etc/run.sh", "content": "#!/bin/sh", "secret": True, "executable": True},
]
JOB: dict[str, Any] = {
    "name": "millrace-test-roles",
    "image": "sha256:abc",
    "service": "postgres",
    "command": ["psql", "-f", "/etc/plan.sql"],
    "uid": 999.0,
    "env": {"TZ": "UTC"},
    "files": FILES,
    "tmpfs": {"/tmp": "rw"},
    "volumes": {"/var/lib/data": "p-s-data"},
    "networks": ["own", "other"],
    "labels": {"dev.millrace.stack": "millrace/test"},
    "memoryMib": 256.0,
    "cpus": 0.5,
    "timeout": 5.0,
    "triggers": [],
}


def ends(code: int, log: bytes = b"", **extra: Any) -> Any:
    def prepare(container: FakeContainer) -> None:
        container.steps = [{"status": "created"}, {}, {"status": "exited", "code": code, **extra}]
        container.log = log

    return prepare


def test_a_job_runs_confined_and_leaves_nothing(call: Call, docker: FakeDocker) -> None:
    docker.prepare = ends(0)
    id_, outs = Job().create(call, JOB)
    assert id_ == "millrace-test-roles"
    assert "files" not in outs
    (container,) = docker.created
    assert container.started
    assert docker.by_id == {}
    options = container.options
    host = options["host_config"]
    assert options["entrypoint"] == JOB["command"]
    assert options["user"] == "999"
    assert options["environment"] == {"TZ": "UTC"}
    assert host["Memory"] == host["MemorySwap"] == 256 * 1024 * 1024
    assert host["CpuQuota"] == 50_000
    assert host["CapDrop"] == ["ALL"]
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert host["NetworkMode"] == "own"
    assert docker.joined == [("other", "millrace-test-roles")]


def test_files_of_a_job_are_for_its_user(call: Call, docker: FakeDocker) -> None:
    docker.prepare = ends(0)
    Job().create(call, JOB)
    members = docker.created[0].members()
    assert {name: info.mode for name, info in members.items()} == {
        "run/millrace/password": 0o400,
        "etc/plan.sql": 0o444,
        "etc/run.sh": 0o500,
    }
    assert {(info.uid, info.gid) for info in members.values()} == {(999, 999)}
    assert members["etc/plan.sql"].size == len("select 'ü';".encode())


def test_what_a_job_warns_of_is_shown(call: Call, docker: FakeDocker) -> None:
    shown: list[str] = []
    docker.prepare = ends(0, b"made\nWARNING emptied, type it in\ndone\n")
    Job().create(replace(call, warn=shown.append), JOB)
    assert shown == [f"{JOB['service']}: emptied, type it in"]


def test_a_job_that_fails_shows_its_last_lines_and_runs_again(call: Call, docker: FakeDocker) -> None:
    docker.prepare = ends(2, b"connecting\nERROR: no such role")
    with pytest.raises(ResourceError) as error:
        Job().create(call, JOB)
    assert message(error) == (
        "postgres: job millrace-test-roles ended with exit code 2\n"
        "last 30 log lines:\n  connecting\n  ERROR: no such role"
    )
    assert docker.by_id == {}
    docker.prepare = ends(0)
    assert Job().create(call, JOB)


def test_a_job_that_ran_out_of_memory_says_so(call: Call, docker: FakeDocker) -> None:
    docker.prepare = ends(137, OOMKilled=True)
    with pytest.raises(ResourceError, match="was killed for want of memory"):
        Job().create(call, JOB)


def test_a_job_that_takes_too_long_is_ended(call: Call, docker: FakeDocker) -> None:
    docker.prepare = lambda container: container.become()
    with pytest.raises(ResourceError, match="postgres: job millrace-test-roles still ran after 0 s"):
        Job().create(call, {**JOB, "timeout": 0.02})
    assert docker.removed == ["millrace-test-roles"]


def test_a_cancelled_job_is_removed(call: Call, docker: FakeDocker) -> None:
    docker.prepare = lambda container: container.become()
    call.cancelled.set()
    with pytest.raises(ResourceError, match="cancelled"):
        Job().create(call, JOB)
    assert docker.by_id == {}


def test_what_an_interrupted_update_left_is_removed_first(call: Call, docker: FakeDocker) -> None:
    docker.add("millrace-test-roles").labels = dict(JOB["labels"])
    docker.prepare = ends(0)
    Job().create(call, JOB)
    assert docker.removed == ["millrace-test-roles"] * 2


def test_a_job_that_does_not_start(call: Call, docker: FakeDocker) -> None:
    def fail() -> None:
        raise api_error(400, 'exec: "psql": not found')

    def prepare(container: FakeContainer) -> None:
        container.on_start = fail

    docker.prepare = prepare
    with pytest.raises(ResourceError) as error:
        Job().create(call, JOB)
    assert message(error) == 'postgres: job millrace-test-roles did not start: exec: "psql": not found'
    assert docker.by_id == {}


def test_a_job_whose_container_somebody_removes(call: Call, docker: FakeDocker) -> None:
    def prepare(container: FakeContainer) -> None:
        container.become()
        container.on_start = lambda: docker.by_id.clear()

    docker.prepare = prepare
    with pytest.raises(ResourceError, match="somebody removed the container"):
        Job().create(call, JOB)


def test_a_removal_that_is_under_way_is_no_failure(call: Call, docker: FakeDocker) -> None:
    def busy(**_: Any) -> None:
        raise api_error(409, "removal of container is already in progress")

    def prepare(container: FakeContainer) -> None:
        ends(0)(container)
        container.remove = busy  # type: ignore[method-assign]

    docker.prepare = prepare
    assert Job().create(call, JOB)


def test_deleting_a_job_is_no_matter_when_it_is_gone(call: Call, docker: FakeDocker) -> None:
    Job().delete(call, "millrace-test-roles", JOB)
    docker.add("millrace-test-roles")
    Job().delete(call, "millrace-test-roles", JOB)
    assert docker.by_id == {}


# -- Network

NETWORK = {
    "name": "millrace-test-net", "pool": "10.213.0.0/22", "prefix": 24.0, "internal": True,
    "masquerade": False, "labels": {"dev.millrace.stack": "millrace/test"}, "cidr": None,
}  # fmt: skip


def named(name: str, **more: Any) -> dict[str, Any]:
    return {**NETWORK, "name": name, **more}


def test_the_first_free_range_is_taken(call: Call, docker: FakeDocker) -> None:
    docker.ranges = [("172.17.0.0/16", None), ("10.213.0.0/25", None), ("fd00::/64", None), ("", None)]
    id_, outs = Network().create(call, named("a"))
    assert (id_, outs["cidr"]) == ("id-a", "10.213.1.0/24")
    assert [Network().create(call, named(n))[1]["cidr"] for n in "bc"] == ["10.213.2.0/24", "10.213.3.0/24"]
    with pytest.raises(ResourceError, match=r"network.pool 10\.213\.0\.0/22: no free /24 range"):
        Network().create(call, named("d"))


def test_a_range_that_another_stack_got_first_is_passed_over(call: Call, docker: FakeDocker) -> None:
    docker.overlapping = {"10.213.0.0/24", "10.213.1.0/24"}
    assert Network().create(call, NETWORK)[1]["cidr"] == "10.213.2.0/24"
    docker.overlapping = {f"10.213.{n}.0/24" for n in range(4)}
    with pytest.raises(ResourceError, match="no free /24 range"):
        Network().create(call, named("b"))


def test_ranges_taken_at_the_same_time_differ(call: Call, docker: FakeDocker) -> None:
    props = {"pool": "10.213.0.0/16", "prefix": 27.0}
    with ThreadPoolExecutor(16) as pool:
        made = list(pool.map(lambda n: Network().create(call, named(f"n{n}", **props))[1], range(64)))
    assert len({outs["cidr"] for outs in made}) == 64


@pytest.mark.parametrize(
    ("internal", "masquerade", "options"),
    [
        (True, False, {"com.docker.network.bridge.inhibit_ipv4": "true"}),
        (False, False, {"com.docker.network.bridge.enable_ip_masquerade": "false"}),
        (False, True, {"com.docker.network.bridge.enable_ip_masquerade": "true"}),
    ],
)
def test_ways_out(call: Call, docker: FakeDocker, internal: bool, masquerade: bool, options: Any) -> None:
    Network().create(call, {**NETWORK, "internal": internal, "masquerade": masquerade})
    (network,) = docker.made_networks.values()
    assert network.options["internal"] is internal
    assert network.options["options"] == options


def test_a_leftover_of_this_stack_is_replaced_and_anothers_refused(call: Call, docker: FakeDocker) -> None:
    Network().create(call, NETWORK)
    docker.made_networks["id-millrace-test-net"].attrs["Containers"] = {"stranded": {}}
    Network().create(call, NETWORK)
    assert docker.made_networks["id-millrace-test-net"].attrs["Containers"] == {}
    with pytest.raises(ResourceError, match="not of this stack's state"):
        Network().create(call, {**NETWORK, "labels": {"dev.millrace.stack": "millrace/other"}})


def test_a_network_removed_by_hand_is_made_again(call: Call, docker: FakeDocker) -> None:
    id_, outs = Network().create(call, NETWORK)
    assert Network().read(call, id_, outs) == outs
    docker.made_networks.clear()
    assert Network().read(call, id_, outs) is None
    Network().delete(call, id_, outs)


def test_deleting_a_network_detaches_what_is_left_in_it(call: Call, docker: FakeDocker) -> None:
    id_, outs = Network().create(call, NETWORK)
    docker.made_networks[id_].attrs["Containers"] = {"stranded": {}}
    Network().delete(call, id_, outs)
    assert docker.made_networks == {}


# -- VolumeOwner

OWNER = {"volume": "data", "uid": 999.0, "image": "sha256:abc", "labels": {"a": "b"}}


def test_a_volume_gets_its_owner_without_a_process(call: Call, docker: FakeDocker) -> None:
    docker.add("data-owner")
    assert VolumeOwner().create(call, OWNER) == ("data", OWNER)
    (container,) = docker.created
    assert not container.started
    assert docker.by_id == {}
    assert container.options["network_mode"] == "none"
    assert container.options["volumes"] == {"data": {"bind": "/volume"}}
    (info,) = container.members().values()
    assert (info.name, info.mode, info.uid, info.gid, info.isdir()) == ("volume", 0o700, 999, 999, True)


def test_its_container_is_removed_whatever_happens(call: Call, docker: FakeDocker) -> None:
    def fail(*_: Any) -> bool:
        raise api_error(500, "no space left")

    def prepare(container: FakeContainer) -> None:
        container.put_archive = fail  # type: ignore[method-assign]

    docker.prepare = prepare
    with pytest.raises(Exception, match="no space left"):
        VolumeOwner().create(call, OWNER)
    assert docker.by_id == {}


def test_a_volume_that_was_removed_gets_its_owner_again(call: Call, docker: FakeDocker) -> None:
    assert VolumeOwner().read(call, "data", OWNER) == OWNER
    docker.volume_names.clear()
    assert VolumeOwner().read(call, "data", OWNER) is None


@pytest.mark.parametrize("resource", [Job(), VolumeOwner()])
def test_an_image_that_is_not_there(call: Call, docker: FakeDocker, resource: Any) -> None:
    docker.missing_images = {"sha256:abc"}
    with pytest.raises(Exception, match="image sha256:abc is not on the engine"):
        resource.create(call, {**JOB, **OWNER})
    assert docker.created == []


# -- what a reader sees meanwhile


def test_progress_is_shown_now_and_then(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    now = [100.0]
    monkeypatch.setattr("millrace.resources.time", type("Clock", (), {"monotonic": lambda: now[0]}))
    talker = Call(engine=call.engine, progress=shown.append, cancelled=threading.Event())
    for second in range(12):
        now[0] = 100.0 + second
        talker.say(f"waiting ({second} s)")
    assert shown == ["waiting (5 s)", "waiting (10 s)"]
