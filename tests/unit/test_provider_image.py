"""Images of the provider, against a server that answers as a Docker engine does."""

from __future__ import annotations

import base64
import io
import json
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from millrace import buildkit
from millrace.engine import Engine, HostSettings
from millrace.image import Image
from millrace.resources import Call, ResourceError

DIGEST = "sha256:" + "1" * 64
# As an engine sent them: the start of a step, and a line that a step wrote.
STEP = (
    "CosBCkdzaGEyNTY6OTg2OTgwMjY2NWI0ZmI3ZTM5MzRlYmE5OTM2MWEzZTQ2YTgxNjE2MDE2Y2Y4OTgyODZjOGM4ZmVkOWQ5YjM5ZhokW2lu"
    "dGVybmFsXSBsb2FkIHJlbW90ZSBidWlsZCBjb250ZXh0KgwIlZqG2AYQwNXnnAIyDAiVmobYBhD83P2hAg=="
)
OUTPUT = (
    "GnMKR3NoYTI1Njo5ZjM0NTM5MmQxMjFiMGIzYjE0NjQxNmE0NTljYTE1NjA2MjBjYWVjZjljYWM2OWU1NTM2OGVlMjYxMDcwMjMwEgwIl5qG"
    "2AYQlZP/1wIYASIYUmVhZGluZyBwYWNrYWdlIGxpc3RzLi4u"
)


