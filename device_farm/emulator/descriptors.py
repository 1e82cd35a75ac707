"""Reading and writing descriptors that programs share, without ever blocking the event loop.

O_NONBLOCK belongs to a pipe's end, not to one descriptor of it: setting it on an end that a program has inherited would
change that program. So each call opens the end anew through /proc, with flags of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import stat

PIECE_BYTES = 65536


async def read_some(descriptor: int, count: int = PIECE_BYTES) -> bytes:
    """Up to `count` bytes, nothing at the end."""
    own = _open_anew(descriptor, os.O_RDONLY)
    if own is None:
        return os.read(descriptor, count)
    try:
        while True:
            try:
                return os.read(own, count)
            except BlockingIOError:
                await _ready(own, write=False)
    finally:
        os.close(own)


async def read_line(descriptor: int, most: int = PIECE_BYTES) -> bytes:
    """To the end of the line and no byte further, with the newline; without one at the end, or after `most` bytes."""
    own = _open_anew(descriptor, os.O_RDONLY)
    line = bytearray()
    try:
        if own is None and stat.S_ISREG(os.fstat(descriptor).st_mode):
            piece = os.read(descriptor, most)
            line += piece[: piece.find(b"\n") + 1] or piece
            os.lseek(descriptor, len(line) - len(piece), os.SEEK_CUR)
            return bytes(line)
        while len(line) < most and not line.endswith(b"\n"):
            try:
                byte = os.read(descriptor if own is None else own, 1)
            except BlockingIOError:
                assert own is not None
                await _ready(own, write=False)
                continue
            if not byte:
                break
            line += byte
    finally:
        if own is not None:
            os.close(own)
    return bytes(line)


async def write_all(descriptor: int, data: bytes) -> None:
    """Raises BrokenPipeError where nobody reads any more."""
    try:
        own = _open_anew(descriptor, os.O_WRONLY)
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise BrokenPipeError(errno.EPIPE, "nobody reads") from error
        raise
    try:
        left = memoryview(data)
        while left:
            try:
                left = left[os.write(descriptor if own is None else own, left) :]
            except BlockingIOError:
                assert own is not None
                await _ready(own, write=True)
    finally:
        if own is not None:
            os.close(own)


def _open_anew(descriptor: int, flags: int) -> int | None:
    """The same pipe with a state of its own; None for what never blocks for long."""
    if not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
        return None
    return os.open(f"/proc/self/fd/{descriptor}", flags | os.O_NONBLOCK | os.O_CLOEXEC)


async def _ready(descriptor: int, *, write: bool) -> None:
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    add, remove = (loop.add_writer, loop.remove_writer) if write else (loop.add_reader, loop.remove_reader)
    add(descriptor, lambda: None if ready.done() else ready.set_result(None))
    try:
        await ready
    finally:
        remove(descriptor)


class Pipe:
    """A pipe of which one end is the phone's own (non-blocking) and the other its programs'."""

    def __init__(self, *, phone_reads: bool) -> None:
        reader, writer = os.pipe2(os.O_CLOEXEC)
        self._own, self._programs = (reader, writer) if phone_reads else (writer, reader)
        os.set_blocking(self._own, False)
        self._own_open = True

    def give(self) -> int:
        """The programs' end, to be closed by whoever takes it."""
        return self._programs

    async def read(self) -> bytes:
        """Nothing when all programs have closed their end, or after `close`."""
        while self._own_open:
            try:
                return os.read(self._own, PIECE_BYTES)
            except BlockingIOError:
                await _ready(self._own, write=False)
        return b""

    async def write(self, data: bytes) -> bool:
        """Whether somebody is there to read it."""
        left = memoryview(data)
        while left and self._own_open:
            try:
                left = left[os.write(self._own, left) :]
            except BlockingIOError:
                await _ready(self._own, write=True)
            except BrokenPipeError:
                return False
        return self._own_open

    def close(self) -> None:
        """The phone's own end. Not while a task of the phone reads or writes it: cancel that first."""
        if self._own_open:
            self._own_open = False
            with contextlib.suppress(OSError):
                os.close(self._own)
