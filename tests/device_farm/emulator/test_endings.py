"""No program outlives its phone: after the end, after kill -9, and after a Ctrl-C."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from device_farm.emulator.faults import PhoneFault
from device_farm.emulator.processes import MARK
from device_farm.testing.adb import Adb
from device_farm.testing.phones import EmulatedPhones

WORK = "/data/local/tmp"
# A program that ignores signals, stdin, and has a child of another session that does, too.
STUBBORN = "trap '' HUP INT TERM PIPE; {setsid} ./dash -c \"trap '' HUP INT TERM PIPE; {sleep} 300\" & {sleep} 300"


def until(holds: Callable[[], bool], timeout_s: float = 5.0) -> None:
    end = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def with_mark(mark: bytes) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def start_stubborn(adb: Adb, phones: EmulatedPhones) -> tuple[bytes, subprocess.Popen[bytes]]:
    """The mark of the phone's programs, and the client that waits for them."""
    serial = phones.addresses[0]
    shell, sleep, setsid = shutil.which("sh"), shutil.which("sleep"), shutil.which("setsid")
    assert shell is not None
    assert adb("push", shell, f"{WORK}/dash", serial=serial).returncode == 0
    script = STUBBORN.format(sleep=sleep, setsid=setsid)
    adb.shell(serial, f"cat > {WORK}/stubborn", stdin=script.encode())
    client = adb.start("shell", f"cd {WORK} && ./dash ./stubborn", serial=serial)
    until(lambda: phones[0].status.alive >= 3)
    environment = Path(f"/proc/{phones[0].runs[-1].host_pid}/environ").read_bytes().split(b"\0")
    return next(line for line in environment if line.startswith(MARK.encode() + b"=")), client


def test_the_end_of_the_phones_is_the_end_of_their_programs(adb: Adb) -> None:
    with EmulatedPhones(["emu-x86-mid"], pace=0.0) as phones:
        adb.connect(phones.addresses[0])
        mark, client = start_stubborn(adb, phones)
        host = phones.pid
        assert len(with_mark(mark)) >= 3
    assert with_mark(mark) == []
    assert not Path(f"/proc/{host}").exists()
    client.communicate(timeout=5)


def test_the_unplugged_phone_that_ends_leaves_nothing(adb: Adb) -> None:
    with EmulatedPhones(["emu-x86-mid"], pace=0.0) as phones:
        adb.connect(phones.addresses[0])
        phones[0].inject(PhoneFault.ORPHAN)
        mark, client = start_stubborn(adb, phones)
        phones[0].inject(PhoneFault.UNPLUG)
        client.communicate(timeout=5)
        assert len(with_mark(mark)) >= 3
    assert with_mark(mark) == []


def test_a_reboot_ends_programs(adb: Adb, phone: EmulatedPhones) -> None:
    mark, client = start_stubborn(adb, phone)
    phone[0].inject(PhoneFault.REBOOT, value=0.0)
    until(lambda: with_mark(mark) == [])
    client.communicate(timeout=5)


def test_kill_9_of_the_host_ends_what_it_started(adb: Adb) -> None:
    """Programs themselves, whatever they ignore. Their own children end when their stdin does, or when they like."""
    with EmulatedPhones(["emu-x86-mid"], pace=0.0) as phones:
        serial = phones.addresses[0]
        adb.connect(serial)
        sleep = shutil.which("sleep")
        assert sleep is not None and adb("push", sleep, f"{WORK}/sleep", serial=serial).returncode == 0
        client = adb.start("shell", f"trap '' HUP; {WORK}/sleep 300 & {WORK}/sleep 300", serial=serial)
        until(lambda: phones[0].status.alive == 2)
        pids = [run.host_pid for run in phones[0].runs]
        phones.kill()
        until(lambda: not any(is_alive(pid) for pid in pids))
        client.communicate(timeout=5)
        with pytest.raises(RuntimeError, match="have ended"):
            phones.command("status")


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_the_command_prints_what_to_type_and_ends_on_ctrl_c(adb: Adb) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "device_farm.emulator", "2", "--model", "emu-x86-slow", "--model", "emu-x86-fast"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        assert process.stdin is not None and process.stdout is not None
        lines = [process.stdout.readline() for _ in range(3)]
        addresses = [line.split("adb connect ")[1].strip() for line in lines[:2]]
        assert lines[0].startswith("emu-x86-slow") and lines[1].startswith("emu-x86-fast")
        adb.connect(addresses[1])
        assert adb.text(addresses[1], "getprop ro.product.model") == "emu-x86-fast\n"
        process.stdin.write("inject 1 refuse\n")
        process.stdin.flush()
        assert process.stdout.readline() == '{"ok": true}\n'
        assert adb.shell(addresses[1], "id").returncode == 1
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(5) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "iphone"], "no emulated phone is called 'iphone': there are emu-flagship"),
        (["2", "--faults", "5:mute"], "expected PHONE:FAULT with a phone from 0 to 1"),
        (["--faults", "0:flood"], "there are reboot"),
        (["0"], "1 to 256 phones"),
    ],
)
def test_wrong_options(arguments: list[str], message: str) -> None:
    done = subprocess.run([sys.executable, "-m", "device_farm.emulator", *arguments], capture_output=True, text=True)
    assert done.returncode != 0 and message in done.stderr and "Traceback" not in done.stderr
