"""JupyterLab as a browser uses it: its REST API and kernels' websockets through the proxy."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Sequence
from types import TracebackType
from typing import Any

import httpx

from tests.integration.stack import ANSWER_S
from tests.integration.web import Web
from tests.integration.websocket import WebSocket


class CellError(AssertionError):
    """A cell that ended with an error; the message is its traceback."""


class Lab:
    """A browser of one user. To be used in a ``with`` statement."""

    def __init__(self, web: Web, user: str) -> None:
        self.web, self.user = web, user
        self.auth = (user, web.password(user))
        self.http = httpx.Client(
            base_url=web.url("jupyter", "/").rstrip("/"), verify=web.context(), auth=self.auth,
            timeout=ANSWER_S, trust_env=False,
        )  # fmt: skip
        # The page sets the cookie that later requests prove to have seen.
        self.http.get("/lab").raise_for_status()

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:  # fmt: skip
        self.http.close()

    def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        """One request of the page's own kind."""
        headers = {"X-XSRFToken": self.http.cookies.get("_xsrf") or "", **more.pop("headers", {})}
        return self.http.request(method, path, headers=headers, **more)

    def save(self, path: str, cells: Sequence[str]) -> None:
        """Write a notebook with these cells."""
        content = {
            "nbformat": 4, "nbformat_minor": 5, "metadata": {},
            "cells": [{"cell_type": "code", "id": f"c{i}", "source": cell, "metadata": {}, "outputs": [],
                       "execution_count": None} for i, cell in enumerate(cells)],
        }  # fmt: skip
        answer = self.ask("PUT", f"/api/contents/{path}", json={"type": "notebook", "content": content})
        assert answer.status_code in (200, 201), answer.text

    def cells(self, path: str) -> list[str]:
        """The cells of a notebook that are programs."""
        answer = self.ask("GET", f"/api/contents/{path}").raise_for_status()
        cells = answer.json()["content"]["cells"]
        return [str(cell["source"]) for cell in cells if cell["cell_type"] == "code"]

    def run(self, path: str, *, seconds: float = 600) -> list[str]:
        """Run a notebook top to bottom in a kernel of its own; what each cell wrote or showed."""
        wanted = {"path": path, "name": path, "type": "notebook", "kernel": {"name": "python3"}}
        session = self.ask("POST", "/api/sessions", json=wanted)
        assert session.status_code == 201, session.text
        try:
            with Kernel(self, session.json()["kernel"]["id"]) as running:
                return [running.execute(cell, seconds) for cell in self.cells(path)]
        finally:
            # Also after an error: the next run of the notebook would get this kernel, which for a moment
            # silently drops what it is asked.
            assert self.ask("DELETE", f"/api/sessions/{session.json()['id']}").status_code == 204


class Kernel:
    """A kernel's channels."""

    def __init__(self, lab: Lab, kernel: str) -> None:
        self.session = uuid.uuid4().hex
        request = httpx.Request("GET", "https://x", headers={})
        basic = next(httpx.BasicAuth(*lab.auth).auth_flow(request)).headers["Authorization"]
        web = lab.web
        self.socket = WebSocket(
            f"wss://{web.authority('jupyter')}/api/kernels/{kernel}/channels?session_id={self.session}",
            ssl=web.context(),
            origin=f"https://{web.authority('jupyter')}",
            additional_headers={"Authorization": basic},
            # A server whose cores are busy may leave a ping unanswered for longer than the library's 20 s.
            ping_interval=None,
            max_size=None,
        )

    def __enter__(self) -> Kernel:
        self.socket.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.socket.__exit__(*error)

    def execute(self, code: str, seconds: float) -> str:
        """Run a cell; its standard output and the text of its result.

        Raises:
            CellError: when it raised.
        """
        id_ = uuid.uuid4().hex
        self.socket.send(
            json.dumps(
                {
                    "header": {"msg_id": id_, "msg_type": "execute_request", "session": self.session,
                               "username": "", "version": "5.3", "date": ""},
                    "parent_header": {}, "metadata": {}, "channel": "shell", "buffers": [],
                    "content": {"code": code, "silent": False, "store_history": True,
                                "user_expressions": {}, "allow_stdin": False, "stop_on_error": True},
                }
            )
        )  # fmt: skip
        written, deadline = "", time.monotonic() + seconds
        while True:
            message = json.loads(self.socket.receive(max(0.1, deadline - time.monotonic())))
            if message["parent_header"].get("msg_id") != id_:
                continue
            kind, content = message["msg_type"], message["content"]
            if kind == "stream" and content["name"] == "stdout":
                written += content["text"]
            elif kind in ("execute_result", "display_data"):
                written += content["data"].get("text/plain", "")
            elif kind == "error":
                raise CellError("\n".join(content["traceback"]))
            elif kind == "status" and content["execution_state"] == "idle":
                return written
