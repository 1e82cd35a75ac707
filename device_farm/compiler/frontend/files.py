"""Files that somebody else may have written: read once, whole, and never more than is allowed."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from device_farm.errors import InvalidGraph

MAX_BYTES = 2 * 1024**3  # protobuf's own limit; larger networks keep their weights in files beside it


def read_bounded(path: Path, *, limit: int = MAX_BYTES, offset: int = 0, length: int | None = None) -> bytes:
    """The content of a regular file, or `length` bytes of it. Raises InvalidGraph for everything else.

    Pipes and devices are refused: they may never end.
    """
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                kind = "a directory" if stat.S_ISDIR(status.st_mode) else "no regular file"
                raise InvalidGraph(f"{path}: expected a file with a network; it is {kind}")
            wanted = status.st_size - offset if length is None else length
            if wanted > limit:
                raise InvalidGraph(f"{path}: {wanted / 1024**2:.0f} MiB; at most {limit / 1024**2:.0f} MiB are read")
            if wanted < 0 or offset < 0 or offset + wanted > status.st_size:
                raise InvalidGraph(
                    f"{path}: bytes {offset}..{offset + wanted} are asked for, it has {status.st_size}: truncated?"
                )
            file.seek(offset)
            return file.read(wanted)
    except FileNotFoundError as error:
        raise InvalidGraph(f"{path}: there is no such file") from error
    except IsADirectoryError as error:
        raise InvalidGraph(f"{path}: expected a file with a network; it is a directory") from error
    except OSError as error:
        raise InvalidGraph(f"{path}: cannot be read: {error.strerror}") from error


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # opening a pipe would wait for its writer
