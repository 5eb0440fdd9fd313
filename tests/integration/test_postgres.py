"""Postgres as its clients see it: who gets in, what each role may do, and what changed settings change."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.errors import InsufficientPrivilege

from tests.integration.clients import ca_file, postgres
from tests.integration.conftest import USERS
from tests.integration.exported import outputs_of, self_signed
from tests.integration.stack import ANSWER_S, Stack, free_port, proxy_ports

Connection = psycopg.Connection[tuple[Any, ...]]

ROLES: list[dict[str, Any]] = [
    {"name": "shop_owner"},
    {"name": "writer", "grants": [{"database": "shop", "privilege": "read-write"}]},
    {"name": "reader", "grants": [{"database": "shop", "privilege": "read-only"}]},
    {"name": "auditor", "grants": [{"database": "shop", "privilege": "read-only", "schemas": ["audit"]}]},
    {"name": "clerk", "grants": [{"database": "shop", "privilege": "read-write", "schemas": ["audit"]}]},
    {"name": "deputy", "grants": [{"database": "shop", "privilege": "owner"}]},
    {"name": "rotated", "grants": [{"database": "shop"}]},
    {"name": "first_owner"},
    {"name": "second_owner"},
    {"name": "old_owner"},
]
LEAVER = {"name": "leaver", "grants": [{"database": "shop", "privilege": "read-write"}]}
GUEST = {"name": "guest", "grants": [{"database": "old"}]}
STAND_IN = {"name": "stand_in", "grants": [{"database": "shop", "privilege": "owner"}]}
SHOP = {"name": "shop", "owner": "shop_owner", "schemas": ["audit"]}
OLD = {"name": "old", "owner": "old_owner"}
EVERY_ROLE = [str(role["name"]) for role in [*ROLES, LEAVER, GUEST, STAND_IN]]


@pytest.fixture(scope="module")
def init(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Init SQL of database shop."""
    folder = tmp_path_factory.mktemp("init")
    (folder / "shop").mkdir()
    (folder / "shop" / "001_base.sql").write_text(
        "create table if not exists base (run text);\ninsert into base values ('base');\n"
    )
    _log_run(folder, "first")
    return folder


def _log_run(folder: Path, name: str) -> None:
    (folder / "shop" / "002_changing.sql").write_text(f"insert into base values ('{name}');\n")


@pytest.fixture(scope="module")
def stack(new_stack: Callable[..., Stack], init: Path) -> Iterator[Stack]:
    """Postgres with an owner's tables, made after the roles and their privileges."""
    stack = new_stack(
        {
            "proxy": proxy_ports(),
            "users": USERS[:1],
            "time_zone": "Europe/Berlin",
            "postgres": {
                "memory_mib": 256,
                "max_connections": 40,
                "loopback_port": free_port(),
                "init_sql": str(init),
                "databases": [SHOP, OLD, {"name": "handed", "owner": "first_owner"}],
                "roles": [*ROLES, LEAVER, GUEST, STAND_IN],
            },
        },
        name="pg",
    )
    stack.up()
    with postgres(stack, "shop", "shop_owner") as owner:
        owner.execute("create table item (id serial primary key, name text)")
        owner.execute("insert into item (name) values ('pear')")
        owner.execute("create table audit.event (id serial primary key, what text)")
        owner.execute("insert into audit.event (what) values ('sold')")
        owner.execute("create schema fresh create table later (what text)")
    for database, role in (("old", "old_owner"), ("handed", "first_owner")):
        with postgres(stack, database, role) as owner:
            owner.execute("create table kept (what text)")
            owner.execute("insert into kept values ('a row')")
    yield stack
    stack.destroy()


def connect(stack: Stack, database: str, role: str, **changes: Any) -> Connection:
    """A connection with any parameter of :func:`postgres` replaced."""
    return psycopg.connect(
        **{
            "host": "localhost",
            "hostaddr": "127.0.0.1",
            "port": stack.config["postgres"]["loopback_port"],
            "dbname": database,
            "user": role,
            "password": stack.outputs_once["credentials"]["postgres"].get(role, ""),
            "sslmode": "verify-full",
            "sslrootcert": ca_file(stack),
            "autocommit": True,
            "connect_timeout": ANSWER_S,
            **changes,
        }
    )


