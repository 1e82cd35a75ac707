"""A private adb server, and phones for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from device_farm.testing.adb import Adb
from device_farm.testing.phones import EmulatedPhones
from device_farm.transport.adb.server import AdbServer


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AdbServer]:
    with AdbServer.start_private(home=tmp_path_factory.mktemp("adb")) as started:
        yield started


@pytest.fixture(scope="session")
def adb(server: AdbServer, tmp_path_factory: pytest.TempPathFactory) -> Adb:
    return Adb(server.port, tmp_path_factory.mktemp("adb-client"))


@pytest.fixture(scope="module")
def shared(adb: Adb) -> Iterator[EmulatedPhones]:
    """Two that no test harms, connected."""
    with EmulatedPhones(["emu-x86-fast", "emu-midrange"], pace=0.0) as phones:
        for address in phones.addresses:
            adb.connect(address)
        yield phones
        for address in phones.addresses:
            adb("disconnect", address)


@pytest.fixture(scope="module")
def _breakable() -> Iterator[EmulatedPhones]:
    with EmulatedPhones(["emu-x86-mid"], pace=0.0) as phones:
        yield phones


@pytest.fixture
def phone(adb: Adb, _breakable: EmulatedPhones) -> Iterator[EmulatedPhones]:
    """One for a test to break: connected, and healed afterwards."""
    adb.connect(_breakable.addresses[0])
    yield _breakable
    _breakable[0].heal()
    _breakable[0].set(heat_c=32.0)
    adb("disconnect", _breakable.addresses[0])
