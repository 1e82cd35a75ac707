"""What the other side says, be it garbage, endless, cut off or nothing: one clear error, in time, in little memory."""

from __future__ import annotations

import io
import socket
import struct
import time
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_farm.errors import DeadlineExceeded, DeviceGone, Refused, TransportError
from device_farm.transport.adb.server import AdbServer
from device_farm.transport.adb.shell import ShellSession
from device_farm.transport.adb.smart_socket import AdbFailure, LinkEnded, SmartSocket
from device_farm.transport.adb.sync import receive_file, send_file
from device_farm.transport.base import Completed, Deadline
from tests.device_farm.transport.adb.hostile_server import floods, pipes, says, server_that


def _frame(kind: int, data: bytes) -> bytes:
    return struct.pack("<BI", kind, len(data)) + data


def _run(server: AdbServer, *, stdin: bytes | None = None, timeout_s: float = 5.0, limit: int = 1000) -> Completed:
    with server.open("serial", "shell,v2,raw:x", Deadline(timeout_s, "the run")) as link:
        return ShellSession(link, max_output_bytes=limit).finish(stdin)


@pytest.mark.parametrize(
    ("answer", "error", "why"),
    [
        (b"OKAY00040029", None, ""),
        (b"OKAYzzzz", Refused, "length of b'zzzz'"),
        (b"OKAY0004zzzz", Refused, "its version is b'zzzz'"),
        (b"FAIL0003no!", Refused, "no!"),
        (b"HTTP/1.1 400 Bad Request", Refused, "b'HTTP'.*is it an adb server"),
        (b"OKAYffff", DeviceGone, "was it stopped"),
        (b"OK", DeviceGone, "was it stopped"),
        (b"", DeviceGone, "was it stopped"),
    ],
)
def test_the_version_of_what_may_be_no_server(answer: bytes, error: type[Exception] | None, why: str) -> None:
    with server_that(says(answer)) as server:
        if error is None:
            assert server.version(timeout_s=5) == 41
            return
        with pytest.raises(error, match=why):
            server.version(timeout_s=5)


def test_a_server_that_says_nothing_is_a_deadline() -> None:
    def listen(connection: socket.socket) -> None:
        while connection.recv(65536):
            pass

    with server_that(listen) as server:
        begin = time.monotonic()
        with pytest.raises(DeadlineExceeded, match=r"not done within 0\.3 s"):
            server.version(timeout_s=0.3)
        assert time.monotonic() - begin < 5


def test_a_server_that_dribbles_is_a_deadline_too() -> None:
    """Every byte comes in time, all of them do not."""

    def dribble(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"OKAYffff")
        while True:
            connection.sendall(b".")
            time.sleep(0.01)

    with server_that(dribble) as server:
        begin = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            server.version(timeout_s=0.3)
        assert time.monotonic() - begin < 5


def test_an_old_server_is_asked_in_the_old_way() -> None:
    def old(connection: socket.socket) -> None:
        request = connection.recv(65536)[4:]
        if request == b"host:track-devices-l":
            text = b"A B  device model:x transport_id:4\n"
            connection.sendall(b"OKAY%04x%s" % (len(text), text))
            connection.recv(1)
        elif request == b"host:transport:A B":
            connection.sendall(b"OKAY")
            connection.recv(65536)
            connection.sendall(b"OKAY" + _frame(3, b"\x05"))
        else:
            connection.sendall(b"FAIL0014unknown host service")

    with server_that(old) as server:
        assert [(d.serial, d.state, d.link) for d in server.devices()] == [("A B", "device", 4)]
        with server.open("A B", "shell,v2,raw:x", Deadline(5, "x")) as link:
            assert ShellSession(link, max_output_bytes=9).finish().exit_status == 5


def test_a_request_that_is_too_long_is_refused_before_it_is_sent() -> None:
    with server_that(says(b"OKAY")) as server, SmartSocket(server.host, server.port, Deadline(5, "x")) as link:
        with pytest.raises(Refused, match="65536 bytes, adb takes at most 65535"):
            link.ask("x" * 65536)


def test_nobody_at_the_port_is_a_device_gone() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(DeviceGone, match=f"no adb server at 127.0.0.1:{port} .*start one"):
        AdbServer(port=port).version()


def test_a_shell_that_ends_well() -> None:
    answer = _frame(1, b"out") + _frame(2, b"err") + _frame(1, b"") + _frame(1, b"put") + _frame(3, b"\x2a")
    with server_that(pipes(answer + b"whatever comes after")) as server:
        assert _run(server) == Completed(42, b"output", b"err")


