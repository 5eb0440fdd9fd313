"""Prints where the platform's services are, who may open them and where the passwords are."""

from __future__ import annotations

import argparse
import json
import subprocess
from collections.abc import Mapping

from scripts import pulumi_cli
from scripts.console import SetupError, main
from scripts.versions import ROOT


def table(urls: Mapping[str, Mapping[str, str]], stack: str) -> str:
    """The table of the `urls` output, and where to go from there."""
    rows = [("SERVICE", "URL", "WHO", "WHAT FOR")]
    rows += [
        (name, str(entry.get("url", "")), str(entry.get("access", "")), str(entry.get("purpose", "")))
        for name, entry in urls.items()
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    option = "" if stack == "dev" else f" --stack {stack}"
    lines += [
        "",
        f"Users and passwords:  pulumi stack output credentials --show-secrets{option}",
        f"Certificate to trust: pulumi stack output ca_certificate{option}",
    ]
    return "\n".join(lines)


def show(stack: str) -> int:
    """Print the table of a stack's outputs.

    Raises:
        SetupError: Pulumi or the stack is not there yet.
    """
    if not pulumi_cli.COMMAND.exists():
        raise SetupError("nothing is set up yet: run `make up`")
    command = [str(pulumi_cli.COMMAND), "stack", "output", "--json", "--stack", stack]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if answer.returncode:
        lines = answer.stderr.strip().splitlines() or ["no message"]
        raise SetupError(f"stack {stack}: {lines[-1].removeprefix('error: ')}")
    urls = json.loads(answer.stdout or "{}").get("urls")
    if not urls:
        raise SetupError(f"stack {stack} has no URLs: run `make up STACK={stack}`")
    print()
    print(table(urls, stack))
    return 0


def _main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stack", default="dev")
    return show(parser.parse_args().stack)


if __name__ == "__main__":
    main(_main)
