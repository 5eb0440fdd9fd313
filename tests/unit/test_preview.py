"""What `make preview` says: of recorded previews, planted secrets, environments that can't be looked at.

The documents in ``previews/`` are event streams of a real stack (Postgres, proxy, portal), shortened to
what the summary reads.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from scripts import (
    drift,
    environments,
    estimate,
    events,
    mistakes,
    needs,
    preview,
    results,
    risks,
    setup,
    summary,
    terminal,
    up,
    words,
)
from scripts.console import SetupError

ROOT = Path(__file__).resolve().parents[2]
RECORDED = Path(__file__).parent / "previews"
PLANTED = "hunter2-planted-secret"


def report(name: str) -> events.Report:
    """A recorded preview."""
    return events.parse((RECORDED / f"{name}.jsonl").read_text())


def told(name: str) -> str:
    """The summary of a recorded preview, as Markdown."""
    return summary.of_preview("dev", report(name)).markdown


def loud(text: str) -> str:
    """What stands in the boxes on top."""
    return "\n".join(line for line in text.splitlines() if line.startswith(">"))


# Recorded previews


def test_no_change() -> None:
    found = summary.of_preview("dev", report("no-change"))
    assert found.markdown == "## `dev`: no changes\n"
    assert not found.failed and not found.loss
    assert report("no-change").unchanged == 32


def test_added_service() -> None:
    text = told("added-service")
    assert text.startswith("## `dev`: 13 created, 2 changed, 2 replaced\n")
    assert "| object-store | 9 |  |  |  |" in text
    assert "- created: volume `object-store-data`" in text
    assert "- container `proxy` replaced: networks: `millrace-dev-proxy--object-store` added" in text
    assert not loud(text)


def test_changed_limit() -> None:
    text = told("changed-limit")
    assert "- container `postgres` replaced: memory limit (MiB): `512` → `768`" in text
    assert "- job `postgres-setup` replaced: follows from another change" in text
    assert "1 that follows from others: readiness checks," in text and "postgres-ready" not in text
    assert not loud(text), "a container's replacement loses nothing"


def test_replaced_volume_is_loud() -> None:
    found = summary.of_preview("dev", report("replaced-volume"))
    assert found.loss and not found.failed
    first, box = found.markdown.split("\n\n")[:2]
    assert first == "## `dev`: 1 replaced"
    assert box.splitlines() == [
        "> [!CAUTION]",
        "> **Data would be lost**",
        ">",
        "> - **volume `postgres-data` of postgres is replaced, and everything in it is lost**",
    ]


def test_removed_service_is_loud() -> None:
    text = told("removed-service")
    assert "> - **volume `postgres-data` of postgres is deleted, and everything in it is lost**" in text
    assert "> - **removed with postgres: `postgres-superuser`, `postgres-server`, `postgres-shop`**" in text
    assert text.index("Data would be lost") < text.index("Credentials") < text.index("### Changes")


def test_rotated_credential_is_on_top() -> None:
    text = told("rotated-credential")
    assert loud(text).count("`postgres-shop` gets a new value") == 1, "password and salt are one credential"
    assert (
        "- password `credential-postgres-shop-password` replaced: a new value, asked for by `rotation`"
        in text
    )


def test_policy_violation_fails_and_names_resource_and_rule() -> None:
    found = summary.of_preview("dev", report("policy-violation"))
    assert found.failed
    text = found.markdown
    assert text.startswith("## `dev`: refused by 1 policy\n")
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert rows[1].startswith(
        "| `postgres` | `memory-limit` | A container has a memory limit. container postgres"
    )
    assert "| `postgres-data` | `volumes-protected` (advice) |" in text
    assert "| the whole stack | `owner` (advice) |" in text
    assert "memory limit (MiB): `512` → `768`" in text, "what it is about is there as well"


def test_advice_does_not_fail() -> None:
    violations = tuple(v for v in report("policy-violation").violations if not v.mandatory)
    found = summary.of_preview("dev", events.Report(violations=violations, finished=True))
    assert len(violations) == 2 and not found.failed
    assert "volumes-protected" in found.markdown


def test_drift_is_in_the_preview() -> None:
    text = told("drifted-preview")
    assert "- container `portal` (proxy): is gone" in text
    assert "- container `postgres` (postgres): memory limit (MiB): `512` → `300`" in text
    assert "- container `postgres` changed: memory limit (MiB): `300` → `512`" in text


def test_drift() -> None:
    found = summary.of_drift("dev", report("drift"))
    assert found.failed and not found.loss
    assert found.headline == "drift: 1 changed, 1 deleted"
    assert "- container `portal` (proxy): is gone" in found.markdown


def test_no_drift() -> None:
    found = summary.of_drift("dev", events.Report(finished=True))
    assert not found.failed and found.headline == "no drift"


def test_there_is_no_drift_where_nothing_is() -> None:
    """Never brought up: that all is as `up` made it would be a lie."""
    urn = "urn:pulumi:dev::millrace::pulumi:providers:docker::engine"
    meta = {"urn": urn, "op": "refresh", "type": "pulumi:providers:docker", "new": {"custom": True}}
    ended = {"summaryEvent": {"result": "succeeded"}}
    for stream in ([ended], [{"resourcePreEvent": {"metadata": meta}}, ended]):
        found = summary.of_drift("dev", events.read(stream))
        assert not found.failed and found.headline == "nothing to compare"
        assert "never brought up" in found.body
    meta |= {"urn": urn.replace("pulumi:providers:docker", CONTAINER), "type": CONTAINER}
    found = summary.of_drift("dev", events.read([{"resourcePreEvent": {"metadata": meta}}, ended]))
    assert found.headline == "no drift"


def test_that_a_program_ended_is_said_only_where_nothing_else_is() -> None:
    exit_ = "an unhandled error occurred: program exited with non-zero exit code: 1"
    last, why = (
        {"diagnosticEvent": {"severity": "error", "message": text}}
        for text in (exit_, "Pulumi.qa.yaml: millrace:app: unknown key")
    )
    assert "exit code" not in said(why, last).markdown
    assert exit_ in said(last).markdown


def test_a_volume_that_is_gone_is_loud() -> None:
    urn = "urn:pulumi:dev::millrace::millrace:services:Kafka$docker:index/volume:Volume::kafka-1-data"
    found = summary.of_drift(
        "dev", events.Report(drift=(events.Step(kind="deleted", urn=urn),), finished=True)
    )
    assert (
        found.loss and "**volume `kafka-1-data` of kafka is gone, with everything in it**" in found.markdown
    )


# Made-up events


def step(op: str, type_: str, name: str, **more: Any) -> dict[str, Any]:
    """An event of a resource of Postgres."""
    urn = f"urn:pulumi:dev::millrace::millrace:services:Postgres${type_}::{name}"
    old = {
        "custom": True,
        "type": type_,
        "inputs": more.pop("old", {}),
        "outputs": {},
        **more.pop("state", {}),
    }
    new = {"custom": True, "type": type_, "inputs": more.pop("new", {}), "outputs": {}}
    meta = {"op": op, "urn": urn, "type": type_, "old": old, "new": new if op != "delete" else None, **more}
    return {"resourcePreEvent": {"metadata": meta}}


def said(*happened: dict[str, Any], estimate: dict[str, Any] | None = None) -> summary.Summary:
    """The summary of these events."""
    done = {"summaryEvent": {"result": "succeeded"}}
    return summary.of_preview("dev", events.read([*happened, done]), estimate)


CONTAINER, VOLUME = "docker:index/container:Container", "docker:index/volume:Volume"


def test_secrets_are_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted where nobody marked them: by name, in an address, as a key, in messages."""
    monkeypatch.setenv("DIGITALOCEAN_TOKEN", f"{PLANTED}-of-the-environment")
    wrapper = {"4dabf18193072939515e22adb298388d": "1b47061264138c4ac30d75fd1eb44270", "plaintext": PLANTED}
    key = f"-----BEGIN RSA PRIVATE KEY-----\n{PLANTED}\n-----END RSA PRIVATE KEY-----"
    changes = {
        "uploads": ({"content": "x"}, wrapper),
        "envs": (["A=1", f"DB_PASSWORD={PLANTED}1"], ["A=2", f"DB_PASSWORD={PLANTED}2"]),
        "command": (["a"], [f"postgres://u:{PLANTED}@host/db"]),
        "entrypoints": (["run"], ["run", f"--password={PLANTED}"]),
        "keyPem": ("old", PLANTED),
        "note": ("old", key),
        "labels": ([], [{"label": "api_key", "value": PLANTED}]),
        "domainname": ("a", f"b {PLANTED}-of-the-environment"),
    }
    event = step(
        "update", CONTAINER, "postgres",
        old={k: v[0] for k, v in changes.items()}, new={k: v[1] for k, v in changes.items()},
        diffs=list(changes),
    )  # fmt: skip
    message = f"no login at https://u:{PLANTED}@host with {PLANTED}-of-the-environment: {key}"
    found = said(
        event,
        {"policyEvent": {"policyName": "p", "message": message, "enforcementLevel": "mandatory"}},
        {"diagnosticEvent": {"severity": "error", "message": message}},
        {"diagnosticEvent": {"severity": "warning", "message": message}},
    )
    assert PLANTED not in found.markdown
    assert PLANTED not in terminal.render(found.markdown, colour=True)
    assert PLANTED not in summary.impossible("dev", message).markdown
    for name in changes:
        title = {"uploads": "configuration files", "envs": "environment"}.get(name, name)
        assert title in found.markdown, f"{name} is not even mentioned"
    assert "environment A: `1` → `2`" in found.markdown
    assert "environment DB_PASSWORD: secret value changes" in found.markdown


