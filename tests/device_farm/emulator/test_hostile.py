"""Hosts that break the protocol: a phone closes their link, and its neighbours and other links do not notice."""

from __future__ import annotations

import os
import random
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from device_farm.emulator.connection import MAX_STREAMS
from device_farm.emulator.packets import HEADER, MAX_PAYLOAD_BYTES, VERSION, Command, Packet
from device_farm.emulator.phone import MAX_LINKS
from device_farm.testing.adb import Adb
from device_farm.testing.phones import EmulatedPhones

HELLO = Packet(Command.CNXN, VERSION, 1 << 20, b"host::features=shell_v2").encode()
SIGNATURE = Packet(Command.AUTH, 2, 0, bytes(256)).encode()


@pytest.fixture(scope="module")
def phones(adb: Adb) -> Iterator[EmulatedPhones]:
    with EmulatedPhones(["emu-x86-mid"], pace=0.0) as started:
        adb.connect(started.addresses[0])
        yield started
        adb("disconnect", started.addresses[0])


@pytest.fixture(autouse=True)
def others_do_not_notice(adb: Adb, phones: EmulatedPhones) -> Iterator[None]:
    yield
    assert adb.text(phones.addresses[0], "echo still here") == "still here\n"
    assert memory_mib(phones) < 120


def memory_mib(phones: EmulatedPhones) -> float:
    for line in Path(f"/proc/{phones.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    raise AssertionError


def link(phones: EmulatedPhones) -> socket.socket:
    host, port = phones.addresses[0].split(":")
    connected = socket.create_connection((host, int(port)), timeout=5)
    connected.settimeout(5)
    return connected


def online(phones: EmulatedPhones) -> socket.socket:
    connected = link(phones)
    connected.sendall(HELLO + SIGNATURE)
    packets = [receive(connected) for _ in range(2)]
    assert [packet.command for packet in packets] == [Command.AUTH, Command.CNXN]
    return connected


def receive(connected: socket.socket) -> Packet:
    number, arg0, arg1, length, _, _ = HEADER.unpack(exactly(connected, HEADER.size))
    return Packet(Command(number), arg0, arg1, exactly(connected, length))


def exactly(connected: socket.socket, count: int) -> bytes:
    collected = b""
    while len(collected) < count:
        piece = connected.recv(count - len(collected))
        assert piece, "the phone closed the link"
        collected += piece
    return collected


def is_closed(connected: socket.socket) -> bool:
    """Whether the phone closes the link, whatever it says before."""
    try:
        while connected.recv(65536):
            pass
    except TimeoutError:
        return False
    except ConnectionError:
        pass
    finally:
        connected.close()
    return True


def header(command: int, *, length: int = 0, checksum: int = 0, magic: int | None = None) -> bytes:
    return HEADER.pack(command, 1, 0, length, checksum, command ^ 0xFFFFFFFF if magic is None else magic)


BROKEN = {
    "wrong magic": header(Command.CNXN, magic=1),
    "unknown command": header(0x41414141),
    "oversize": header(Command.CNXN, length=MAX_PAYLOAD_BYTES + 1),
    "as long as can be": header(Command.CNXN, length=0xFFFFFFFF),
    "wrong checksum": header(Command.CNXN, length=5, checksum=1) + b"host:",
    "not yet online": Packet(Command.OPEN, 1, 0, b"shell:id\0").encode(),
    "write to nobody": Packet(Command.WRTE, 1, 1, b"x").encode(),
    "TLS that was not offered": Packet(Command.STLS, VERSION, 0).encode(),
    "a key that nobody asked for": SIGNATURE,
    "a web browser": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" + b"x" * 100,
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN.keys())
def test_broken_packets_end_the_link(phones: EmulatedPhones, data: bytes) -> None:
    connected = link(phones)
    connected.sendall(data)
    assert is_closed(connected)


AFTER_HELLO = {
    "wrong magic": header(Command.OPEN, magic=1),
    "oversize": header(Command.WRTE, length=MAX_PAYLOAD_BYTES + 1),
    "stream zero": Packet(Command.OPEN, 0, 0, b"shell:id\0").encode(),
    "a second key": SIGNATURE,
    "writes without waiting": Packet(Command.OPEN, 1, 0, b"shell,v2,raw:sleep 9\0").encode()
    + Packet(Command.WRTE, 1, 1, b"x").encode() * 500,
}


@pytest.mark.parametrize("data", AFTER_HELLO.values(), ids=AFTER_HELLO.keys())
def test_broken_packets_of_a_host_that_is_known(phones: EmulatedPhones, data: bytes) -> None:
    connected = online(phones)
    connected.sendall(data)
    assert is_closed(connected)


def test_half_packets_are_waited_for(phones: EmulatedPhones) -> None:
    connected = link(phones)
    for byte in HELLO:
        connected.sendall(bytes([byte]))
    assert receive(connected).command is Command.AUTH
    connected.sendall(SIGNATURE[:-1])
    connected.settimeout(0.2)
    with pytest.raises(TimeoutError):
        connected.recv(1)
    connected.close()


def test_random_bytes(phones: EmulatedPhones) -> None:
    rng = random.Random(1)
    for _ in range(50):
        connected = link(phones)
        connected.sendall(rng.randbytes(rng.randrange(1, 200)))
        connected.close()


def test_endless_greetings(phones: EmulatedPhones) -> None:
    """Never reading the answers: what the phone keeps for it is bounded, and then it stops reading."""
    connected = link(phones)
    connected.setblocking(False)
    sent, until, greetings = 0, time.monotonic() + 1.0, HELLO * 200
    while time.monotonic() < until:
        try:
            sent += connected.send(greetings[sent % len(greetings) :])
        except BlockingIOError:
            time.sleep(0.01)
    assert sent > 100_000
    connected.close()


def test_endless_streams(phones: EmulatedPhones) -> None:
    connected = online(phones)
    for number in range(1, MAX_STREAMS + 21):
        connected.sendall(Packet(Command.OPEN, number, 0, b"shell,v2,raw:sleep 9\0").encode())
    answers = [receive(connected).command for _ in range(MAX_STREAMS + 20)]
    assert answers.count(Command.OKAY) == MAX_STREAMS
    assert answers.count(Command.CLSE) == 20
    connected.close()


def test_links_that_say_nothing(adb: Adb, phones: EmulatedPhones) -> None:
    silent = [link(phones) for _ in range(MAX_LINKS + 5)]
    time.sleep(0.1)
    assert phones[0].status.links == MAX_LINKS
    for connected in silent:
        connected.close()


def test_a_reader_that_does_not_read(phones: EmulatedPhones) -> None:
    connected = online(phones)
    connected.sendall(Packet(Command.OPEN, 1, 0, b"exec:yes\0").encode())
    assert receive(connected).command is Command.OKAY
    assert receive(connected).command is Command.WRTE
    connected.settimeout(0.3)
    with pytest.raises(TimeoutError):
        connected.recv(1)  # not before the first is acknowledged
    connected.close()


def test_a_host_that_greets_twice_begins_anew(phones: EmulatedPhones) -> None:
    connected = online(phones)
    connected.sendall(Packet(Command.OPEN, 1, 0, b"shell,v2,raw:sleep 9\0").encode())
    assert receive(connected).command is Command.OKAY
    connected.sendall(HELLO + SIGNATURE)
    assert [receive(connected).command for _ in range(2)] == [Command.AUTH, Command.CNXN]
    connected.close()


@pytest.mark.parametrize(
    "frames",
    [struct.pack("<BI", 0, 0xFFFFFFFF), struct.pack("<BI", 99, 0), os.urandom(300)],
    ids=["long", "unknown kind", "random"],
)
def test_broken_frames_of_a_shell(phones: EmulatedPhones, frames: bytes) -> None:
    connected = online(phones)
    connected.sendall(Packet(Command.OPEN, 1, 0, b"shell,v2,raw:cat\0").encode())
    stream = receive(connected).arg0
    connected.sendall(Packet(Command.WRTE, 1, stream, frames).encode())
    assert receive(connected).command in (Command.OKAY, Command.CLSE)
    connected.close()


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"HACK" + struct.pack("<I", 4) + b"x" * 4,
        b"RECV" + struct.pack("<I", 0xFFFFFFFF),
        b"SEND" + struct.pack("<I", 20) + b"/data/local/tmp/x,33" + b"DATA" + struct.pack("<I", 65537),
        b"DATA" + struct.pack("<I", 1) + b"x",
        b"SND2" + struct.pack("<I", 1) + b"/" + b"RCV2" + bytes(8),
    ],
)
def test_broken_requests_for_files(phones: EmulatedPhones, request_bytes: bytes) -> None:
    connected = online(phones)
    connected.sendall(Packet(Command.OPEN, 1, 0, b"sync:\0").encode())
    stream = receive(connected).arg0
    connected.sendall(Packet(Command.WRTE, 1, stream, request_bytes).encode())
    assert [receive(connected).command for _ in range(2)] == [Command.OKAY, Command.CLSE]
    connected.close()


