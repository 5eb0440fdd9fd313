"""Encrypts what is in the metadata database anew when the Fernet key is another one than at the last run.

rotate_fernet.py KEY KEYRING: the first file has the current key. The ring is a file with keys, separated by
commas, the newest first. It lives in a volume, because the platform knows the current key only. Until
everything is encrypted with the new key, the former one stays in the ring, whatever interrupts.
"""

import os
import subprocess
import sys
from pathlib import Path

current, ring = Path(sys.argv[1]).read_text().strip(), Path(sys.argv[2])


def write(keys: list[str]) -> None:
    """Replace the ring, whole or not at all."""
    partial = ring.with_name(f".{ring.name}.partial")
    partial.touch(mode=0o600)
    partial.write_text(",".join(keys))
    partial.replace(ring)


known = ring.read_text().split(",") if ring.exists() else []
if known == [current]:
    print("the key is the one of the last run")
elif not known:
    write([current])
    print("the first key")
else:
    write([current, *(key for key in known if key != current)])
    environment = {**os.environ, "AIRFLOW__CORE__FERNET_KEY_CMD": f"cat {ring}"}
    done = subprocess.run(["airflow", "rotate-fernet-key"], env=environment, check=False)
    if done.returncode:
        sys.exit(done.returncode)
    write([current])
    print("everything is encrypted with the new key")
