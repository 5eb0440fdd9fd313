"""Digests of official images: asked of a registry, kept in a file, part of what is pulled."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from components import images
from components.estimates import Host, estimate
from components.settings import load
from scripts import digests
from scripts.console import SetupError

DIGEST = f"sha256:{'a' * 64}"
POSTGRES = "docker.io/library/postgres:15.19-bookworm"


class _Registry(BaseHTTPRequestHandler):
    """Answers as Docker Hub does: reading needs a token that everybody gets."""

    def do_HEAD(self) -> None:
        if self.headers.get("Authorization") != "Bearer t0":
            self.send_response(401)
            realm = f"http://127.0.0.1:{self.server.server_port}/token"  # type: ignore[attr-defined]
            self.send_header(
                "WWW-Authenticate", f'Bearer realm="{realm}",service="s",scope="repository:x:pull"'
            )
        elif self.path == "/v2/library/thing/manifests/1.0" and "index" in self.headers["Accept"]:
            self.send_response(200)
            self.send_header("Docker-Content-Digest", DIGEST)
        else:
            self.send_response(404 if "missing" in self.path else 200)
        self.end_headers()

    def do_GET(self) -> None:
        body = json.dumps({"token": "t0" if "scope=repository%3Ax%3Apull" in self.path else ""}).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def registry() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Registry)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_registry_tells_the_digest_of_a_tag(registry: str) -> None:
    assert digests.digest_of(f"{registry}/library/thing:1.0", "http") == DIGEST


@pytest.mark.parametrize(
    ("image", "why"), [("library/missing:1.0", "HTTP Error 404"), ("library/thing:2.0", "told no digest")]
)
def test_what_a_registry_does_not_know_is_told(registry: str, image: str, why: str) -> None:
    with pytest.raises(SetupError, match=why):
        digests.digest_of(f"{registry}/{image}", "http")


def test_nobody_there_is_told() -> None:
    with pytest.raises(SetupError, match=r"127.0.0.1:1/library/thing:1.0: .*refused"):
        digests.digest_of("127.0.0.1:1/library/thing:1.0", "http")


@pytest.fixture
def known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    file = tmp_path / "digests.json"
    file.write_text(json.dumps({POSTGRES: DIGEST}))
    monkeypatch.setattr(images, "DIGESTS", file)
    images.digests.cache_clear()
    yield file
    images.digests.cache_clear()


@pytest.mark.usefixtures("known")
def test_a_known_digest_is_part_of_the_reference() -> None:
    assert images.upstream_reference("postgres", None) == f"{POSTGRES}@{DIGEST}"
    # A mirror that was filled by hand has others, and the catalogue's own digest stays.
    assert images.upstream_reference("postgres", "r.acme.org") == "r.acme.org/library/postgres:15.19-bookworm"
    assert images.upstream_reference("minio", None).count("@sha256:") == 1


@pytest.mark.usefixtures("known")
def test_an_image_that_was_pulled_by_digest_is_found_on_the_engine() -> None:
    users = [{"name": "ada", "role": "admin"}]
    asked = load({"users": users, "images": "upstream", "postgres": {}}, "Pulumi.test.yaml")
    there = Host(
        name="h",
        memory_mib=None,
        disk_mb=None,
        images=frozenset([f"docker.io/library/postgres@{DIGEST}"]),
    )
    assert estimate(asked).disk_mb - estimate(asked, there).disk_mb == 440


def test_found_digests_are_kept_and_those_of_former_versions_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "configs.json"
    kafka = str(images.CATALOGUE["kafka"].upstream)
    file.write_text(json.dumps({"docker.io/library/postgres:14": DIGEST, kafka: DIGEST}))
    monkeypatch.setattr(digests, "ROOT", tmp_path)
    monkeypatch.setattr(digests, "DIGESTS", Path("configs.json"))
    monkeypatch.setattr("sys.argv", ["digests"])

    def asked(reference: str) -> str:
        if reference == kafka:
            raise SetupError(f"{reference}: nobody there")
        return f"sha256:{'b' * 64}"

    monkeypatch.setattr(digests, "digest_of", asked)
    with pytest.raises(SetupError, match=f"{kafka}: nobody there"):
        digests._main()
    written = json.loads(file.read_text())
    assert written[POSTGRES] == f"sha256:{'b' * 64}"
    assert written[kafka] == DIGEST
    assert "docker.io/library/postgres:14" not in written
    assert not any("@" in reference for reference in written)
    assert "written to configs.json" in capsys.readouterr().out