def superuser(stack: Stack, database: str = "postgres") -> Connection:
    """A session by the certificate that only the state has."""
    certificate, key = stack.folder / "superuser.crt", stack.folder / "superuser.key"
    certificate.write_text(outputs_of(stack, "postgres-superuser-certificate")["certPem"])
    key.touch(mode=0o600)
    key.write_text(outputs_of(stack, "postgres-superuser-key")["privateKeyPemPkcs8"])
    return connect(stack, database, "postgres", sslcert=str(certificate), sslkey=str(key))


def rows(connection: Connection, query: str) -> list[Any]:
    """The first column."""
    return [row[0] for row in connection.execute(query).fetchall()]


def refused(connection: Connection, *statements: str) -> None:
    """Each statement is beyond the role's privileges."""
    for statement in statements:
        with pytest.raises(InsufficientPrivilege):
            connection.execute(statement)


# -- who gets in


# The second owner owns nothing yet.
@pytest.mark.parametrize("role", sorted({*EVERY_ROLE} - {"second_owner"}))
def test_each_role_logs_in_over_verified_tls(stack: Stack, role: str) -> None:
    database = {"old_owner": "old", "guest": "old", "first_owner": "handed"}.get(role, "shop")
    with postgres(stack, database, role) as connection:
        assert connection.pgconn.ssl_in_use
        assert rows(connection, "select session_user") == [role]


def test_another_ca_does_not_verify(stack: Stack, tmp_path: Path) -> None:
    other = self_signed(tmp_path, "other", ["localhost"])
    with pytest.raises(psycopg.OperationalError, match="certificate verify failed"):
        connect(stack, "shop", "reader", sslrootcert=str(other.certificate)).close()


def test_another_host_name_does_not_verify(stack: Stack) -> None:
    with pytest.raises(psycopg.OperationalError, match="does not match host name"):
        connect(stack, "shop", "reader", host="other.example").close()


@pytest.mark.parametrize("role", ["reader", "postgres"])
def test_without_tls_nobody_gets_in(stack: Stack, role: str) -> None:
    with pytest.raises(psycopg.OperationalError, match=r"rejects connection .* no encryption"):
        connect(stack, "shop", role, sslmode="disable").close()


def test_wrong_and_empty_passwords_are_refused(stack: Stack) -> None:
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        connect(stack, "shop", "reader", password="wrong").close()
    with pytest.raises(psycopg.OperationalError, match="no password supplied"):
        connect(stack, "shop", "reader", password="", passfile="/dev/null").close()


def test_superuser_logs_in_by_its_certificate_only(stack: Stack, tmp_path: Path) -> None:
    with pytest.raises(psycopg.OperationalError, match="requires a valid client certificate"):
        connect(stack, "postgres", "postgres", password="postgres").close()
    # A certificate of the same CA, but for a server named postgres.
    certificate, key = tmp_path / "server.crt", tmp_path / "server.key"
    certificate.write_text(outputs_of(stack, "postgres-server-certificate")["certPem"])
    key.touch(mode=0o600)
    key.write_text(outputs_of(stack, "postgres-server-key")["privateKeyPemPkcs8"])
    with pytest.raises(psycopg.OperationalError, match="certificate"):
        connect(stack, "postgres", "postgres", sslcert=str(certificate), sslkey=str(key)).close()
    with superuser(stack) as connection:
        assert rows(connection, "show is_superuser") == ["on"]


@pytest.mark.parametrize("database", ["handed", "old", "postgres", "template1"])
def test_databases_without_a_grant_are_closed(stack: Stack, database: str) -> None:
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        postgres(stack, database, "reader").close()


def test_only_the_superuser_is_privileged_and_passwords_are_scram(stack: Stack) -> None:
    with superuser(stack) as connection:
        assert rows(
            connection,
            "select rolname from pg_roles where rolsuper or rolcreaterole or rolcreatedb or rolreplication"
            " or rolbypassrls",
        ) == ["postgres"]
        verifiers = rows(connection, "select rolpassword from pg_authid where rolcanlogin order by 1")
    assert verifiers.pop() is None  # the superuser's
    assert len(verifiers) == len(EVERY_ROLE)
    assert all(v.startswith("SCRAM-SHA-256$") for v in verifiers)
    assert len(set(verifiers)) == len(verifiers)


