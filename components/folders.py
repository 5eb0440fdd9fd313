"""Folders of the user's text files that a service is given as one tree."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePath

from components.problems import Problem, shown

Wanted = Callable[[PurePath], bool]
"""Whether a file is taken, by its path below the folder."""


def is_folder(path: Path) -> bool:
    """Whether a folder is there that one may look into."""
    try:
        return path.is_dir()
    except OSError:  # a name too long for the file system, a parent one may not enter
        return False


def files(folder: Path, wanted: Wanted) -> list[Path]:
    """The files of a folder and those below it; none where there is no folder."""
    found = folder.rglob("*") if is_folder(folder) else ()
    return sorted(path for path in found if wanted(path.relative_to(folder)) and path.is_file())


def texts(folders: Sequence[str], wanted: Wanted) -> dict[str, str]:
    """Contents by path below the folders, which :func:`problems` has nothing against."""
    return {
        str(path.relative_to(folder)): path.read_text(encoding="utf-8")
        for folder in map(Path, folders)
        for path in files(folder, wanted)
    }


def problems(
    folders: Sequence[str], field: str, wanted: Wanted, *, may_lack: str = "", limit_kib: int, advice: str
) -> Iterator[Problem]:
    """Folders that are not there, files that are no text or stand in two of them, and too much of them.

    The folder ``may_lack`` need not exist. ``advice`` says what to do about too much.
    """
    places: dict[str, str] = {}
    size = 0
    for index, folder in enumerate(folders):
        path = (field, index)
        if folder in folders[:index]:
            yield Problem(path, f"{shown(folder)} stands here a second time - remove it")
            continue
        if not is_folder(Path(folder)):
            if folder != may_lack:
                yield Problem(path, f"no folder {shown(folder)} - give a path relative to Pulumi.yaml")
            continue
        for file in files(Path(folder), wanted):
            name = str(file.relative_to(folder))
            if (other := places.setdefault(name, folder)) != folder:
                yield Problem(path, f"{name} is in {shown(other)} too - rename one")
            try:
                size += len(file.read_text(encoding="utf-8").encode())
            except (OSError, UnicodeDecodeError) as error:
                yield Problem(path, f"{file} cannot be read as UTF-8 text: {error}")
    if size > limit_kib * 1024:
        yield Problem((field,), f"{size // 1024} KiB in all, more than {limit_kib} - {advice}")
