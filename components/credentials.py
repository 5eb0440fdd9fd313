"""Generated passwords as managed resources: one for each purpose, rotated by a setting."""

from __future__ import annotations

from functools import cached_property

import pulumi
import pulumi_random as random

from components.options import child_opts

# Letters and digits only: such a password needs no quoting in any configuration format.
_LENGTH = 32


class Credential(pulumi.ComponentResource):
    """A password of 32 letters and digits (190 bits) for one purpose.

    ``id_`` is ``<owner>/<name>``, such as ``postgres/app``: what one writes under ``rotation`` to replace it.
    Another ``rotation`` text generates another password; the same text never does.
    """

    def __init__(self, id_: str, *, rotation: str, opts: pulumi.ResourceOptions | None = None) -> None:
        self.id = id_
        name = "credential-" + id_.replace("/", "-").replace("_", "-")
        super().__init__("millrace:core:Credential", name, None, opts)
        self._name = name
        self._rotation = rotation
        self._random = random.RandomPassword(
            f"{name}-password",
            length=_LENGTH,
            special=False,
            keepers={"rotation": rotation},
            opts=child_opts(self, additional_secret_outputs=["result", "bcryptHash"]),
        )
        self.register_outputs({})

    @property
    def password(self) -> pulumi.Output[str]:
        """The password; secret."""
        return pulumi.Output.secret(self._random.result)

    @property
    def bcrypt_hash(self) -> pulumi.Output[str]:
        """Its bcrypt hash, the same until the password changes; secret."""
        return pulumi.Output.secret(self._random.bcrypt_hash)

    @cached_property
    def salt(self) -> pulumi.Output[str]:
        """Sixteen random characters that live as long as the password, for verifiers; secret."""
        salt = random.RandomPassword(
            f"{self._name}-salt",
            length=16,
            special=False,
            keepers={"rotation": self._rotation},
            opts=child_opts(self, additional_secret_outputs=["result", "bcryptHash"]),
        )
        return pulumi.Output.secret(salt.result)
