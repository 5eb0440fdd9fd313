"""Airflow's settings and their mistakes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from components import folders
from components.airflow_settings import AirflowSettings, is_dag_file, problems
from components.problems import SettingsError
from components.settings import load


def mistakes(**values: Any) -> list[str]:
    return [p.line("f", "m") for p in problems(AirflowSettings.model_validate(values))]


@pytest.mark.parametrize(
    ("values", "line"),
    [
        (
            {"access": "public"},
            "f: m:access: Airflow shows nothing to who has not logged in - use user or higher",
        ),
        ({"dags_folders": ["no/such"]}, 'f: m:dags_folders[0]: no folder "no/such" - give a path'),
        (
            {"options": {"core.parallelism": "4"}},
            'f: m:options["core.parallelism"]: has a key of its own - write',
        ),
        (
            {"options": {"core.fernet_key": "x"}},
            'f: m:options["core.fernet_key"]: is set by the platform itself',
        ),
        *(
            ({"options": {name: "x"}}, f'f: m:options["{name}"]: is set by the platform itself')
            for name in (
                "core.fernet_key_cmd",
                "database.sql_alchemy_conn_secret",
                "api.expose_config",
                "webserver.secret_key",
                "core.simple_auth_manager_all_admins",
                "workers.secrets_backend",
            )
        ),
        (
            {"options": {"millrace.users": "x"}},
            'f: m:options["millrace.users"]: is set by the platform itself',
        ),
        ({"buckets": ["lake", "lake"]}, 'f: m:buckets[1]: bucket "lake" stands here a second time'),
        ({"buckets": ["airflow-logs"]}, 'f: m:buckets[0]: "airflow-logs" holds the logs - remove it'),
        ({"kafka_read": ["a", "a"]}, 'f: m:kafka_read[1]: topic "a" stands here a second time'),
    ],
)
def test_each_mistake_is_one_line(values: dict[str, Any], line: str) -> None:
    (found,) = mistakes(**values)
    assert found.startswith(line), found


def test_dag_files_must_be_text_and_few(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_bytes(b"\xff\xfe")
    (found,) = mistakes(dags_folders=[str(tmp_path)])
    assert found.startswith(f"f: m:dags_folders[0]: {tmp_path}/a.py cannot be read as UTF-8 text")
    (tmp_path / "a.py").write_text("#" * 5 * 1024 * 1024)
    (found,) = mistakes(dags_folders=[str(tmp_path)])
    assert found.startswith("f: m:dags_folders: 5120 KiB in all, more than 4096 - keep data elsewhere")


def test_folders_make_one_tree(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for folder, name in ((one, "a.py"), (two, "b.py")):
        folder.mkdir()
        (folder / name).write_text(name)
    both = [str(one), str(two)]
    assert folders.texts(both, is_dag_file) == {"a.py": "a.py", "b.py": "b.py"}
    assert mistakes(dags_folders=both) == []
    (two / "a.py").write_text("other")
    (line,) = mistakes(dags_folders=both)
    assert line.startswith("f: m:dags_folders[1]: a.py is in ") and line.endswith(" too - rename one")
    (line,) = mistakes(dags_folders=[str(one)] * 2)
    assert line.endswith("stands here a second time - remove it")


def test_dag_files_are_all_but_byte_code_and_hidden_ones(tmp_path: Path) -> None:
    for name in ("a.py", "lib/b.py", ".airflowignore", "lib/__pycache__/b.pyc", ".git/config", "sql/q.sql"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "empty.py").touch()
    found = folders.texts([str(tmp_path)], is_dag_file)
    assert found == {n: n for n in ("a.py", "lib/b.py", ".airflowignore", "sql/q.sql")} | {"empty.py": ""}
    assert folders.texts([str(tmp_path / "none")], is_dag_file) == {}


@pytest.mark.parametrize(
    "values",
    [
        {"memory_mib": 256},
        {"scheduler_memory_mib": 512},
        {"parallelism": 0},
        {"log_retention_days": 0},
        {"options": {"parallelism": "4"}},
        {"kafka_read": ["a*b"]},
        {"warehouse_privilege": "all"},
    ],
)
def test_values_out_of_range(values: dict[str, Any]) -> None:
    with pytest.raises(SettingsError) as caught:
        load({"users": [{"name": "a", "role": "admin"}], "airflow": values}, "f")
    (line,) = caught.value.lines
    assert line.startswith("f: millrace:airflow.")


def test_as_many_tasks_as_there_is_memory_for() -> None:
    assert AirflowSettings().tasks_at_a_time == 3
    assert AirflowSettings(scheduler_memory_mib=640).tasks_at_a_time == 1
    assert AirflowSettings(scheduler_memory_mib=4096).tasks_at_a_time == 18
    assert AirflowSettings(parallelism=7).tasks_at_a_time == 7
