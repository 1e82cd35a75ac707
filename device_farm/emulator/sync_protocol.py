"""Requests and answers of adb's `sync:` service: four letters, a little-endian number, data."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from device_farm.emulator.packets import ProtocolError

MAX_PATH_BYTES = 1024
MAX_DATA_BYTES = 64 * 1024

_HEADER = struct.Struct("<4sI")
_STAT_V1 = struct.Struct("<4s3I")  # id, mode, size, mtime
_STAT_V2 = struct.Struct("<4sI2Q4IQ3q")  # id, error, dev, ino, mode, nlink, uid, gid, size, atime, mtime, ctime
_ENTRY_V1 = struct.Struct("<4s4I")  # id, mode, size, mtime, length of the name
_ENTRY_V2 = struct.Struct("<4sI2Q4IQ3qI")
_WORDS_AFTER_PATH = {b"SND2": 2, b"RCV2": 1}  # the second request of version 2: mode and flags, or flags
_WITH_PATH = frozenset({b"STAT", b"LIST", b"SEND", b"RECV", b"STA2", b"LST2", b"LIS2", b"SND2", b"RCV2"})


@dataclass(frozen=True)
class FileStatus:
    """What a phone tells of a file. With `error` (an errno) the rest is zero."""

    mode: int = 0
    size: int = 0
    modified_s: int = 0
    inode: int = 0
    error: int = 0


@dataclass(frozen=True)
class Request:
    """`words` are mode and flags of SND2, or the flags of RCV2."""

    verb: bytes
    path: str = ""
    words: tuple[int, ...] = ()


@dataclass(frozen=True)
class Data:
    """A piece of a file that is being sent."""

    data: bytes


@dataclass(frozen=True)
class Done:
    """The end of a file that is being sent."""

    modified_s: int


class SyncReader:
    """Bytes to requests. Raises ProtocolError. Holds at most one piece of a file."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._path: tuple[bytes, str] | None = None  # of a request of version 2 whose second part is to come

    def feed(self, data: bytes) -> None:
        """Adds what has arrived. Take all messages before more is fed."""
        self._buffer += data

    def next_message(self) -> Request | Data | Done | None:
        """The next whole one."""
        if len(self._buffer) < _HEADER.size:
            return None
        verb, number = _HEADER.unpack_from(self._buffer)
        if self._path is not None:
            return self._second_part(verb)
        if verb == b"DONE":
            self._take(_HEADER.size)
            return Done(number)
        if verb == b"QUIT":
            self._take(_HEADER.size)
            return Request(verb)
        limit = MAX_DATA_BYTES if verb == b"DATA" else MAX_PATH_BYTES
        if verb != b"DATA" and verb not in _WITH_PATH:
            raise ProtocolError(f"unknown sync request {verb!r}")
        if number > limit:
            raise ProtocolError(f"{verb.decode()} of {number} bytes, at most {limit} are allowed")
        if len(self._buffer) < _HEADER.size + number:
            return None
        data = self._take(_HEADER.size + number)[_HEADER.size :]
        if verb == b"DATA":
            return Data(data)
        path = data.decode(errors="surrogateescape")
        if verb in _WORDS_AFTER_PATH:
            self._path = (verb, path)
            return self.next_message()
        return Request(verb, path)

    def _second_part(self, verb: bytes) -> Request | None:
        assert self._path is not None
        expected, path = self._path
        if verb != expected:
            raise ProtocolError(f"expected the second part of {expected!r}, got {verb!r}")
        layout = struct.Struct(f"<4s{_WORDS_AFTER_PATH[verb]}I")
        if len(self._buffer) < layout.size:
            return None
        _, *words = layout.unpack(self._take(layout.size))
        self._path = None
        return Request(verb, path, tuple(words))

    def _take(self, count: int) -> bytes:
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken


def encode_status(verb: bytes, status: FileStatus) -> bytes:
    """The answer to STAT, STA2 or LST2. Version 1 says zeros where there is no file."""
    if verb == b"STAT":
        return _STAT_V1.pack(verb, status.mode, status.size & 0xFFFFFFFF, status.modified_s)
    return _STAT_V2.pack(verb, *_fields_v2(status))


def encode_entry(verb: bytes, name: str, status: FileStatus) -> bytes:
    """One line of the answer to LIST or LIS2."""
    encoded = name.encode(errors="surrogateescape")
    if verb == b"LIST":
        layout = _ENTRY_V1.pack(b"DENT", status.mode, status.size & 0xFFFFFFFF, status.modified_s, len(encoded))
    else:
        layout = _ENTRY_V2.pack(b"DNT2", *_fields_v2(status), len(encoded))
    return layout + encoded


def encode_end_of_entries(verb: bytes) -> bytes:
    layout = _ENTRY_V1 if verb == b"LIST" else _ENTRY_V2
    return b"DONE" + bytes(layout.size - 4)


def encode_data(data: bytes) -> bytes:
    return _HEADER.pack(b"DATA", len(data)) + data


def encode_done() -> bytes:
    return _HEADER.pack(b"DONE", 0)


def encode_okay() -> bytes:
    return _HEADER.pack(b"OKAY", 0)


def encode_failure(message: str) -> bytes:
    encoded = message.encode(errors="replace")
    return _HEADER.pack(b"FAIL", len(encoded)) + encoded


def _fields_v2(status: FileStatus) -> tuple[int, ...]:
    times = (status.modified_s,) * 3
    return (status.error, 1, status.inode, status.mode, 1, 2000, 2000, status.size, *times)
