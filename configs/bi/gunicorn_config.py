"""How gunicorn runs Superset: one process loads it, workers are forks of that and share its memory."""

from __future__ import annotations

import json
import ssl
from pathlib import Path
from typing import Any

_VALUES: dict[str, Any] = json.loads((Path(__file__).parent / "settings.json").read_text())

bind = f"0.0.0.0:{_VALUES['port']}"
certfile = "/run/millrace/tls/tls.crt"
keyfile = "/run/millrace/tls/tls.key"
worker_class = "gthread"
workers = _VALUES["workers"]
threads = _VALUES["threads"]
preload_app = True
# Heartbeats: in memory, where a busy disk cannot hold them up.
worker_tmp_dir = "/dev/shm"
timeout = _VALUES["query_timeout_s"] + 30
graceful_timeout = 20
keepalive = 75
# What a worker gathers over thousands of requests goes with it.
max_requests = 5000
max_requests_jitter = 500
accesslog = None  # the proxy keeps one
errorlog = "-"
# Warnings are of connections that a browser gave up.
loglevel = "error"
control_socket_disable = True


def ssl_context(config: Any, default_factory: Any) -> Any:
    """TLS 1.2 and later, as everywhere on the platform."""
    context = default_factory()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def post_fork(server: Any, worker: Any) -> None:
    """Each worker opens database connections of its own."""
    from superset.extensions import db

    with worker.app.wsgi().app_context():
        db.engine.dispose(close=False)
