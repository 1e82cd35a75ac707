"""One connection of an adb server to a phone: the state machine of connection.py on a socket."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Coroutine
from typing import Any

from device_farm.emulator.connection import (
    TOKEN_BYTES,
    Acknowledged,
    Closed,
    Connection,
    Event,
    Online,
    Opened,
    Received,
    Trust,
)
from device_farm.emulator.packets import ProtocolError

_PIECE_BYTES = 65536


class StreamClosed(Exception):
    """The host has closed the stream, or the link is gone."""


class Stream:
    """A service's end of a stream."""

    def __init__(self, link: Link, number: int) -> None:
        self._link = link
        self._number = number
        self._received: bytes | None = None
        self._changed = asyncio.Event()
        self._writing = asyncio.Lock()
        self.closed = asyncio.Event()

    async def read(self) -> bytes:
        """What comes next; nothing when the stream is closed. One reader at a time."""
        while True:
            if self._received is not None:
                data, self._received = self._received, None
                self._link.acknowledge(self._number)
                return data
            if self.closed.is_set():
                return b""
            self._changed.clear()
            await self._changed.wait()

    async def write(self, data: bytes) -> None:
        """Waits until the host has taken it. Several writers take turns. Raises StreamClosed."""
        async with self._writing:
            at = 0
            while at < len(data):
                await self._room()
                at += self._link.write(self._number, data[at : at + _PIECE_BYTES])
            await self._room()

    async def _room(self) -> None:
        while not self.closed.is_set() and not self._link.may_write(self._number):
            self._changed.clear()
            await self._changed.wait()
        if self.closed.is_set():
            raise StreamClosed

    def close(self) -> None:
        if not self.closed.is_set():
            self._link.close_stream(self._number)
            self.end()

    def receive(self, data: bytes) -> None:
        self._received = data
        self._changed.set()

    def wake(self) -> None:
        self._changed.set()

    def end(self) -> None:
        self.closed.set()
        self._changed.set()


Service = Callable[[Stream], Coroutine[Any, Any, None]]


class Link:
    """Runs until either side closes it. `open_service` gives what a host asks for, or None."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        banner: bytes,
        trust: Trust,
        open_service: Callable[[bytes], Service | None],
        before_each: Callable[[], Coroutine[Any, Any, None]],
        is_mute: Callable[[], bool],
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._connection = Connection(banner, trust=trust, token=os.urandom(TOKEN_BYTES))
        self._open_service = open_service
        self._before_each = before_each
        self._is_mute = is_mute
        self._streams: dict[int, Stream] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Returns when the link has ended, after its services have."""
        try:
            while data := await self._reader.read(_PIECE_BYTES):
                await self._before_each()
                for event in self._connection.receive(data):
                    self._handle(event)
                self.flush()
                await self._writer.drain()
        except (ProtocolError, OSError):
            pass
        finally:
            self.close()
            for stream in list(self._streams.values()):
                stream.end()
            while self._tasks:
                await asyncio.wait(self._tasks)

    def close(self) -> None:
        """At once, without a word."""
        with contextlib.suppress(OSError):
            self._writer.transport.abort()

    def send_garbage(self) -> None:
        self._writer.write(os.urandom(48))

    def authorize(self) -> None:
        for event in self._connection.authorize():
            self._handle(event)
        self.flush()

    def flush(self) -> None:
        """A mute phone keeps what it has to say."""
        if not self._is_mute() and self._connection.pending_bytes and not self._writer.is_closing():
            self._writer.write(self._connection.take_output())

    def acknowledge(self, number: int) -> None:
        self._connection.acknowledge(number)
        self.flush()

    def may_write(self, number: int) -> bool:
        return self._connection.may_write(number)

    def write(self, number: int, data: bytes) -> int:
        """See Connection.write."""
        taken = self._connection.write(number, data)
        self.flush()
        return taken

    def close_stream(self, number: int) -> None:
        self._connection.close(number)
        self._streams.pop(number, None)
        self.flush()

    def _handle(self, event: Event) -> None:
        if isinstance(event, Opened):
            service = self._open_service(event.service)
            if service is None:
                self._connection.refuse(event.stream)
                return
            stream = self._streams[event.stream] = Stream(self, event.stream)
            self._connection.accept(event.stream)
            task = asyncio.ensure_future(self._serve(service, stream))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif isinstance(event, Online):
            pass
        elif (found := self._streams.get(event.stream)) is None:
            if isinstance(event, Received):
                self._connection.acknowledge(event.stream)
        elif isinstance(event, Received):
            found.receive(event.data)
        elif isinstance(event, Acknowledged):
            found.wake()
        elif isinstance(event, Closed):
            del self._streams[event.stream]
            found.end()

    async def _serve(self, service: Service, stream: Stream) -> None:
        try:
            await service(stream)
        except (StreamClosed, ProtocolError, OSError):
            pass
        finally:
            stream.close()
