"""A process that does nothing but fork others: one for each device of a host, each serving one DeviceActor.

A Ray worker costs a hundredth of a core by existing, 126 MB, and seconds to start; a fork of a process that has
everything imported costs milliseconds and what it writes. Each child has a socket to the host's actor (device_host.py),
and ends with it. What goes over these sockets is pickled by processes of this farm alone.

    python -m device_farm.fleet.offspring NUMBER      of an inherited socket: each message asks for a child
"""

from __future__ import annotations

import array
import os
import pickle
import signal
import socket
import struct
import sys
import threading
import traceback
from typing import Any

LENGTH = struct.Struct("<Q")


def send_message(link: socket.socket, message: Any) -> None:
    """Raises OSError."""
    data = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    link.sendall(LENGTH.pack(len(data)) + data)


def receive_message(link: socket.socket) -> Any:
    """Raises EOFError when the other side has ended."""
    (length,) = LENGTH.unpack(_exactly(link, LENGTH.size))
    return pickle.loads(_exactly(link, length))


def _exactly(link: socket.socket, count: int) -> bytes:
    data = bytearray(count)
    view = memoryview(data)
    while view:
        received = link.recv_into(view)
        if not received:
            raise EOFError
        view = view[received:]
    return bytes(data)


def serve_forks(link: socket.socket) -> None:
    """Forks a child for every socket that comes, until the other side ends; tells the child's number."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them: the kernel buries them
    while True:
        data, ancillary, _, _ = link.recvmsg(1, socket.CMSG_SPACE(array.array("i", [0]).itemsize))
        if not data or not ancillary:
            return
        (number,) = array.array("i", ancillary[0][2])
        if (pid := os.fork()) == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            link.close()
            try:
                _serve_device(socket.socket(fileno=number))
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(0)
        os.close(number)
        link.sendall(LENGTH.pack(pid))


def _serve_device(link: socket.socket) -> None:
    """Makes a DeviceActor of the first message; then each is a call of it, in a thread of its own."""
    from device_farm.fleet.device_actor import DeviceActor

    actor = DeviceActor(*receive_message(link))
    sending = threading.Lock()

    def call(number: int, method: str, arguments: tuple[Any, ...]) -> None:
        answer: tuple[int, Any, BaseException | None]
        try:
            answer = (number, getattr(actor, method)(*arguments), None)
        except Exception as error:
            answer = (number, None, error)
        with sending:
            try:
                send_message(link, answer)
            except OSError:
                os._exit(0)
            except Exception as error:  # it cannot be pickled
                send_message(link, (number, None, RuntimeError(f"{answer[1:]!r} cannot be sent: {error}")))

    while True:
        try:
            number, method, arguments = receive_message(link)
        except (EOFError, OSError):
            os._exit(0)  # with whatever a thread still does
        threading.Thread(target=call, args=(number, method, arguments), daemon=True).start()


if __name__ == "__main__":
    import device_farm.fleet.device_actor
    import device_farm.measurement.session
    import device_farm.transport.adb.transport  # noqa: F401 - what children would import otherwise, each for itself

    serve_forks(socket.socket(fileno=int(sys.argv[1])))
