"""The setup job's SQL on a real server, as an administrator who may make roles and databases, no more."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from components.postgres_plan import passwords_sql, plan, scram_verifier, setup_sql
from components.postgres_settings import PostgresSettings

_BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin")) if Path("/usr/lib/postgresql").is_dir() else []
_NOBODY = 65534

pytestmark = pytest.mark.skipif(
    not (_BINARIES and shutil.which("psql") and shutil.which("setpriv") and os.getuid() == 0),
    reason="needs root and a Postgres server on this machine",
)


class Server:
    """A server of one's own, on a socket in a folder; who connects is believed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._as_nobody("initdb", "-D", str(folder / "data"), "-U", "postgres", "-A", "trust", "--no-sync")
        self._as_nobody(
            "pg_ctl", "-D", str(folder / "data"), "-w", "-l", str(folder / "log"), "-o",
            f"-c listen_addresses='' -c fsync=off -k {folder}", "start",
        )  # fmt: skip

    def stop(self) -> None:
        """End it at once."""
        self._as_nobody("pg_ctl", "-D", str(self.folder / "data"), "-m", "immediate", "stop")

    def run(self, user: str, database: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """One psql."""
        command = ["psql", "-X", "-qAt", "-v", "ON_ERROR_STOP=1", "-U", user, "-d", database, *arguments]
        return subprocess.run(
            command, env={**os.environ, "PGHOST": str(self.folder)}, capture_output=True, text=True
        )

    def ask(self, user: str, database: str, sql: str) -> str:
        """What a query answers."""
        done = self.run(user, database, "-c", sql)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def refuses(self, user: str, database: str, sql: str = "SELECT 1") -> bool:
        """Whether it is not allowed."""
        return self.run(user, database, "-c", sql).returncode != 0

    def set_up(self, password: str = "one", **values: Any) -> None:
        """What the job does, as the administrator."""
        planned = plan(PostgresSettings.model_validate(values), [])
        verifiers: Mapping[str, str] = {
            role.name: scram_verifier(password, "salt-of-16-bytes") for role in planned.roles
        }
        sql = setup_sql(planned, managed=True, admin_database="defaultdb")
        (self.folder / "setup.sql").write_text(sql)
        (self.folder / "passwords.sql").write_text(passwords_sql(verifiers))
        done = self.run("doadmin", "defaultdb", "-o", "/dev/null", "-f", str(self.folder / "setup.sql"))
        assert done.returncode == 0, done.stderr
        assert not done.stderr

    def _as_nobody(self, program: str, *arguments: str) -> None:
        # It refuses to be root's.
        drop = ["setpriv", f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups"]
        command = [*drop, str(_BINARIES[-1] / program), *arguments]
        done = subprocess.run(command, cwd="/", capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    folder = Path(tempfile.mkdtemp(prefix="mr-pg-", dir="/tmp"))
    folder.chmod(0o777)
    made = Server(folder)
    try:
        made.ask("postgres", "postgres", "CREATE ROLE doadmin LOGIN CREATEDB CREATEROLE REPLICATION")
        made.ask("postgres", "postgres", "CREATE DATABASE defaultdb OWNER doadmin")
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder)


def test_it_works_without_a_superuser(server: Server) -> None:
    values: dict[str, Any] = {
        "databases": [{"name": "warehouse", "owner": "owner", "schemas": ["mart"]}, {"name": "app"}],
        "roles": [
            {"name": "owner"},
            {
                "name": "loader",
                "connection_limit": 5,
                "grants": [{"database": "warehouse", "privilege": "read-write"}],
            },
            {"name": "reader", "grants": [{"database": "warehouse", "schemas": ["mart"]}]},
            {"name": "deputy", "grants": [{"database": "warehouse", "privilege": "owner"}]},
        ],
    }
    server.set_up(**values)
    server.set_up(**values)
    server.ask("owner", "warehouse", "CREATE TABLE mart.t (i int); INSERT INTO mart.t VALUES (1)")
    server.ask("owner", "warehouse", "CREATE TABLE p (i int)")
    assert server.ask("reader", "warehouse", "SELECT * FROM mart.t") == "1"
    assert server.ask("loader", "warehouse", "INSERT INTO p VALUES (1); SELECT count(*) FROM mart.t") == "1"
    assert server.ask("deputy", "warehouse", "SELECT current_user") == "owner"
    server.ask("app", "app", "CREATE TABLE x (i int)")
    assert server.refuses("reader", "warehouse", "SELECT * FROM p")
    assert server.refuses("reader", "warehouse", "INSERT INTO mart.t VALUES (2)")
    assert server.refuses("reader", "app")
    assert server.refuses("reader", "defaultdb")
    attributes = "SELECT rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication OR rolbypassrls"
    assert server.ask("postgres", "postgres", f"{attributes} FROM pg_roles WHERE rolname = 'loader'") == "f"
    # Who the administrator is, is nobody else's business.
    assert server.refuses("reader", "warehouse", "SET ROLE doadmin")

    # -- another password: set, and who is there goes
    stored = "SELECT rolpassword FROM pg_authid WHERE rolname = 'loader'"
    before = server.ask("postgres", "postgres", stored)
    server.set_up(**values)
    assert server.ask("postgres", "postgres", stored) == before
    server.set_up("two", **values)
    assert server.ask("postgres", "postgres", stored) != before
    assert before.startswith("SCRAM-SHA-256$")

    # -- roles and databases out of the settings, another owner
    server.set_up(
        "two",
        databases=[{"name": "warehouse", "owner": "loader", "schemas": ["mart"]}],
        roles=[{"name": "loader"}, {"name": "reader", "grants": [{"database": "warehouse"}]}],
    )
    owners = "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname IN ('public', 'mart')"
    assert server.ask("postgres", "warehouse", owners) == "loader"
    assert server.ask("reader", "warehouse", "SELECT count(*) FROM p") == "1"
    assert server.refuses("owner", "warehouse")
    assert server.refuses("deputy", "warehouse")
    assert server.refuses("reader", "app")
    # Its data is still there.
    assert server.ask("postgres", "app", "SELECT count(*) FROM x") == "0"
