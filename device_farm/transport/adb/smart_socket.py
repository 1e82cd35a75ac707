"""One connection to an adb server, with one deadline around every byte.

The server is asked by four hexadecimal digits and as many bytes, and answers OKAY, or FAIL and a reason. After
`host:transport:SERIAL` and the name of a service the connection is a pipe to that service on the phone.

adbutils waits without end in places (opening, pushing); hence these sockets of our own.
"""

from __future__ import annotations

import contextlib
import select
import socket
from types import TracebackType
from typing import NoReturn

from device_farm.errors import DeadlineExceeded, DeviceGone, Refused
from device_farm.transport.base import Deadline

_CHUNK = 65536


class AdbFailure(Exception):
    """The server said FAIL. Never leaves this package: whoever knows what was asked raises one of the three errors."""


class LinkEnded(Exception):
    """The connection ended before its time. Never leaves this package, as above."""


class OtherLink(Exception):
    """The phone was away since it was identified: it may be another one. Nothing was asked of it. As above."""


def late(deadline: Deadline) -> DeadlineExceeded:
    """The error of a deadline that has passed."""
    return DeadlineExceeded(f"{deadline.what}: not done within {deadline.timeout_s:g} s")


class SmartSocket:
    """Raises DeviceGone if there is no server at (host, port), DeadlineExceeded everywhere."""

    def __init__(self, host: str, port: int, deadline: Deadline) -> None:
        self.deadline = deadline
        self.link = 0  # the server's number of the phone's link (ListedDevice.link) that this is a pipe through
        self._where = f"the adb server at {host}:{port}"
        deadline.check()
        try:
            self._socket = socket.create_connection((host, port), timeout=deadline.remaining_s)
        except TimeoutError:
            raise DeadlineExceeded(
                f"{late(deadline)}: {self._where} takes no connection: is its machine on, and the port open?"
            ) from None
        except OSError as error:
            raise DeviceGone(
                f"{deadline.what}: there is no adb server at {host}:{port} ({error.strerror or error}):"
                f" start one on its machine (adb -P {port} start-server)"
            ) from error
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> SmartSocket:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def ask(self, request: str) -> None:
        """Sends a request and waits for its OKAY. Raises AdbFailure with the server's reason, LinkEnded, Refused."""
        data = request.encode(errors="surrogateescape")
        if len(data) > 0xFFFF:
            raise Refused(f"{self.deadline.what}: a request of {len(data)} bytes, adb takes at most {0xFFFF}")
        self.send(b"%04x" % len(data) + data)
        self.expect_okay()

    def expect_okay(self) -> None:
        """Raises AdbFailure, LinkEnded, Refused."""
        status = self.read_exact(4)
        if status == b"FAIL":
            raise AdbFailure(self.read_block().decode(errors="replace"))
        if status != b"OKAY":
            raise Refused(f"{self.deadline.what}: {self._where} answered {status!r}: is it an adb server?")

    def read_block(self) -> bytes:
        """What the server sends after four digits of its length. Raises LinkEnded, Refused."""
        digits = self.read_exact(4)
        try:
            length = int(digits, 16)
        except ValueError:
            raise Refused(f"{self.deadline.what}: {self._where} announced a length of {digits!r}") from None
        return self.read_exact(length)

    def read_exact(self, count: int) -> bytes:
        """Raises LinkEnded."""
        data = bytearray()
        while len(data) < count:
            piece = self.read_some(min(_CHUNK, count - len(data)))
            if not piece:
                raise LinkEnded
            data += piece
        return bytes(data)

    def read_some(self, at_most: int = _CHUNK) -> bytes:
        """Nothing at the end."""
        self._wait()
        try:
            # The server holds small pieces back until the last one is acknowledged, and a kernel waits 40 ms with that.
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            return self._socket.recv(at_most)
        except TimeoutError:
            self._late()
        except ConnectionError:
            return b""

    def send(self, data: bytes | memoryview) -> None:
        """All of it. Raises LinkEnded."""
        left = memoryview(data)
        while left:
            self._wait()
            try:
                left = left[self._socket.send(left[:_CHUNK]) :]
            except TimeoutError:
                self._late()
            except ConnectionError:
                raise LinkEnded from None

    def send_now(self, data: memoryview) -> int:
        """As much as can be sent without waiting. Raises LinkEnded."""
        try:
            return self._socket.send(data[:_CHUNK], socket.MSG_DONTWAIT)
        except BlockingIOError:
            return 0
        except ConnectionError:
            raise LinkEnded from None

    def wait_for(self, *, to_send: bool) -> tuple[bool, bool]:
        """Whether there is something to read, whether there is room to send; waits for one of them."""
        self.deadline.check()
        ready = select.poll()
        ready.register(self._socket, select.POLLIN | (select.POLLOUT if to_send else 0))
        events = dict(ready.poll(self.deadline.remaining_s * 1000)).get(self._socket.fileno(), 0)
        if not events:
            self._late()
        return bool(events & ~select.POLLOUT), bool(events & select.POLLOUT)

    def has_answer(self) -> bool:
        """Whether something came already, or the end."""
        ready = select.poll()
        ready.register(self._socket, select.POLLIN)
        return bool(ready.poll(0))

    def close(self) -> None:
        """At once, whatever is under way. The service on the phone is closed by its server."""
        with contextlib.suppress(OSError):
            self._socket.close()

    def _wait(self) -> None:
        self.deadline.check()
        self._socket.settimeout(max(self.deadline.remaining_s, 0.001))

    def _late(self) -> NoReturn:
        self.deadline.check()
        raise late(self.deadline)
