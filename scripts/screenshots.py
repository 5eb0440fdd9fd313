"""Takes the pictures of the documentation from a running stack: the portal, in light and dark.

``scripts/run screenshots`` asks Pulumi for the URL, the CA and the administrator's password and drives
headless Chromium over its debugging pipe. Nothing secret is on a command line.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import os
import select
import shutil
import socket
import ssl
import subprocess
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from scripts import packages, pulumi_cli
from scripts.console import SetupError, main, say
from scripts.versions import ROOT

FOLDER = ROOT / "docs" / "images"
_WIDTH, _HEIGHT = 960, 560
_SECONDS = 20


class Browser:
    """Headless Chromium, spoken to in JSON messages that end with a NUL byte on two pipes."""

    def __init__(self, profile: Path, trusted_key: str) -> None:
        found = next((path for name in packages.BROWSERS if (path := shutil.which(name))), None)
        if found is None:
            raise SetupError("screenshots: no Chromium on PATH (Debian: sudo apt-get install chromium)")
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
            raise SetupError(f"screenshots: {method}: {answer['error']['message']}")
        result: dict[str, Any] = answer["result"]
        return result

    def wait_for(self, event: str) -> dict[str, Any]:
        """The parameters of the next event of that name."""
        while (message := self._receive()).get("method") != event:
            pass
        parameters: dict[str, Any] = message["params"]
        return parameters

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
                raise SetupError("screenshots: the browser does not answer")
            self._buffer += part
        text, self._buffer = self._buffer.split(b"\0", 1)
        message: dict[str, Any] = json.loads(text)
        return message


def _outputs(stack: str) -> dict[str, Any]:
    command = [str(pulumi_cli.COMMAND), "stack", "output", "--json", "--show-secrets", "--stack", stack]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if answer.returncode:
        raise SetupError(f"stack {stack}: bring it up first")
    outputs: dict[str, Any] = json.loads(answer.stdout)
    return outputs


def server_key(host: str, port: int, ca: str) -> str:
    """Digest of the server's public key as Chromium takes it, once the CA has verified the server."""
    context = ssl.create_default_context(cadata=ca)
    # Browsers know these names by themselves, the C library may not.
    address = "127.0.0.1" if host.endswith(".localhost") else host
    with (
        socket.create_connection((address, port), timeout=_SECONDS) as connection,
        context.wrap_socket(connection, server_hostname=host) as tls,
    ):
        certificate = x509.load_der_x509_certificate(tls.getpeercert(binary_form=True) or b"")
    key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(hashlib.sha256(key).digest()).decode()


def _take(browser: Browser, url: str, password: str, scheme: str) -> bytes:
    login = base64.b64encode(f"admin:{password}".encode()).decode()
    browser.call("Network.enable")
    browser.call("Page.enable")
    browser.call("Network.setExtraHTTPHeaders", headers={"Authorization": f"Basic {login}"})
    browser.call(
        "Emulation.setDeviceMetricsOverride", width=_WIDTH, height=_HEIGHT, deviceScaleFactor=1, mobile=False
    )
    browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    browser.call("Page.navigate", url=url)
    browser.wait_for("Page.loadEventFired")
    ask = "performance.getEntriesByType('navigation')[0].responseStatus"
    status = browser.call("Runtime.evaluate", expression=ask)["result"]["value"]
    if status != 200:
        raise SetupError(f"screenshots: {url} answers {status}")
    # All of the page, however many services there are.
    ask = "Math.ceil(document.documentElement.getBoundingClientRect().height)"
    height = max(_HEIGHT, browser.call("Runtime.evaluate", expression=ask)["result"]["value"])
    browser.call(
        "Emulation.setDeviceMetricsOverride", width=_WIDTH, height=height, deviceScaleFactor=1, mobile=False
    )
    picture = browser.call("Page.captureScreenshot", format="png", optimizeForSpeed=False)["data"]
    return base64.b64decode(picture)


def _main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stack", default="dev", help="a stack that is up (default: dev)")
    stack = parser.parse_args().stack
    outputs = _outputs(stack)
    url = outputs["urls"]["portal"]["url"]
    parts = urlsplit(url)
    key = server_key(str(parts.hostname), parts.port or 443, outputs["ca_certificate"])
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="millrace-", ignore_cleanup_errors=True) as profile:
        browser = Browser(Path(profile), key)
        try:
            for scheme in ("light", "dark"):
                picture = _take(browser, url, outputs["credentials"]["users"]["admin"], scheme)
                file = FOLDER / f"portal-{scheme}.png"
                file.write_bytes(picture)
                say("screenshots", f"{file.relative_to(ROOT)} ({len(picture) // 1024} KiB)")
        finally:
            browser.close()
    return 0


if __name__ == "__main__":
    main(_main)
