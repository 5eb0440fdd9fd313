"""Requests to a stack's proxy by the names it serves, as a browser makes them."""

from __future__ import annotations

import shutil
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.clients import ca_file
from tests.integration.stack import ANSWER_S, DOMAIN, ROOT, Stack


@contextmanager
def local_names() -> Iterator[None]:
    """Names below ``localhost`` are this machine, as browsers have it; the C library may not know them."""
    real = socket.getaddrinfo

    def lookup(host: Any, *arguments: Any, **more: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else str(host)
        return real("127.0.0.1" if name.endswith(".localhost") else host, *arguments, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", lookup)
        yield


def add_service(stack: Stack, module: Path, name: str) -> None:
    """Give the stack a copy of the project's code with one more service in it."""
    linked = stack.folder / "components"
    linked.unlink()
    shutil.copytree(ROOT / "components", linked, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile(module, linked / "services" / f"{name}.py")


class Web:
    """The sites of a stack; ``host`` is a label below the domain, or "" for the domain itself."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        proxy = stack.config["proxy"]
        self.http_port, self.https_port = proxy["http_port"], proxy["https_port"]

    def authority(self, host: str) -> str:
        """Name and port of a site, as in its address."""
        return f"{host}.{DOMAIN}:{self.https_port}" if host else f"{DOMAIN}:{self.https_port}"

    def url(self, host: str, path: str = "/") -> str:
        """Address of a site."""
        return f"https://{self.authority(host)}{path}"

    def password(self, user: str) -> str:
        """The generated password of a platform user."""
        return str(self.stack.outputs_once["credentials"]["users"][user])

    def context(self) -> ssl.SSLContext:
        """Trusts the platform's CA and nothing else."""
        return ssl.create_default_context(cafile=ca_file(self.stack))

    def get(
        self,
        host: str,
        path: str = "/",
        *,
        user: str | None = None,
        auth: tuple[str, str] | None = None,
        method: str = "GET",
        http2: bool = True,
        **more: Any,
    ) -> httpx.Response:
        """One request over verified TLS, with the login of a platform user or any other."""
        if user:
            auth = (user, self.password(user))
        with httpx.Client(verify=self.context(), http2=http2, timeout=ANSWER_S, trust_env=False) as client:
            return client.request(method, self.url(host, path), auth=auth, **more)

    def plain(self, host: str, path: str = "/", method: str = "GET") -> httpx.Response:
        """One request to the HTTP port; redirects are not followed."""
        name = f"{host}.{DOMAIN}" if host else DOMAIN
        with httpx.Client(timeout=ANSWER_S, trust_env=False) as client:
            return client.request(method, f"http://{name}:{self.http_port}{path}")
