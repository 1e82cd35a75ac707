from __future__ import annotations

import contextlib
import os
import pickle
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from device_farm.emulator.faults import PhoneFault
from device_farm.errors import DeviceGone, Refused
from device_farm.testing.phones import EmulatedPhone, EmulatedPhones
from device_farm.transport.adb.server import AdbServer, PrivateAdbServer, is_tcp
from device_farm.transport.adb.transport import AdbTransport


@pytest.mark.parametrize(
    ("address", "host", "port"), [("10.0.0.5:5037", "10.0.0.5", 5037), ("lab:1", "lab", 1), ("[::1]:5038", "::1", 5038)]
)
def test_addresses(address: str, host: str, port: int) -> None:
    server = AdbServer.at(address)
    assert (server.host, server.port, str(server)) == (host, port, address)


@pytest.mark.parametrize("address", ["", "lab", "lab:", ":5037", "lab:x", "lab:0", "lab:65536", "a b:1", "lab:123456"])
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(ValueError, match="adb server"):
        AdbServer.at(address)


@pytest.mark.parametrize("serial", ["10.0.0.5:5555", "[fe80::1%eth0]:5555", "phone-1.lab:42"])
def test_phones_that_are_reached_by_tcp(serial: str) -> None:
    assert is_tcp(serial)


@pytest.mark.parametrize("serial", ["R5CT20", "adb-R5CT._adb-tls-connect._tcp", "a b:5555", "usb:1-4", "x:", ""])
def test_phones_that_are_not(serial: str) -> None:
    assert not is_tcp(serial)


def test_a_private_server_starts_on_loopback_with_a_key_of_its_own(own_server: PrivateAdbServer) -> None:
    assert own_server.version() >= 41
    assert own_server.devices() == ()
    assert own_server.home is not None
    assert (own_server.home / ".android" / "adbkey").stat().st_mode & 0o077 == 0
    port = f"{own_server.port:04X}"
    listening = [line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines()[1:] if " 0A " in line]
    assert [address for address in listening if address.endswith(":" + port)] == ["0100007F:" + port]


def test_servers_are_sent_to_other_processes_by_their_address(own_server: PrivateAdbServer) -> None:
    copy = pickle.loads(pickle.dumps(own_server))
    assert type(copy) is AdbServer
    assert (copy, copy.home) == (own_server, own_server.home)
    assert len({copy, own_server}) == 1


def test_a_server_that_was_killed_is_started_again_by_whoever_needs_it(own_server: PrivateAdbServer) -> None:
    own_server.kill()
    with pytest.raises(DeviceGone):
        own_server.version()
    starters = [threading.Thread(target=AdbServer.at(str(own_server), own_server.home).start) for _ in range(4)]
    for starter in starters:
        starter.start()
    for starter in starters:
        starter.join()
    assert own_server.version() >= 41
    own_server.close()
    with pytest.raises(DeviceGone):
        own_server.version()
    own_server.close()


def test_a_server_of_another_machine_is_not_started_from_here() -> None:
    with pytest.raises(DeviceGone, match="start it there"):
        AdbServer("lab.example", 5037).start()


def test_connecting_believes_the_list_and_not_the_okay(server: AdbServer, phone: EmulatedPhone) -> None:
    server.connect(phone.address)
    assert phone.address in {device.serial for device in server.devices() if device.state == "device"}
    phone.inject(PhoneFault.UNPLUG)
    server.disconnect(phone.address)
    server.disconnect(phone.address)
    with pytest.raises(DeviceGone, match=r"cannot be connected: .*Connection refused: is the phone on"):
        server.connect(phone.address, timeout_s=3)


@contextlib.contextmanager
def _forwarded(server: AdbServer) -> Iterator[AdbServer]:
    """The server as if it were on another machine: at an address from which nothing is started."""
    listener = socket.create_server(("127.0.0.2", 0))
    threads: list[threading.Thread] = []

    def forward(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        for side in (source, sink):
            with contextlib.suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)

    def serve(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError), socket.create_connection((server.host, server.port)) as other:
            back = threading.Thread(target=forward, args=(other, connection))
            back.start()
            forward(connection, other)
            back.join()

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threads.append(threading.Thread(target=serve, args=(listener.accept()[0],)))
                threads[-1].start()

    threads.append(threading.Thread(target=accept))
    threads[0].start()
    try:
        yield AdbServer.at(f"127.0.0.2:{listener.getsockname()[1]}")
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for thread in threads:
            thread.join()


def test_a_server_of_another_machine(own_server: PrivateAdbServer, phone: EmulatedPhone) -> None:
    """Everything is as it is here, but that a server which has ended is not started."""
    own_server.connect(phone.address)
    with _forwarded(own_server) as remote:
        assert not remote.is_local
        transport = AdbTransport(remote, phone.address)
        assert transport.facts().model == "emu-x86-slow"
        assert transport.conditions().cpu_khz
        transport.close()
        own_server.kill()
        with pytest.raises(DeviceGone):
            AdbTransport(remote, phone.address).facts(timeout_s=2)
        with pytest.raises(DeviceGone):
            own_server.version()


def test_a_phone_that_does_not_trust_us_is_refused_at_once(server: AdbServer, phone: EmulatedPhone) -> None:
    server.disconnect(phone.address)
    phone.inject(PhoneFault.UNAUTHORIZED)
    begin = time.monotonic()
    with pytest.raises(Refused, match="does not trust this machine's adb key: unlock it"):
        server.connect(phone.address)
    assert time.monotonic() - begin < 3


@pytest.mark.parametrize("address", ["R5CT20", "a b:5555", "10.0.0.1:5555\nhost:kill", "$(id):1"])
def test_what_cannot_be_connected_is_the_callers_error(server: AdbServer, address: str) -> None:
    with pytest.raises(ValueError, match="HOST:PORT"):
        server.connect(address)


def test_tracking_tells_every_change(own_server: PrivateAdbServer) -> None:
    with EmulatedPhones(["emu-x86-slow"]) as phones:
        seen = []
        for devices in own_server.track(timeout_s=10):
            seen.append([device.state for device in devices])
            if len(seen) == 1:
                own_server.connect(phones.addresses[0])
            elif seen[-1] == ["device"]:
                own_server.disconnect(phones.addresses[0])
            elif not seen[-1] and len(seen) > 2:
                break
        assert (seen[0], seen[-1]) == ([], []) and ["device"] in seen


def test_tracking_ends_with_its_time_and_with_the_server(own_server: PrivateAdbServer) -> None:
    begin = time.monotonic()
    assert list(own_server.track(timeout_s=0.3)) == [()]
    assert 0.2 < time.monotonic() - begin < 2
    tracking = own_server.track(timeout_s=10)
    assert next(tracking) == ()
    own_server.kill()
    with pytest.raises(DeviceGone, match="was it stopped"):
        next(tracking)


def test_nothing_is_left_of_a_closed_server(tmp_path: Path) -> None:
    with AdbServer.start_private(home=tmp_path) as server:
        assert _processes_with(str(tmp_path))
        port = server.port
    assert _processes_with(str(tmp_path)) == []
    with AdbServer.start_private(port, home=tmp_path) as again:
        assert again.port == port


def _processes_with(home: str) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"HOME={home}\0".encode() in path.read_bytes() and path.parts[2] != str(os.getpid()):
                found.append(path.parts[2])
        except OSError:
            continue
    return found
