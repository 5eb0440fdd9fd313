"""The stack of all services as a whole: it converges, changes no more than asked, heals, leaves nothing.

This module runs last of those that share the stack; its last test destroys it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager

import pytest
from docker.models.containers import Container

from components.services import registry
from scripts import events
from tests.integration.stack import Stack, crash, healthy, wait_until

SERVICE = "dev.millrace.service"
KEYS = ("proxy", *registry())
HEAL_S = 600
"""Seconds until a killed container is healthy again, with others killed beside it on two cores."""


def service_of(container: Container) -> str:
    return str(container.labels[SERVICE])


def identities(stack: Stack) -> dict[str, tuple[str, str]]:
    """Service and id of each container by name."""
    return {c.name: (service_of(c), str(c.id)) for c in stack.containers()}


def skip_unless_up(stack: Stack, key: str) -> None:
    if key not in stack.config:
        pytest.skip(f"{key} is not among the services of this run")


def wait_healthy(containers: list[Container]) -> None:
    """Until all of them are; the error names those that are not."""
    try:
        wait_until(lambda: all(healthy(c) for c in containers), seconds=HEAL_S, every=2)
    except TimeoutError:
        ill = [c for c in containers if not healthy(c)]
        said = "\n".join(f"{c.name}: {c.attrs['State']}\n{c.logs(tail=30).decode()}" for c in ill)
        pytest.fail(f"not healthy after {HEAL_S} s:\n{said}")


def test_every_container_is_healthy(everything: Stack) -> None:
    wait_healthy(everything.containers())


def test_second_up_and_refresh_change_nothing(everything: Stack) -> None:
    """After all that the modules before this one have done with the services."""
    before = identities(everything)
    everything.no_change()
    assert identities(everything) == before


def more_cpus(stack: Stack, *keys: str) -> AbstractContextManager[None]:
    """The stack with another setting for these services, one that their containers alone depend on."""
    changes = {}
    for key in keys:
        own = stack.config[key]
        changes[key] = {**own, "cpus": round(own.get("cpus", 1.0) + 0.5, 1)}
    return stack.changed(**changes)


@pytest.mark.parametrize("key", KEYS)
def test_a_changed_setting_concerns_its_service_alone(
    everything: Stack, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told by a preview, which shows at least what an `up` would do: one for each service takes minutes."""
    skip_unless_up(everything, key)
    monkeypatch.setitem(everything.environment, "PULUMI_ENABLE_STREAMING_JSON_PREVIEW", "true")
    with more_cpus(everything, key):
        report = events.parse(everything.pulumi("preview", "--json", "--stack", everything.name).output)
    assert report.finished and not report.errors
    concerned = [step for step in report.steps if step.type == "docker:index/container:Container"]
    assert {step.kind for step in concerned} == {"replaced"}
    now = identities(everything)
    assert {now[f"{everything.prefix}-{step.name}"][0] for step in concerned} == {key}


def test_changed_settings_touch_their_services_alone(everything: Stack) -> None:
    """Those that most others use."""
    keys = {"proxy", "postgres", "object_store", "kafka"} & everything.config.keys()
    before = identities(everything)
    with more_cpus(everything, *keys):
        everything.up()
    after = identities(everything)
    assert after.keys() == before.keys()
    assert {service for name, (service, _) in after.items() if after[name] != before[name]} == keys


def test_settings_put_back_make_the_stack_as_before(everything: Stack) -> None:
    everything.up()
    wait_healthy(everything.containers())


# -- healing


@pytest.fixture(scope="module")
def killed(everything: Stack) -> dict[str, str]:
    """What became of each container after all its processes were killed, by name: "" or what went wrong.

    One container of every service at a time: with each alone it would take half an hour, and none may count
    on the others being there all the while anyway.
    """
    found: dict[str, str] = {}
    by_service: defaultdict[str, list[Container]] = defaultdict(list)
    for container in sorted(everything.containers(), key=lambda c: c.name):
        by_service[service_of(container)].append(container)
    for number in range(max(map(len, by_service.values()))):
        group = [own[number] for own in by_service.values() if number < len(own)]
        with ThreadPoolExecutor(len(group)) as pool:
            found |= dict(zip([c.name for c in group], pool.map(_killed, group), strict=True))
        wait_healthy(everything.containers())
    return found


def _killed(container: Container) -> str:
    def kill() -> bool:
        """Not while it is down: it may end by itself when another one of the group does."""
        crash(container)
        return True

    try:
        wait_until(kill, seconds=HEAL_S)
        wait_until(lambda: healthy(container), seconds=HEAL_S, every=1)
    except TimeoutError as error:
        return f"{error}: {container.attrs['State']}\n{container.logs(tail=30).decode()}"
    return ""


@pytest.mark.parametrize("key", ["portal", *KEYS])
def test_a_killed_container_heals(everything: Stack, killed: dict[str, str], key: str) -> None:
    if key != "portal":
        skip_unless_up(everything, key)
    own = [c.name for c in everything.containers() if service_of(c) == key]
    assert own
    assert {name: killed[name] for name in own} == dict.fromkeys(own, "")


def test_the_stack_is_as_before_the_kills(everything: Stack, killed: dict[str, str]) -> None:
    assert killed
    before = identities(everything)
    everything.no_change()
    assert identities(everything) == before
    answers = {}
    for name, entry in everything.outputs_once["urls"].items():
        host = re.sub(r"^https://|\..*$", "", entry["url"]) if name != "portal" else ""
        answers[name] = wait_until(lambda host=host: _status(everything, host))
    # An application's own login or API may refuse somebody it does not know; the proxy reaches all of them.
    assert {name: code for name, code in answers.items() if code >= 500} == {}


def _status(stack: Stack, host: str) -> int:
    code = stack.http(host, user="ada").status_code
    if code >= 500:
        raise RuntimeError(f"{host} answers {code}")
    return code


def test_nothing_remains_after_destroy(everything: Stack) -> None:
    assert everything.remains()
    everything.destroy()
    assert everything.remains() == []
