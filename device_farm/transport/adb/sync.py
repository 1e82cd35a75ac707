"""Files to and from a phone by adb's `sync:` service: four letters, a length, the data."""

from __future__ import annotations

import os
import stat
import struct
import time
from typing import BinaryIO

from device_farm.errors import Refused
from device_farm.transport.adb.smart_socket import LinkEnded, SmartSocket

_HEADER = struct.Struct("<4sI")
_STAT = struct.Struct("<III")
_PIECE_BYTES = 65536  # adb's own limit
_MAX_REASON_BYTES = 4096
MAX_PULL_BYTES = 256 * 1024 * 1024


def send_file(link: SmartSocket, source: BinaryIO, path: str, *, executable: bool) -> None:
    """Writes a file of the phone, and checks its size there. Raises Refused with the phone's reason, LinkEnded."""
    mode = stat.S_IFREG | (0o755 if executable else 0o644)
    target = f"{path},{mode}".encode()
    link.send(_HEADER.pack(b"SEND", len(target)) + target)
    sent = 0
    try:
        while piece := source.read(_PIECE_BYTES):
            if link.has_answer():  # a phone that is full says so at once, and need not read the rest
                break
            link.send(_HEADER.pack(b"DATA", len(piece)) + piece)
            sent += len(piece)
        else:
            link.send(_HEADER.pack(b"DONE", int(time.time())))
    except LinkEnded:
        _expect_okay(link, path)  # it may have told the reason before it hung up
        raise
    _expect_okay(link, path)
    size = file_size(link, path)
    if size != sent or sent != os.fstat(source.fileno()).st_size:
        raise Refused(f"{link.deadline.what}: {sent} bytes were sent, but the phone has {size}: is it full?")


def receive_file(link: SmartSocket, path: str, *, max_bytes: int = MAX_PULL_BYTES) -> bytes:
    """The content of a file of the phone. Raises Refused with its reason, or if it is longer; LinkEnded."""
    target = path.encode()
    link.send(_HEADER.pack(b"RECV", len(target)) + target)
    content = bytearray()
    while True:
        kind, length = _HEADER.unpack(link.read_exact(_HEADER.size))
        if kind == b"DONE":
            return bytes(content)
        if kind != b"DATA" or length > _PIECE_BYTES:
            raise _refusal(link, path, kind, length)
        content += link.read_exact(length)
        if len(content) > max_bytes:
            raise Refused(f"{link.deadline.what}: the phone sends more than {max_bytes} bytes")


def file_size(link: SmartSocket, path: str) -> int | None:
    """Bytes of a file, None if there is none. Raises Refused, LinkEnded."""
    mode, size = _status(link, path)
    return size if mode else None


def is_folder(link: SmartSocket, path: str) -> bool:
    """Raises Refused, LinkEnded."""
    return stat.S_ISDIR(_status(link, path)[0])


def _status(link: SmartSocket, path: str) -> tuple[int, int]:
    """Mode (0 if there is nothing) and size."""
    target = path.encode()
    link.send(_HEADER.pack(b"STAT", len(target)) + target)
    kind = link.read_exact(4)
    if kind != b"STAT":
        raise _refusal(link, path, kind, *struct.unpack("<I", link.read_exact(4)))
    mode, size, _ = _STAT.unpack(link.read_exact(_STAT.size))
    return int(mode), int(size)


def quit_sync(link: SmartSocket) -> None:
    """Says good-bye, so that the phone ends the service in order."""
    link.send(_HEADER.pack(b"QUIT", 0))


def _expect_okay(link: SmartSocket, path: str) -> None:
    kind, length = _HEADER.unpack(link.read_exact(_HEADER.size))
    if kind != b"OKAY":
        raise _refusal(link, path, kind, length)


def _refusal(link: SmartSocket, path: str, kind: bytes, length: int) -> Refused:
    what = link.deadline.what
    if kind == b"FAIL" and length <= _MAX_REASON_BYTES:
        reason = link.read_exact(length).decode(errors="replace")
        hint = ": make room on the phone" if "space left" in reason else ""
        return Refused(f"{what}: the phone says: {reason}{hint}")
    return Refused(f"{what}: the phone answers with garbage ({kind!r}, length {length}) for {path}: restart it")
