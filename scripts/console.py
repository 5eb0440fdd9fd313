"""Progress lines, child processes and the one-line errors the scripts end with."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

_START = time.monotonic()
_TICK_SECONDS = 10.0
_TAIL_LINES = 20

_children: set[subprocess.Popen[str]] = set()
_children_lock = threading.Lock()
_print_lock = threading.Lock()
_cancelled = threading.Event()


class SetupError(Exception):
    """A prerequisite is missing or a step failed; the message is one line that says what to do."""


class CancelledError(Exception):
    """The step was stopped because another one failed."""


def say(step: str, text: str) -> None:
    """Print one progress line: seconds since the start, the step, what happens."""
    with _print_lock:
        print(f"[{time.monotonic() - _START:4.0f} s] {step:<11} {text}", flush=True)


class Step:
    """A step that takes a while: a line when it starts and one, with its duration, when it ends."""

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self._text = text

    def __enter__(self) -> Step:
        self._start = time.monotonic()
        say(self.name, self._text)
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if error is None:
            say(self.name, f"done in {time.monotonic() - self._start:.0f} s")


def run(
    step: str,
    command: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    progress: Callable[[list[str]], str] | None = None,
    on_line: Callable[[str], None] | None = None,
    timeout: float | None = None,
    hint: str = "",
    stdin: IO[bytes] | None = None,
) -> list[str]:
    """Run a command to its end and return what it wrote, line by line.

    Every ten seconds ``progress`` turns the lines so far into a progress line. ``on_line`` sees each
    line as it comes. ``hint`` ends the error message.

    Raises:
        SetupError: the command failed; its last lines have been printed.
        CancelledError: another step failed meanwhile.
    """
    lines: list[str] = []
    try:
        process = subprocess.Popen(
            [str(part) for part in command],
            cwd=cwd,
            env={**os.environ, **env} if env else None,
            stdin=stdin or subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except OSError as error:
        raise SetupError(f"{command[0]}: {error.strerror}") from error
    with _children_lock:
        _children.add(process)
    if _cancelled.is_set():
        _stop(process)
    ended = threading.Event()
    watcher = threading.Thread(
        target=_watch, args=(step, process, lines, progress, timeout, ended), daemon=True
    )
    watcher.start()
    try:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line.rstrip())
            if on_line:
                on_line(line.rstrip())
        process.wait()
    finally:
        ended.set()
        watcher.join()
        with _children_lock:
            _children.discard(process)
    if _cancelled.is_set():
        raise CancelledError
    if process.returncode:
        for line in deque(lines, _TAIL_LINES):
            print(f"  | {line}", file=sys.stderr)
        what = " ".join([Path(command[0]).name, *map(str, command[1:3])])
        raise SetupError(
            f"{step}: `{what}` failed (exit code {process.returncode}); its last lines are above"
            + (f": {hint}" if hint else "")
        )
    return lines


def _watch(
    step: str,
    process: subprocess.Popen[str],
    lines: list[str],
    progress: Callable[[list[str]], str] | None,
    timeout: float | None,
    ended: threading.Event,
) -> None:
    start = time.monotonic()
    interval = min(_TICK_SECONDS, timeout or _TICK_SECONDS)
    while not ended.wait(interval):
        if timeout and time.monotonic() - start >= timeout:
            _stop(process)
            return
        text = progress(lines) if progress else (lines[-1][:90] if lines else "still running")
        say(step, text)


def _stop(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)


def cancel() -> None:
    """Stop every running command: another step failed or the user pressed Ctrl-C."""
    _cancelled.set()
    with _children_lock:
        for process in _children:
            _stop(process)


def together(*steps: Callable[[], None]) -> None:
    """Run steps at the same time. The first failure stops the others and is raised."""
    errors: list[BaseException] = []

    def guarded(step: Callable[[], None]) -> None:
        try:
            step()
        except CancelledError:
            pass
        except BaseException as error:
            errors.append(error)
            cancel()

    threads = [threading.Thread(target=guarded, args=(step,), daemon=True) for step in steps]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def main(entry: Callable[[], int]) -> None:
    """Run a script's entry point: errors are one line and a non-zero exit code, never a traceback."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a cancelled CI job ends like Ctrl-C
    try:
        sys.exit(entry())
    except SetupError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        cancel()
        print("interrupted", file=sys.stderr)
        sys.exit(130)
