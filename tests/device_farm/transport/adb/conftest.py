"""A private adb server, and emulated phones for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

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


@pytest.fixture
def phone(server: AdbServer) -> Iterator[EmulatedPhone]:
    """One of the test's own, to be broken. Nothing of it is alive afterwards."""
    with EmulatedPhones(["emu-x86-slow"], pace=0.0) as phones:
        server.connect(phones.addresses[0])
        yield phones[0]
        phones[0].heal()
        server.disconnect(phones.addresses[0])


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
