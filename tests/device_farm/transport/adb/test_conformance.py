from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from device_farm.testing.phones import EmulatedPhones
from device_farm.testing.transport_conformance import TransportConformance
from device_farm.transport.adb.server import AdbServer
from device_farm.transport.adb.transport import AdbTransport
from device_farm.transport.base import Transport


class TestAnX86PhoneConforms(TransportConformance):
    @pytest.fixture
    def transport(self, server: AdbServer, shared_phones: EmulatedPhones) -> Iterator[Transport]:
        phone = AdbTransport(server, shared_phones.addresses[0])
        yield phone
        phone.close()
        assert shared_phones[0].status.alive == 0


@pytest.mark.qemu
@pytest.mark.skipif(shutil.which("qemu-aarch64") is None, reason="needs qemu-aarch64 (qemu-user)")
class TestAnArmPhoneConforms(TransportConformance):
    @pytest.fixture
    def transport(self, server: AdbServer, shared_phones: EmulatedPhones) -> Iterator[Transport]:
        phone = AdbTransport(server, shared_phones.addresses[1])
        yield phone
        phone.close()
        assert shared_phones[1].status.alive == 0
