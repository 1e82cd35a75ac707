"""A private adb server, and phones for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from device_farm.testing.adb import Adb, private_adb
from device_farm.testing.phones import EmulatedPhones


@pytest.fixture(scope="session")
def adb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Adb]:
    with private_adb(tmp_path_factory.mktemp("adb")) as client:
        yield client


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
