"""Which cores other processes of this machine measure on: an advisory lock for each, gone with whoever holds it."""

from __future__ import annotations

import fcntl
import os
import tempfile
from pathlib import Path


def lock_folder() -> Path:
    """Where the locks of this user are; one of another user's cores is not known."""
    return Path(tempfile.gettempdir()) / f"npas-cores-{os.getuid()}"


def try_lock(core: int, folder: Path) -> int | None:
    """A descriptor that holds the core until it is closed, or None if another holder lives.

    Also where no lock can be made (a read-only disk, a folder of somebody else's): then nothing is arbitrated, and the
    descriptor is that of nothing.
    """
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.stat().st_uid != os.getuid():
            return os.open(os.devnull, os.O_RDONLY)
        descriptor = os.open(folder / f"core-{core}", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError:
        return os.open(os.devnull, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
