"""The frames of adb's `shell,v2` service: one byte that says what, four of length, the data."""

from __future__ import annotations

import struct

from device_farm.errors import Refused
from device_farm.transport.adb.smart_socket import LinkEnded, SmartSocket
from device_farm.transport.base import Completed

_HEADER = struct.Struct("<BI")
_STDIN, _STDOUT, _STDERR, _EXIT, _CLOSE_STDIN = range(5)
_FRAME_BYTES = 32768


class ShellSession:
    """One shell command under way. What it has said so far is in `stdout` and `stderr`, also after an error."""

    def __init__(self, link: SmartSocket, *, max_output_bytes: int, own_bytes: int = 0) -> None:
        self.stdout = bytearray()
        self.stderr = bytearray()
        self.link = link.link
        self._link = link
        self._max_output_bytes = max_output_bytes
        self._own_bytes = own_bytes  # of our script, beside those of the program
        self._buffer = bytearray()  # of frames that are not complete; at most a header and one read of it
        self._kind = _STDOUT
        self._left = 0  # bytes of the frame that is being read
        self._exit: bytearray | None = None

    def finish(self, stdin: bytes | None = None) -> Completed:
        """Writes `stdin` and closes it (None leaves it open and silent), reads to the end.

        Only an exit status is an end: raises LinkEnded without one. Raises DeadlineExceeded, and Refused where the
        output is longer than allowed or is no frames.
        """
        to_send = memoryview(b"" if stdin is None else _stdin_frames(stdin))
        while (status := self._status()) is None:
            readable, writable = self._link.wait_for(to_send=bool(to_send))
            if readable:
                piece = self._link.read_some()
                if not piece:
                    raise LinkEnded
                self._take(piece)
            elif writable:
                try:
                    to_send = to_send[self._link.send_now(to_send) :]
                except LinkEnded:  # a program may end without reading all; its exit status is still to be read
                    to_send = memoryview(b"")
        return Completed(status, bytes(self.stdout), bytes(self.stderr))

    def _status(self) -> int | None:
        return self._exit[0] if self._exit else None

    def _take(self, piece: bytes) -> None:
        self._buffer += piece
        while self._buffer and not self._exit:
            if self._left == 0:
                if len(self._buffer) < _HEADER.size:
                    return
                self._kind, self._left = _HEADER.unpack_from(self._buffer)
                del self._buffer[: _HEADER.size]
                self._check_frame()
                continue
            data = self._buffer[: self._left]
            del self._buffer[: self._left]
            self._left -= len(data)
            if self._exit is not None:
                self._exit += data
                continue
            (self.stdout if self._kind == _STDOUT else self.stderr).extend(data)
            if len(self.stdout) + len(self.stderr) > self._max_output_bytes + self._own_bytes:
                raise Refused(f"{self._what}: printed more than {self._max_output_bytes} bytes and was ended")

    def _check_frame(self) -> None:
        if self._kind == _EXIT and self._left == 1:
            self._exit = bytearray()
        elif self._kind not in (_STDOUT, _STDERR):
            raise Refused(
                f"{self._what}: the phone answers with garbage (a frame of kind {self._kind}, {self._left} bytes):"
                " restart it, and try another cable"
            )

    @property
    def _what(self) -> str:
        return self._link.deadline.what


def _stdin_frames(data: bytes) -> bytes:
    frames = bytearray()
    for start in range(0, len(data), _FRAME_BYTES):
        piece = data[start : start + _FRAME_BYTES]
        frames += _HEADER.pack(_STDIN, len(piece)) + piece
    return bytes(frames + _HEADER.pack(_CLOSE_STDIN, 0))
