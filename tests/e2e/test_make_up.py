"""A new user's way: clone, `make up`, open the URLs, plain Pulumi, `make down`."""

from __future__ import annotations

import ssl
from typing import Any

import httpx
import yaml

from tests.e2e.checkout import LOOPBACK, PREFIX, STACK, Checkout
from tests.integration.stack import ANSWER_S

OWN_LOGIN = {"airflow-api", "presto", "s3", "sharing", "spark-api"}
"""Sites for programs, which have tokens or passwords of their own."""


def test_table_says_where_who_and_how(up: tuple[Checkout, str]) -> None:
    checkout, printed = up
    for name, entry in checkout.outputs()["urls"].items():
        (row,) = [line for line in printed.splitlines() if line.startswith(f"{name} ")]
        assert entry["url"] in row
        assert entry["access"] in row
    assert "pulumi stack output credentials --show-secrets" in printed
    for password in checkout.outputs()["credentials"]["users"].values():
        assert password not in printed


def test_every_url_answers_over_verified_tls(up: tuple[Checkout, str]) -> None:
    checkout, _ = up
    outputs = checkout.outputs()
    ranks = {"user": "analyst", "engineer": "engineer", "admin": "admin"}
    context = ssl.create_default_context(cadata=outputs["ca_certificate"])
    with httpx.Client(verify=context, trust_env=False, timeout=ANSWER_S) as client:
        for name, entry in outputs["urls"].items():
            url = httpx.URL(entry["url"])
            target = url.copy_with(host="127.0.0.1")
            request: dict[str, Any] = {
                "headers": {"Host": f"{url.host}:{url.port}"}, "extensions": {"sni_hostname": url.host},
            }  # fmt: skip
            stranger = client.get(target, **request)
            if name in OWN_LOGIN:
                # They answer for themselves: with a page to log in, a refusal, or nothing at the root.
                assert stranger.status_code in (200, 303, 307, 401, 403, 404), name
                continue
            assert stranger.status_code == 401, name
            user = ranks[entry["access"]]
            answer = client.get(target, auth=(user, outputs["credentials"]["users"][user]), **request)
            # Some lead on to their start page.
            assert answer.status_code in (200, 302, 307), (name, answer.status_code)


def test_checkout_stays_clean(up: tuple[Checkout, str]) -> None:
    checkout, _ = up
    assert checkout.run("git", "status", "--porcelain").split() == ["??", f"Pulumi.{STACK}.yaml"]


def test_again_changes_nothing(up: tuple[Checkout, str]) -> None:
    checkout, _ = up
    before = {c.id for c in checkout.containers()}
    assert before
    checkout.make("up")
    assert {c.id for c in checkout.containers()} == before


def test_plain_pulumi_works(up: tuple[Checkout, str]) -> None:
    checkout, _ = up
    checkout.pulumi("preview", "--expect-no-changes")
    checkout.pulumi("up", "--yes", "--expect-no-changes")


def test_only_the_proxy_publishes(up: tuple[Checkout, str]) -> None:
    checkout, _ = up
    asked = {checkout.config[service]["loopback_port"] for service in LOOPBACK}
    published = {
        (c.name.removeprefix(PREFIX), binding["HostPort"])
        for c in checkout.containers()
        for bindings in (c.attrs["HostConfig"]["PortBindings"] or {}).values()
        for binding in bindings
        if not (binding["HostIp"] == "127.0.0.1" and int(binding["HostPort"]) in asked)
    }
    assert {name for name, _ in published} == {"proxy"}
    assert len(published) == 2


def test_mistake_in_the_stack_file_is_one_line(up: tuple[Checkout, str]) -> None:
    checkout, _ = up
    file = checkout.folder / f"Pulumi.{STACK}.yaml"
    good = file.read_text()
    try:
        file.write_text(good.replace("read-only", "read-onyl", 1))
        printed = checkout.make("up", code=2)
    finally:
        file.write_text(good)
    assert f"Pulumi.{STACK}.yaml: millrace:postgres.roles[2].grants[0].privilege: must be" in printed
    assert 'did you mean "read-only"?' in printed
    assert "Traceback" not in printed


def test_make_up_does_not_delete_data_unasked(up: tuple[Checkout, str]) -> None:
    checkout, _ = up
    file = checkout.folder / f"Pulumi.{STACK}.yaml"
    good = file.read_text()
    document = yaml.safe_load(good)
    for key in ("demo", "kafka"):  # the one needs the other
        del document["config"][f"millrace:{key}"]
    try:
        file.write_text(yaml.safe_dump(document))
        printed = checkout.make("up", code=2)
    finally:
        file.write_text(good)
    assert f"without the key millrace:kafka its data would be deleted ({PREFIX}kafka-1-data)" in printed
    checkout.docker.volumes.get(f"{PREFIX}kafka-1-data")
