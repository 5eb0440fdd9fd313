"""The policy pack and the estimate on real previews and updates: what they refuse is not made."""

from __future__ import annotations

import textwrap
from collections.abc import Callable

import pytest

from tests.integration.conftest import USERS
from tests.integration.stack import Stack, proxy_ports

PACK = ("--policy-pack", "policies/run")
TOKEN = "correct-horse-battery"

PROGRAM = textwrap.dedent(
    """
    import pulumi
    import pulumi_random as random

    token = pulumi.Config("millrace").require("token")
    password = random.RandomPassword("password", length=20)
    random.RandomId("plain", byte_length=4, keepers={"of": f"token {token}"})
    random.RandomId("marked", byte_length=4, keepers={"of": pulumi.Output.secret(token)})
    pulumi.export("leaked", pulumi.Output.unsecret(password.result))
    pulumi.export("kept", password.result)
    """
)


@pytest.fixture(scope="module")
def small(new_stack: Callable[..., Stack]) -> Stack:
    """A database behind the proxy, not up."""
    ports = proxy_ports()
    return new_stack({"proxy": ports, "users": USERS, "postgres": {}})


def test_a_stack_that_keeps_the_rules_is_previewed(small: Stack) -> None:
    run = small.pulumi("preview", "--stack", small.name, *PACK)
    assert "✅ millrace@" in run.output
    assert "mandatory" not in run.output


def test_a_violation_fails_the_preview_and_names_resource_and_rule(small: Stack) -> None:
    with small.changed(policies={"production": True}):
        run = small.pulumi("preview", "--stack", small.name, *PACK, check=False)
    assert run.code != 0
    assert "❌ millrace@" in run.output
    assert "[mandatory]  protected-data  (docker:index:Volume: postgres-data)" in run.output
    assert "postgres-data holds data and is not protected - set millrace:protect_data" in run.output
    assert run.output.count("[mandatory]") == 1
    with small.changed(policies={"production": True}, protect_data=True):
        small.pulumi("preview", "--stack", small.name, *PACK)


def test_an_up_that_cannot_fit_is_refused_before_anything_is_made(small: Stack) -> None:
    memory = small.docker.info()["MemTotal"] // 2**20
    with small.changed(capacity={"reserve_mib": memory}):
        run = small.up_fails()
        assert f"has {memory} MiB of memory, too little for" in run.output
        assert f"{small.file.name}: millrace:target: Docker engine " in run.output
        assert "Traceback" not in run.output
        assert small.remains() == []
    with small.changed(capacity={"reserve_mib": memory, "enforce": False}):
        run = small.pulumi("preview", "--stack", small.name)
        assert "warning: " in run.output
        assert f"has {memory} MiB of memory, too little for" in run.output


def test_secrets_in_plain_are_found_by_their_marks_and_by_the_configuration(
    new_stack: Callable[..., Stack],
) -> None:
    stack = new_stack({}, name="leaking")
    (stack.folder / "__main__.py").unlink()
    (stack.folder / "__main__.py").write_text(PROGRAM)
    stack.pulumi("config", "set", "--secret", "millrace:token", TOKEN, "--stack", stack.name)
    run = stack.pulumi("preview", "--stack", stack.name, *PACK, check=False)
    assert run.code != 0
    assert "no-plain-secrets  (random:index:RandomId: plain)" in run.output
    assert "plain has a secret of the stack's configuration in plain in keepers.of" in run.output
    assert "RandomId: marked" not in run.output
    assert TOKEN not in run.output
    program = PROGRAM.replace('"token {token}"', '"nothing"')
    (stack.folder / "__main__.py").write_text(program)
    run = stack.pulumi("up", "--yes", "--skip-preview", "--stack", stack.name, *PACK, check=False)
    assert run.code != 0
    assert "no-plain-secrets-anywhere  (pulumi:pulumi:Stack: " in run.output
    assert "has a secret in plain in leaked - mark it" in run.output
    (stack.folder / "__main__.py").write_text(program.replace("unsecret(", "secret("))
    stack.up(*PACK)
