"""Encrypts anew, with the present Fernet key, what only a former key reads in Airflow's database.

rotate_fernet.py KEYS DATABASE: two files. KEYS are separated by commas, the present one first: the same list
that the programs have, so that they read everything before, during and after. A value that somebody changes
meanwhile is left as it is. Values that no key reads are named, here and in Airflow's audit log; they stop
nothing. By its own queries: Airflow's command stops at the first such value, and overwrites what was saved
while it ran.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg2
from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from psycopg2 import sql

# Table, what its rows are called by, and each encrypted column with the one that says whether it is.
SECRETS = (("password", "is_encrypted"), ("extra", "is_extra_encrypted"))
ENCRYPTED = (
    ("connection", "conn_id", SECRETS),
    ("connection_test_request", "connection_id", SECRETS),
    ("variable", "key", (("val", "is_encrypted"),)),
    # Migrations leave some as plain JSON; every token of Fernet's starts like this.
    ("trigger", "classpath", (("kwargs", "kwargs LIKE 'gAAAA%'"),)),
)
EVENT = "encrypted with an unknown key"

keys = Path(sys.argv[1]).read_text().strip().split(",")
present, all_keys = Fernet(keys[0]), MultiFernet([Fernet(key) for key in keys])


def readable(token: str) -> bool:
    """Whether the present key reads it."""
    try:
        present.decrypt(token.encode())
    except InvalidToken:
        return False
    return True


def rotate(connection, table: str, name: str, column: str, condition: str) -> Iterator[str]:
    """One column of all rows; what of it cannot be read."""
    values = {"table": sql.Identifier(table), "name": sql.Identifier(name), "column": sql.Identifier(column)}
    select = sql.SQL("SELECT id, {name}, {column} FROM {table} WHERE {column} <> '' AND {condition}").format(
        condition=sql.SQL(condition), **values
    )
    update = sql.SQL("UPDATE {table} SET {column} = %s WHERE id = %s AND {column} = %s").format(**values)
    # A cursor of the server: a variable may hold megabytes.
    with connection.cursor("encrypted") as rows, connection.cursor() as cursor:
        rows.itersize = 50
        rows.execute(select)
        for id_, called, token in rows:
            if readable(token):
                continue
            try:
                fresh = all_keys.rotate(token.encode()).decode()
            except InvalidToken:
                yield f"{table} {called}: {column}"
            else:
                cursor.execute(update, (fresh, id_, token))
                done[table] = done.get(table, 0) + cursor.rowcount


done: dict[str, int] = {}
lost: list[str] = []
connection = psycopg2.connect(Path(sys.argv[2]).read_text(), connect_timeout=10)
with connection, connection.cursor() as cursor:
    for table, name, columns in ENCRYPTED:
        cursor.execute("SELECT to_regclass(%s)", (table,))
        if cursor.fetchone()[0] is None:
            continue  # of another version of Airflow
        for column, condition in columns:
            lost += rotate(connection, table, name, column, condition)
    if lost:
        cursor.execute(
            "INSERT INTO log (dttm, event, owner, extra) VALUES (now(), %s, 'millrace', %s)",
            (EVENT, json.dumps(lost)),
        )
print(f"encrypted anew: {json.dumps(done)}")
for what in lost:
    print(f"no key that is still known reads {what}", file=sys.stderr)
