"""Exits 0 when this container's part of Airflow does its work.

probe.py api: the server answers over TLS and reaches its database.
probe.py SchedulerJob|DagProcessorJob|TriggererJob: what this container started has been noted as alive in the
database within the last seconds. Without Airflow's own modules: importing them takes seconds of a core.
"""

import os
import socket
import sys
import time
from pathlib import Path

CA = "/run/millrace/tls/ca.crt"
FOLDER = "/run/millrace/airflow"
# Airflow's own threshold for each of them; a heartbeat is due every five seconds.
SILENT_S = 30


def api() -> bool:
    """The server answers and says that its database does."""
    import http.client
    import json
    import ssl

    context = ssl.create_default_context(cafile=CA)
    connection = http.client.HTTPSConnection("localhost", 8443, context=context, timeout=8)
    # The tasks' API builds itself at its first request, and nothing else is answered for some seconds. That
    # request had better be this one.
    connection.request("GET", "/execution/health")
    if connection.getresponse().read() != b'{"status":"healthy"}':
        return False
    connection.request("GET", "/api/v2/monitor/health")
    answer = connection.getresponse()
    return answer.status == 200 and json.load(answer)["metadatabase"]["status"] == "healthy"


def started() -> float:
    """When the container's first process started, in seconds since 1970."""
    ticks = int(Path("/proc/1/stat").read_text().rpartition(")")[2].split()[19])
    lines = Path("/proc/stat").read_text().splitlines()
    boot = next(int(line.split()[1]) for line in lines if line.startswith("btime "))
    return boot + ticks / os.sysconf("SC_CLK_TCK")


def alive(job_type: str) -> bool:
    """A heartbeat of this container, since it started and not long ago."""
    import psycopg2

    connection = psycopg2.connect(Path(f"{FOLDER}/database").read_text(), connect_timeout=8)
    # A second for clocks that do not agree. What an earlier start noted does not count.
    with connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM job WHERE job_type = %s AND hostname = %s AND state = 'running'"
            " AND start_date >= to_timestamp(%s) AND latest_heartbeat >= to_timestamp(%s)",
            (job_type, socket.gethostname(), started() - 1, time.time() - SILENT_S),
        )
        return bool(cursor.fetchone()[0])


try:
    well = api() if sys.argv[1] == "api" else alive(sys.argv[1])
except Exception as error:
    sys.exit(f"{type(error).__name__}: {error}")
sys.exit(0 if well else f"{sys.argv[1]}: no sign of life")
