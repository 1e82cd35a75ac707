"""The recorder: in order, together, and nothing is called written before it is."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest

from device_farm.errors import JournalError
from device_farm.fleet.entries import Entry, Kind
from device_farm.fleet.recorder import Recorder


class Disk:
    """A log that takes its time, and may be full."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.free = threading.Event()
        self.free.set()
        self.full = False

    def append(self, entries: Sequence[Entry]) -> None:
        assert self.free.wait(5)
        if self.full:
            raise JournalError("no room")
        self.batches.append([entry.key for entry in entries])

    @property
    def keys(self) -> list[str]:
        return [key for batch in self.batches for key in batch]


def entry(key: int) -> Entry:
    return Entry(Kind.MEASURED, str(key))


def test_what_waits_goes_together_and_in_order() -> None:
    async def run() -> None:
        disk, heard = Disk(), []
        recorder = Recorder(disk, heard=lambda e: heard.append(e.key))
        disk.free.clear()
        recorder.note(entry(0))
        await asyncio.sleep(0.02)
        for key in range(1, 100):
            recorder.note(entry(key))
        assert len(heard) == 100
        written = asyncio.ensure_future(recorder.written())
        await asyncio.sleep(0.02)
        assert not written.done() and disk.batches == []
        disk.free.set()
        await written
        assert disk.keys == [str(key) for key in range(100)] and len(disk.batches) == 2
        await recorder.written()  # there is nothing to wait for

    asyncio.run(run())


def test_a_full_disk_is_told_to_all_who_wait_and_tried_again() -> None:
    async def run() -> None:
        disk = Disk()
        recorder = Recorder(disk)
        disk.full = True
        recorder.note(entry(0))
        recorder.note(entry(1))
        for error in await asyncio.gather(recorder.written(), recorder.written(), return_exceptions=True):
            assert isinstance(error, JournalError)
        disk.full = False
        recorder.note(entry(2))
        await recorder.written()
        assert disk.keys == ["0", "1", "2"]

    asyncio.run(run())


def test_who_stops_waiting_stops_nothing() -> None:
    async def run() -> None:
        disk = Disk()
        recorder = Recorder(disk)
        disk.free.clear()
        recorder.note(entry(0))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(recorder.written(), 0.02)
        disk.free.set()
        await recorder.written()
        assert disk.keys == ["0"]

    asyncio.run(run())
