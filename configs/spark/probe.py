"""Exits 0 when a daemon of Spark does its work: probe.py master|worker|history [HOST]."""

import json
import ssl
import sys
import urllib.request
from pathlib import Path
from typing import Any

CONTEXT = ssl.create_default_context(cafile="/run/millrace/tls/ca.crt")
TOKEN = Path("/run/millrace/spark/token").read_text()


def get(url: str) -> Any:
    """A page in JSON; anything but success raises."""
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {TOKEN}"})  # noqa: S310
    with urllib.request.urlopen(request, timeout=8, context=CONTEXT) as answer:  # noqa: S310
        return json.load(answer)


role = sys.argv[1]
if role == "master":
    status = get("https://localhost:8480/json/")["status"]
    if status != "ALIVE":
        sys.exit(f"the master is {status}")
    get("https://localhost:6066/v1/submissions/status/none")
elif role == "worker":
    # The worker's own pages do not say whether the master knows it.
    workers = get("https://spark:8480/json/")["workers"]
    if not any(worker["host"] == sys.argv[2] and worker["state"] == "ALIVE" for worker in workers):
        sys.exit("the master does not know this worker")
else:
    get("https://localhost:18480/api/v1/applications?limit=1")