@pytest.mark.parametrize(
    "script",
    [
        "(" * 5000,
        "$(" * 2000,
        '"' + "`" * 999,
        "while true; do :; done",
        "X=" + "a" * 50_000 + "; echo ${X%%*b}",
        "for i in " + "* " * 3000 + "; do echo; done",
        "yes | head -c 999999999",
        "echo $((9*9*9*9*9*9*9*9*9*9*9*9*9*9*9*9*9*9*9*9*9*9*9*9*9))",
        "X=a; while true; do X=$X$X; done",
        "f() { f | f & }; f",
        "i=0; X=" + "a" * 50_000 + "; while true; do i=$((i + 1)); export V$i=$X; done",
        "while true; do true & done",
        "yes | sha256sum",
        "sh -c 'sh -c \"sh -c id\"'",
        "while true; do sleep 100 & done",
    ],
)
def test_hostile_scripts(adb: Adb, phones: EmulatedPhones, script: str) -> None:
    client = adb.start("shell", script, serial=phones.addresses[0])
    time.sleep(0.3)
    begin = time.monotonic()
    assert adb.text(phones.addresses[0], "echo meanwhile") == "meanwhile\n"
    assert time.monotonic() - begin < 3.0
    client.kill()
    client.communicate()
    adb.shell(phones.addresses[0], "pkill -9 sleep")


def test_names_cannot_leave_the_folder(adb: Adb, phones: EmulatedPhones, tmp_path: Path) -> None:
    serial = phones.addresses[0]
    outside = tmp_path / "outside"
    outside.write_text("untouched")
    shell = "/bin/sh"
    assert adb("push", shell, "/data/local/tmp/dash", serial=serial).returncode == 0
    adb.text(serial, f"cd /data/local/tmp && ./dash -c '/bin/ln -sfn {tmp_path} /proc/self/cwd/way'")  # a program may
    for path in (f"/data/local/tmp/../../../../../{outside}", "/data/local/tmp/way/outside", f"{outside}"):
        assert adb.shell(serial, f"cat {path}").returncode != 0
        assert adb.shell(serial, f"echo changed > {path}").returncode != 0
        assert adb("pull", path, str(tmp_path / "got"), serial=serial).returncode != 0
        assert adb("push", str(outside), path, serial=serial).returncode != 0
        adb.shell(serial, f"rm -rf {path}")
    assert outside.read_text() == "untouched"
    adb.shell(serial, "rm -rf /data/local/tmp/way /data /")
    assert outside.exists() and tmp_path.exists()
