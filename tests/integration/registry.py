"""An image registry on this machine: Debian's docker-registry, behind a password, on the loopback address.

The engine talks plain HTTP to registries on 127.0.0.0/8 without being told to.
"""

from __future__ import annotations

import contextlib
import io
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import docker
import httpx
import pytest
import yaml
from docker.errors import ImageNotFound
from docker.models.images import Image

from tests.integration.stack import free_port, wait_until

_MARK = "mrtest.registry"


class Registry:
    """Starts an empty registry; :meth:`close` removes it and every image that went through it."""

    username = "puller"

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="millrace-registry-", dir="/var/tmp"))
        self.password = secrets.token_urlsafe(18)
        self.address = f"127.0.0.1:{free_port()}"
        self._docker = docker.from_env(timeout=300)
        self._log = self.folder / "registry.log"
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        program = _program(self.folder)
        (self.folder / "htpasswd").write_text(f"{self.username}:{_bcrypt(self.password)}\n")
        config = {
            "version": "0.1",
            "log": {"level": "info"},
            "storage": {"filesystem": {"rootdirectory": str(self.folder / "images")}},
            "http": {"addr": self.address},
            "auth": {"htpasswd": {"realm": "tests", "path": str(self.folder / "htpasswd")}},
        }
        (self.folder / "config.yml").write_text(yaml.safe_dump(config))
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [program, "serve", self.folder / "config.yml"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        wait_until(lambda: self._get("/v2/").status_code == 200, every=0.1)

    def close(self) -> None:
        """Stop the process; remove its files and its images on the engine."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
        for image in self._docker.images.list(filters={"label": _MARK}):
            for reference in [*image.tags, *(image.attrs["RepoDigests"] or [])]:
                # A digest goes with its last tag.
                if reference.startswith(f"{self.address}/"):
                    with contextlib.suppress(ImageNotFound):
                        self._docker.images.remove(reference)
        shutil.rmtree(self.folder)

    def _get(self, path: str) -> httpx.Response:
        auth = (self.username, self.password)
        return httpx.get(f"http://{self.address}{path}", auth=auth, trust_env=False)

    def fill(self, image: str, reference: str, *, without: Sequence[str] = ()) -> str:
        """Push an image that works like ``image`` and is told from it by a label; returns its digest.

        The engine keeps no tag of it: who wants it must pull. ``without`` names commands it does not have.
        """
        repository, tag = f"{self.address}/{reference}".rsplit(":", 1)
        text = f"FROM {image}\nLABEL {_MARK}={reference}\n"
        if without:
            text += f"USER 0\nRUN cd /usr/bin && rm {' '.join(without)}\nUSER 65534\n"
        made, _ = self._docker.images.build(
            fileobj=io.BytesIO(text.encode()), tag=f"{repository}:{tag}", rm=True
        )
        auth = {"username": self.username, "password": self.password}
        for line in self._docker.images.push(repository, tag, stream=True, decode=True, auth_config=auth):
            if "error" in line:
                raise RuntimeError(f"push of {repository}:{tag}: {line['error']}")
            if "Digest" in line.get("aux", {}):
                digest = str(line["aux"]["Digest"])
        self._docker.images.remove(made.id, force=True)
        return digest

    @staticmethod
    def origin(image: Image) -> str | None:
        """The reference an image was filled in as, or None for one that does not come from a registry."""
        return dict(image.labels).get(_MARK)


def _program(folder: Path) -> Path | str:
    """The registry, unpacked for the tests alone: installed, its package would start a service."""
    if found := shutil.which("docker-registry"):
        return found
    if not shutil.which("apt-get"):
        pytest.skip("needs docker-registry, or a Debian that has its package")
    subprocess.run(["apt-get", "-q", "download", "docker-registry"], cwd=folder, check=True)
    (package,) = folder.glob("docker-registry_*.deb")
    subprocess.run(["dpkg-deb", "--extract", package, folder / "package"], check=True)
    return folder / "package" / "usr" / "bin" / "docker-registry"


def _bcrypt(password: str) -> str:
    # The only hash the registry takes. Perl, which every Debian has, calls the C library's.
    salt = "".join(secrets.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz") for _ in range(22))
    script = 'my $p = <STDIN>; print crypt($p, "$ARGV[0]")'
    done = subprocess.run(
        ["perl", "-e", script, f"$2b$05${salt}"], input=password, capture_output=True, text=True, check=True
    )
    return done.stdout.replace("$2b$", "$2y$", 1)
