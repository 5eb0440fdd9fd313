"""The base image of every built image, where no registry can be reached."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from pathlib import Path

from scripts import packages
from scripts.console import SetupError, Step, run, say
from scripts.target import Target

IMAGE = "debian:bookworm-slim"
_SUITE = "bookworm"
_MERGED_USR = "/usr/share/mmdebstrap/hooks/merged-usr"
_FIRST_ANSWER_SECONDS = 8
# What the official slim image leaves out as well.
_EXCLUDED = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/info/*", "/usr/share/locale/*")
_KEPT = ("/usr/share/doc/*/copyright",)
# Files made during the installation get this date, so that the same packages give the same layer.
_EPOCH = "1767225600"


def ensure(target: Target) -> None:
    """Have the base image on the engine: there already, pulled, or bootstrapped from Debian's packages.

    Raises:
        SetupError: no registry answers and it can't be bootstrapped.
    """
    found = subprocess.run(
        target.docker("image", "inspect", "--format", "{{.Id}}", IMAGE), capture_output=True
    )
    if found.returncode == 0:
        return
    if _pull(target):
        say("base image", f"pulled {IMAGE}")
        return
    _bootstrap(target)


def _pull(target: Target) -> bool:
    """Pull the image; give up when the registry has not answered within a few seconds."""
    process = subprocess.Popen(
        target.docker("pull", IMAGE),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    os.set_blocking(process.stdout.fileno(), False)
    answered = False
    end = time.monotonic() + _FIRST_ANSWER_SECONDS
    while process.poll() is None:
        answered = bool(process.stdout.read()) or answered
        if not answered and time.monotonic() > end:
            process.kill()
            process.wait()
            return False
        time.sleep(0.1)
    return process.returncode == 0


def _bootstrap(target: Target) -> None:
    with Step("base image", f"no registry answers: making {IMAGE} from Debian's packages"):
        packages.require(
            "base image",
            "mmdebstrap",
            "mmdebstrap",
            f"install it (sudo apt-get install mmdebstrap), or give the engine {IMAGE} with `docker load`",
        )
        with tempfile.TemporaryDirectory(prefix="millrace-") as folder:
            Path(folder).chmod(0o755)  # without root, mmdebstrap works as another user
            archive = Path(folder) / "base.tar"
            try:
                _mmdebstrap(archive, [])
            except SetupError:
                if not _host_is_suite():
                    raise
                # A closed network often has a mirror of its own, which this machine already uses.
                say("base image", "Debian's own mirror failed, trying this machine's")
                _mmdebstrap(archive, ["/etc/apt/sources.list", *_source_lists()])
            command = target.docker("import", "--change", 'CMD ["bash"]', "-", IMAGE)
            with archive.open("rb") as content:
                run("base image", command, stdin=content)


def _mmdebstrap(archive: Path, sources: list[str]) -> None:
    options = [f"--dpkgopt=path-exclude={pattern}" for pattern in _EXCLUDED]
    options += [f"--dpkgopt=path-include={pattern}" for pattern in _KEPT]
    run(
        "base image",
        [
            "mmdebstrap",
            "--variant=minbase",
            # Without the hook, a package that merges /usr brings all of Perl along.
            f"--hook-dir={_MERGED_USR}",
            "--include=ca-certificates,usr-is-merged",
            '--aptopt=APT::Install-Recommends "false"',
            '--aptopt=Acquire::Languages "none"',
            *options,
            # The packages that dpkg itself needs are unpacked before dpkg can leave anything out.
            "--customize-hook=rm -rf $1/usr/share/man/* $1/usr/share/info/* $1/usr/share/locale/*;"
            " find $1/usr/share/doc -depth -type f ! -name copyright -delete",
            # These were options for here; in the image apt keeps its defaults, as in the official one.
            "--customize-hook=rm -f $1/etc/apt/apt.conf.d/99mmdebstrap;"
            " echo 'Acquire::Languages \"none\";' > $1/etc/apt/apt.conf.d/docker-no-languages",
            # mmdebstrap empties the package lists itself; caches and logs carry dates.
            "--customize-hook=rm -rf $1/var/cache/ldconfig/* $1/var/cache/debconf/*-old"
            " $1/var/lib/dpkg/*-old $1/var/log/*.log $1/var/log/apt",
            _SUITE,
            str(archive),
            *[source for source in sources if Path(source).is_file()],
        ],
        env={"SOURCE_DATE_EPOCH": _EPOCH, "TMPDIR": str(archive.parent)},
    )


def _source_lists() -> list[str]:
    return [str(path) for path in sorted(Path("/etc/apt/sources.list.d").glob("*.sources"))]


def _host_is_suite() -> bool:
    release = Path("/etc/os-release")
    return release.is_file() and f"VERSION_CODENAME={_SUITE}" in release.read_text()
