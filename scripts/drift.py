"""Compares what runs with what the last `up` made, and changes nothing: `scripts/run drift --stack staging`.

Exit code 1: something drifted, or it could not be looked at. The summary is in .millrace/drift/, in words.
"""

from __future__ import annotations

import argparse
import sys

from scripts import access, environments, events, results, summary, terminal
from scripts.console import SetupError, main
from scripts.setup import setup
from scripts.versions import CACHE

FOLDER = CACHE / "drift"
_UNKNOWN = "could not be compared with what runs"


def drift(name: str) -> summary.Summary:
    """The summary of one stack's drift; nothing is raised for what the environment lacks."""
    if environments.state_is_elsewhere(name):
        return summary.impossible(name, environments.NO_STATE.format(stack=name), headline=_UNKNOWN)
    try:
        setup(name, builds=False)
    except SetupError as error:
        return summary.impossible(name, f"it cannot be compared here: {error}", headline=_UNKNOWN)
    command = [
        "refresh",
        "--preview-only",
        "--expect-no-changes",
        "--json",
        "--stack",
        name,
        "--non-interactive",
    ]
    code, output, messages = results.run(command, what=f"comparing {name} with what runs")
    report = events.parse(output)
    if code and not (report.drift or report.errors):
        report = results.with_error(report, messages)
    return summary.of_drift(name, report)


def _main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stack", default="dev")
    options = parser.parse_args()
    access.settle()
    chosen = environments.chosen(options.stack)
    if len(chosen) != 1:
        raise SetupError("drift: name one stack")
    name = chosen[0]
    results.forget(FOLDER, name)
    found = drift(name)
    results.save(FOLDER, found)
    print(f"\n{terminal.render(found.markdown, colour=sys.stdout.isatty())}")
    return int(found.failed)


if __name__ == "__main__":
    main(_main)
