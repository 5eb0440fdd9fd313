"""Websockets through the proxy, asked and answered in turn."""

from __future__ import annotations

import asyncio
from typing import Any

from websockets.asyncio.client import connect

from tests.integration.stack import ANSWER_S


class WebSocket:
    """A connection that one thread reads and writes. To be used in a ``with`` statement.

    The library's other client reads in a second thread, while TLS sockets of Python up to 3.12 are not made
    for two: now and then a request never left.
    """

    def __init__(self, url: str, **options: Any) -> None:
        """``options`` are the library's.

        Raises (on entering):
            websockets.exceptions.InvalidStatus: the server refuses.
        """
        self._url, self._options = url, {"open_timeout": ANSWER_S, "proxy": None, **options}

    def __enter__(self) -> WebSocket:
        self._loop = asyncio.new_event_loop()
        try:
            self._socket = self._loop.run_until_complete(self._open())
        except BaseException:
            self._loop.close()
            raise
        return self

    async def _open(self) -> Any:
        return await connect(self._url, **self._options)

    def __exit__(self, *error: object) -> None:
        try:
            self._loop.run_until_complete(self._socket.close())
        finally:
            self._loop.close()

    def send(self, message: str) -> None:
        """Send a text."""
        self._loop.run_until_complete(self._socket.send(message))

    def receive(self, seconds: float = ANSWER_S) -> str | bytes:
        """The next message.

        Raises:
            TimeoutError: there is none in time.
        """
        return self._loop.run_until_complete(asyncio.wait_for(self._socket.recv(), seconds))  # type: ignore[no-any-return]
