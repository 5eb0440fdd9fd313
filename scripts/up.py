"""`make up` and `down`: setup, then Pulumi, then the table of URLs."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess

from scripts import access, data, environments, pulumi_cli, urls
from scripts.console import SetupError, main, say
from scripts.setup import setup
from scripts.versions import POLICIES, ROOT

_COMMANDS = {
    # Nobody reads a preview that is not asked about; it would run the program twice.
    "up": ["up", "--yes", "--skip-preview", *POLICIES],
    "down": ["destroy", "--yes", "--skip-preview"],
}


def _main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stack", default="dev")
    parser.add_argument("--command", choices=sorted(_COMMANDS), default="up")
    options = parser.parse_args()
    code = bring(options.command, options.stack)
    if code == 0 and options.command == "up":
        return urls.show(options.stack)
    return code


def bring(command: str, stack: str) -> int:
    """Install what is missing and bring a stack up or down; Pulumi's exit code.

    Raises:
        SetupError: something is missing, or data would be deleted.
    """
    access.settle()
    if environments.state_is_elsewhere(stack):
        # A new state would make a second platform beside the one that runs.
        raise SetupError(environments.NO_STATE.format(stack=stack))
    setup(stack, judge=command == "up", builds=command == "up")
    arguments = _COMMANDS[command]
    if command == "up":
        data.refuse_loss(stack)
    say("pulumi", " ".join(arguments))
    return _run([str(pulumi_cli.COMMAND), *arguments, "--stack", stack])


def _run(command: list[str]) -> int:
    """Run Pulumi to its end: interrupted, it finishes what it has begun and says so."""
    environment = {"PULUMI_PARALLEL": "32", **os.environ, "PULUMI_SKIP_UPDATE_CHECK": "true"}
    with subprocess.Popen(command, cwd=ROOT, env=environment) as process:
        # Ctrl-C reaches Pulumi from the terminal; a signal to this process alone is passed on.
        before = {
            signal.SIGINT: signal.signal(signal.SIGINT, signal.SIG_IGN),
            signal.SIGTERM: signal.signal(signal.SIGTERM, lambda *_: process.send_signal(signal.SIGINT)),
        }
        try:
            return process.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


if __name__ == "__main__":
    main(_main)
