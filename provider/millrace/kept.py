"""``millrace:core:Kept``: a value that stays what it was until something else changes."""

from __future__ import annotations

import uuid
from typing import Any

from typing_extensions import override

from millrace.resources import Call, Props, Resource


class Kept(Resource):
    """Gives ``value`` as ``kept``, and goes on giving it whatever ``value`` becomes, until ``until`` changes.

    For inputs whose change replaces what must not be replaced by the way. ``ignoreChanges`` would do that
    too, but what is replaced for another reason would then be made with the former value.
    """

    type_token = "millrace:core:Kept"
    replace_on = frozenset({"until"})
    ignore = frozenset({"value"})

    @override
    def create(self, call: Call, props: Props) -> tuple[str, dict[str, Any]]:
        return str(uuid.uuid4()), {**props, "kept": props["value"]}
