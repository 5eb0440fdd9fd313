"""Makes Superset's metadata what the settings say, in one process: each start of Superset takes seconds.

Migrates the database, re-encrypts what a former secret key encrypted, writes the built-in roles, then the
platform's users, data sources and dashboards. Running it again changes nothing. What people made stays: roles
of theirs are left alone, a data source with datasets, saved queries or open tabs is shut, not deleted.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import superset_dashboards

_SECRETS = Path("/run/millrace/bi")
_WANTED: dict[str, Any] = json.loads((_SECRETS / "setup.json").read_text())
_DASHBOARDS: list[dict[str, Any]] = json.loads((Path(__file__).parent / "dashboards.json").read_text())

# Names that stay the same whatever a data source is called or where it moves.
_NAMESPACE = uuid.UUID("8f0c9c9e-4c1e-5b44-9d63-0f2a7f6b1d5e")

READERS = "Millrace data sources"
"""Role that may read the platform's data sources, and nothing else."""

BUILT_IN = ("Admin", "Alpha", "Gamma", "sql_lab", "Public", READERS)
"""Roles that follow from the platform role. Any others a user has were given in Superset and are kept."""

NOTES = ("query", "table_schema", "database_user_oauth2_tokens", "ssh_tunnels")
"""Tables that may go with a data source: the history of queries, looks at tables, logins."""

_ROLES = {
    "admin": ("Admin",),
    "engineer": ("Alpha", "sql_lab"),
    "user": ("Gamma", READERS),
}


def say(text: str) -> None:
    """One line of the job's log."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def migrate() -> None:
    """Superset's own migrations, as `superset db upgrade` runs them; what they print is for failures."""
    from flask_migrate import upgrade

    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            upgrade()
    except BaseException:
        say(printed.getvalue())
        raise


# -- secrets


def encrypted_columns() -> Iterator[tuple[Any, list[Any]]]:
    """Tables with columns that Superset encrypts with its secret key.

    Its models are below Flask-AppBuilder's base, not in `db.metadata`, where its own command looks for them.
    """
    from flask_appbuilder import Model
    from superset.utils.encrypt import EncryptedType

    for table in Model.metadata.tables.values():
        if columns := [column for column in table.columns if isinstance(column.type, EncryptedType)]:
            yield table, columns


def reencrypt(former: Sequence[str]) -> int:
    """Encrypt with the present secret key what only a former one can read; how many rows had to be.

    All or nothing. Superset's own command takes one former key and stops at rows of another. What no known
    key reads is emptied with a warning: Superset would fail at every look at it.
    """
    from sqlalchemy import LargeBinary, bindparam, null, select, type_coerce
    from superset.extensions import db
    from superset.utils.encrypt import EncryptedType

    changed = 0
    with db.engine.begin() as connection:
        for table, columns in encrypted_columns():
            keys = list(table.primary_key.columns)
            raw = [type_coerce(column, LargeBinary).label(column.name) for column in columns]
            for row in connection.execute(select(*keys, *raw)).mappings().all():
                fresh: dict[str, bytes] = {}
                lost: list[str] = []
                for column in columns:
                    value = row[column.name]
                    if value is None or _readable(column.type, bytes(value)) is not None:
                        continue
                    for key in former:
                        old = EncryptedType(column.type.underlying_type, key)
                        if (plain := _readable(old, bytes(value))) is not None:
                            fresh[column.name] = column.type.process_bind_param(plain[0], db.engine.dialect)
                            break
                    else:
                        lost.append(column.name)
                if lost:
                    # Without the columns' type, which would encrypt even nothing.
                    nothing = table.update().values(dict.fromkeys(lost, null()))
                    connection.execute(_of(nothing, keys, row))
                    _warn(connection, table, row, lost)
                if fresh:
                    update = table.update().values(
                        {name: bindparam(f"new_{name}", type_=LargeBinary) for name in fresh}
                    )
                    values = {f"new_{name}": value for name, value in fresh.items()}
                    connection.execute(_of(update, keys, row), values)
                    changed += 1
    return changed


