"""``millrace:core:Former``: what a value was before, for those who must still read what it encrypted."""

from __future__ import annotations

import uuid
from typing import Any

from typing_extensions import override

from millrace.resources import Call, Props, Resource


class Former(Resource):
    """Remembers the last ``keep`` values that ``value`` had, newest first, in the output ``former``.

    Nothing but the state knows them: a rotated key is generated anew, and the old one would be gone.
    """

    type_token = "millrace:core:Former"

    @override
    def create(self, call: Call, props: Props) -> tuple[str, dict[str, Any]]:
        return str(uuid.uuid4()), {**props, "former": []}

    @override
    def update(self, call: Call, id_: str, props: Props, olds: Props) -> dict[str, Any]:
        known = [olds["value"], *olds["former"]] if olds["value"] != props["value"] else list(olds["former"])
        return {**props, "former": [v for v in known if v != props["value"]][: int(props["keep"])]}
