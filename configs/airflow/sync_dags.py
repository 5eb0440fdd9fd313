"""Makes a folder hold exactly the files of a manifest: sync_dags.py MANIFEST FOLDER.

The manifest maps relative paths to texts. Each file appears whole or not at all; what did not change is left
alone, since a new time stamp would have Airflow read it again.
"""

import json
import sys
from pathlib import Path

manifest, folder = Path(sys.argv[1]), Path(sys.argv[2])
wanted = {folder / name: text.encode() for name, text in json.loads(manifest.read_text()).items()}

changed = 0
for path, content in sorted(wanted.items()):
    if path.is_file() and path.read_bytes() == content:
        continue
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(content)
    partial.replace(path)
    changed += 1

removed = 0
for path in sorted(folder.rglob("*"), reverse=True):  # what is in a folder before the folder
    if path.is_dir() and not path.is_symlink():
        if not any(path.iterdir()):
            path.rmdir()
    elif path not in wanted:
        path.unlink()
        removed += 1
print(f"{len(wanted)} files, {changed} written, {removed} removed")
