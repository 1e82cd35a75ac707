"""Objects by key, shared by processes. Entries carry their digest, so a damaged one is a miss, never a wrong kernel."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from device_farm.compiler.sweeping import scratch
from device_farm.files import write_atomically

_DIGEST_BYTES = 32


class ObjectCache:
    """A folder of object files. Safe under concurrent writers and kill -9: an entry appears whole or not at all.

    Two processes that miss the same key both make it; the results are equal, and the last one stays.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def get(self, key: str) -> bytes | None:
        """The object, or None if it is missing or damaged."""
        try:
            entry = self._path(key).read_bytes()
        except FileNotFoundError:
            return None
        digest, content = entry[:_DIGEST_BYTES], entry[_DIGEST_BYTES:]
        return content if hashlib.sha256(content).digest() == digest else None

    def get_or_make(self, key: str, make: Callable[[Path], None]) -> bytes:
        """The object; `make` writes it to the path that it is given where the cache has none."""
        content = self.get(key)
        if content is None:
            with scratch(self.folder, ".making-") as folder:
                path = folder / "made.o"
                make(path)
                content = path.read_bytes()
                write_atomically(self._path(key), hashlib.sha256(content).digest() + content)
        return content

    def trim(self, prefix: str, *, most: int) -> None:
        """Of the entries whose keys begin so, only the `most` newest stay."""

        def age(entry: Path) -> float:
            try:
                return -entry.stat().st_mtime
            except FileNotFoundError:  # another process trims too
                return 0.0

        for entry in sorted(self.folder.glob(f"{prefix}*.object"), key=age)[most:]:
            entry.unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.object"