def test_values_cannot_forge_markup() -> None:
    evil = "x`</details>\n\n# Approved @everyone ![](https://evil.example/p.png) | b"
    found = said(
        step("update", CONTAINER, "postgres", old={"user": "a"}, new={"user": evil}, diffs=["user"]),
        {"policyEvent": {"policyName": "p", "message": evil, "enforcementLevel": "mandatory"}},
    )
    outside = re.sub(r"`[^`\n]*`", "", found.markdown)
    assert "# Approved" not in re.sub(r"\\#", "", outside)
    assert "](https" not in outside.replace("\\]", "") and "@everyone" not in outside


def test_caches_and_kept_volumes_are_not_cried_over() -> None:
    cache = {"labels": [{"label": risks.NO_DATA, "value": "false"}]}
    found = said(step("delete", VOLUME, "bi-cache", old=cache))
    assert not found.loss and not loud(found.markdown)
    found = said(step("delete", VOLUME, "postgres-data", state={"retainOnDelete": True}))
    assert "the host keeps it" in loud(found.markdown) and not found.loss
    found = said(step("replace", VOLUME, "postgres-data", state={"protect": True}))
    assert "is protected, so `up` will refuse" in loud(found.markdown) and not found.loss


@pytest.mark.parametrize(
    ("type_", "words_"),
    [
        ("digitalocean:index/volume:Volume", "everything on it is lost"),
        ("digitalocean:index/databaseCluster:DatabaseCluster", "its databases are lost"),
        ("digitalocean:index/spacesBucket:SpacesBucket", "its objects are lost"),
        ("digitalocean:index/droplet:Droplet", "the host is down until the new one is ready"),
        ("tls:index/privateKey:PrivateKey", "gets a new value"),
        ("digitalocean:index/spacesKey:SpacesKey", "gets a new value"),
    ],
)
def test_what_holds_data_or_carries_the_platform_is_loud(type_: str, words_: str) -> None:
    found = said(step("replace", type_, "thing", keys=["region"]))
    assert words_ in loud(found.markdown)


