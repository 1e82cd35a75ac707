"""Scratch folders that nobody has to clean up after: what a killed process left is swept by the next one.

A scratch folder is locked (flock on the folder itself) by the process that works in it; the kernel lets go of the lock
when that process ends, however it ends. So a folder that is old and whose lock is free belongs to nobody. The age is
for the moment between making and locking, and for a linker that outlives the process that started it.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

MIN_AGE_S = 900.0  # more than link.TIMEOUT_S
_SWEEP_EVERY_S = 600.0
_FOLDER = re.compile(r"\.(linking|making|compiling)-\w+")
# what files.write_atomically leaves when it is killed: of an object, an executable or a manifest
_FILE = re.compile(r"\.(npas_\w+|program-\w+|[0-9a-f]{32,40}(\.json)?)-\w{8}")

_swept: dict[Path, float] = {}  # folder -> when, by time.monotonic()


@contextmanager
def scratch(parent: Path, prefix: str) -> Iterator[Path]:
    """A locked folder `parent`/`prefix`*, gone at the end; on the way in, leftovers beside it are swept now and then.

    `prefix` is ".linking-", ".making-" or ".compiling-". Raises OSError.
    """
    now = time.monotonic()
    if now - _swept.get(parent, -_SWEEP_EVERY_S) >= _SWEEP_EVERY_S:
        _swept[parent] = now
        sweep(parent)
    with tempfile.TemporaryDirectory(dir=parent, prefix=prefix) as name:
        descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY)  # not inherited: a linker must not hold the lock
        try:
            with suppress(OSError):  # a file system without locks: then the age alone decides
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield Path(name)
        finally:
            os.close(descriptor)


def sweep(parent: Path, *, min_age_s: float = MIN_AGE_S) -> int:
    """Removes what killed processes left in `parent`; how many entries. Never raises for what it cannot remove."""
    removed = 0
    oldest = time.time() - min_age_s
    with suppress(OSError), os.scandir(parent) as entries:
        for entry in entries:
            if not entry.name.startswith("."):
                continue
            with suppress(OSError):
                if entry.stat(follow_symlinks=False).st_mtime > oldest:
                    continue
                if entry.is_dir(follow_symlinks=False) and _FOLDER.fullmatch(entry.name):
                    removed += _remove_abandoned(entry.path)
                elif entry.is_file(follow_symlinks=False) and _FILE.fullmatch(entry.name):
                    os.unlink(entry.path)
                    removed += 1
    return removed


def _remove_abandoned(folder: str) -> bool:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # BlockingIOError: somebody works in it
        shutil.rmtree(folder)
    finally:
        os.close(descriptor)
    return True