def _of(statement: Any, keys: Sequence[Any], row: Any) -> Any:
    """The statement for one row alone."""
    for key in keys:
        statement = statement.where(key == row[key.name])
    return statement


def _warn(connection: Any, table: Any, row: Any, lost: Sequence[str]) -> None:
    """What was emptied, and who fills it again: this job for the platform's data sources, else a person."""
    from sqlalchemy import select

    columns = ", ".join(lost)
    if table.name == "dbs":
        found = select(table.c.database_name, table.c.is_managed_externally).where(table.c.id == row["id"])
        name, managed = connection.execute(found).one()
        who = "registered anew if its service is on" if managed else "TYPE IT IN ANEW in Superset"
        say(f"WARNING data source {name}: no key that is still known reads its {columns}; emptied, {who}")
        return
    where = " ".join(f"{key.name} {row[key.name]}" for key in table.primary_key.columns)
    say(f"WARNING {table.name} ({where}): no key that is still known reads its {columns}; emptied")


def _readable(kind: Any, value: bytes) -> tuple[Any] | None:
    """The value in a tuple, or None when the column type's key does not fit.

    A wrong key mostly yields bytes that are no UTF-8, which is a ValueError, and for a short value now and
    then a text: but none that anybody would have stored.
    """
    from superset.extensions import db

    try:
        plain = kind.process_result_value(value, db.engine.dialect)
    except ValueError:
        return None
    return (plain,) if all(c.isprintable() or c.isspace() for c in str(plain)) else None


# -- users


def roles_of(manager: Any, user: Any, role: str) -> list[Any]:
    """The roles a user is to have: those of the platform role, and what else was given in Superset."""
    own = [manager.find_role(name) for name in _ROLES[role]]
    return own + [other for other in user.roles if other.name not in BUILT_IN]


def users(manager: Any, wanted: Sequence[dict[str, str]]) -> None:
    """Create, adjust and deactivate users. None of them has a password that anyone knows."""
    from superset.extensions import db

    names = {entry["name"] for entry in wanted}
    for entry in wanted:
        user = manager.find_user(username=entry["name"])
        if user is None:
            user = manager.add_user(
                username=entry["name"],
                first_name=entry["name"],
                last_name="",
                email=entry["email"],
                role=[manager.find_role(name) for name in _ROLES[entry["role"]]],
            )
            if not user:
                raise SystemExit(f"Superset refuses user {entry['name']}")
            say(f"user {entry['name']}: made")
        user.active = True
        roles = roles_of(manager, user, entry["role"])
        if {role.id for role in user.roles} != {role.id for role in roles}:
            user.roles = roles
            say(f"user {entry['name']}: roles {', '.join(sorted(role.name for role in roles))}")
    for user in manager.get_all_users():
        if user.username not in names and user.active:
            # Whoever is not a platform user cannot get past the proxy; charts keep their owner.
            user.active = False
            say(f"user {user.username}: deactivated")
    db.session.commit()


# -- data sources


def data_sources(manager: Any, wanted: Sequence[dict[str, Any]]) -> dict[str, int]:
    """Register and adjust the data sources of the platform's services; their numbers by id."""
    from superset.commands.database.utils import add_permissions
    from superset.extensions import db
    from superset.models.core import Database

    kept = _numbers(wanted)
    found: dict[str, int] = {}
    for number, source in kept.items():
        database = db.session.query(Database).filter_by(uuid=uuid.UUID(number)).one_or_none()
        known = database is not None
        if database is None:
            database = Database(uuid=uuid.UUID(number))
        _rename_foreign(source["name"], number)
        database.database_name = source["name"]
        database.set_sqlalchemy_uri(source["uri"])
        database.extra = json.dumps(source["extra"], sort_keys=True)
        database.expose_in_sqllab = True
        database.allow_run_async = database.allow_file_upload = False
        database.allow_ctas = database.allow_cvas = database.allow_dml = False
        database.is_managed_externally = True
        db.session.add(database)
        db.session.commit()
        _try(database, source.get("patience_s", 0))
        add_permissions(database)
        db.session.commit()
        say(f"data source {source['name']}: {'there' if known else 'made'}")
        found[source["id"]] = database.id
    _grant(manager, list(kept))
    return found


