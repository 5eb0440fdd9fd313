"""Counts visitors in Postgres. ``app.py probe`` exits 0 when the server answers and reaches its database."""

import os
import secrets
import sys
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psycopg2

FOLDER = Path("/run/millrace/visits")
PORT = 8000


def query(sql: str) -> list[tuple[int, ...]]:
    """Rows of one statement in a transaction of its own."""
    uri = (FOLDER / "database").read_text()
    connection = psycopg2.connect(uri, sslrootcert="/run/millrace/tls/ca.crt")
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchall()
    finally:
        connection.close()


class Handler(BaseHTTPRequestHandler):
    """GET / counts, GET /healthz asks the database, POST /reset with the token starts again."""

    def do_GET(self) -> None:
        """Answer with the number of visitors."""
        if self.path == "/healthz":
            self.answer(200, str(query("SELECT 1")[0][0]))
        else:
            (count,) = query("UPDATE visits SET n = n + 1 RETURNING n")[0]
            user = self.headers.get("X-Forwarded-User", "nobody")
            self.answer(200, f"{os.environ['GREETING']}, {user}: visit {count}")

    def do_POST(self) -> None:
        """Reset the counter for who has the token."""
        token = (FOLDER / "reset").read_text()
        if self.path != "/reset" or not secrets.compare_digest(self.headers.get("X-Token", ""), token):
            self.answer(403, "no")
        else:
            self.answer(200, str(query("UPDATE visits SET n = 0 RETURNING n")[0][0]))

    def answer(self, status: int, text: str) -> None:
        """A line of plain text."""
        body = f"{text}\n".encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Nothing: the proxy keeps the access log."""


if sys.argv[1:] == ["probe"]:
    urllib.request.urlopen(f"http://127.0.0.1:{PORT}/healthz", timeout=8).read()
else:
    query(
        "CREATE TABLE IF NOT EXISTS visits (n int NOT NULL);"
        " INSERT INTO visits SELECT 0 WHERE NOT EXISTS (SELECT FROM visits);"
        " SELECT n FROM visits"
    )
    ThreadingHTTPServer(("", PORT), Handler).serve_forever()
