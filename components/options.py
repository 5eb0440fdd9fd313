"""The one place that builds resource options of children."""

from __future__ import annotations

from collections.abc import Sequence

import pulumi


def child_opts(
    parent: pulumi.Resource,
    *,
    provider: pulumi.ProviderResource | None = None,
    depends_on: Sequence[pulumi.Resource] = (),
    **extra: object,
) -> pulumi.ResourceOptions:
    """Options for a child of ``parent``.

    A caller's own ``opts`` go to ``super().__init__`` only: merged
    into children their ``parent`` would win and their aliases leak.
    """
    return pulumi.ResourceOptions(
        parent=parent,
        provider=provider,
        depends_on=list(depends_on) or None,
        **extra,  # type: ignore[arg-type]
    )
