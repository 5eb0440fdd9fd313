"""Image builds by the engine's BuildKit, through the engine's own API: no client program, no session."""

from __future__ import annotations

import base64
import io
import json
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import docker
from docker.errors import APIError
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message

_TRACE = "moby.buildkit.trace"
_WIDTH = 120


class BuildError(Exception):
    """A build failed: the message says which step, ``log`` holds what that step wrote."""

    def __init__(self, message: str, log: Sequence[str]) -> None:
        super().__init__(message)
        self.log = log


def build(
    client: docker.DockerClient,
    tag: str,
    *,
    context: str,
    folders: Sequence[str],
    dockerfile: str,
    args: Mapping[str, str],
    progress: Callable[[str], None],
) -> None:
    """Build an image on the engine; ``progress`` gets a line whenever there is something to tell.

    Only ``folders`` of ``context`` are sent. Base images are taken from the engine where it has them.

    Raises:
        BuildError: when a step fails, or the engine refuses the build.
    """
    api = client.api
    answer = api._post(
        api._url("/build"),
        data=_archive(Path(context), folders),
        params={"version": "2", "t": tag, "dockerfile": dockerfile, "buildargs": json.dumps(dict(args))},
        headers={"Content-Type": "application/x-tar"},
        stream=True,
        # Silence of a step is no sign that something is wrong.
        timeout=None,
    )
    steps = _Steps()
    try:
        api._raise_for_status(answer)
        for line in api._stream_helper(answer, decode=True):
            if "error" in line:
                raise BuildError(*steps.failure(str(line["error"])))
            if line.get("id") == _TRACE:
                for text in steps.take(base64.b64decode(line["aux"])):
                    progress(text)
    except APIError as error:
        raise BuildError(str(error.explanation or error), []) from None
    finally:
        answer.close()


class _Steps:
    """What BuildKit told of a build so far: names, errors and output of its steps."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._failed: str | None = None
        self._output: dict[str, str] = {}

    def take(self, trace: bytes) -> Iterator[str]:
        """Read one message; yields a line of progress for each step that starts and each output."""
        status: Any = _STATUS()
        status.ParseFromString(trace)
        for vertex in status.vertexes:
            if vertex.error and self._failed is None:
                self._failed = vertex.digest
            if vertex.digest not in self._names and vertex.name:
                self._names[vertex.digest] = vertex.name
                if not vertex.name.startswith("[internal]"):
                    yield _short(vertex.name)
        for log in status.logs:
            text = log.msg.decode(errors="replace")
            self._output[log.vertex] = self._output.get(log.vertex, "") + text
            if text.strip():
                yield _short(text.strip().splitlines()[-1])

    def failure(self, message: str) -> tuple[str, list[str]]:
        """In short what failed, and what that step wrote."""
        if self._failed is None:
            return message, []
        name = self._names.get(self._failed, "")
        code = message.rpartition("exit code: ")[2] if "exit code: " in message else ""
        lines = self._output.get(self._failed, "").replace("\r", "\n").splitlines()
        short = f"{_short(name)} ended with exit code: {code}" if code else f"{_short(name)}: {message}"
        return short, [_short(line, 1000) for line in lines if line.strip()]


def _short(text: str, width: int = _WIDTH) -> str:
    text = " ".join(text.split()) if width == _WIDTH else text.rstrip()
    return text if len(text) <= width else text[:width] + "…"


def _archive(context: Path, folders: Sequence[str]) -> bytes:
    """A tar in which nothing but names, contents and the executable bit count."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for folder in sorted(folders):
            for path in sorted((context / folder).rglob("*")):
                if path.is_file():
                    info = tarfile.TarInfo(str(path.relative_to(context)))
                    info.mode = 0o755 if path.stat().st_mode & 0o111 else 0o644
                    content = path.read_bytes()
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def _messages() -> type[Message]:
    """BuildKit's ``StatusResponse``, as far as it is read here (moby/buildkit, api/services/control)."""
    kind = descriptor_pb2.FieldDescriptorProto

    def message(name: str, *fields: tuple[int, str, int, str | None]) -> descriptor_pb2.DescriptorProto:
        made = descriptor_pb2.DescriptorProto(name=name)
        for number, field, type_, of in fields:
            made.field.add(
                number=number,
                name=field,
                type=type_,
                label=kind.LABEL_REPEATED if of else kind.LABEL_OPTIONAL,
                type_name=f".millrace.buildkit.{of}" if of else None,
            )
        return made

    file = descriptor_pb2.FileDescriptorProto(
        name="millrace/buildkit.proto",
        package="millrace.buildkit",
        syntax="proto3",
        message_type=[
            message(
                "Vertex",
                (1, "digest", kind.TYPE_STRING, None),
                (3, "name", kind.TYPE_STRING, None),
                (7, "error", kind.TYPE_STRING, None),
            ),
            message("Log", (1, "vertex", kind.TYPE_STRING, None), (4, "msg", kind.TYPE_BYTES, None)),
            message(
                "Status",
                (1, "vertexes", kind.TYPE_MESSAGE, "Vertex"),
                (3, "logs", kind.TYPE_MESSAGE, "Log"),
            ),
        ],
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found: type[Message] = message_factory.GetMessageClass(
        pool.FindMessageTypeByName("millrace.buildkit.Status")
    )
    return found


_STATUS = _messages()
