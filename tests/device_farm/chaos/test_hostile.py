"""An adb server that lies, and phones that babble, beside phones that are well: the farm goes on, small and in time."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from pathlib import Path
from typing import Any

from device_farm.fleet.adb_phones import AdbPhones
from device_farm.fleet.farm import PhoneHost
from device_farm.measurement.types import Protocol
from device_farm.testing.phone_lab import PhoneLab
from device_farm.testing.tiny_farm import tiny_network
from tests.device_farm.transport.adb.hostile_server import server_that

MODEL = "emu-x86-fast"
GARBAGE = "garbage"
ENDLESS = "endless 'loop'"
SILENT = "silent\nsecond line\tdevice"
LENGTHS = 'wrong "lengths"; $(touch /tmp/npas-was-here) `id` | & \\'
LONG = "x" * 255
IMPOSSIBLE = ("", "y" * 1000, "null\0byte")
SERIALS = (GARBAGE, ENDLESS, SILENT, LENGTHS, LONG)
_MOST_BYTES = 700 << 20  # of a process of Ray's with this package: about 200 MB without any phone


def test_a_lying_server_and_babbling_phones_harm_nobody(ray_cluster: Any, tmp_path: Path) -> None:
    with server_that(_lie) as liar:
        config = {
            "compile_with": "device_farm.testing.tiny_farm:compile_tiny",
            "protocol": Protocol(warmup_s=0.01, min_time_s=0.02, deadline_s=20.0),
        }
        others = [PhoneHost(AdbPhones(str(liar), look_every_s=1.0))]
        with PhoneLab(tmp_path, [MODEL] * 2, name="hostile", other_hosts=others, config=config) as lab:
            lab.until(lambda: {device.serial for device in lab.farm.devices()} >= set(SERIALS))
            # Each has one clear line.
            lab.until(
                lambda: all(_reason(lab, serial) not in ("", "its actor has not started") for serial in SERIALS), 90
            )
            for serial in SERIALS:
                reason = _reason(lab, serial)
                assert reason.isprintable() and len(reason) < 1000, reason
                assert not next(d for d in lab.farm.devices() if d.serial == serial).state.serves
            # What cannot be a serial is left out; nothing was run by a shell of ours.
            known = {device.serial for device in lab.farm.devices()}
            assert known == {*SERIALS, *lab.phones.addresses}
            assert not Path("/tmp/npas-was-here").exists()
            # The phones that are well serve on, and nothing has grown.
            jobs = [lab.farm.submit(tiny_network(n), model=MODEL) for n in range(6)]
            assert {job.result(120).device.serial for job in jobs} <= set(lab.phones.addresses)
            assert max(_ray_processes().values()) < _MOST_BYTES


def _reason(lab: PhoneLab, serial: str) -> str:
    return next(device.reason for device in lab.farm.devices() if device.serial == serial)


def _ray_processes() -> dict[int, int]:
    """Resident bytes of the actors that this process's raylets began, and of the processes of devices."""
    parents, actors = {}, []
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            pid = int(folder.name)
            parents[pid] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            command = (folder / "cmdline").read_bytes()
            if command.startswith(b"ray::") or b"device_farm.fleet.offspring" in command:
                actors.append(pid)
    found = {}
    for actor in actors:
        pid = actor
        while pid in parents and pid != os.getpid():
            pid = parents[pid]
        if pid == os.getpid():
            with contextlib.suppress(OSError):
                found[actor] = int(Path(f"/proc/{actor}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    assert len(found) >= len(SERIALS)
    return found


# The server


def _lie(connection: socket.socket) -> None:
    request = _request(connection)
    if request.startswith(b"host:track-devices-proto-binary"):
        listing = b"".join(_field(1, _device(serial)) for serial in (*SERIALS, *IMPOSSIBLE))
        connection.sendall(b"OKAY" + b"%04x" % len(listing) + listing)
        while connection.recv(1):
            pass
    elif request.startswith(b"host:tport:serial:"):
        serial = request.removeprefix(b"host:tport:serial:").decode()
        connection.sendall(b"OKAY" + bytes(8))
        _request(connection)
        connection.sendall(b"OKAY")
        _BEHAVIOURS.get(serial, _garbage)(connection)
    elif request == b"host:version":
        connection.sendall(b"OKAY00040029")
    else:
        connection.sendall(b"OKAYzzzz")


def _request(connection: socket.socket) -> bytes:
    length = _exact(connection, 4)
    return _exact(connection, int(length, 16)) if length else b""


def _exact(connection: socket.socket, count: int) -> bytes:
    got = b""
    while len(got) < count:
        piece = connection.recv(count - len(got))
        if not piece:
            return b""
        got += piece
    return got


def _garbage(connection: socket.socket) -> None:
    connection.sendall(bytes(range(256)) * 4096)  # 1 MB


def _endless(connection: socket.socket) -> None:
    piece = b"\x01" + struct.pack("<I", 65536) + b"[ro.product.model]: [$(reboot)]\n" * 2048
    while True:
        connection.sendall(piece)


def _silent(connection: socket.socket) -> None:
    connection.recv(1 << 16)
    while connection.recv(1 << 16):
        pass


def _wrong_lengths(connection: socket.socket) -> None:
    connection.sendall(b"\x01" + struct.pack("<I", 0xFFFFFFFF) + b"x" * 1000)


_BEHAVIOURS = {GARBAGE: _garbage, ENDLESS: _endless, SILENT: _silent, LENGTHS: _wrong_lengths}


def _device(serial: str) -> bytes:
    return _field(1, serial.encode()) + b"\x10\x08" + _field(5, b"model'\"$(id)\n\x1b[31m" + b"m" * 200)


def _field(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])
