"""Files in whatever store Spark reaches, and the lock that keeps a second writer out of a bucket."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from py4j.protocol import Py4JJavaError
from pyspark.sql import SparkSession

BEAT_S = 5.0
"""How often the holder of a lock shows that it lives, in seconds."""

STALE_S = 30.0
"""Without a sign of life for so long, in seconds, a holder counts as dead."""


@dataclass(frozen=True)
class Found:
    """A file: its address and when it was last written, in milliseconds of the epoch."""

    uri: str
    modified: int


class Files:
    """Small files by their address: ``s3a://…``, or ``file:///…`` in tests."""

    def __init__(self, spark: SparkSession) -> None:
        self._jvm: Any = spark.sparkContext._jvm
        self._conf: Any = spark.sparkContext._jsc.hadoopConfiguration()

    def _at(self, uri: str) -> tuple[Any, Any]:
        path = self._jvm.org.apache.hadoop.fs.Path(uri)
        return path.getFileSystem(self._conf), path

    def exists(self, uri: str) -> bool:
        """Whether there is a file, or a folder with something in it."""
        system, path = self._at(uri)
        return bool(system.exists(path))

    def read(self, uri: str, limit: int = 1 << 24) -> bytes | None:
        """The first bytes of a file, or None when it is not there."""
        system, path = self._at(uri)
        try:
            size = min(system.getFileStatus(path).getLen(), limit)
            stream = system.open(path)
            try:
                return bytes(self._jvm.org.apache.commons.io.IOUtils.toByteArray(stream, int(size)))
            finally:
                stream.close()
        except Py4JJavaError as error:
            if _is(error, "java.io.FileNotFoundException"):
                return None
            raise

    def write(self, uri: str, text: str) -> None:
        """Write a file, in place of what is there."""
        system, path = self._at(uri)
        stream = system.create(path, True)
        stream.write(bytearray(text.encode()))
        stream.close()

    def create(self, uri: str, text: str) -> bool:
        """Write a file that is not there yet; False when it is. Of two at the same time, S3 takes one."""
        system, path = self._at(uri)
        try:
            builder = system.createFile(path).overwrite(False).recursive()
            stream = builder.opt("fs.option.create.conditional.overwrite", "true").build()
            stream.write(bytearray(text.encode()))
            stream.close()
        except Py4JJavaError as error:
            taken = ("org.apache.hadoop.fs.FileAlreadyExistsException", "RemoteFileChangedException")
            if any(_is(error, name) for name in taken):
                return False
            raise
        return True

    def delete(self, uri: str) -> None:
        """Delete a file or folder, if it is there."""
        system, path = self._at(uri)
        system.delete(path, True)

    def folders(self, uri: str) -> list[str]:
        """Names of the folders right below a folder; none where there is none."""
        system, path = self._at(uri)
        if not system.exists(path):
            return []
        return sorted(str(s.getPath().getName()) for s in system.listStatus(path) if s.isDirectory())

    def below(self, uri: str) -> list[Found]:
        """All files below a folder; none where there is none."""
        system, path = self._at(uri)
        if not system.exists(path):
            return []
        found, listing = [], system.listFiles(path, True)
        while listing.hasNext():
            status = listing.next()
            found.append(Found(str(status.getPath()), int(status.getModificationTime())))
        return found


def _is(error: Py4JJavaError, name: str) -> bool:
    """Whether a Java exception, or what caused it, is of a class."""
    cause = error.java_exception
    while cause is not None:
        if str(cause.getClass().getName()).endswith(name):
            return True
        cause = cause.getCause()
    return False


def _give_up(owner: str) -> None:
    print(
        f"the lock was taken over by {owner}: this job ends, to not write beside it",
        file=sys.stderr,
        flush=True,
    )
    # At once and from this thread: the one that writes is in the middle of it. 70 is EX_SOFTWARE.
    os._exit(70)


class WriterLock:
    """Lets one job at a time write the tables of a bucket.

    Delta's log store for S3 tells writers of one driver apart, not those of two: they would overwrite each
    other's commits. Airflow runs one job at a time, and this holds where Airflow has lost sight of one: a
    driver that goes on after its task was killed, a job submitted twice. The lock is a file that its holder
    writes anew every few seconds. Who finds one waits until it is gone, or unchanged for
    :data:`STALE_S` seconds by his own clock.
    """

    def __init__(self, files: Files, bucket: str, owner: str, lost: Callable[[str], None] = _give_up) -> None:
        self.uri, self._bucket = f"{bucket}/_locks/writer.json", bucket
        self._files, self._owner, self._lost = files, owner, lost
        self._token = uuid.uuid4().hex
        self._beats = 0
        self._ended = threading.Event()
        self._beating = threading.Thread(target=self._beat, daemon=True)

    def acquire(self, patience_s: float = 300) -> None:
        """Wait for the lock and take it.

        Raises:
            TimeoutError: when another job that lives still has it.
        """
        deadline = time.monotonic() + patience_s
        seen, since = None, time.monotonic()
        while True:
            now = self._files.read(self.uri)
            if now is None:
                # Two that found the same stale lock may both have removed one: the later file stands.
                if self._files.create(self.uri, self._text()) and (seen is None or self._stands()):
                    break
            elif now != seen:
                if seen is None:
                    print(f"waiting for {_name(now)}, which writes {self._bucket}", flush=True)
                seen, since = now, time.monotonic()
            elif time.monotonic() - since > STALE_S:
                print(f"{_name(now)} is gone without a word: its lock is removed", flush=True)
                self._files.delete(self.uri)
                continue
            if time.monotonic() > deadline:
                raise TimeoutError(f"{_name(now)} still writes {self._bucket}")
            time.sleep(1)
        self._beating.start()

    def release(self) -> None:
        """Give the lock back."""
        self._ended.set()
        self._beating.join(30)
        if self._mine(self._files.read(self.uri)):
            self._files.delete(self.uri)

    def _text(self) -> str:
        return json.dumps({"owner": self._owner, "token": self._token, "beat": self._beats})

    def _mine(self, content: bytes | None) -> bool:
        return content is not None and json.loads(content).get("token") == self._token

    def _stands(self) -> bool:
        time.sleep(2)
        return self._mine(self._files.read(self.uri))

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_S):
            try:
                now = self._files.read(self.uri)
                if not self._mine(now):
                    self._lost(_name(now))
                    return
                self._beats += 1
                self._files.write(self.uri, self._text())
            except Py4JJavaError as error:
                # A store that is away for a moment: nobody else gets the lock from it meanwhile.
                print(f"the lock could not be renewed: {error.java_exception}", file=sys.stderr, flush=True)


def _name(content: bytes | None) -> str:
    try:
        return str(json.loads(content or b"")["owner"])
    except (ValueError, KeyError):
        return "another job"
