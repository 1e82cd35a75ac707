"""A server on loopback that says whatever a test wants: what no real adb server would."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

from device_farm.transport.adb.server import AdbServer


@contextlib.contextmanager
def server_that(behaves: Callable[[socket.socket], None]) -> Iterator[AdbServer]:
    """Each connection is given to `behaves`, in a thread of its own, and closed afterwards."""
    listener = socket.create_server(("127.0.0.1", 0))
    threads: list[threading.Thread] = []

    def serve(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.settimeout(10)
            behaves(connection)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threads.append(threading.Thread(target=serve, args=(connection,)))
                threads[-1].start()

    acceptor = threading.Thread(target=accept)
    acceptor.start()
    try:
        yield AdbServer("127.0.0.1", listener.getsockname()[1])
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        acceptor.join()
        for thread in threads:
            thread.join()


def says(answer: bytes) -> Callable[[socket.socket], None]:
    """After the first request, whatever it is, the answer and the end."""

    def behave(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(answer)

    return behave


def pipes(answer: bytes, *, hangs_up: bool = True) -> Callable[[socket.socket], None]:
    """A phone's service that sends the answer at once, then reads what comes."""

    def behave(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"OKAY" + bytes(8))
        connection.recv(65536)
        connection.sendall(b"OKAY" + answer)
        if hangs_up:
            connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):
            pass

    return behave


def floods(frame: bytes) -> Callable[[socket.socket], None]:
    """A phone's service that never ends: the same again and again, as fast as it is taken."""

    def behave(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"OKAY" + bytes(8))
        connection.recv(65536)
        connection.sendall(b"OKAY")
        while True:
            connection.sendall(frame)

    return behave