@pytest.mark.parametrize("cut", range(22))
def test_text_without_an_exit_status_is_never_a_success(cut: int) -> None:
    answer = _frame(1, b"all is well") + _frame(3, b"\0")
    with server_that(pipes(answer[:cut])) as server:
        if cut == len(answer):
            assert _run(server).exit_status == 0
            return
        with pytest.raises(LinkEnded):
            _run(server)


@pytest.mark.parametrize(
    "answer", [_frame(7, b"x"), _frame(3, b""), _frame(3, b"ab"), b"\xff" * 99, b"sh: not found\n", _frame(0, b"stdin")]
)
def test_what_is_no_frame_is_refused(answer: bytes) -> None:
    with server_that(pipes(answer, hangs_up=False)) as server:
        with pytest.raises(Refused, match="the run: the phone answers with garbage"):
            _run(server)


@settings(max_examples=40)
@given(st.binary(max_size=60))
def test_any_answer_has_an_end(answer: bytes) -> None:
    with server_that(pipes(answer)) as server:
        try:
            assert len(_run(server).stdout) <= 60
        except (TransportError, LinkEnded):
            return


@pytest.mark.parametrize("frame", [_frame(1, bytes(60_000)), struct.pack("<BI", 2, 0xFFFFFFFF) + bytes(60_000)])
def test_endless_output_takes_neither_time_nor_memory(frame: bytes) -> None:
    with server_that(floods(frame)) as server:
        tracemalloc.start()
        begin = time.monotonic()
        with pytest.raises(Refused, match="more than 100000 bytes"):
            _run(server, limit=100_000)
        assert time.monotonic() - begin < 5
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
        tracemalloc.stop()


def test_a_program_that_reads_nothing_does_not_stop_the_call() -> None:
    def deaf(connection: socket.socket) -> None:
        for answer in (b"OKAY" + bytes(8), b"OKAY"):
            connection.recv(65536)
            connection.sendall(answer)
        time.sleep(0.2)
        connection.sendall(_frame(3, b"\x04"))
        connection.recv(1)

    with server_that(deaf) as server:
        assert _run(server, stdin=bytes(20_000_000)).exit_status == 4


def _pull(server: AdbServer, **options: int) -> bytes:
    with server.open("serial", "sync:", Deadline(5, "the pull")) as link:
        return receive_file(link, "/data/x", **options)


def _sync(kind: bytes, length: int, data: bytes = b"") -> bytes:
    return struct.pack("<4sI", kind, length) + data


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (_sync(b"FAIL", 7, b"no room"), "the phone says: no room"),
        (_sync(b"FAIL", 0xFFFFFFFF), "garbage .*length 4294967295"),
        (_sync(b"DATA", 65537), "garbage"),
        (_sync(b"WHAT", 1), "garbage"),
        (b"\0" * 50, "garbage"),
    ],
)
def test_a_pull_that_fails(answer: bytes, why: str) -> None:
    with server_that(pipes(answer, hangs_up=False)) as server:
        with pytest.raises(Refused, match=why):
            _pull(server)


def test_a_pull_that_is_cut_off_is_no_file() -> None:
    with server_that(pipes(_sync(b"DATA", 3, b"abc"))) as server, pytest.raises(LinkEnded):
        _pull(server)


def test_an_endless_file_is_cut() -> None:
    with server_that(floods(_sync(b"DATA", 50_000, bytes(50_000)))) as server:
        with pytest.raises(Refused, match="more than 200000 bytes"):
            _pull(server, max_bytes=200_000)


def test_a_phone_that_has_fewer_bytes_than_were_sent_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(1000))
    stat = b"STAT" + struct.pack("<III", 0o100755, 999, 0)
    with server_that(pipes(_sync(b"OKAY", 0) + stat, hangs_up=False)) as server:
        with server.open("serial", "sync:", Deadline(5, "the push")) as link, (tmp_path / "file").open("rb") as source:
            with pytest.raises(Refused, match=r"1000 bytes were sent, but the phone has 999|0 bytes"):
                send_file(link, source, "/data/x", executable=True)


def test_a_full_phone_is_believed_at_once() -> None:
    """It says so after the first piece, and reads no more."""
    with server_that(pipes(_sync(b"FAIL", 23, b"No space left on device"))) as server:
        with server.open("serial", "sync:", Deadline(5, "the push")) as link:
            with pytest.raises(Refused, match="No space left on device: make room"):
                send_file(link, io.BytesIO(bytes(50_000_000)), "/data/x", executable=False)


def test_a_failure_of_the_server_says_why() -> None:
    with server_that(says(b"FAIL0010device not found")) as server, pytest.raises(AdbFailure, match="device not found"):
        _run(server)