def test_needs() -> None:
    estimate = {
        "disk_mb": 12126, "memory_mib": 5400, "limit_mib": 12595, "monthly_usd": 68.0,
        "host": {"name": "Droplet s-4vcpu-8gb", "memory_mib": 7900},
        "costs": [
            {"what": "Droplet s-4vcpu-8gb", "monthly_usd": 48.0},
            {"what": "volume 200 GiB", "monthly_usd": 20.0},
            {"what": "snapshots", "monthly_usd": None},
        ],
        "problems": ["it needs more than it has"], "warnings": [],
    }  # fmt: skip
    text = said(estimate=estimate).markdown
    assert "- Memory: 5.3 GiB expected, 12.3 GiB at most, of 7.7 GiB that Droplet s-4vcpu-8gb has" in text
    assert "- Cost: 68.00 USD a month before tax (Droplet s-4vcpu-8gb 48.00, volume 200 GiB 20.00)" in text
    assert "- Without a known price: snapshots" in text
    assert "- **it needs more than it has**" in text


def test_needs_that_could_not_be_estimated_are_said_once() -> None:
    text = said(estimate={"failed": "Pulumi.qa.yaml: millrace:demo: wrong"}).markdown
    assert "### Needs" in text and "millrace:demo: wrong" in text
    error = {"diagnosticEvent": {"severity": "error", "message": "Pulumi.qa.yaml: millrace:demo: wrong"}}
    assert said(error, estimate={"failed": "millrace:demo: wrong"}).markdown.count("wrong") == 1


