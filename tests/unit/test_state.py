"""Where the state is and who encrypts it: what the scripts ask of Pulumi, and what they leave alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts import environments, pulumi_cli, stack, up
from scripts.console import SetupError

ROOT = Path(__file__).resolve().parents[2]
KMS = "awskms://alias/millrace?region=eu-central-1"


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout without state, whose Pulumi writes down what it is asked for."""
    cache = tmp_path / ".millrace"
    cache.mkdir()
    monkeypatch.setattr(stack, "ROOT", tmp_path)
    for name in ("STATE", "PASSPHRASE", "_SALTS"):
        monkeypatch.setattr(stack, name, cache / name.strip("_").lower())
    monkeypatch.setattr(environments, "ROOT", tmp_path)
    monkeypatch.setattr(environments.target, "ROOT", tmp_path)
    for name in ("CI", "PULUMI_BACKEND_URL", "PULUMI_CONFIG_PASSPHRASE", "PULUMI_CONFIG_PASSPHRASE_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PULUMI_HOME", str(tmp_path / "home"))
    (tmp_path / "Pulumi.yaml").write_text((ROOT / "Pulumi.yaml").read_text())
    (tmp_path / "Pulumi.staging.yaml").write_text("config:\n  millrace:users: []\n")
    pulumi(tmp_path, monkeypatch)
    return tmp_path


def pulumi(folder: Path, monkeypatch: pytest.MonkeyPatch, body: str = "") -> None:
    """A stand-in for the CLI."""
    command = folder / "pulumi"
    command.write_text(f'#!/bin/sh\necho "$*" >> {folder / "asked"}\n{body}\n')
    command.chmod(0o755)
    monkeypatch.setattr(pulumi_cli, "COMMAND", command)


NOT_THERE = """\
case "$*" in "stack --show-name"*"--stack "*) echo "error: no stack named '$5' found" >&2; exit 6;; esac"""
"""What the CLI says to who asks for a stack that its backend does not have."""


def asked(folder: Path) -> list[str]:
    return (folder / "asked").read_text().splitlines()


def encrypt_by(folder: Path, provider: str) -> None:
    file = folder / "Pulumi.staging.yaml"
    file.write_text(f"secretsprovider: {provider}\n{file.read_text()}")


@pytest.mark.parametrize("how", ["variable", "file", "login"])
def test_a_chosen_backend_is_taken_as_it_is(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """By the environment, by Pulumi.yaml, or, when that names none, by `pulumi login`."""
    project = checkout / "Pulumi.yaml"
    if how == "variable":
        monkeypatch.setenv("PULUMI_BACKEND_URL", "s3://acme-state")
    else:
        block = f"backend:\n  url: {stack.LOCAL_BACKEND}?metadata=skip\n"
        assert block in project.read_text()
        other = "backend:\n  url: gs://acme-state\n" if how == "file" else ""
        project.write_text(project.read_text().replace(block, other))
    assert not stack.uses_local_state()
    stack.prepare("staging")
    assert asked(checkout) == ["stack --show-name --non-interactive --stack staging"]
    assert not stack.STATE.exists() and not stack.PASSPHRASE.exists(), "these are the user's"


def test_the_key_service_of_the_stack_file_is_passed_on(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PULUMI_BACKEND_URL", "s3://acme-state")
    encrypt_by(checkout, f'"{KMS}"')
    pulumi(checkout, monkeypatch, NOT_THERE)
    stack.prepare("staging")
    assert asked(checkout)[1:] == [f"stack init staging --no-select --secrets-provider {KMS}"]


def test_a_stack_of_a_chosen_backend_is_made_as_its_file_says(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pulumi writes the whole file anew, with texts in place of other values."""
    monkeypatch.setenv("PULUMI_BACKEND_URL", "s3://acme-state")
    file = checkout / "Pulumi.staging.yaml"
    file.write_text("# ours\nconfig:\n  millrace:protect_data: true\n")
    before = file.read_text()
    written = 'config:\\n  millrace:protect_data: "true"\\nencryptionsalt: v1:c2FsdA==\\n'
    pulumi(checkout, monkeypatch, f"{NOT_THERE}\nprintf '{written}' > {file}")
    stack.prepare("staging")
    assert file.read_text() == f"{before}encryptionsalt: v1:c2FsdA==\n"


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize(
    ("name", "selected", "selects"),
    [("staging", False, False), ("dev", True, False), ("dev", False, True)],
)
def test_a_stack_of_a_chosen_backend_does_not_take_the_place_of_the_selected_one(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, name: str, *, selected: bool, selects: bool, there: bool
) -> None:
    monkeypatch.setenv("PULUMI_BACKEND_URL", "s3://acme-state")
    (checkout / "Pulumi.dev.yaml").write_text("config:\n  millrace:users: []\n")
    none_selected = '[ "$*" = "stack --show-name --non-interactive" ] && exit 1'
    body = ["" if there else NOT_THERE, "" if selected else none_selected, "exit 0"]
    pulumi(checkout, monkeypatch, "\n".join(body))
    stack.prepare(name)
    asks, creates = ("stack --show-name ",), [line for line in asked(checkout) if " init " in line]
    rest = [line for line in asked(checkout) if not line.startswith(asks) and line not in creates]
    assert creates == ([] if there else [f"stack init {name}" + ("" if selects else " --no-select")])
    assert rest == ([f"stack select {name}"] if there and selects else [])


def test_what_pulumi_refuses_is_one_line(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PULUMI_BACKEND_URL", "s3://acme-state")
    pulumi(
        checkout, monkeypatch, "echo 'Attempting to log in' >&2; echo 'error: no such bucket' >&2; exit 255"
    )
    with pytest.raises(SetupError) as error:
        stack.prepare("staging")
    assert str(error.value) == "stack staging: Pulumi could not open it: no such bucket"


def test_a_key_service_needs_no_passphrase(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The state may stay in the checkout: the key does not."""
    encrypt_by(checkout, KMS)
    file = checkout / "Pulumi.staging.yaml"
    # Pulumi writes the whole file anew.
    pulumi(
        checkout, monkeypatch, f"printf 'secretsprovider: x\\nencryptedkey: QUJD\\nconfig: {{}}\\n' > {file}"
    )
    before = file.read_text()
    stack.prepare("staging")
    assert asked(checkout) == [f"stack init staging --no-select --secrets-provider {KMS}"]
    assert file.read_text() == f"{before}encryptedkey: QUJD\n"
    assert stack.STATE.is_dir() and not stack.PASSPHRASE.exists()


def test_a_passphrase_is_made_where_nobody_has_chosen(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stack, "forget_salts", lambda: None)
    stack.prepare("staging")
    assert asked(checkout) == ["stack init staging --no-select"]
    assert stack.PASSPHRASE.stat().st_mode & 0o777 == 0o600


def test_nothing_is_deployed_from_an_empty_checkout(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In continuous integration: with a state of its own, it would be a second platform."""
    (checkout / "Pulumi.staging.yaml").write_text("config:\n  millrace:target:\n    host: ssh://a@stage\n")
    monkeypatch.setenv("CI", "true")
    monkeypatch.setattr("sys.argv", ["up", "--stack", "staging"])
    monkeypatch.setattr(up, "setup", lambda *_, **__: pytest.fail("set up"))
    with pytest.raises(SetupError, match="Set PULUMI_BACKEND_URL to the team's backend"):
        up._main()
