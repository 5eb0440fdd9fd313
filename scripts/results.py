"""Runs of Pulumi that only look, and their summaries as files: one job makes them, another one posts them."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scripts import events, pulumi_cli, summary
from scripts.console import SetupError, say
from scripts.versions import ROOT

Json = dict[str, Any]

_TICK_SECONDS = 10.0


def run(command: Sequence[str], *, what: str) -> tuple[int, str, str]:
    """Run Pulumi with its events as JSON lines; returns exit code, events, and what it wrote beside them."""
    environment = {
        **os.environ,
        "PULUMI_SKIP_UPDATE_CHECK": "true",
        # Otherwise a preview gives a digest without policy events (pkg/backend/display/json.go).
        "PULUMI_ENABLE_STREAMING_JSON_PREVIEW": "true",
    }
    say("pulumi", what)
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as messages:
        started = time.monotonic()
        with subprocess.Popen(
            [pulumi_cli.COMMAND, *command],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=messages,
            text=True,
        ) as process:
            try:
                while True:
                    try:
                        code = process.wait(timeout=_TICK_SECONDS)
                        break
                    except subprocess.TimeoutExpired:
                        say("pulumi", f"{what}: {time.monotonic() - started:.0f} s")
            except KeyboardInterrupt:
                process.terminate()
                raise
        out.seek(0)
        messages.seek(0)
        return code, out.read(), messages.read()


def with_error(report: events.Report, messages: str) -> events.Report:
    """The report of a run that failed without an event that says why."""
    lines = [line for line in messages.strip().splitlines() if line.strip()]
    text = "\n".join(lines).removeprefix("error: ") or "Pulumi ended without a message"
    return dataclasses.replace(report, errors=(text,), finished=False)


def json_of(command: Sequence[str]) -> Json:
    """What a command prints as JSON; ``{"failed": its last line}`` when it fails."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or ["it ended without a message"])[-1]}
    found: Json = json.loads(done.stdout)
    return found


def save(folder: Path, result: summary.Summary) -> None:
    """Write a summary: as Markdown to read, as JSON to put together with others."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{result.stack}.md").write_text(result.markdown)
    (folder / f"{result.stack}.json").write_text(json.dumps(dataclasses.asdict(result), indent=1) + "\n")


def forget(folder: Path, stack: str) -> None:
    """Remove a former run's files."""
    for ending in ("md", "json"):
        (folder / f"{stack}.{ending}").unlink(missing_ok=True)


def load(folder: Path, stack: str) -> summary.Summary:
    """A summary from its file; one that is missing is a failure of its own."""
    file = folder / f"{stack}.json"
    if not file.is_file():
        return summary.impossible(stack, "its run ended without a result, see the log")
    return summary.Summary(**json.loads(file.read_text()))


def load_all(folder: Path) -> list[summary.Summary]:
    """All summaries of a folder, by stack.

    Raises:
        SetupError: there is none.
    """
    # A download of several artifacts may put each into a folder of its own.
    found = {file.stem: load(file.parent, file.stem) for file in sorted(folder.rglob("*.json"))}
    if not found:
        raise SetupError(f"{folder}: no summary is there")
    return [found[stack] for stack in sorted(found)]