def test_why_a_command_gave_no_json() -> None:
    assert results.json_of([sys.executable, "-c", "print('{}')"]) == {}
    assert results.json_of([sys.executable, "-c", "raise OSError('gone')"]) == {"failed": "OSError: gone"}


def test_needs_of_a_rented_host(capsys: pytest.CaptureFixture[str]) -> None:
    """As the stack file of production has it; nobody is asked for it."""
    assert needs._main("prod") == 0
    found = json.loads(capsys.readouterr().out)
    shown = summary.impossible("prod", "no plugin", estimate=found).markdown
    assert shown.startswith("## `prod`: not previewed\n\nno plugin\n\n### Needs\n\n- Memory: ")
    assert re.search(
        r"^- Disk: [\d.]+ GB still to be stored, of [\d.]+ GB that are free$", shown, re.MULTILINE
    )
    cost = re.search(
        r"^- Cost: ([\d.]+) USD a month before tax, prices of \d{4}-\d\d-\d\d", shown, re.MULTILINE
    )
    assert cost and float(cost[1]) == pytest.approx(found["monthly_usd"]) and float(cost[1]) > 50


def test_a_failed_program_is_told_with_its_words() -> None:
    error = "Pulumi.dev.yaml: millrace:users[1].role: must be ..."
    found = summary.of_preview(
        "dev", events.read([{"diagnosticEvent": {"severity": "error", "message": error}}])
    )
    assert found.failed and found.headline == "the preview failed"
    assert error in found.markdown


def test_a_run_without_events_is_told_with_its_messages() -> None:
    found = results.with_error(events.Report(), "error: incorrect passphrase\n")
    assert found.errors == ("incorrect passphrase",)
    assert summary.of_preview("dev", found).failed


def test_noise_is_not_taken_for_events() -> None:
    assert events.parse('warning: something\n{"broken": \n[1]\n{"cancelEvent": {}}\n') == events.Report()


@pytest.mark.parametrize("name", [file.stem for file in sorted(RECORDED.glob("*.jsonl"))])
def test_terminal_has_all_words_and_no_markup(name: str) -> None:
    text = terminal.render(told(name), colour=False)
    assert "`" not in text and "**" not in text and "[!" not in text and "|--" not in text
    words_ = set(re.findall(r"[\w-]+", re.sub(r"\[!\w+\]|--:", "", told(name))))
    assert {word for word in words_ if not set(word) <= {"-", "_"}} <= set(re.findall(r"[\w-]+", text))


