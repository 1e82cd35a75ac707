"""A private adb server, and emulated phones for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from device_farm.errors import TransportError
from device_farm.testing.phones import EmulatedPhone, EmulatedPhones
from device_farm.transport.adb.server import AdbServer, PrivateAdbServer
from device_farm.transport.adb.transport import AdbTransport

Opens = Callable[..., AdbTransport]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AdbServer]:
    """One that no test harms."""
    with AdbServer.start_private(home=tmp_path_factory.mktemp("adb")) as started:
        yield started


@pytest.fixture
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateAdbServer]:
    """One of the test's own, to be killed."""
    with AdbServer.start_private(home=tmp_path_factory.mktemp("adb")) as started:
        yield started


@pytest.fixture(scope="session")
def shared_phones(server: AdbServer) -> Iterator[EmulatedPhones]:
    """Two that no test harms."""
    with EmulatedPhones(["emu-x86-fast", "emu-entry"], pace=0.0) as phones:
        for address in phones.addresses:
            server.connect(address)
        yield phones


@pytest.fixture(scope="module")
def phone_of_the_module() -> Iterator[EmulatedPhone]:
    with EmulatedPhones(["emu-x86-slow"], pace=0.0) as phones:
        yield phones[0]


@pytest.fixture
def phone(server: AdbServer, phone_of_the_module: EmulatedPhone) -> Iterator[EmulatedPhone]:
    """Connected, to be broken. A test leaves nothing alive on it, and it is healed for the next one."""
    _connect(server, phone_of_the_module)
    yield phone_of_the_module
    phone_of_the_module.heal()
    _connect(server, phone_of_the_module)
    assert phone_of_the_module.status.alive == 0


def _connect(server: AdbServer, phone: EmulatedPhone) -> None:
    end = time.monotonic() + 10
    while True:
        try:
            server.connect(phone.address)
            return
        except TransportError:  # it boots, or waits for its port
            assert time.monotonic() < end, "the phone is not back"
            time.sleep(0.02)


@pytest.fixture
def opens() -> Iterator[Opens]:
    """Opens transports that are closed after the test."""
    opened: list[AdbTransport] = []

    def open_transport(server: AdbServer, serial: str, **options: object) -> AdbTransport:
        opened.append(AdbTransport(server, serial, **options))  # type: ignore[arg-type]
        return opened[-1]

    yield open_transport
    for transport in opened:
        transport.close()