# -- what each role may do


def test_read_only_reads_later_tables_and_changes_nothing(stack: Stack) -> None:
    with postgres(stack, "shop", "reader") as reader:
        assert rows(reader, "select name from item where id = 1") == ["pear"]
        assert rows(reader, "select what from audit.event") == ["sold"]
        assert rows(reader, "select count(*) from fresh.later") == [0]
        refused(
            reader,
            "insert into item (name) values ('plum')",
            "update item set name = ''",
            "delete from item",
            "truncate item",
            "select nextval('item_id_seq')",
            "create table mine (id int)",
            "create schema mine",
            "create temp table mine (id int)",
            "drop table item",
            "select * from millrace.init_file",
        )


def test_read_write_changes_rows_of_later_tables_and_no_tables(stack: Stack) -> None:
    with postgres(stack, "shop", "writer") as writer:
        inserted = rows(writer, "insert into item (name) values ('fig') returning id")
        assert rows(writer, "update item set name = 'date' where name = 'fig' returning id") == inserted
        assert rows(writer, "delete from item where name = 'date' returning id") == inserted
        writer.execute("insert into fresh.later values ('x')")
        writer.execute("delete from fresh.later")
        writer.execute("create temp table scratch (id int)")
        refused(
            writer,
            "create table mine (id int)",
            "create schema mine",
            "drop table item",
            "alter table item add more text",
            "create role mine",
            "create database mine",
            "copy item to program 'cat'",
        )


def test_grants_on_a_schema_end_there(stack: Stack) -> None:
    with postgres(stack, "shop", "auditor") as auditor:
        assert rows(auditor, "select what from audit.event") == ["sold"]
        refused(auditor, "select * from public.item", "select * from fresh.later", "delete from audit.event")
    with postgres(stack, "shop", "clerk") as clerk:
        inserted = rows(clerk, "insert into audit.event (what) values ('returned') returning id")
        assert rows(clerk, "delete from audit.event where what = 'returned' returning id") == inserted
        refused(clerk, "select * from public.item", "create table audit.mine (id int)")


def test_privilege_owner_works_as_the_owner(stack: Stack) -> None:
    with postgres(stack, "shop", "deputy") as deputy:
        deputy.execute("create table by_deputy (what text)")
        deputy.execute("insert into by_deputy values ('ours')")
        assert rows(deputy, "select tableowner from pg_tables where tablename = 'by_deputy'") == [
            "shop_owner"
        ]
        deputy.execute("alter table item add note text")
    with postgres(stack, "shop", "reader") as reader:
        assert rows(reader, "select what from by_deputy") == ["ours"]
    with postgres(stack, "shop", "shop_owner") as owner:
        owner.execute("drop table by_deputy")


def test_server_follows_the_settings(stack: Stack) -> None:
    expected = {
        "data_checksums": "on",
        "password_encryption": "scram-sha-256",
        "shared_buffers": "64MB",  # a quarter of 256 MiB
        "effective_cache_size": "192MB",
        "max_connections": "40",
        "TimeZone": "Europe/Berlin",
        "log_timezone": "Europe/Berlin",
        "server_encoding": "UTF8",
        "ssl_min_protocol_version": "TLSv1.2",
    }
    with superuser(stack, "shop") as connection:
        assert {name: rows(connection, f"show {name}")[0] for name in expected} == expected


def test_init_sql_runs_once_as_the_owner(stack: Stack) -> None:
    with postgres(stack, "shop", "reader") as reader:
        assert rows(reader, "select run from base") == ["base", "first"]
        assert rows(reader, "select tableowner from pg_tables where tablename = 'base'") == ["shop_owner"]


# -- changed settings: one `up` with all of them, then one test for each


@dataclass(frozen=True)
class Change:
    """What was there before the `up`."""

    passwords: dict[str, str]
    container: str
    sessions: dict[str, Connection]