# Which environments


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with three stack files, outside of continuous integration."""
    for module in (environments, environments.target, environments.stack_module):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(preview, "FOLDER", tmp_path / "preview")
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.delenv("PULUMI_BACKEND_URL", raising=False)
    (tmp_path / "Pulumi.yaml").write_text((ROOT / "Pulumi.yaml").read_text())
    (tmp_path / "Pulumi.dev.yaml").write_text("config:\n  millrace:users: []\n")
    (tmp_path / "Pulumi.staging.yaml").write_text(
        "config:\n  millrace:target:\n    host: ssh://deploy@stage.example.com:22\n"
    )
    (tmp_path / "Pulumi.prod.yaml").write_text("config:\n  millrace:target:\n    kind: digitalocean\n")
    return tmp_path


def test_environments_are_told_by_their_files(checkout: Path) -> None:
    found = {name: environments.read(name) for name in environments.names()}
    assert {name: e.where for name, e in found.items()} == {
        "dev": "local",
        "prod": "digitalocean",
        "staging": "ssh://stage.example.com:22",
    }
    assert [name for name, e in found.items() if e.deployed] == ["prod", "staging"]


def test_the_documentation_shows_environments_that_are_there() -> None:
    block = (ROOT / "docs" / "environments.md").read_text().split("```text\n")[1].split("```")[0]
    for line in block.splitlines():
        name, where = line.split()
        assert environments.read(name).where == where


def test_stacks_are_chosen_by_name(checkout: Path) -> None:
    assert environments.chosen("all") == ["dev", "prod", "staging"]
    assert environments.chosen("prod, dev") == ["prod", "dev"]
    with pytest.raises(
        SetupError, match=r"stack qa: there is no Pulumi\.qa\.yaml \(there is: dev, prod, staging\)"
    ):
        environments.chosen("dev qa")


@pytest.mark.parametrize("command", [preview, drift, estimate])
@pytest.mark.parametrize("argument", ["", " , "])
def test_an_empty_stack_is_told(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, command: ModuleType, argument: str
) -> None:
    """`make preview STACK=$UNSET`: nothing that was looked at is no success."""
    monkeypatch.setattr("sys.argv", ["command", "--stack", argument])
    with pytest.raises(SetupError, match=r"^no stack is named: .*\(there is: dev, prod, staging\)$"):
        command._main()


def test_the_estimate_says_which_stacks_there_are(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for argument, words_ in (("qa", r"no Pulumi\.qa\.yaml \(there is: dev,"), ("dev prod", "name one stack")):
        monkeypatch.setattr("sys.argv", ["estimate", "--stack", argument])
        with pytest.raises(SetupError, match=words_):
            estimate._main()


def test_continuous_integration_needs_the_teams_state(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI", "true")
    assert not environments.state_is_elsewhere("dev")
    assert environments.state_is_elsewhere("prod")
    found = preview.preview("prod")
    assert found.impossible and found.failed and "PULUMI\\_BACKEND\\_URL" in found.body
    monkeypatch.setenv("PULUMI_BACKEND_URL", "s3://state")
    assert not environments.state_is_elsewhere("prod")


def test_a_missing_plugin_says_where_it_comes_from(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = "no resource plugin 'pulumi-resource-digitalocean' found in the workspace"
    monkeypatch.setattr(preview, "setup", lambda *_, **__: None)
    monkeypatch.setattr(preview, "_estimate", lambda *_: {"failed": "x"})
    monkeypatch.setattr(preview.results, "run", lambda *_, **__: (1, "", line))
    found = preview.preview("prod")
    assert found.impossible
    assert "get.pulumi.com" in found.body and "pulumi plugin install resource digitalocean" in found.body


@pytest.mark.parametrize("ci", [False, True])
def test_what_cannot_be_looked_at_is_named(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *, ci: bool
) -> None:
    """One of several: tolerated on one's own machine, a failure where nobody else looks."""

    def children(names: list[str]) -> list[summary.Summary]:
        dev = summary.of_preview("dev", events.Report(finished=True))
        return [dev, summary.impossible("staging", "no engine answers at ssh://stage")]

    (checkout / "Pulumi.prod.yaml").unlink()
    (checkout / "preview").mkdir()
    monkeypatch.setattr(preview, "_children", children)
    monkeypatch.setattr("sys.argv", ["preview", "--stack", "all"])
    if ci:
        monkeypatch.setenv("CI", "true")
    assert preview._main() == int(ci)
    text = capsys.readouterr().out
    assert re.search(r"^staging +not previewed$", text, re.MULTILINE)
    assert "no engine answers at ssh://stage" in text
    assert (checkout / "preview" / "preview.md").is_file()


