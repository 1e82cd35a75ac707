"""Adb's file transfer on a phone's files."""

from __future__ import annotations

import errno
import os
import stat
import struct
from typing import TYPE_CHECKING, BinaryIO

from device_farm.emulator import sync_protocol as sync
from device_farm.emulator.faults import PhoneFault
from device_farm.emulator.link import Stream

if TYPE_CHECKING:
    from device_farm.emulator.phone import Phone

_STATUS = frozenset({b"STAT", b"STA2", b"LST2"})


async def serve_sync(phone: Phone, stream: Stream) -> None:
    """Until the host says QUIT or closes the stream."""
    reader = sync.SyncReader()
    session = _Session(phone, stream, reader)
    while (message := await session.next_message()) is not None:
        if not isinstance(message, sync.Request) or message.verb == b"QUIT":
            return
        await session.answer(message)


class _Session:
    def __init__(self, phone: Phone, stream: Stream, reader: sync.SyncReader) -> None:
        self._phone = phone
        self._stream = stream
        self._reader = reader

    async def next_message(self) -> sync.Request | sync.Data | sync.Done | None:
        while (message := self._reader.next_message()) is None:
            data = await self._stream.read()
            if not data:
                return None
            self._reader.feed(data)
        return message

    async def answer(self, request: sync.Request) -> None:
        path = self._phone.files.absolute(request.path)
        if request.verb in _STATUS:
            await self._stream.write(sync.encode_status(request.verb, self._status(path)))
        elif request.verb in (b"LIST", b"LIS2"):
            await self._list(request.verb, path)
        elif request.verb in (b"RECV", b"RCV2"):
            await self._give(path, request.words)
        else:
            await self._take(request)

    def _status(self, path: str) -> sync.FileStatus:
        try:
            return self._phone.files.status(path)
        except OSError as error:
            return sync.FileStatus(error=error.errno or errno.EIO)

    async def _list(self, verb: bytes, path: str) -> None:
        try:
            names = self._phone.files.names(path)
        except OSError:
            names = []
        entries = [sync.encode_entry(verb, name, self._status(f"{path}/{name}")) for name in names]
        await self._stream.write(b"".join(entries) + sync.encode_end_of_entries(verb))

    async def _give(self, path: str, words: tuple[int, ...]) -> None:
        if any(words):
            await self._fail("compression is not emulated")
            return
        try:
            content = self._phone.files.read(path)
        except OSError as error:
            await self._fail(f"open failed: {error.strerror}")
            return
        if PhoneFault.GARBAGE in self._phone.faults:
            content = os.urandom(len(content) or 1)
        if PhoneFault.WRONG_LENGTHS in self._phone.faults:
            await self._stream.write(struct.pack("<4sI", b"DATA", 0xFFFFFFF0) + content[:1000])
            return
        for at in range(0, len(content), sync.MAX_DATA_BYTES):
            await self._stream.write(sync.encode_data(content[at : at + sync.MAX_DATA_BYTES]))
        while PhoneFault.ENDLESS in self._phone.faults:
            await self._stream.write(sync.encode_data(bytes(sync.MAX_DATA_BYTES)))
        await self._stream.write(sync.encode_done())

    async def _take(self, request: sync.Request) -> None:
        if request.verb == b"SEND":
            name, _, mode_text = request.path.rpartition(",")
            mode, flags = int(mode_text) if mode_text.isdigit() else 0o644, 0
        else:
            name, (mode, flags) = request.path, request.words
        path = self._phone.files.absolute(name)
        failure = "compression is not emulated" if flags & 7 else None
        if stat.S_ISLNK(mode):
            failure = "links are not emulated"
        target: BinaryIO | None = None
        whole = False
        try:
            if failure is None:
                try:
                    target = self._open(path)
                except OSError as error:
                    failure = f"couldn't create file: {error.strerror}"
            while (message := await self.next_message()) is not None and isinstance(message, sync.Data):
                if failure is None and target is not None:
                    failure = self._write(target, message.data)
            if not isinstance(message, sync.Done):
                return
            if failure is None and target is not None:
                target.flush()
                permissions = (mode & 0o777) | 0o600
                os.fchmod(target.fileno(), permissions | (permissions & 0o100 and 0o011))
                os.utime(target.fileno(), (message.modified_s, message.modified_s))
                whole = True
        except OSError as error:
            failure = error.strerror or "failed"
        finally:
            if target is not None:
                target.close()
                if not whole:
                    self._phone.files.host(path).unlink(missing_ok=True)
        await (self._stream.write(sync.encode_okay()) if failure is None else self._fail(failure))

    def _open(self, path: str) -> BinaryIO:
        """A new file in the place of the old one, which a program may be running."""
        self._phone.files.check_space(path)
        host = self._phone.files.writable(path)
        host.parent.mkdir(parents=True, exist_ok=True)
        if host.is_dir():
            raise IsADirectoryError(errno.EISDIR, "Is a directory")
        host.unlink(missing_ok=True)
        return host.open("xb")

    def _write(self, target: BinaryIO, data: bytes) -> str | None:
        """What went wrong."""
        try:
            self._phone.files.check_space("")
            target.write(data)
        except OSError as error:
            return f"write failed: {error.strerror}"
        return None

    async def _fail(self, message: str) -> None:
        await self._stream.write(sync.encode_failure(message))