class FakeEngine:
    """What it has, what it answers, what it was asked."""

    def __init__(self) -> None:
        self.images: dict[str, str] = {}
        self.lines: list[dict[str, Any]] = []
        self.makes: str | None = None
        self.refuses: tuple[int, str] | None = None
        self.asked: list[tuple[str, dict[str, str], bytes, str | None]] = []
        engine = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                path = unquote(urlsplit(self.path).path)
                if path.endswith("/version"):
                    self._answer(200, {"ApiVersion": "1.41"})
                name = path.partition("/images/")[2].removesuffix("/json")
                if name in engine.images:
                    self._answer(200, {"Id": engine.images[name]})
                elif name:
                    self._answer(404, {"message": f"No such image: {name}"})

            def do_POST(self) -> None:
                parts = urlsplit(self.path)
                query = {k: v[0] for k, v in parse_qs(parts.query).items()}
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                what = parts.path.rpartition("/")[2]
                engine.asked.append((what, query, body, self.headers.get("X-Registry-Auth")))
                if engine.refuses:
                    self._answer(engine.refuses[0], {"message": engine.refuses[1]})
                    return
                if engine.makes:
                    engine.images[engine.makes] = "sha256:made"
                self._stream("".join(f"{json.dumps(line)}\r\n" for line in engine.lines).encode())

            def _stream(self, data: bytes) -> None:
                self.send_response(200)
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                for chunk in (data, b"") if data else (b"",):
                    self.wfile.write(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")

            def _answer(self, status: int, content: Any) -> None:
                data = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args: Any) -> None:
                """Nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def address(self) -> str:
        return f"tcp://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def engine() -> Iterator[FakeEngine]:
    fake = FakeEngine()
    yield fake
    fake.server.shutdown()
    fake.server.server_close()


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def call(engine: FakeEngine, said: list[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    monkeypatch.setattr("millrace.resources._PROGRESS_S", 0.0)
    return Call(
        engine=Engine(HostSettings(host=engine.address)), progress=said.append, cancelled=threading.Event()
    )


@pytest.fixture
def context(tmp_path: Path) -> Path:
    for name, text in {
        "web/Dockerfile": "FROM x",
        "web/run": "#!",
        "common/get": "x",
        "other/f": "y",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    (tmp_path / "web/run").chmod(0o775)
    return tmp_path


def built(context: Path, **more: Any) -> dict[str, Any]:
    return {
        "title": "web",
        "reference": "millrace/web:1-abc",
        "context": str(context),
        "folders": ["web", "common", "absent"],
        "dockerfile": "web/Dockerfile",
        "args": {"BASE": "millrace/base:1"},
    } | more


PULLED = {"title": "web", "reference": "r.example:5000/a/web:2"}


def trace(
    *, names: dict[str, str], error: str = "", output: dict[str, bytes] | None = None
) -> dict[str, str]:
    status: Any = buildkit._STATUS()
    for digest, name in names.items():
        status.vertexes.add(digest=digest, name=name, error=error)
    for digest, text in (output or {}).items():
        status.logs.add(vertex=digest, msg=text)
    return {"id": "moby.buildkit.trace", "aux": base64.b64encode(status.SerializeToString()).decode()}


def test_an_image_that_is_there_is_left_alone(call: Call, engine: FakeEngine, context: Path) -> None:
    engine.images["millrace/web:1-abc"] = "sha256:old"
    id_, outs = Image().create(call, built(context))
    assert (id_, outs["image"]) == ("web", "sha256:old")
    assert engine.asked == []


def test_a_build_sends_its_own_folders_and_nothing_of_this_machine(
    call: Call, engine: FakeEngine, context: Path
) -> None:
    engine.makes = "millrace/web:1-abc"
    assert Image().create(call, built(context))[1]["image"] == "sha256:made"
    ((what, query, body, _),) = engine.asked
    assert what == "build"
    assert query["version"] == "2"
    assert (query["t"], query["dockerfile"]) == ("millrace/web:1-abc", "web/Dockerfile")
    assert json.loads(query["buildargs"]) == {"BASE": "millrace/base:1"}
    with tarfile.open(fileobj=io.BytesIO(body)) as tar:
        found = {m.name: (m.mode, m.uid, m.mtime) for m in tar.getmembers()}
    assert found == {
        "common/get": (0o644, 0, 0),
        "web/Dockerfile": (0o644, 0, 0),
        "web/run": (0o755, 0, 0),
    }


def test_what_the_engine_tells_is_shown_as_progress(
    call: Call, engine: FakeEngine, said: list[str], context: Path
) -> None:
    engine.makes = "millrace/web:1-abc"
    step = trace(names={"sha256:1": "[stage-0 2/3] RUN  apt-install\\\n  nginx"})
    engine.lines = [{"id": "moby.buildkit.trace", "aux": aux} for aux in (STEP, OUTPUT)] + [step, step]
    Image().create(call, built(context))
    # The first line only starts the clock; the engine's own steps are nobody's business.
    assert said == ["web: [stage-0 2/3] RUN apt-install\\ nginx"]


def test_a_failed_step_is_named_with_what_it_wrote(call: Call, engine: FakeEngine, context: Path) -> None:
    lines = "".join(f"line {n}\n" for n in range(50)).encode()
    names = {"sha256:2": "[stage-0 2/3] RUN make all"}
    engine.lines = [
        trace(names={"sha256:1": "[stage-0 1/3] FROM base"}, output={"sha256:1": b"of another step\n"}),
        trace(names=names, output={"sha256:2": lines}),
        trace(names=names, output={"sha256:2": b"no such "}),
        trace(names=names, output={"sha256:2": b"file\n"}),
        trace(names=names, error="exit code: 7"),
        {
            "errorDetail": {"message": "x"},
            "error": "executor failed running [/bin/sh -c make all]: exit code: 7",
        },
    ]
    with pytest.raises(ResourceError) as caught:
        Image().create(call, built(context))
    first, second, *rest = str(caught.value).splitlines()
    assert first == "image web: build failed: [stage-0 2/3] RUN make all ended with exit code: 7"
    assert second == "last 30 lines of its output:"
    assert len(rest) == 30
    assert rest[-2:] == ["  line 49", "  no such file"]


def test_an_error_outside_of_any_step(call: Call, engine: FakeEngine, context: Path) -> None:
    engine.lines = [{"error": "dockerfile parse error line 3: unknown instruction: RNU"}]
    with pytest.raises(ResourceError, match="image web: build failed: dockerfile parse error line 3"):
        Image().create(call, built(context))
    engine.refuses = (500, "no space left on device")
    with pytest.raises(ResourceError, match="image web: build failed: no space left on device"):
        Image().create(call, built(context))


def test_a_pull_with_the_registry_s_credentials(call: Call, engine: FakeEngine) -> None:
    engine.makes = PULLED["reference"]
    Image().create(call, PULLED | {"username": "u", "password": "p"})
    ((what, query, _, login),) = engine.asked
    assert what == "create"
    assert (query["fromImage"], query["tag"]) == ("r.example:5000/a/web", "2")
    assert login is not None
    assert json.loads(base64.urlsafe_b64decode(login)) == {"username": "u", "password": "p"}


def test_a_pull_without_credentials_takes_none_of_this_machine(call: Call, engine: FakeEngine) -> None:
    engine.makes = PULLED["reference"]
    Image().create(call, PULLED)
    ((_, _, _, login),) = engine.asked
    assert login is None or json.loads(base64.urlsafe_b64decode(login)) == {}


def test_a_digest_decides_not_the_tag(call: Call, engine: FakeEngine) -> None:
    engine.images["r.example:5000/a/web:2"] = "sha256:other"
    engine.makes = f"r.example:5000/a/web@{DIGEST}"
    props = {"title": "web", "reference": f"{PULLED['reference']}@{DIGEST}"}
    assert Image().create(call, props)[1]["image"] == "sha256:made"
    ((_, query, _, _),) = engine.asked
    assert (query["fromImage"], query["tag"]) == ("r.example:5000/a/web:2", DIGEST)


@pytest.mark.parametrize(
    ("refused", "lines"),
    [((404, "manifest unknown"), []), (None, [{"status": "Pulling"}, {"error": "manifest unknown"}])],
)
def test_a_pull_that_fails_is_one_line(
    call: Call, engine: FakeEngine, refused: tuple[int, str] | None, lines: list[dict[str, Any]]
) -> None:
    engine.refuses, engine.lines = refused, lines
    with pytest.raises(ResourceError) as caught:
        Image().create(call, PULLED)
    assert str(caught.value) == f"image web: cannot pull {PULLED['reference']}: manifest unknown"


def test_progress_of_a_pull_counts_all_layers(call: Call, engine: FakeEngine, said: list[str]) -> None:
    engine.makes = PULLED["reference"]
    part = 8 << 20
    engine.lines = [
        {"status": "Pulling fs layer", "id": "a"},
        {"status": "Downloading", "id": "a", "progressDetail": {"current": part, "total": 2 * part}},
        {"status": "Downloading", "id": "b", "progressDetail": {"current": part, "total": part}},
    ]
    Image().create(call, PULLED)
    assert said[-1] == "web: pulling, 16 of 24 MiB"


def test_cancelling_ends_build_and_pull(call: Call, engine: FakeEngine, context: Path) -> None:
    call.cancelled.set()
    engine.lines = [trace(names={"sha256:1": "[stage-0 1/1] RUN sleep"})]
    with pytest.raises(ResourceError, match="cancelled"):
        Image().create(call, built(context))
    engine.lines = [{"status": "Downloading"}]
    with pytest.raises(ResourceError, match="cancelled"):
        Image().create(call, PULLED)


def test_an_image_somebody_removed_is_made_again(call: Call, engine: FakeEngine) -> None:
    props = {"title": "web", "reference": "millrace/web:1-abc", "image": "sha256:old"}
    assert Image().read(call, "web", props) is None
    engine.images["millrace/web:1-abc"] = "sha256:new"
    assert Image().read(call, "web", props) == props | {"image": "sha256:new"}
