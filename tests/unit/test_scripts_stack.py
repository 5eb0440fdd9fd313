"""What the scripts keep of a stack: its file, the salt in it, its passphrase."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from scripts import stack
from scripts.console import SetupError

ROOT = Path(__file__).resolve().parents[2]

SALT = "encryptionsalt: v1:c2FsdA==:v1:bm9uY2U=:Y2lwaGVy\n"


def test_an_unknown_stack_names_the_known_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack, "ROOT", tmp_path)
    (tmp_path / "Pulumi.dev.yaml").touch()
    with pytest.raises(SetupError, match=r"no Pulumi\.prod\.yaml \(there is: dev\)"):
        stack.prepare("prod")


# The salt filter


def salt_filter(way: str, text: str, cwd: Path) -> str:
    done = subprocess.run(
        ["sh", ROOT / "scripts" / "salt-filter", way, "Pulumi.dev.yaml"],
        input=text,
        cwd=cwd,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_clean_drops_the_salt_and_nothing_else(tmp_path: Path) -> None:
    text = "# note\nconfig:\n\n  millrace:domain: x  # why\n"
    assert salt_filter("clean", text + SALT, tmp_path) == text
    assert salt_filter("clean", text, tmp_path) == text


def test_clean_keeps_the_salt_that_encrypted_values_need(tmp_path: Path) -> None:
    text = f"{SALT}config:\n  millrace:key:\n    secure: v1:abc\n"
    assert salt_filter("clean", text, tmp_path) == text


def test_smudge_puts_this_checkouts_salt_back(tmp_path: Path) -> None:
    text = "config: {}\n"
    assert salt_filter("smudge", text, tmp_path) == text
    saved = tmp_path / ".millrace" / "salts" / "Pulumi.dev.yaml"
    saved.parent.mkdir(parents=True)
    saved.write_text(SALT)
    assert salt_filter("smudge", text, tmp_path) == text + SALT
    assert salt_filter("smudge", text + SALT, tmp_path) == text + SALT


def test_checkout_without_the_filter_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commits from before the filter, and trees where Git writes the stack file before the script."""

    def git(*arguments: str, folder: Path = tmp_path / "clone") -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.com"]
        done = subprocess.run(
            ["git", *identity, *arguments], cwd=folder, check=True, text=True, capture_output=True
        )
        assert done.stderr == "" or arguments[0] == "worktree", done.stderr
        return done.stdout + done.stderr

    clone = tmp_path / "clone"
    (clone / "scripts").mkdir(parents=True)
    git("init", "--quiet", "--initial-branch=main")
    monkeypatch.setattr(stack, "ROOT", clone)
    git("config", "filter.pulumi-salt.smudge", "sh scripts/salt-filter smudge %f")
    stack.install_filter()
    (clone / ".gitattributes").write_text("Pulumi.*.yaml filter=pulumi-salt\n")
    (clone / "Pulumi.dev.yaml").write_text("config: {}\n")
    git("add", ".")
    git("commit", "--quiet", "--message=before the filter")
    shutil.copy(ROOT / "scripts" / "salt-filter", clone / "scripts")
    with (clone / "Pulumi.dev.yaml").open("a") as file:
        file.write(SALT)
    git("add", ".")
    git("commit", "--quiet", "--message=with it")
    assert git("show", "HEAD:Pulumi.dev.yaml") == "config: {}\n"
    for commit in ("HEAD", "HEAD~"):
        said = git("worktree", "add", "--detach", str(tmp_path / commit), commit)
        assert "salt-filter" not in said
        assert (tmp_path / commit / "Pulumi.dev.yaml").read_text() == "config: {}\n"
        assert git("status", "--porcelain", folder=tmp_path / commit) == ""


def test_a_new_passphrase_is_not_made_for_an_existing_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PULUMI_CONFIG_PASSPHRASE", "PULUMI_CONFIG_PASSPHRASE_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(stack, "ROOT", tmp_path)
    monkeypatch.setattr(stack, "STATE", tmp_path / "state")
    monkeypatch.setattr(stack, "PASSPHRASE", tmp_path / "passphrase")
    state = tmp_path / "state" / ".pulumi" / "stacks" / "millrace" / "dev.json"
    state.parent.mkdir(parents=True)
    state.touch()
    with pytest.raises(SetupError, match="passphrase is missing but the state was encrypted with it"):
        stack._make_passphrase()
    state.unlink()
    stack._make_passphrase()
    assert (tmp_path / "passphrase").stat().st_mode & 0o777 == 0o600
    assert len((tmp_path / "passphrase").read_text()) > 40
