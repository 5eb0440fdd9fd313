"""``millrace:docker:Image``: an image on the engine, built there or pulled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from docker.errors import APIError, ImageNotFound
from typing_extensions import override

from millrace.buildkit import BuildError, build
from millrace.engine import LOG_LINES, Engine, reason
from millrace.resources import Call, Props, Resource, ResourceError


class Image(Resource):
    """Sees to it that the engine has ``reference`` and gives its id as ``image``.

    With ``dockerfile`` it is built by the engine's BuildKit from ``folders`` of ``context`` with the build
    arguments ``args``; otherwise pulled, with ``username`` and ``password`` where the registry wants them. A
    reference that the engine has is neither built nor pulled again: it names one content. The pulumi-docker
    provider's own image resource shows neither a build's progress nor what a failed step wrote, and builds
    again on each new stack.

    Nothing is removed: other stacks may use the image.
    """

    type_token = "millrace:docker:Image"
    # How to get it is no part of what it is: the reference of a built image has the hash of its content.
    ignore = frozenset({"context", "dockerfile", "folders", "args", "username", "password"})

    @override
    def create(self, call: Call, props: Props) -> tuple[str, dict[str, Any]]:
        title, reference = str(props["title"]), str(props["reference"])
        image_id = _id(call.engine, reference)
        if image_id is None:
            if props.get("dockerfile"):
                _build(call, title, props)
            else:
                _pull(call, title, props)
            image_id = _id(call.engine, reference)
        if image_id is None:
            raise ResourceError(
                f"image {title}: {reference} is not on the engine, which just said it was made"
            )
        return title, {"title": title, "reference": reference, "image": image_id}

    @override
    def read(self, call: Call, id_: str, props: Props) -> dict[str, Any] | None:
        image_id = _id(call.engine, str(props["reference"]))
        return None if image_id is None else {**props, "image": image_id}


def _id(engine: Engine, reference: str) -> str | None:
    name, _, digest = reference.partition("@")
    if digest:
        # With a digest the tag says nothing, and the engine keeps the image without it.
        folder, slash, last = name.rpartition("/")
        reference = f"{folder}{slash}{last.partition(':')[0]}@{digest}"
    try:
        return str(engine.client.images.get(reference).id)
    except ImageNotFound:
        return None


def _build(call: Call, title: str, props: Props) -> None:
    def progress(line: str) -> None:
        if call.cancelled.is_set():
            raise ResourceError("cancelled")
        call.say(f"{title}: {line}")

    try:
        build(
            call.engine.client,
            str(props["reference"]),
            context=str(props["context"]),
            folders=[str(folder) for folder in props["folders"]],
            dockerfile=str(props["dockerfile"]),
            args={key: str(value) for key, value in dict(props["args"]).items()},
            progress=progress,
        )
    except BuildError as error:
        lines = "\n".join(f"  {line}" for line in error.log[-LOG_LINES:]) or "  (it wrote none)"
        raise ResourceError(
            f"image {title}: build failed: {error}\nlast {LOG_LINES} lines of its output:\n{lines}"
        ) from None


def _pull(call: Call, title: str, props: Props) -> None:
    reference = str(props["reference"])
    login = None
    if props.get("username"):
        login = {"username": str(props["username"]), "password": str(props["password"])}
    try:
        # An empty login, not None: with that the library would look into the files of this machine's user.
        answers = call.engine.client.api.pull(reference, stream=True, decode=True, auth_config=login or {})
        for line in _progress(answers):
            if call.cancelled.is_set():
                raise ResourceError("cancelled")
            call.say(f"{title}: pulling, {line}")
    except (APIError, _PullError) as error:
        why = reason(error) if isinstance(error, APIError) else str(error)
        raise ResourceError(f"image {title}: cannot pull {reference}: {why}") from None


class _PullError(Exception):
    """What the engine says in the middle of a pull."""


def _progress(answers: Iterator[Mapping[str, Any]]) -> Iterator[str]:
    """How much has come so far, of all layers together."""
    layers: dict[str, tuple[int, int]] = {}
    for answer in answers:
        if "error" in answer:
            raise _PullError(str(answer["error"]))
        detail = answer.get("progressDetail") or {}
        if answer.get("status") == "Downloading" and detail.get("total"):
            layers[str(answer["id"])] = (int(detail["current"]), int(detail["total"]))
        done, total = (sum(part) for part in zip(*layers.values(), strict=True)) if layers else (0, 0)
        yield f"{done >> 20} of {total >> 20} MiB" if total else str(answer.get("status", ""))
