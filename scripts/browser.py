"""A browser without a window, for pictures and tests: headless Chromium over its debugging pipe."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import select
import shutil
import ssl
import subprocess
import time
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from scripts import packages
from scripts.console import SetupError
from scripts.https import connect

_SECONDS = 120
"""How long it may have nothing to say: minutes, where it shares two cores with a stack that comes up."""


class Browser:
    """Headless Chromium, spoken to in JSON messages that end with a NUL byte on two pipes.

    Where a page asks for a login, the browser gives its own; ``asked`` are the addresses that did.
    """

    def __init__(self, profile: Path, trusted_key: str, login: tuple[str, str] | None = None) -> None:
        found = next((path for name in packages.BROWSERS if (path := shutil.which(name))), None)
        if found is None:
            raise SetupError("no Chromium on PATH (Debian: sudo apt-get install chromium)")
        to_browser, self._write = os.pipe()
        self._read, from_browser = os.pipe()

        # It expects them as file descriptors 3 and 4. The second one was opened last and is neither.
        numbered = f'exec "$@" 3<&{to_browser} 4>&{from_browser}'
        browser = [
            found,
            "--headless=new",
            "--remote-debugging-pipe",
            "--hide-scrollbars",
            f"--user-data-dir={profile}",
            # This one public key is trusted; the certificate it belongs to was verified before.
            f"--ignore-certificate-errors-spki-list={trusted_key}",
            *(["--no-sandbox"] if os.geteuid() == 0 else []),
        ]
        self._process = subprocess.Popen(
            ["bash", "-c", numbered, "bash", *browser],
            pass_fds=(to_browser, from_browser),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._buffer = b""
        self._number = 0
        self._session: str | None = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._login = login
        self.asked: list[str] = []
        self._answered: set[str] = set()
        if login:
            # Not by a header: a websocket takes the login that the browser remembers, and no such header.
            self.call("Fetch.enable", handleAuthRequests=True)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Run a command of the DevTools protocol and return its result."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while (answer := self._receive()).get("id") != self._number:
            pass
        if "error" in answer:
            raise SetupError(f"browser: {method}: {answer['error']['message']}")
        result: dict[str, Any] = answer["result"]
        return result

    def wait_for(self, event: str) -> dict[str, Any]:
        """The parameters of the next event of that name."""
        while (message := self._receive()).get("method") != event:
            pass
        parameters: dict[str, Any] = message["params"]
        return parameters

    def ask(self, script: str) -> Any:
        """The value of an expression in the page, awaited where it is a promise."""
        answer = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        return answer["result"].get("value")

    def rest(self, seconds: float) -> None:
        """Let the page go on for a while: its requests wait for this side's word."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if b"\0" in self._buffer or select.select([self._read], [], [], left)[0]:
                self._receive()

    def close(self) -> None:
        """End the browser."""
        self._process.kill()
        self._process.wait()
        os.close(self._write)
        os.close(self._read)

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], _SECONDS)
            part = os.read(self._read, 1 << 20) if ready else b""
            if not part:
                raise SetupError("the browser does not answer")
            self._buffer += part
        text, self._buffer = self._buffer.split(b"\0", 1)
        message: dict[str, Any] = json.loads(text)
        self._answer(message.get("method"), message.get("params", {}))
        return message

    def _answer(self, event: str | None, parameters: dict[str, Any]) -> None:
        """Let requests go on, with the login where one is asked for."""
        if event == "Fetch.requestPaused":
            self._tell("Fetch.continueRequest", requestId=parameters["requestId"])
        elif event == "Fetch.authRequired":
            self.asked.append(parameters["request"]["url"])
            user, password = self._login or ("", "")
            # A second question about the same request means that the first answer was wrong.
            known = parameters["requestId"] not in self._answered
            self._answered.add(parameters["requestId"])
            answer = {"response": "ProvideCredentials", "username": user, "password": password}
            self._tell(
                "Fetch.continueWithAuth",
                requestId=parameters["requestId"],
                authChallengeResponse=answer if known else {"response": "CancelAuth"},
            )

    def _tell(self, method: str, **parameters: Any) -> None:
        """A command whose answer nobody waits for; its number is none of those that `call` gives."""
        message = {"id": 1_000_000, "method": method, "params": parameters, "sessionId": self._session}
        os.write(self._write, json.dumps(message).encode() + b"\0")


def server_key(host: str, port: int, ca: str) -> str:
    """Digest of the server's public key as Chromium takes it, once the CA has verified the server."""
    context = ssl.create_default_context(cadata=ca)
    with (
        connect(host, port, _SECONDS) as connection,
        context.wrap_socket(connection, server_hostname=host) as tls,
    ):
        certificate = x509.load_der_x509_certificate(tls.getpeercert(binary_form=True) or b"")
    key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(hashlib.sha256(key).digest()).decode()
