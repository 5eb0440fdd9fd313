"""``millrace:docker:VolumeOwner``: a volume that a non-root user can write."""

from __future__ import annotations

import io
import tarfile
from typing import Any

from docker.errors import NotFound
from typing_extensions import override

from millrace.resources import Call, Props, Resource

_MOUNT = "/volume"


class VolumeOwner(Resource):
    """Gives the top folder of ``volume`` to ``uid`` with mode 0700, without running anything as root.

    The engine itself sets the owner while it unpacks an archive that holds the folder's own entry into a
    container that is never started. Only the image's presence matters, not what is in it.
    """

    type_token = "millrace:docker:VolumeOwner"
    replace_on = frozenset({"volume"})
    ignore = frozenset({"image"})

    @override
    def create(self, call: Call, props: Props) -> tuple[str, dict[str, Any]]:
        volume, uid = str(props["volume"]), int(props["uid"])
        name = f"{volume}-owner"
        call.engine.remove(name)
        call.engine.ensure_image(str(props["image"]))
        container = call.engine.client.containers.create(
            props["image"],
            entrypoint=["/"],
            name=name,
            volumes={volume: {"bind": _MOUNT}},
            labels=dict(props["labels"]),
            network_mode="none",
        )
        try:
            container.put_archive("/", _folder(uid))
        finally:
            call.engine.remove(name)
        return volume, dict(props)

    @override
    def read(self, call: Call, id_: str, props: Props) -> dict[str, Any] | None:
        # A volume somebody removed comes back empty and root's.
        try:
            call.engine.client.volumes.get(str(props["volume"]))
        except NotFound:
            return None
        return dict(props)


def _folder(uid: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        info = tarfile.TarInfo(_MOUNT.lstrip("/"))
        info.type = tarfile.DIRTYPE
        info.mode = 0o700
        info.uid = info.gid = uid
        tar.addfile(info)
    return buffer.getvalue()
