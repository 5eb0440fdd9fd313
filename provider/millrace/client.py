"""The client of the engine's API, on a connection that may break."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import docker
from docker.errors import APIError, DockerException
from requests.exceptions import ChunkedEncodingError
from requests.exceptions import ConnectionError as NoConnectionError
from urllib3.exceptions import ProtocolError

PATIENCE_S = 60.0
"""How long a connection that broke may take to come back."""

# Done twice they do what they do once.
_SAFE = ("GET", "HEAD", "PUT", "DELETE")
_PAUSE_S = 0.2
_LONG_PAUSE_S = 2.0


class APIClient(docker.APIClient):  # type: ignore[misc]
    """docker's client; asks again where that is safe."""

    give_up: Callable[[], bool] | None = None
    """Set once the engine has answered over a connection that may break: whether it is gone for good."""

    def send(self, request: Any, **kwargs: Any) -> Any:
        """Send a request; one that may be sent twice again and again until the connection is back."""
        deadline, pause = time.monotonic() + PATIENCE_S, _PAUSE_S
        while True:
            try:
                return super().send(request, **kwargs)
            except NoConnectionError:
                hopeless = self.give_up is None or request.method not in _SAFE or self.give_up()
                if hopeless or time.monotonic() > deadline:
                    raise
            time.sleep(pause)
            pause = min(2 * pause, _LONG_PAUSE_S)

    def merge_environment_settings(self, url: Any, proxies: Any, stream: Any, verify: Any, cert: Any) -> Any:
        """Keep the engine's own CA: REQUESTS_CA_BUNDLE would take its place (requests#3829)."""
        return super().merge_environment_settings(
            url, proxies, stream, self.verify if verify is None else verify, cert
        )


class Client(docker.DockerClient):  # type: ignore[misc]
    """docker's client with the API client above."""

    def __init__(self, **settings: Any) -> None:
        self.api = APIClient(**settings)


def lost(error: Exception) -> bool:
    """Whether an error means that the connection broke, or could not be made, rather than an answer."""
    if isinstance(error, DockerException) and not isinstance(error, APIError):
        # How the client's first question ends.
        return "Error while fetching server API version" in str(error)
    return isinstance(error, NoConnectionError | ChunkedEncodingError | ProtocolError | ConnectionError)
