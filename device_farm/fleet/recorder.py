"""Writes the journal for an event loop: what is noted together goes to disk together, in the order of the notes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from device_farm.errors import JournalError
from device_farm.fleet.entries import Entry

_log = logging.getLogger(__name__)


class Log(Protocol):
    """What a recorder writes to: a Journal."""

    def append(self, entries: Sequence[Entry]) -> None: ...


class Recorder:
    """All methods belong to one event loop; `log` is written in a thread, by one commit at a time."""

    def __init__(self, log: Log, *, heard: Callable[[Entry], None] = lambda entry: None) -> None:
        self._target = log
        self._heard = heard  # is told of every entry as it is noted
        self._unwritten: list[Entry] = []
        self._noted = self._stored = 0
        self._error: JournalError | None = None
        self._writing: asyncio.Task[None] | None = None

    def note(self, entry: Entry) -> None:
        """Writes it soon. A failure shows at the next `written`; the entry stays, and is tried again then."""
        self._heard(entry)
        self._unwritten.append(entry)
        self._noted += 1
        self._write()

    async def written(self) -> None:
        """Returns when everything that was noted is on disk. Raises JournalError."""
        wanted = self._noted
        while self._stored < wanted:
            await asyncio.wait({self._write()})
            if self._error is not None:
                raise self._error

    def _write(self) -> asyncio.Task[None]:
        if self._writing is None or self._writing.done():
            self._writing = asyncio.get_running_loop().create_task(self._drain())
        return self._writing

    async def _drain(self) -> None:
        self._error = None
        while self._unwritten:
            batch = list(self._unwritten)
            try:
                await asyncio.to_thread(self._target.append, batch)
            except Exception as error:
                _log.error("%d entries are not in the journal yet: %s", len(batch), error)
                self._error = error if isinstance(error, JournalError) else JournalError(f"{error!r}")
                return
            del self._unwritten[: len(batch)]
            self._stored += len(batch)
