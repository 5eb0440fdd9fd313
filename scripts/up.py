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
    access.settle()
    if environments.state_is_elsewhere(options.stack):
        # A new state would make a second platform beside the one that runs.
        raise SetupError(environments.NO_STATE.format(stack=options.stack))
    setup(options.stack)
    command = _COMMANDS[options.command]
    if options.command == "up":
        data.refuse_loss(options.stack)
    say("pulumi", " ".join(command))
    code = _run([str(pulumi_cli.COMMAND), *command, "--stack", options.stack])
    if code == 0 and options.command == "up":
        return urls.show(options.stack)
    return code


def _run(command: list[str]) -> int:
    """Run Pulumi to its end: interrupted, it finishes what it has begun and says so."""
    environment = {"PULUMI_PARALLEL": "32", **os.environ, "PULUMI_SKIP_UPDATE_CHECK": "true"}
    with subprocess.Popen(command, cwd=ROOT, env=environment) as process:
        # Ctrl-C reaches Pulumi from the terminal; a signal to this process alone is passed on.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda *_: process.send_signal(signal.SIGINT))
        return process.wait()


if __name__ == "__main__":
    main(_main)
