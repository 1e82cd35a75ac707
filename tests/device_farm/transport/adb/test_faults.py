"""Every fault of an emulated phone: the right error, within the deadline, in bounded memory; then the phone is back."""

from __future__ import annotations

import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from device_farm.compiler.target import TARGETS
from device_farm.emulator.faults import PhoneFault
from device_farm.errors import DeadlineExceeded, DeviceGone, Refused, TransportError
from device_farm.testing.build import build_device_program
from device_farm.testing.phones import EmulatedPhone
from device_farm.transport.adb.server import AdbServer
from device_farm.transport.adb.transport import AdbTransport
from tests.device_farm.transport.adb.conftest import Opens

_DEADLINE_S = 0.6
_KILL_S = 1.5  # that ending a program may take beyond it
_SLACK_S = 3.0  # of a busy machine: without its deadline every one of these calls would take for ever
_REBOOT_S = 0.8
_MEMORY_BYTES = 16_000_000
_CALLS: dict[str, Callable[[AdbTransport, Path], object]] = {
    "run": lambda phone, _: phone.run(
        ["program", "heartbeat", "beats"], timeout_s=_DEADLINE_S, max_output_bytes=1 << 20
    ),
    "push": lambda phone, file: phone.push(file, "big", timeout_s=_DEADLINE_S),
    "pull": lambda phone, _: phone.pull("program", timeout_s=_DEADLINE_S),
    "conditions": lambda phone, _: phone.conditions(timeout_s=_DEADLINE_S),
    "short run": lambda phone, _: phone.run(["program", "exit", "0"], timeout_s=_DEADLINE_S),
}


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_device_program(tmp_path_factory.mktemp("program"), triple=TARGETS["x86_64-avx2"].triple)


@pytest.fixture
def transport(server: AdbServer, phone: EmulatedPhone, opens: Opens, program: Path) -> Iterator[AdbTransport]:
    opened = opens(server, phone.address)
    opened.push(program, "program")
    yield opened
    phone.heal()
    _until_back(opened, program)
    assert phone.status.alive == 0


def _inject(phone: EmulatedPhone, fault: PhoneFault) -> None:
    phone.inject(fault, value=_REBOOT_S if fault is PhoneFault.REBOOT else None)


def _once_it_runs(phone: EmulatedPhone, fault: PhoneFault) -> None:
    """Injects the fault as soon as a program runs on the phone, however long this machine takes to start one."""

    def wait_and_inject() -> None:
        end = time.monotonic() + 10
        while phone.status.alive == 0 and time.monotonic() < end:
            time.sleep(0.02)
        _inject(phone, fault)

    threading.Thread(target=wait_and_inject, daemon=True).start()


def _until_back(transport: AdbTransport, program: Path) -> None:
    """The same transport works again, without help; a phone that is gone for good is a failure."""
    end = time.monotonic() + 10
    while True:
        try:
            transport.push(program, "program", timeout_s=2)
            assert transport.run(["program", "exit", "3"], timeout_s=2).exit_status == 3
            return
        except TransportError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


@pytest.mark.parametrize("call", ["run", "push", "pull", "conditions"])
@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (PhoneFault.REBOOT, DeviceGone),
        (PhoneFault.UNPLUG, DeviceGone),
        (PhoneFault.UNAUTHORIZED, DeviceGone),
        (PhoneFault.OFFLINE, DeviceGone),
        (PhoneFault.MUTE, DeadlineExceeded),
        (PhoneFault.REFUSE, Refused),
    ],
)
def test_the_error_of_a_fault(
    transport: AdbTransport,
    phone: EmulatedPhone,
    program: Path,
    fault: PhoneFault,
    error: type[TransportError],
    call: str,
) -> None:
    _inject(phone, fault)
    tracemalloc.start()
    begin = time.monotonic()
    with pytest.raises(TransportError) as raised:
        _CALLS[call](transport, program)
    took_s, memory_bytes = time.monotonic() - begin, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert type(raised.value) is error, raised.value
    assert len(str(raised.value)) > 60  # what, where, what to do
    assert took_s < _DEADLINE_S + _SLACK_S + (_KILL_S if call == "run" else 0)
    assert memory_bytes < _MEMORY_BYTES


@pytest.mark.parametrize("fault", [PhoneFault.REBOOT, PhoneFault.UNPLUG, PhoneFault.UNAUTHORIZED, PhoneFault.OFFLINE])
def test_a_link_lost_in_the_middle_of_a_run(
    transport: AdbTransport, phone: EmulatedPhone, program: Path, fault: PhoneFault
) -> None:
    _once_it_runs(phone, fault)
    begin = time.monotonic()
    with pytest.raises(DeviceGone):
        transport.run(["program", "heartbeat", "beats"], timeout_s=20)
    assert time.monotonic() - begin < 10