def test_one_that_was_asked_for_must_be_looked_at(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str, **_: bool) -> None:
        raise SetupError("Docker: no engine answers at ssh://stage")

    monkeypatch.setattr(preview, "setup", refuse)
    monkeypatch.setattr(preview, "_estimate", lambda name, *_: None)
    monkeypatch.setattr("sys.argv", ["preview", "--stack", "staging", "--quiet"])
    assert preview._main() == 1
    saved = json.loads((checkout / "preview" / "staging.json").read_text())
    assert saved["impossible"] and "no engine answers" in saved["body"]
    assert results.load(checkout / "preview", "staging").failed


def set_up_already(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packages and CLI are there, as far as setup asks."""
    monkeypatch.setattr(setup, "CACHE", checkout / ".millrace")
    monkeypatch.setattr(setup.python_env, "missing", lambda **_: [])
    monkeypatch.setattr(setup.pulumi_cli, "ensure", lambda: "pulumi")
    monkeypatch.setattr(setup.pulumi_cli, "version", lambda _: "3")


@pytest.mark.parametrize(
    ("command", "given"), [("preview", False), ("drift", False), ("down", False), ("up", True)]
)
def test_only_what_builds_gives_the_host_a_base_image(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, command: str, *, given: bool
) -> None:
    asked: list[str] = []
    set_up_already(checkout, monkeypatch)
    monkeypatch.setattr(setup.mistakes, "refuse", lambda _: None)
    monkeypatch.setattr(setup.stack, "prepare", lambda _: None)
    monkeypatch.setattr(setup.engine, "ensure", lambda _: asked.append("engine") or "28")
    monkeypatch.setattr(setup.base_image, "ensure", lambda _: asked.append("base image"))
    monkeypatch.setattr(up.data, "refuse_loss", lambda _: None)
    monkeypatch.setattr(up, "_run", lambda _: 0)
    monkeypatch.setattr(results, "run", lambda *_, **__: (0, "", ""))
    monkeypatch.setattr(preview, "_estimate", lambda *_: {"failed": "x"})
    if command in ("up", "down"):
        assert up.bring(command, "staging") == 0
    else:
        {"preview": preview.preview, "drift": drift.drift}[command]("staging")
    assert asked == ["engine", *(["base image"] if given else [])]


def test_mistakes_in_the_file_come_before_its_host(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose engine is not asked; and they are a failure, not something to be looked at elsewhere."""

    def refuse(stack: str) -> None:
        raise mistakes.MistakesError(f"Pulumi.{stack}.yaml: millrace:app.memory_mob: unknown key")

    set_up_already(checkout, monkeypatch)
    monkeypatch.setattr(setup.mistakes, "refuse", refuse)
    monkeypatch.setattr(setup.engine, "ensure", lambda _: pytest.fail("the host was asked"))
    found = preview.preview("staging")
    assert found.failed and not found.impossible
    assert "Pulumi.staging.yaml: millrace:app.memory_mob: unknown key" in found.body


def test_a_run_that_left_nothing_is_a_failure(tmp_path: Path) -> None:
    assert results.load(tmp_path, "prod").failed
    with pytest.raises(SetupError, match="no summary is there"):
        results.load_all(tmp_path)


@pytest.mark.parametrize(
    "line",
    [
        "no resource plugin 'pulumi-resource-digitalocean' found in the workspace at version v4.84.1",
        "Could not automatically download and install resource plugin 'pulumi-resource-digitalocean'",
    ],
)
def test_a_missing_plugin_is_named(line: str) -> None:
    assert preview._missing_plugin((line,), "") == "digitalocean"
    assert preview._missing_plugin((), line) == "digitalocean"
    assert not preview._missing_plugin(("resource plugin millrace died",), "")


def test_loud_environments_come_first() -> None:
    quiet = summary.of_preview("dev", events.Report(finished=True))
    lost = summary.of_preview("prod", report("replaced-volume"))
    text = summary.together([quiet, lost], "Preview")
    assert text.index("## `prod`") < text.index("## `dev`")
    assert "| `prod` | **data would be lost**: 1 replaced |" in text


def test_words_of_values() -> None:
    assert words.value(True) == "`true`"
    assert words.value(None) == "`unset`"
    assert words.value(1.5) == "`1.5`"
    assert words.value(events.UNKNOWN) == "(known after `up`)"
    assert words.value("a\nb") == "`text of 2 lines`"
    assert len(words.value("x" * 500)) == 82
