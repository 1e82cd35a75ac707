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


@pytest.fixture
def phone(adb: Adb) -> Iterator[EmulatedPhones]:
    """One of its own for a test that breaks it, connected."""
    with EmulatedPhones(["emu-x86-mid"], pace=0.0) as phones:
        adb.connect(phones.addresses[0])
        yield phones
        adb("disconnect", phones.addresses[0])
