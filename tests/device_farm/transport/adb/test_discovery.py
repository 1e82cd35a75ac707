from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from device_farm.emulator.faults import PhoneFault
from device_farm.errors import DeadlineExceeded
from device_farm.testing.phones import EmulatedPhones
from device_farm.transport.adb import advice
from device_farm.transport.adb.device_list import ListedDevice
from device_farm.transport.adb.discovery import examine, probe, survey
from device_farm.transport.adb.server import AdbServer, PrivateAdbServer


@pytest.fixture(scope="module")
def phones(server: AdbServer) -> Iterator[EmulatedPhones]:
    with EmulatedPhones(["emu-x86-slow"] * 5, pace=0.0) as started:
        yield started


def test_a_survey_says_what_is_wrong_with_each_phone(own_server: PrivateAdbServer, phones: EmulatedPhones) -> None:
    for phone in phones:
        own_server.connect(phone.address)
    good, mute, refusing, unauthorized, babbling = phones
    mute.inject(PhoneFault.MUTE)
    refusing.inject(PhoneFault.REFUSE)
    unauthorized.inject(PhoneFault.UNAUTHORIZED)
    babbling.inject(PhoneFault.GARBAGE)
    own_server.disconnect(unauthorized.address)
    with pytest.raises(Exception, match="trust"):
        own_server.connect(unauthorized.address)
    begin = time.monotonic()
    found = survey(own_server, timeout_s=1.0)
    assert time.monotonic() - begin < 3
    assert (found.server, found.version, found.problems) == (str(own_server), 41, ())
    findings = {finding.serial: finding for finding in found.findings}
    healthy = findings[good.address]
    assert healthy.usable and healthy.model == "emu_x86_slow"
    assert healthy.answered_ms is not None and healthy.answered_ms < 1000
    assert findings[mute.address].advice == advice.MUTE and findings[mute.address].state == "device"
    for phone, word in ((refusing, "refuses"), (babbling, "said"), (unauthorized, "does not trust")):
        finding = findings[phone.address]
        assert not finding.usable and finding.advice is not None
        assert word in finding.advice.problem and finding.advice.remedy
    for phone in phones:
        phone.heal()


def test_a_mute_phone_is_found_by_an_active_probe_only(server: AdbServer, phones: EmulatedPhones) -> None:
    server.connect(phones.addresses[0])
    phones[0].inject(PhoneFault.MUTE)
    assert "device" in {device.state for device in server.devices() if device.serial == phones.addresses[0]}
    with pytest.raises(DeadlineExceeded, match="it is mute"):
        probe(server, phones.addresses[0], timeout_s=0.3)
    phones[0].heal()
    assert probe(server, phones.addresses[0]) < 2000
    server.disconnect(phones.addresses[0])


def test_a_survey_of_a_server_that_is_not_there(own_server: PrivateAdbServer) -> None:
    assert [problem.problem for problem in survey(own_server).problems] == ["adb sees no phone at all"]
    own_server.close()
    found = survey(own_server)
    assert (found.version, found.findings) == (None, ())
    assert "no adb server" in found.problems[0].problem and f"-P {own_server.port}" in found.problems[0].remedy


@pytest.mark.parametrize(
    "state", ["unauthorized", "offline", "no permissions", "recovery", "bootloader", "sideload", "connecting", "odd"]
)
def test_every_state_has_advice(server: AdbServer, state: str) -> None:
    finding = examine(server, ListedDevice("s", state))
    assert finding.advice is not None and finding.advice.problem and finding.advice.remedy


def test_a_serial_that_nobody_can_name_is_reported(server: AdbServer) -> None:
    finding = examine(server, ListedDevice("\udcff", "device"))
    assert finding.advice is not None and "UTF-8" in finding.advice.problem
