"""Thirty-two phones in one process."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from device_farm.emulator.faults import PhoneFault
from device_farm.testing.adb import Adb
from device_farm.testing.phones import EmulatedPhones

WORK = "/data/local/tmp"


def test_thirty_two_phones_at_once(adb: Adb) -> None:
    program = shutil.which("sh")
    assert program is not None
    with EmulatedPhones(["emu-x86-fast", "emu-x86-mid", "emu-x86-slow", "emu-entry"] * 8, pace=0.0) as phones:
        assert len(set(phones.addresses)) == 32
        assert all(not 5555 <= int(address.split(":")[1]) <= 5585 for address in phones.addresses)

        def use(number: int) -> str:
            serial = phones.addresses[number]
            adb.connect(serial)
            if number % 4 == 3:
                return adb.text(serial, "getprop ro.serialno").strip()
            assert adb("push", program, f"{WORK}/dash", serial=serial).returncode == 0
            return adb.text(serial, f"{WORK}/dash -c 'echo {number}'").strip()

        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(use, range(32)))
        assert answers == [phones[n].status.serial if n % 4 == 3 else str(n) for n in range(32)]
        assert len({phone.status.serial for phone in phones}) == 32
        phones[0].inject(PhoneFault.MUTE)  # one is no neighbour's trouble
        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(lambda a: adb.text(a, "echo here"), phones.addresses[1:])) == {"here\n"}
        assert all(phone.status.alive == 0 for phone in phones)
        descriptors = len(list(Path(f"/proc/{phones.pid}/fd").iterdir()))
        assert descriptors < 32 * 2 + 40  # a port and a link each
        for address in phones.addresses:
            adb("disconnect", address)
