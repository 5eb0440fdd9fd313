"""What lets Pulumi into the account at DigitalOcean, and what of it is missing."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from components.problems import Problem

if TYPE_CHECKING:
    from components.digitalocean_settings import DigitalOceanTarget

_TOKEN = "DIGITALOCEAN_TOKEN"
_SPACES = {
    "SPACES_ACCESS_KEY_ID": "digitalocean:spacesAccessId",
    "SPACES_SECRET_ACCESS_KEY": "digitalocean:spacesSecretKey",
}
"""Keys by which the provider makes buckets: environment variable -> configuration."""


def missing_token(config: Mapping[str, str]) -> Problem | None:
    """Whether there is no token for the API; ``config`` is Pulumi's, with namespaces."""
    # The provider takes the second name, too (terraform-provider-digitalocean, provider.go).
    names = (_TOKEN, "DIGITALOCEAN_ACCESS_TOKEN")
    if config.get("digitalocean:token") or any(os.environ.get(name) for name in names):
        return None
    return Problem(
        ("target",), f"there is no {_TOKEN}, which `up` needs - set it as docs/digitalocean.md says"
    )


def missing_keys(target: DigitalOceanTarget, config: Mapping[str, str]) -> Problem | None:
    """What the provider lacks to make buckets, and a token beside them; ``config`` is Pulumi's."""
    if target.object_store is None:
        return None
    absent = [name for name, key in _SPACES.items() if not (os.environ.get(name) or config.get(key))]
    if not absent:
        return None
    also = f"; there is no {_TOKEN} either" if missing_token(config) else ""
    return Problem(
        ("target", "object_store"),
        f"Spaces needs an access key of the account, and there is no {' and no '.join(absent)}{also} "
        "- set them as docs/digitalocean.md says",
    )
