"""Posts summaries to GitHub or GitLab.

`comment preview` writes to the pull request: one comment, which each run brings up to date. `comment drift`
opens an issue for each environment that drifted; the first night without drift closes it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path

from scripts import drift, environments, forge, preview, results
from scripts.console import main, say
from scripts.summary import Summary, together

_PREVIEW_MARK = "<!-- millrace: preview -->"
_DRIFT_MARK = "<!-- millrace: drift of {stack} -->"
_LABEL = "drift"


def post_preview(to: forge.Forge, summaries: Sequence[Summary]) -> None:
    """Write the comment, or change the one that is there.

    Raises:
        SetupError: the API refuses it.
    """
    body = _fitted(f"{_PREVIEW_MARK}\n{together(summaries, 'Preview')}{_source(to)}", to)
    former = _own(to.comments(), _PREVIEW_MARK)
    to.write_comment(body, former.id if former else None)
    say("comment", "brought up to date" if former else "written")


def post_drift(to: forge.Forge, summaries: Iterable[Summary]) -> None:
    """Open or change an issue for each environment that drifted; close those that no longer have a reason.

    Raises:
        SetupError: the API refuses it.
    """
    known = list(to.issues(_LABEL))
    for found in summaries:
        mark = _DRIFT_MARK.format(stack=found.stack)
        former = _own(known, mark)
        if found.failed:
            title = f"{found.stack}: {found.headline}"
            body = _fitted(f"{mark}\n{found.markdown}{_source(to)}", to)
            to.write_issue(title, body, _LABEL, former.id if former else None)
            say("issue", f"{found.stack}: {'brought up to date' if former else 'opened'}")
        elif former:
            to.close_issue(former.id, f"No drift any more.{_source(to)}")
            say("issue", f"{found.stack}: closed")
        else:
            say("issue", f"{found.stack}: no drift")


def _own(notes: Iterable[forge.Note], mark: str) -> forge.Note | None:
    """The text that an earlier run wrote: by its mark, and by who wrote it, as anybody may quote a mark."""
    return next((note for note in notes if note.mine and note.body.startswith(mark)), None)


def _source(to: forge.Forge) -> str:
    url = to.run_url()
    return f"\n[The run]({url})\n" if url else ""


def _fitted(body: str, to: forge.Forge) -> str:
    """The body, cut at the end of a line when it is too long: what must not be overlooked comes first."""
    if len(body) <= to.limit:
        return body
    url = to.run_url()
    where = f"in [the run]({url})" if url else "in the job's log"
    notice = f"\n\n**Cut here: it is too long for a comment. All of it is {where}.**\n"
    kept = body[: to.limit - len(notice) - len("\n```")].rsplit("\n", 1)[0]
    if kept.count("\n```") % 2:
        kept += "\n```"
    return kept + notice


def _main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("preview", "drift"))
    parser.add_argument("--from", dest="folder", type=Path, help="folder of the summaries")
    options = parser.parse_args()
    to = forge.here()
    if options.what == "drift":
        post_drift(to, results.load_all(options.folder or drift.FOLDER))
        return 0
    folder = options.folder or preview.FOLDER
    found = {summary.stack: summary for summary in results.load_all(folder)}
    # One whose job died left nothing behind: that must show.
    missing = [stack for stack in environments.names() if stack not in found]
    post_preview(to, [*found.values(), *(results.load(folder, stack) for stack in missing)])
    return 0


if __name__ == "__main__":
    main(_main)
