"""Builds the Pulumi CLI, its Python language host and the providers from the Go module proxy.

Only for machines that reach neither Pulumi's download site nor have a CLI: see toolchain/README.md.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from scripts import golang
from scripts.console import SetupError, Step, run, say, together
from scripts.versions import CACHE, PULUMI_MINIMUM, ROOT

SOURCES = ROOT / "toolchain"
FOLDER = CACHE / "toolchain"
BIN = FOLDER / "bin"
PULUMI = BIN / "pulumi"
BRIDGE = FOLDER / "plugins" / "bridge"
COMPOSE = FOLDER / "compose" / "docker-compose"

_SDK = "github.com/pulumi/pulumi/sdk/v3"
# Without debug information the compiler has a seventh less to do.
_FLAGS = ("-gcflags=all=-dwarf=false",)


@dataclass(frozen=True, kw_only=True)
class Part:
    """One Go module of the toolchain and the program it builds."""

    name: str
    package: str
    output: Path
    link: str = "-s -w"
    after: Callable[[Path], None] = lambda _go: None

    @property
    def sources(self) -> Path:
        """The module's folder."""
        return SOURCES / self.name

    @property
    def main_package(self) -> str:
        """The import path of the program's own package."""
        return f"millrace/toolchain/{self.name}" if self.package == "." else self.package

    @property
    def stamp(self) -> Path:
        """Holds the digest of the sources the program was built from."""
        return FOLDER / f"{self.name}.sha256"

    def digest(self) -> str:
        """Digest of everything the build depends on."""
        return tree_digest(self.sources, [self.package, self.link, *_FLAGS])

    def current(self) -> bool:
        """Whether the program is there, built from the sources as they stand."""
        return self.output.is_file() and self.stamp.is_file() and self.stamp.read_text() == self.digest()


def tree_digest(folder: Path, more: Iterable[str] = ()) -> str:
    """Digest of the names and contents of all files of a folder, and of some more text."""
    digest = hashlib.sha256("\0".join(more).encode())
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = path.read_bytes()
        digest.update(f"\0{path.relative_to(folder).as_posix()}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def _install_scripts(go: Path) -> None:
    """Put the Python halves of the language host beside it.

    They come from the current SDK: the old host's own executor prints a KeyboardInterrupt traceback
    whenever an update fails.
    """
    lines = run("pulumi", [go, "list", "-m", "-f", "{{.Dir}}", _SDK], cwd=SOURCES / "cli")
    sdk = Path(lines[-1])
    for script in ("cmd/pulumi-language-python-exec", "dist/pulumi-resource-pulumi-python"):
        target = BIN / Path(script).name
        shutil.copyfile(sdk / "python" / script, target.with_suffix(".new"))
        target.with_suffix(".new").chmod(0o755)
        target.with_suffix(".new").replace(target)


LANGHOST = Part(
    name="langhost",
    package=f"{_SDK}/python/cmd/pulumi-language-python",
    output=BIN / "pulumi-language-python",
    after=_install_scripts,
)
CLI = Part(
    name="cli",
    package="github.com/pulumi/pulumi/pkg/v3/cmd/pulumi",
    output=PULUMI,
    link=f"-s -w -X {_SDK}/go/common/version.Version=v{PULUMI_MINIMUM}",
)
PLUGINS = Part(name="plugins", package=".", output=BRIDGE)
COMPOSE_PLUGIN = Part(
    name="compose",
    package="github.com/docker/compose/v2/cmd",
    output=COMPOSE,
    link="-s -w -X github.com/docker/compose/v2/internal.Version=v2.40.3",
)


ACTIONLINT = Part(
    name="actionlint",
    package="github.com/rhysd/actionlint/cmd/actionlint",
    output=BIN / "actionlint",
)


def _environment() -> dict[str, str]:
    environment = {
        "GOFLAGS": os.environ.get("GOFLAGS", "-buildvcs=false"),
        # No C compiler needed, and the same program whether or not there is one.
        "CGO_ENABLED": "0",
        # The modules are pinned; a download of another Go would be a surprise.
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
    }
    if "GOGC" not in os.environ:
        environment["GOGC"] = "400"  # memory for time: the compiler collects less often
    if "HOME" not in os.environ and "GOPATH" not in os.environ:
        environment |= {"GOPATH": str(CACHE / "gopath"), "GOCACHE": str(CACHE / "gocache")}
    return environment


def build(parts: Iterable[Part]) -> list[Part]:
    """Build the parts that are not up to date; returns those that were built.

    Modules of later parts are downloaded while earlier ones compile, and a part compiles while the one
    before is linked: they share what they have in common through Go's build cache.

    Raises:
        SetupError: a build failed.
    """
    todo = [part for part in parts if not part.current()]
    if not todo:
        return []
    go = golang.ensure()
    environment = _environment()
    downloaded = {part.name: threading.Event() for part in todo}
    compiled = {part.name: threading.Event() for part in todo}

    def download() -> None:
        for part in todo:
            try:
                run("toolchain", [go, "list", "-deps", part.package], cwd=part.sources, env=environment)
            except SetupError:
                say("toolchain", f"downloading the modules of {part.name} failed")  # its build says why
            finally:
                downloaded[part.name].set()

    def build_one(part: Part, before: Part | None) -> None:
        try:
            downloaded[part.name].wait()
            if before:
                compiled[before.name].wait()
            _build(part, go, environment, compiled[part.name])
        finally:
            compiled[part.name].set()

    pairs = zip(todo, [None, *todo[:-1]], strict=True)
    together(download, *(partial(build_one, part, before) for part, before in pairs))
    return todo


def _build(part: Part, go: Path, environment: dict[str, str], compiled: threading.Event) -> None:
    digest = part.digest()
    new = part.output.with_name(part.output.name + ".new")
    new.parent.mkdir(parents=True, exist_ok=True)

    def watch(line: str) -> None:
        # The program's own package comes last; what follows is linking, on one core.
        if line == part.main_package:
            compiled.set()

    with Step("toolchain", f"compiling {part.output.name}"):
        run(
            "toolchain",
            [go, "build", "-v", *_FLAGS, "-ldflags", part.link, "-o", new, part.package],
            cwd=part.sources,
            env=environment,
            progress=partial(_progress, part.output.name),
            on_line=watch,
            hint="is the Go module proxy (GOPROXY) reachable?",
        )
        part.after(go)
    # In one step: a running program keeps its file, an interrupted build leaves none.
    new.replace(part.output)
    part.stamp.write_text(digest)


def _progress(name: str, lines: list[str]) -> str:
    # Go says nothing before its first package: a count of 0 looks as if it were stuck.
    return f"{name}: {len(lines)} packages compiled" if lines else f"{name}: Go is loading its packages"
