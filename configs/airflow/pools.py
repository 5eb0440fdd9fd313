"""Makes pools of Airflow, or gives them another number of slots: pools.py POOLS DATABASE, two files.

POOLS is JSON, slots by name. By a statement of its own: Airflow's command would take seconds to start.
"""

import json
import sys
from pathlib import Path

import psycopg2

pools = json.loads(Path(sys.argv[1]).read_text())
connection = psycopg2.connect(Path(sys.argv[2]).read_text(), connect_timeout=10)
with connection, connection.cursor() as cursor:
    for name, slots in pools.items():
        cursor.execute(
            "INSERT INTO slot_pool (pool, slots, description, include_deferred) "
            "VALUES (%s, %s, 'of the settings', false) "
            "ON CONFLICT (pool) DO UPDATE SET slots = EXCLUDED.slots",
            (name, slots),
        )
print(f"pools: {json.dumps(pools)}")