def test_a_reboot_between_two_calls_is_no_error(transport: AdbTransport, phone: EmulatedPhone) -> None:
    """The phone is connected again, and looked at anew, as another one might answer now."""
    phone.inject(PhoneFault.REBOOT, value=0.1)
    time.sleep(0.3)
    begin = time.monotonic()
    assert transport.run(["program", "exit", "3"], timeout_s=5).exit_status == 3
    assert time.monotonic() - begin < 2


def test_a_phone_that_falls_mute_in_the_middle_of_a_run(
    transport: AdbTransport, phone: EmulatedPhone, program: Path
) -> None:
    _once_it_runs(phone, PhoneFault.MUTE)
    begin = time.monotonic()
    with pytest.raises(DeadlineExceeded, match="whether the program has ended is not known"):
        transport.run(["program", "heartbeat", "beats"], timeout_s=2)
    assert time.monotonic() - begin < 2 + _KILL_S + _SLACK_S


def test_a_program_that_was_left_behind_is_ended_when_the_phone_is_back(
    transport: AdbTransport, phone: EmulatedPhone, program: Path
) -> None:
    phone.inject(PhoneFault.ORPHAN)
    _once_it_runs(phone, PhoneFault.UNPLUG)
    with pytest.raises(DeviceGone):
        transport.run(["program", "heartbeat", "beats"], timeout_s=8)
    assert phone.status.alive == 1
    phone.heal(PhoneFault.UNPLUG)
    _until_back(transport, program)
    assert phone.status.alive == 0


def test_a_hanging_program_is_ended(transport: AdbTransport, phone: EmulatedPhone) -> None:
    phone.inject(PhoneFault.HANG)
    with pytest.raises(DeadlineExceeded):
        transport.run(["program", "heartbeat", "beats"], timeout_s=0.5)
    assert phone.status.alive == 0


def test_a_crash_is_an_exit_status(transport: AdbTransport, phone: EmulatedPhone) -> None:
    phone.inject(PhoneFault.CRASH)
    assert transport.run(["program", "heartbeat", "beats"], timeout_s=5).exit_status == 128 + 6


def test_a_full_phone_refuses_a_push_and_nothing_of_it_stays(
    transport: AdbTransport, phone: EmulatedPhone, program: Path
) -> None:
    phone.inject(PhoneFault.DISK_FULL)
    with pytest.raises(Refused, match="No space left on device: make room on the phone"):
        transport.push(program, "other")
    with pytest.raises(Refused, match="there is no such program"):
        transport.run(["other"], timeout_s=5)


def test_a_slow_phone_is_served_as_long_as_the_deadline_allows(transport: AdbTransport, phone: EmulatedPhone) -> None:
    phone.inject(PhoneFault.SLOW, value=0.05)
    assert transport.run(["program", "exit", "3"], timeout_s=5).exit_status == 3
    assert transport.conditions(timeout_s=5).cpu_khz


@pytest.mark.parametrize("fault", [PhoneFault.GARBAGE, PhoneFault.ENDLESS])
@pytest.mark.parametrize("call", ["run", "conditions"])
def test_a_phone_that_babbles(
    transport: AdbTransport, phone: EmulatedPhone, program: Path, fault: PhoneFault, call: str
) -> None:
    phone.inject(fault)
    tracemalloc.start()
    begin = time.monotonic()
    with pytest.raises((Refused, DeadlineExceeded)):
        _CALLS[call](transport, program)
    took_s, memory_bytes = time.monotonic() - begin, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert took_s < _DEADLINE_S + _KILL_S + _SLACK_S
    assert memory_bytes < _MEMORY_BYTES


@pytest.mark.parametrize("call", ["short run", "pull", "conditions"])
def test_a_phone_that_announces_wrong_lengths(
    transport: AdbTransport, phone: EmulatedPhone, program: Path, call: str
) -> None:
    phone.inject(PhoneFault.WRONG_LENGTHS)
    with pytest.raises(Refused, match="garbage"):
        _CALLS[call](transport, program)


def test_bytes_that_are_no_packets_cost_a_link(transport: AdbTransport, phone: EmulatedPhone, program: Path) -> None:
    phone.inject(PhoneFault.LINK_GARBAGE)
    _until_back(transport, program)
