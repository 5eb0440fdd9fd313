"""Puts the raw files and the Spark jobs into the object store, and leaves alone what somebody else put there.

An object of ours says so in its metadata, with the hash of its content. One that doesn't is a user's: it is
neither overwritten nor deleted, and a warning says so.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import urllib3
from minio import Minio
from minio.error import S3Error

FLIGHTS = Path("/opt/demo/flights")
ACCESS, FILES = Path("/run/millrace/demo/object-store.json"), Path("/etc/millrace/demo/seed.json")

_MARK = "millrace-sha256"


def client(access: Mapping[str, str]) -> Minio:
    """A client that trusts the CAs of the file alone that ``access`` names."""
    return Minio(
        access["endpoint"],
        access_key=access["access_key"],
        secret_key=access["secret_key"],
        region=access["region"],
        http_client=urllib3.PoolManager(
            cert_reqs="CERT_REQUIRED",
            ca_certs=access["ca"],
            timeout=urllib3.Timeout(connect=10, read=60),
            retries=urllib3.Retry(total=5, backoff_factor=0.5, status_forcelist=[500, 502, 503, 504]),
        ),
    )


def raw_files(folder: Path) -> Iterator[tuple[str, bytes]]:
    """The flights' files, by the key they get."""
    for path in sorted(folder.rglob("*.gz")):
        yield f"flights/{path.relative_to(folder).with_suffix('')}", gzip.decompress(path.read_bytes())


def mark_of(store: Minio, bucket: str, key: str) -> str | None:
    """The hash that an object of ours has; "" for one of somebody else, None where there is none."""
    try:
        metadata = store.stat_object(bucket, key).metadata or {}
    except S3Error as error:
        if error.code in ("NoSuchKey", "NoSuchObject"):
            return None
        raise
    return str(metadata.get(f"x-amz-meta-{_MARK}") or "")


def put(store: Minio, bucket: str, key: str, content: bytes) -> str:
    """Make an object hold the content, unless it is somebody else's; what was done, in a word."""
    digest = hashlib.sha256(content).hexdigest()
    present = mark_of(store, bucket, key)
    if present == digest:
        return "unchanged"
    if present == "":
        print(f"WARNING s3://{bucket}/{key} is not of the demo and stays as it is", flush=True)
        return "left alone"
    store.put_object(bucket, key, io.BytesIO(content), len(content), metadata={_MARK: digest})
    return "written"


def prune(store: Minio, bucket: str, prefix: str, wanted: set[str]) -> int:
    """Delete objects of ours below a prefix that are no longer wanted; how many there were."""
    found = [str(entry.object_name) for entry in store.list_objects(bucket, prefix=prefix, recursive=True)]
    gone = [key for key in found if key not in wanted and mark_of(store, bucket, key)]
    for key in gone:
        store.remove_object(bucket, key)
    return len(gone)


def seed(store: Minio, raw: str, plan: Mapping[str, Mapping[str, str]], flights: Path) -> Counter[str]:
    """All files, those of the flights in the bucket ``raw``; how many were written, unchanged, left alone and
    deleted.
    """
    done: Counter[str] = Counter()
    for key, content in raw_files(flights):
        done[put(store, raw, key, content)] += 1
    for place, texts in plan.items():
        bucket, _, prefix = place.partition("/")
        for name, text in texts.items():
            done[put(store, bucket, f"{prefix}/{name}", text.encode())] += 1
        done["deleted"] += prune(store, bucket, f"{prefix}/", {f"{prefix}/{name}" for name in texts})
    return done


def main() -> int:
    """The job."""
    access = json.loads(ACCESS.read_text(encoding="utf-8"))
    store = client(access)
    try:
        done = seed(store, access["raw"], json.loads(FILES.read_text(encoding="utf-8")), FLIGHTS)
    except (S3Error, urllib3.exceptions.HTTPError) as error:
        print(f"the object store: {error}", file=sys.stderr)
        return 1
    print(", ".join(f"{done[what]} {what}" for what in ("written", "unchanged", "left alone", "deleted")))
    return 0
