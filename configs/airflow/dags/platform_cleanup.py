"""Deletes what Airflow would keep for ever: runs and events in the metadata database, and logs of tasks.

How long they are kept is in platform_cleanup.json, which the platform writes from its settings.
"""

import json
import os
import subprocess
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from airflow.sdk import dag, task

KEEP = json.loads(Path(__file__).with_name("platform_cleanup.json").read_text())


@dag(
    dag_id="platform_cleanup",
    description="Old runs, events and logs",
    # Without a start date the first run is the next one; with one in the past it would be now, at once.
    schedule="17 3 * * *",
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,
    default_args={"retries": 1, "retry_delay": timedelta(minutes=1), "owner": "platform"},
    tags=["platform"],
)
def platform_cleanup() -> None:
    """Three tasks that do not wait for each other."""

    @task
    def metadata() -> None:
        """Rows of the metadata database, by Airflow's own command."""
        until = datetime.now(UTC) - timedelta(days=KEEP["metadata_days"])
        # Airflow points the variable of its tasks to nowhere, so that they keep their hands off the database.
        # This one is the exception: the command takes the address from airflow.cfg.
        environment = {k: v for k, v in os.environ.items() if not k.endswith("__SQL_ALCHEMY_CONN")}
        command = ["airflow", "db", "clean", "--clean-before-timestamp", until.isoformat(), "--yes"]
        subprocess.run([*command, "--skip-archive"], env=environment, check=True)

    @task
    def task_logs() -> int:
        """Logs of tasks in the object store."""
        from airflow.providers.amazon.aws.hooks.s3 import S3Hook

        hook = S3Hook(aws_conn_id="object_store")
        until = datetime.now(UTC) - timedelta(days=KEEP["log_days"])
        pages = hook.get_conn().get_paginator("list_objects_v2").paginate(Bucket=KEEP["bucket"])
        deleted = 0
        for page in pages:
            old = [entry["Key"] for entry in page.get("Contents", ()) if entry["LastModified"] < until]
            if old:
                hook.delete_objects(bucket=KEEP["bucket"], keys=old)
            deleted += len(old)
        print(f"{deleted} objects deleted")
        return deleted

    @task
    def local_files() -> int:
        """Logs that never left (the DAG processor's, those of killed tasks) and what tasks left behind."""
        deleted = 0
        for name, days in KEEP["folders"].items():
            until = time.time() - days * 86400
            for place, _, files in os.walk(name, topdown=False):
                for path in (Path(place, file) for file in files):
                    # Airflow itself deletes logs that it has put into the object store, perhaps just now.
                    with suppress(FileNotFoundError):
                        if path.lstat().st_mtime < until:
                            path.unlink()
                            deleted += 1
                # A folder that is not empty stays.
                with suppress(OSError):
                    if place != name and Path(place).stat().st_mtime < until:
                        Path(place).rmdir()
        print(f"{deleted} files deleted")
        return deleted

    [metadata(), task_logs(), local_files()]


platform_cleanup()
