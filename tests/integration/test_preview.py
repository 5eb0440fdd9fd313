"""`make preview` and the drift check on a real stack, first with state in the checkout, then in a bucket."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from minio import Minio

from components.images import built_reference
from tests.integration.checkout import Checkout
from tests.integration.stack import PROJECT, free_port, proxy_ports, wait_until

_STACK = "tiny"


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    return {
        "users": [{"name": "ada", "role": "admin"}],
        "proxy": proxy_ports(),
        "postgres": {"memory_mib": 256, "roles": [{"name": "reader"}]},
    }


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory, config: dict[str, Any]) -> Iterator[Checkout]:
    made = Checkout(tmp_path_factory.mktemp("preview") / "checkout", f"{PROJECT}-p")
    made.configure(_STACK, config)
    yield made
    made.configure(_STACK, config)
    made.run("scripts/run", "up", "--command", "down", "--stack", _STACK)


def preview(checkout: Checkout, *, code: int = 0, **environment: str) -> str:
    """The summary as Markdown, after the command ended as it should."""
    file = checkout.folder / ".millrace" / "preview" / f"{_STACK}.md"
    file.unlink(missing_ok=True)
    run = checkout.run("make", "preview", f"STACK={_STACK}", check=False, **environment)
    assert (run.code != 0) == (code != 0), run.output
    assert file.is_file(), run.output
    return file.read_text()


def test_from_nothing_to_no_change(checkout: Checkout) -> None:
    text = preview(checkout)
    assert text.startswith("## `tiny`: ") and " created\n" in text.splitlines()[0] + "\n"
    assert "- created: volume `postgres-data`" in text and "CAUTION" not in text
    checkout.run("make", "up", f"STACK={_STACK}")
    assert "## `tiny`: no changes" in preview(checkout)


def test_a_limit_changes_a_service_comes_and_one_goes_with_its_data(
    checkout: Checkout, config: dict[str, Any]
) -> None:
    changed = {key: value for key, value in config.items() if key != "postgres"}
    changed["proxy"] = {**config["proxy"], "memory_mib": 160}
    changed["object_store"] = {"memory_mib": 384, "buckets": [{"name": "raw"}]}
    checkout.configure(_STACK, changed)
    text = preview(checkout)
    first = text.split("\n\n")[1]
    assert first.startswith("> [!CAUTION]\n> **Data would be lost**")
    assert "**volume `postgres-data` of postgres is deleted, and everything in it is lost**" in first
    assert "- created: volume `object-store-data`" in text
    (proxy,) = [line for line in text.splitlines() if line.startswith("- container `proxy` ")]
    assert "memory limit (MiB): `128` → `160`" in proxy


def test_a_policy_refuses(checkout: Checkout, config: dict[str, Any]) -> None:
    moving = {**config["postgres"], "image": "docker.io/library/postgres:latest"}
    checkout.configure(_STACK, {**config, "postgres": moving})
    text = preview(checkout, code=1)
    assert text.startswith("## `tiny`: refused by 1 policy")
    (row,) = [line for line in text.splitlines() if "`image-pinned`" in line]
    assert row.startswith("| `image-postgres-custom` | `image-pinned` |") and "postgres:latest" in row


def test_a_mistake_is_told_and_fails(checkout: Checkout, config: dict[str, Any]) -> None:
    checkout.configure(_STACK, {**config, "users": [{"name": "ada", "role": "admn"}]})
    text = preview(checkout, code=1)
    assert 'Pulumi.tiny.yaml: millrace:users[0].role: must be "user", "engineer" or "admin"' in text
    assert "Traceback" not in text


def test_what_was_done_by_hand_is_found(checkout: Checkout, config: dict[str, Any]) -> None:
    checkout.configure(_STACK, config)
    engine = docker.from_env()
    engine.containers.get(f"{checkout.project}-{_STACK}-portal").remove(force=True)
    engine.containers.get(f"{checkout.project}-{_STACK}-postgres").update(
        mem_limit="300m", memswap_limit="300m"
    )
    run = checkout.run("scripts/run", "drift", "--stack", _STACK, check=False)
    assert run.code == 1
    assert "container portal (proxy): is gone" in run.output
    assert "container postgres (postgres): memory limit (MiB): 256 → 300" in run.output
    text = preview(checkout)
    assert "### Drift" in text and "- container `portal` (proxy): is gone" in text
    checkout.run("make", "up", f"STACK={_STACK}")
    assert "no drift" in checkout.run("scripts/run", "drift", "--stack", _STACK).output


def test_no_secret_is_shown(checkout: Checkout, config: dict[str, Any]) -> None:
    """Of a stack whose passwords all change."""
    plain = checkout.pulumi("stack", "output", "--json", "--show-secrets", "--stack", _STACK).output
    secrets = set(_texts(json.loads(plain)["credentials"]))
    assert len(secrets) >= 2
    checkout.configure(_STACK, {**config, "rotation": {"all": "1"}})
    text = preview(checkout)
    assert "**`users-ada` gets a new value" in text and "**`postgres-reader` gets a new value" in text
    assert not [secret for secret in secrets if secret in text]
    checkout.configure(_STACK, config)


def _texts(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for value in node.values():
            yield from _texts(value)
    elif isinstance(node, str):
        yield node


# State in a bucket of the platform's own kind of object store, elsewhere


@pytest.fixture(scope="module")
def bucket() -> Iterator[dict[str, str]]:
    """Environment variables for a bucket on a MinIO server."""
    port, key, secret = free_port(), "state", "password-of-the-state"
    engine = docker.from_env()
    server = engine.containers.run(
        built_reference("minio"), ["server", "/tmp/data"], entrypoint="minio", detach=True,
        name=f"{PROJECT}-p-state", ports={"9000/tcp": ("127.0.0.1", port)},
        environment={"MINIO_ROOT_USER": key, "MINIO_ROOT_PASSWORD": secret},
    )  # fmt: skip
    try:
        client = Minio(f"127.0.0.1:{port}", key, secret, secure=False)
        wait_until(lambda: client.list_buckets() is not None)
        client.make_bucket("millrace-state")
        address = f"s3://millrace-state?endpoint=http://127.0.0.1:{port}&use_path_style=true"
        yield {
            # As docs/state.md has it.
            "PULUMI_BACKEND_URL": f"{address}&request_checksum_calculation=when_supported",
            "AWS_ACCESS_KEY_ID": key,
            "AWS_SECRET_ACCESS_KEY": secret,
            "AWS_REGION": "us-east-1",
        }
    finally:
        server.remove(force=True, v=True)


def test_a_stack_moves_into_a_bucket(
    checkout: Checkout, bucket: dict[str, str], config: dict[str, Any], tmp_path: Path
) -> None:
    """As docs/state.md says: export, import, and a second checkout goes on from there."""
    checkout.configure(_STACK, config)
    script = _documented("<!-- tested: migrate -->", stack=_STACK)
    checkout.run("bash", "-euc", f"PATH=$PWD/.millrace/bin:$PATH\n{script}", **bucket)
    assert "## `tiny`: no changes" in preview(checkout, **bucket)
    # Another person's checkout: no state, no salt in the stack file, the team's passphrase.
    other = Checkout(tmp_path / "other", checkout.project)
    other.configure(_STACK, config)
    team = {
        **bucket,
        "PULUMI_CONFIG_PASSPHRASE": (checkout.folder / ".millrace/passphrase").read_text().strip(),
    }
    assert "## `tiny`: no changes" in preview(other, **team)
    assert not (other.folder / ".millrace" / "state").exists()
    other.configure(_STACK, {**config, "postgres": {**config["postgres"], "memory_mib": 288}})
    other.run("make", "up", f"STACK={_STACK}", **team)
    container = docker.from_env().containers.get(f"{checkout.project}-{_STACK}-postgres")
    assert container.attrs["HostConfig"]["Memory"] == 288 * 2**20
    # A wrong passphrase is one line.
    text = preview(other, code=1, **{**team, "PULUMI_CONFIG_PASSPHRASE": "wrong"})
    assert "incorrect passphrase" in text and "Traceback" not in text
    other.run("scripts/run", "up", "--command", "down", "--stack", _STACK, **team)


def _documented(mark: str, **names: str) -> str:
    """A shell block of docs/state.md, with other names."""
    page = Path(__file__).resolve().parents[2] / "docs" / "state.md"
    text = page.read_text().split(mark)[1].split("```sh\n")[1].split("```")[0]
    return text.replace("staging", names["stack"])
