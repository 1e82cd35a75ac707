"""Frames of adb's `shell,v2:` service: one byte that says what, four of length, the data."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

from device_farm.emulator.packets import ProtocolError

HEADER = struct.Struct("<BI")
MAX_FRAME_BYTES = 1 << 20


class FrameKind(IntEnum):
    STDIN = 0
    STDOUT = 1
    STDERR = 2
    EXIT = 3
    CLOSE_STDIN = 4
    WINDOW_SIZE = 5


@dataclass(frozen=True)
class Frame:
    kind: FrameKind
    data: bytes = b""

    def encode(self) -> bytes:
        return HEADER.pack(self.kind, len(self.data)) + self.data


class FrameReader:
    """Bytes, in whatever pieces they come, to frames. Raises ProtocolError. Holds at most one frame's bytes."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        self._buffer += data
        frames = []
        while len(self._buffer) >= HEADER.size:
            number, length = HEADER.unpack_from(self._buffer)
            if length > MAX_FRAME_BYTES:
                raise ProtocolError(f"a shell frame of {length} bytes, at most {MAX_FRAME_BYTES} are allowed")
            end = HEADER.size + length
            if len(self._buffer) < end:
                break
            data = bytes(self._buffer[HEADER.size : end])
            del self._buffer[:end]
            try:
                frames.append(Frame(FrameKind(number), data))
            except ValueError:
                raise ProtocolError(f"unknown kind of shell frame: {number}") from None
        return frames
