"""What one service needs to know to use another; the same shape on every target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, urlencode

import pulumi

Secret = pulumi.Output[str]


@dataclass(frozen=True, kw_only=True)
class Connection:
    """Address and credentials of a service as seen by one consumer.

    ``scheme`` is the URI's scheme (``postgresql``, ``https``); ``jdbc`` the JDBC sub-protocol where there is
    one; ``options`` go into the query string. ``ca_certificate`` verifies the server; it is empty where the
    server's own is of a public CA.
    """

    scheme: str
    host: pulumi.Input[str]
    port: pulumi.Input[int]
    user: pulumi.Input[str]
    password: Secret
    path: str = ""
    jdbc: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    ca_certificate: pulumi.Input[str] = ""

    @property
    def uri(self) -> Secret:
        """``scheme://user:password@host:port/path?options``, user and password percent-encoded; secret."""
        return pulumi.Output.secret(
            pulumi.Output.all(self.host, self.port, self.user, self.password).apply(
                lambda a: (
                    f"{self.scheme}://{quote(a[2], safe='')}:{quote(a[3], safe='')}@{a[0]}:{a[1]}"
                    f"{self._tail()}"
                )
            )
        )

    @property
    def jdbc_url(self) -> pulumi.Output[str] | None:
        """JDBC URL without credentials (drivers take them as properties), or None where there is none."""
        if self.jdbc is None:
            return None
        return pulumi.Output.all(self.host, self.port).apply(
            lambda a: f"jdbc:{self.jdbc}://{a[0]}:{a[1]}{self._tail()}"
        )

    def _tail(self) -> str:
        query = f"?{urlencode(self.options, quote_via=quote)}" if self.options else ""
        return f"/{quote(self.path)}{query}" if self.path else query

    def as_output(self) -> dict[str, pulumi.Input[object]]:
        """The connection as a stack output; password and URI stay secret."""
        out: dict[str, pulumi.Input[object]] = {
            "host": self.host,
            "port": self.port,
            "user": self.user,
            "password": self.password,
            "uri": self.uri,
        }
        if self.jdbc_url is not None:
            out["jdbc_url"] = self.jdbc_url
        return out
