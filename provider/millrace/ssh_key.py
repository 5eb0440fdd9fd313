"""A private key that is given as text, in a file for as long as somebody needs it there.

ssh reads keys from files (and agents) only. The key itself is a secret of the state; its file is the user's
alone, and the last process that holds it removes it. A process that was killed leaves it to the next one.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import tempfile
from pathlib import Path

from millrace.ssh_options import expand, make_folder

_FILES = "~/.ssh/millrace-{}.key"


def file_of(key: str) -> str:
    """Where a key's file is, with ``~``: the same on every machine, another one for another key."""
    return _FILES.format(hashlib.sha256(_text(key)).hexdigest()[:16])


def sweep() -> None:
    """Remove the files that no process holds any more: those of processes that were killed."""
    files = Path(expand(_FILES.format("*")))
    for file in files.parent.glob(files.name):
        with contextlib.suppress(OSError), file.open() as handle:
            _remove(file, handle.fileno())


def _remove(file: Path, handle: int) -> None:
    """Remove a file, unless another process holds it: then an OSError is raised."""
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    file.unlink()


class PlacedKey:
    """The file of a key, until :meth:`release`."""

    def __init__(self, key: str) -> None:
        make_folder()
        self.path = Path(expand(file_of(key)))
        self._handle: int | None = self._hold(_text(key))

    def release(self) -> None:
        """Remove the file, unless another process still holds it."""
        if self._handle is None:
            return
        handle, self._handle = self._handle, None
        with contextlib.suppress(OSError):
            _remove(self.path, handle)
        os.close(handle)

    def _hold(self, content: bytes) -> int:
        while True:
            with contextlib.suppress(FileNotFoundError):
                handle = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW)
                fcntl.flock(handle, fcntl.LOCK_SH)
                # Whoever removed it meanwhile had the lock.
                if os.fstat(handle).st_nlink:
                    return handle
                os.close(handle)
                continue
            self._make(content)

    def _make(self, content: bytes) -> None:
        # Complete under its name or not there: ssh may be waiting for it.
        handle, name = tempfile.mkstemp(prefix=f".{self.path.name}-", dir=self.path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            with contextlib.suppress(FileExistsError):
                Path(self.path).hardlink_to(name)
        finally:
            Path(name).unlink()


def _text(key: str) -> bytes:
    # ssh wants the line end that clipboards and YAML drop.
    return key.strip().encode() + b"\n"