def _numbers(wanted: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {str(uuid.uuid5(_NAMESPACE, source["id"])): source for source in wanted}


def retire(wanted: Sequence[dict[str, Any]]) -> None:
    """Remove the data sources that are none of the platform's any more."""
    from superset.extensions import db
    from superset.models.core import Database

    kept = _numbers(wanted)
    for database in db.session.query(Database).filter_by(is_managed_externally=True).all():
        if str(database.uuid) not in kept:
            _retire(database)
    db.session.commit()


def _try(database: Any, patience_s: float) -> None:
    """Log in to a data source, for so long when its service starts beside this job.

    Raises:
        SystemExit: when there is no answer until then.
    """
    from superset.commands.database.utils import ping

    end = time.monotonic() + patience_s
    while True:
        # What a refused login or connection raises differs from driver to driver.
        try:
            with database.get_sqla_engine() as engine:
                if ping(engine):
                    return
                why = "no answer"
        except Exception as error:
            lines = str(error).replace(database.password or "\0", "***").splitlines()
            why = f"no answer ({type(error).__name__}: {lines[0] if lines else ''})"
        if time.monotonic() >= end:
            raise SystemExit(f"data source {database.database_name}: {why}")
        time.sleep(2)


def _rename_foreign(name: str, number: str) -> None:
    """Somebody's own data source of the same name makes room: names are unique."""
    from superset.extensions import db
    from superset.models.core import Database

    other = db.session.query(Database).filter_by(database_name=name).one_or_none()
    if other is not None and str(other.uuid) != number:
        other.database_name = f"{name} ({other.id})"
        db.session.commit()
        say(f"data source {name}: one of that name was there, now {other.database_name}")


def _made_on(database: Any) -> list[str]:
    """Tables with rows of people's that a deletion of this data source would take along, or that forbid it.

    All that refer to it but what Superset itself notes down: datasets, saved queries, open tabs, alerts.
    """
    from flask_appbuilder import Model
    from sqlalchemy import func, select
    from superset.extensions import db

    found = []
    for table in Model.metadata.tables.values():
        for key in table.foreign_keys:
            if key.column.table.name == "dbs" and table.name not in NOTES:
                rows = select(func.count()).select_from(table).where(key.parent == database.id)
                if db.session.execute(rows).scalar():
                    found.append(table.name)
    return found


def _retire(database: Any) -> None:
    """Delete a data source whose service is off, or shut it when what people made would go with it."""
    from superset.extensions import db

    made = _made_on(database)
    if not made:
        say(f"data source {database.database_name}: deleted")
        db.session.delete(database)
        return
    if database.password is not None or database.expose_in_sqllab:
        say(f"data source {database.database_name}: shut, not deleted: {', '.join(made)} build on it")
    database.password = None
    database.expose_in_sqllab = False


def _grant(manager: Any, numbers: Sequence[str]) -> None:
    """The readers' role on exactly these data sources."""
    from superset.extensions import db
    from superset.models.core import Database

    role = manager.add_role(READERS)
    found = db.session.query(Database).filter(Database.uuid.in_([uuid.UUID(n) for n in numbers])).all()
    views = [manager.add_permission_view_menu("database_access", database.perm) for database in found]
    if {view.id for view in role.permissions} != {view.id for view in views}:
        role.permissions = views
    db.session.commit()


def main() -> None:
    """Everything, in the order in which one needs the other."""
    logging.disable(logging.INFO)
    from superset.app import create_app

    app = create_app()
    with app.app_context():
        migrate()
        logging.disable(logging.INFO)
        from superset.extensions import appbuilder, security_manager

        if count := reencrypt(_WANTED["former_keys"]):
            say(f"secret key: {count} rows encrypted anew")
        appbuilder.add_permissions(update_perms=True)
        security_manager.sync_role_definitions()
        sources = data_sources(security_manager, _WANTED["data_sources"])
        # Before a data source goes: the platform's own charts don't hold it.
        superset_dashboards.write(_DASHBOARDS, sources, say)
        retire(_WANTED["data_sources"])
        users(security_manager, _WANTED["users"])
    say("done")


if __name__ == "__main__":
    main()