@pytest.fixture(scope="module")
def change(stack: Stack, init: Path) -> Iterator[Change]:
    """Role and database removed, another owner, a role rotated, a changed init file."""
    with contextlib.ExitStack() as opened:
        before = Change(
            passwords=stack.outputs()["credentials"]["postgres"],
            container=str(stack.container("postgres").id),
            sessions={
                role: opened.enter_context(contextlib.closing(postgres(stack, database, role)))
                for role, database in {
                    "leaver": "shop", "guest": "old", "rotated": "shop", "reader": "shop", "stand_in": "shop",
                }.items()
            },
        )  # fmt: skip
        before.sessions["leaver"].execute("insert into item (name) values ('by leaver')")
        _log_run(init, "second")
        config = stack.config
        config["postgres"]["databases"] = [SHOP, {"name": "handed", "owner": "second_owner"}]
        config["postgres"]["roles"] = [
            *ROLES,
            {"name": "guest"},
            {**STAND_IN, "grants": [{"database": "shop"}]},
        ]
        config["rotation"] = {"postgres/rotated": "2026-11"}
        stack.configure(config)
        stack.up()
        yield before


def ended(connection: Connection) -> bool:
    try:
        connection.execute("select 1")
    except psycopg.OperationalError:
        return True
    return False


def test_changes_of_roles_leave_the_server_running(stack: Stack, change: Change) -> None:
    assert stack.container("postgres").id == change.container
    assert not ended(change.sessions["reader"])


def test_removed_role_is_out_and_its_data_stays(stack: Stack, change: Change) -> None:
    assert ended(change.sessions["leaver"])
    with pytest.raises(psycopg.OperationalError, match=r"password authentication failed|not permitted"):
        postgres(stack, "shop", "leaver", password=change.passwords["leaver"]).close()
    assert "leaver" not in stack.outputs_once["credentials"]["postgres"]
    with postgres(stack, "shop", "reader") as reader:
        assert rows(reader, "select name from item where name like 'by%'") == ["by leaver"]


def test_who_acted_as_the_owner_no_longer_does(stack: Stack, change: Change) -> None:
    assert ended(change.sessions["stand_in"])
    with postgres(stack, "shop", "stand_in") as connection:
        assert rows(connection, "select current_user::text") == ["stand_in"]
        assert rows(connection, "select name from item where name = 'pear'") == ["pear"]
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("create table mine (what text)")


def test_removed_database_keeps_its_rows_for_its_owner(stack: Stack, change: Change) -> None:
    assert ended(change.sessions["guest"])
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        postgres(stack, "old", "guest").close()
    with postgres(stack, "old", "old_owner") as owner:
        assert rows(owner, "select what from kept") == ["a row"]
    with superuser(stack, "old") as connection:
        assert rows(connection, "select what from kept") == ["a row"]


def test_another_owner_takes_over(stack: Stack, change: Change) -> None:
    with postgres(stack, "handed", "second_owner") as owner:
        assert rows(owner, "select what from kept") == ["a row"]
        owner.execute("alter table kept add more text")
        owner.execute("create table another (id int)")
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        postgres(stack, "handed", "first_owner").close()


def test_rotated_role_has_one_password_the_new_one(stack: Stack, change: Change) -> None:
    now = stack.outputs_once["credentials"]["postgres"]
    assert {r for r in now if now[r] != change.passwords[r]} == {"rotated"}
    assert ended(change.sessions["rotated"])
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        postgres(stack, "shop", "rotated", password=change.passwords["rotated"]).close()
    with postgres(stack, "shop", "rotated") as connection:
        assert rows(connection, "select session_user") == ["rotated"]


def test_changed_init_file_runs_again_and_no_other(stack: Stack, change: Change) -> None:
    with postgres(stack, "shop", "reader") as reader:
        assert sorted(rows(reader, "select run from base")) == ["base", "first", "second"]


def test_removed_volume_is_set_up_again(stack: Stack, change: Change) -> None:
    container = stack.container("postgres")
    (volume,) = (m["Name"] for m in container.attrs["Mounts"] if m["Type"] == "volume")
    container.remove(force=True)
    stack.docker.volumes.get(volume).remove()
    stack.up()
    with postgres(stack, "shop", "reader") as reader:
        assert rows(reader, "select run from base") == ["base", "second"]
    with postgres(stack, "handed", "second_owner") as owner:
        assert rows(owner, "select tablename from pg_tables where schemaname = 'public'") == []
    stack.no_change()
