"""The files of a phone: a folder of the host for what is written, answers of the model for /proc and /sys.

Nothing leaves the folder: a path is made absolute and plain, and links that would lead out are refused.
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from device_farm.emulator.sync_protocol import FileStatus

WRITABLE = ("/data/local/tmp", "/sdcard")
_READ_ONLY_TIME_S = 1_230_768_000  # when Android images say that they were made


class VirtualFiles(Protocol):
    """What a phone's model says instead of a folder."""

    def find(self, path: str) -> Callable[[], bytes] | None:
        """What gives the content of a file; None if there is no such file."""

    def names(self, path: str) -> set[str]:
        """Of files and folders in a folder; empty if there is no such folder."""


class PhoneFiles:
    """Made below `root`, which is created. Paths are absolute and plain (`absolute`)."""

    def __init__(self, root: Path, virtual: VirtualFiles) -> None:
        self._virtual = virtual
        self.full = False  # the fault: no byte more
        for path in WRITABLE:
            (root / path[1:]).mkdir(parents=True, exist_ok=True)
        self.root = root.resolve()

    @staticmethod
    def absolute(path: str, cwd: str = "/") -> str:
        """The plain form of a phone's path."""
        return posixpath.normpath(posixpath.join("/", cwd, path)).replace("//", "/")

    def host(self, path: str) -> Path:
        """Where the host keeps it. Raises OSError (EACCES) where a link leads out, ENAMETOOLONG, EINVAL."""
        if "\0" in path:
            raise _error(errno.EINVAL, path)
        if path == "/":
            return self.root
        root = str(self.root)
        host = os.path.join(root, path.lstrip("/"))
        leads_out = not _is_below(os.path.realpath(os.path.dirname(host)), root)
        if leads_out or (os.path.islink(host) and not _is_below(os.path.realpath(host), root)):
            raise _error(errno.EACCES, path)
        return Path(host)

    def writable(self, path: str) -> Path:
        """Like `host`, for something that is to be made or changed. Raises OSError (EROFS) elsewhere."""
        if not any(path.startswith(place + "/") for place in WRITABLE):
            raise _error(errno.EROFS, path)
        return self.host(path)

    def check_space(self, path: str) -> None:
        """Raises OSError (ENOSPC) when the phone is full."""
        if self.full:
            raise _error(errno.ENOSPC, path)

    def read(self, path: str) -> bytes:
        """The whole of a file. Raises OSError."""
        content = self._virtual.find(path)
        if content is not None:
            return content()
        if self._virtual.names(path):
            raise _error(errno.EISDIR, path)
        return self.host(path).read_bytes()

    def is_virtual(self, path: str) -> bool:
        return self._virtual.find(path) is not None

    def status(self, path: str) -> FileStatus:
        """Raises OSError."""
        content = self._virtual.find(path)
        if content is not None:
            return FileStatus(stat.S_IFREG | 0o444, len(content()), _READ_ONLY_TIME_S)
        host = self.host(path)
        try:
            found = host.lstat()
        except OSError:
            if self._virtual.names(path):
                return FileStatus(stat.S_IFDIR | 0o755, 4096, _READ_ONLY_TIME_S)
            raise
        return FileStatus(found.st_mode, found.st_size, int(found.st_mtime), found.st_ino)

    def exists(self, path: str) -> bool:
        """Like `status` without an error, but a file of the model is not asked what it would say."""
        if self._virtual.find(path) is not None:
            return True
        try:
            self.status(path)
        except OSError:
            return False
        return True

    def is_directory(self, path: str) -> bool:
        try:
            return stat.S_ISDIR(self.status(path).mode)
        except OSError:
            return False

    def names(self, path: str) -> list[str]:
        """What is in a directory. Raises OSError."""
        found = self._virtual.names(path)
        if found and not _may_be_on_host(path):
            return sorted(found)
        try:
            found |= set(os.listdir(self.host(path)))
        except FileNotFoundError:
            if not found:
                raise
        return sorted(found)

    def space(self) -> tuple[int, int]:
        """Bytes of the data partition: all, and free ones."""
        total = 112 << 30
        return total, 0 if self.full else total - (31 << 30)


def _is_below(host: str, root: str) -> bool:
    return host == root or host.startswith(root + "/")


def _may_be_on_host(path: str) -> bool:
    """Nothing is kept outside the folders that can be written and what is above them."""
    return any(place == path or place.startswith(path.rstrip("/") + "/") or path.startswith(place + "/")
               for place in WRITABLE)  # fmt: skip


def _error(number: int, path: str) -> OSError:
    return OSError(number, os.strerror(number), path)
