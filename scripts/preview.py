"""`make preview`: what `up` would do to one or more environments, checked by the policies, in words.

Prints a summary and writes it as Markdown to .millrace/preview/; continuous integration posts it from there
(:mod:`scripts.comment`). Nothing is changed. Exit code 1: a policy refuses it, it failed, or an environment
that was asked for could not be looked at.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Sequence

from scripts import access, environments, events, python_env, results, summary, terminal
from scripts.console import SetupError, main
from scripts.mistakes import MistakesError
from scripts.setup import setup
from scripts.versions import CACHE, POLICIES, ROOT

FOLDER = CACHE / "preview"

_NO_PLUGIN = re.compile(
    r"(?:no resource plugin|could not load plugin for|resource plugin) '?(?:pulumi-resource-)?([a-z-]+)",
    re.IGNORECASE,
)


def preview(name: str) -> summary.Summary:
    """The summary of one stack's preview; nothing is raised for what the environment lacks."""
    if environments.state_is_elsewhere(name):
        return summary.impossible(name, environments.NO_STATE.format(stack=name))
    try:
        setup(name, judge=True, builds=False)
    except MistakesError as error:
        return summary.of_preview(name, events.Report(errors=(str(error),)))
    except SetupError as error:
        reason = f"it cannot be previewed here: {error}"
        return summary.impossible(name, reason, estimate=_estimate(name, "--alone"))
    command = ["preview", "--json", "--stack", name, "--non-interactive", *POLICIES]
    code, output, messages = results.run(command, what=f"preview of {name}")
    report = events.parse(output)
    if missing := _missing_plugin(report.errors, messages):
        reason = (
            f"it cannot be previewed here: Pulumi's plugin {missing} is not installed, and get.pulumi.com, "
            "where it comes from, does not answer - let this machine reach it, or install the plugin from a "
            f"file: pulumi plugin install resource {missing} VERSION --file FILE"
        )
        return summary.impossible(name, reason, estimate=_estimate(name))
    if code and not (report.errors or report.violations):
        report = results.with_error(report, messages)
    return summary.of_preview(name, report, _estimate(name))


def _missing_plugin(errors: Sequence[str], messages: str) -> str:
    for text in (*errors, messages):
        if "plugin" in text and (found := _NO_PLUGIN.search(text)) and _is_about_absence(text):
            return found[1]
    return ""


def _is_about_absence(text: str) -> bool:
    return any(
        word in text for word in ("not find", "no resource plugin", "not found", "download", "install")
    )


def _estimate(name: str, *options: str) -> results.Json:
    """What the stack needs, by the settings, or why that can't be told."""
    return results.json_of([str(python_env.PYTHON), "-m", "scripts.needs", name, *options])


def _children(names: list[str]) -> list[summary.Summary]:
    """Each stack in a process of its own: one that fails to set up leaves nothing behind for the next."""
    found = []
    for name in names:
        command = [sys.executable, "-m", "scripts.preview", "--stack", name, "--quiet"]
        subprocess.run(command, cwd=ROOT)
        found.append(results.load(FOLDER, name))
    return found


def _main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stack", default="dev", help="one, several in quotes, or all (default: dev)")
    parser.add_argument("--quiet", action="store_true", help="only write the files")
    options = parser.parse_args()
    access.settle()
    names = environments.chosen(options.stack)
    for name in names:
        results.forget(FOLDER, name)
    if len(names) == 1:
        found = [preview(names[0])]
        results.save(FOLDER, found[0])
    else:
        found = _children(names)
    text = summary.together(found, "Preview")
    if not options.quiet:
        (FOLDER / "preview.md").write_text(text)
        print(f"\n{terminal.render(text, colour=sys.stdout.isatty())}")
    # One that can't be looked at from here is no mistake of the change, unless nobody else looks.
    tolerated = len(names) > 1 and not environments.in_ci()
    return int(any(s.failed and not (tolerated and s.impossible) for s in found))


if __name__ == "__main__":
    main(_main)
