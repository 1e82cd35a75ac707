"""Every fault as a host sees it, through the real adb server and client; and that each one ends."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from device_farm.emulator.faults import PhoneFault
from device_farm.testing.adb import Adb
from device_farm.testing.phones import EmulatedPhones

WORK = "/data/local/tmp/npas"


def until(holds: Callable[[], bool], timeout_s: float = 5.0) -> None:
    end = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def sleeper(adb: Adb, serial: str) -> str:
    """A program that sleeps."""
    found = shutil.which("sleep")
    assert found is not None and adb("push", found, f"{WORK}/sleep", serial=serial).returncode == 0
    return f"{WORK}/sleep"


def works(adb: Adb, serial: str) -> bool:
    try:
        return adb.text(serial, "echo works") == "works\n"
    except (RuntimeError, subprocess.TimeoutExpired):
        return False


def connect_again(adb: Adb, serial: str) -> bytes:
    """By itself adb tries again after ten seconds."""
    adb("disconnect", serial)
    return adb("connect", serial).stdout


def test_reboot(adb: Adb, phone: EmulatedPhones) -> None:
    serial = phone.addresses[0]
    program = sleeper(adb, serial)
    boot = adb.text(serial, "cat /proc/sys/kernel/random/boot_id")
    client = adb.start("shell", f"{program} 60", serial=serial)
    until(lambda: phone[0].status.alive == 1)
    phone[0].inject(PhoneFault.REBOOT, value=0.3)
    assert client.wait(5) != 0
    client.communicate()
    assert adb.wait_for(serial, ["offline"]) and phone[0].status.alive == 0
    until(lambda: b"connected to" in connect_again(adb, serial))
    assert phone[0].status.faults == ()
    assert adb.text(serial, "cat /proc/sys/kernel/random/boot_id") != boot
    assert float(adb.text(serial, "cat /proc/uptime").split()[0]) < 5
    assert "sleep" in adb.text(serial, f"ls {WORK}")  # files outlast it


def test_the_host_may_ask_for_a_reboot(adb: Adb, phone: EmulatedPhones) -> None:
    adb("reboot", serial=phone.addresses[0])
    assert adb.wait_for(phone.addresses[0], ["offline"])


def test_unplug(adb: Adb, phone: EmulatedPhones) -> None:
    serial = phone.addresses[0]
    client = adb.start("shell", f"{sleeper(adb, serial)} 60", serial=serial)
    until(lambda: phone[0].status.alive == 1)
    phone[0].inject(PhoneFault.UNPLUG)
    assert client.wait(5) != 0
    client.communicate()
    until(lambda: phone[0].status.alive == 0)  # adbd hangs up on it
    adb.wait_for(serial, ["offline"])
    assert b"Connection refused" in connect_again(adb, serial)
    assert adb.state(serial) is None
    phone[0].heal()
    until(lambda: b"connected to" in adb("connect", serial).stdout)
    assert phone.addresses[0] == serial and works(adb, serial)


def test_unauthorized(adb: Adb, phone: EmulatedPhones) -> None:
    serial = phone.addresses[0]
    phone[0].inject(PhoneFault.UNAUTHORIZED)
    adb.wait_for(serial, ["offline"])
    assert b"failed to authenticate" in connect_again(adb, serial)
    assert adb.state(serial) == "unauthorized"
    assert not works(adb, serial)
    phone[0].heal()  # its owner says yes
    adb.wait_for(serial, ["device"])
    assert works(adb, serial)


def test_offline(adb: Adb, phone: EmulatedPhones) -> None:
    serial = phone.addresses[0]
    phone[0].inject(PhoneFault.OFFLINE)
    adb.wait_for(serial, ["offline"])
    adb("disconnect", serial)
    connect = adb.start("connect", serial, serial=serial)  # takes ten seconds to say that it failed
    adb.wait_for(serial, ["offline"])
    connect.kill()
    connect.communicate()
    phone[0].heal()
    until(lambda: b"connected to" in connect_again(adb, serial))
    assert works(adb, serial)


def test_mute(adb: Adb, phone: EmulatedPhones) -> None:
    serial = phone.addresses[0]
    phone[0].inject(PhoneFault.MUTE)
    with pytest.raises(subprocess.TimeoutExpired):
        adb("shell", "echo works", serial=serial, timeout_s=0.5)
    assert adb.state(serial) == "device"  # adb notices nothing
    late = adb.start("shell", "echo late", serial=serial)
    with pytest.raises(subprocess.TimeoutExpired):
        late.wait(0.3)
    phone[0].heal()
    assert late.communicate(timeout=5)[0] == b"late\n"
    assert works(adb, serial)


def test_mute_in_the_middle_of_an_answer(adb: Adb, phone: EmulatedPhones) -> None:
    serial = phone.addresses[0]
    client = adb.start("shell", "while true; do echo beat; sleep 0.02; done", serial=serial)
    assert client.stdout is not None and client.stdout.readline() == b"beat\n"
    phone[0].inject(PhoneFault.MUTE)
    time.sleep(0.2)
    os.set_blocking(client.stdout.fileno(), False)
    client.stdout.read()
    time.sleep(0.3)
    assert not client.stdout.read()
    phone[0].heal()
    until(lambda: b"beat" in (client.stdout.read() or b""))  # type: ignore[union-attr]
    client.kill()
    client.communicate()


def test_slow(adb: Adb, phone: EmulatedPhones) -> None:
    serial = phone.addresses[0]
    phone[0].inject(PhoneFault.SLOW, value=0.2)
    begin = time.monotonic()
    assert works(adb, serial)
    assert 0.2 < time.monotonic() - begin < 5
    phone[0].heal()
    assert works(adb, serial)


def test_refuse(adb: Adb, phone: EmulatedPhones) -> None:
    serial = phone.addresses[0]
    phone[0].inject(PhoneFault.REFUSE)
    done = adb.shell(serial, "echo works")
    assert done.returncode == 1 and b"closed" in done.stderr
    assert adb("push", "/bin/sh", f"{WORK}/sh", serial=serial).returncode == 1
    phone[0].heal()
    assert works(adb, serial)


def test_hang_stops_one_program(adb: Adb, phone: EmulatedPhones) -> None:
    serial = phone.addresses[0]
    program = sleeper(adb, serial)
    phone[0].inject(PhoneFault.HANG)
    client = adb.start("shell", f"echo $$; {program} 0; echo done", serial=serial)
    assert client.stdout is not None
    group = client.stdout.readline().decode().strip()
    with pytest.raises(subprocess.TimeoutExpired):
        client.wait(0.4)
    assert phone[0].status.alive == 1
    assert adb.shell(serial, f"{program} 0").returncode == 0  # the next one is well
    assert adb.shell(serial, f"kill -9 -{group}").returncode == 0
    client.communicate(timeout=5)
    assert phone[0].status.alive == 0


def test_disk_full(adb: Adb, phone: EmulatedPhones, tmp_path: Path) -> None:
    serial = phone.addresses[0]
    shell = shutil.which("sh")
    assert shell is not None and adb("push", shell, f"{WORK}/dash", serial=serial).returncode == 0
    adb.text(serial, f"echo before > {WORK}/old")
    phone[0].inject(PhoneFault.DISK_FULL)
    (tmp_path / "file").write_bytes(b"x" * 100_000)
    done = adb("push", str(tmp_path / "file"), f"{WORK}/file", serial=serial)
    assert done.returncode == 1 and b"No space left on device" in done.stderr
    assert b"No space left" in adb.shell(serial, f"echo x > {WORK}/new").stderr
    assert b"No space left" in adb.shell(serial, f"mkdir {WORK}/folder").stderr
    assert adb.shell(serial, f"cd {WORK} && ./dash -c 'echo of a program > made'").returncode != 0
    assert "100%" in adb.text(serial, "df /data")
    assert adb.text(serial, f"cat {WORK}/old") == "before\n"
    assert "file" not in adb.text(serial, f"ls {WORK}").split()
    phone[0].heal()
    assert adb("push", str(tmp_path / "file"), f"{WORK}/file", serial=serial).returncode == 0


def test_orphan(adb: Adb, phone: EmulatedPhones) -> None:
    serial = phone.addresses[0]
    program = sleeper(adb, serial)
    phone[0].inject(PhoneFault.ORPHAN)
    client = adb.start("shell", f"{program} 60", serial=serial)
    until(lambda: phone[0].status.alive == 1)
    phone[0].inject(PhoneFault.UNPLUG)
    client.communicate(timeout=5)
    time.sleep(0.2)
    assert phone[0].status.alive == 1
    phone[0].heal(PhoneFault.UNPLUG)
    until(lambda: b"connected to" in connect_again(adb, serial))
    assert adb.text(serial, "pidof sleep").strip().isdigit()  # the host may find it, and end it
    adb.text(serial, "pkill -9 sleep")
    until(lambda: phone[0].status.alive == 0)


def test_crash(adb: Adb, phone: EmulatedPhones) -> None:
    serial = phone.addresses[0]
    program = sleeper(adb, serial)
    phone[0].inject(PhoneFault.CRASH, times=2)
    assert [adb.shell(serial, f"{program} 1").returncode for _ in range(3)] == [134, 134, 0]


def test_garbage(adb: Adb, phone: EmulatedPhones, tmp_path: Path) -> None:
    serial = phone.addresses[0]
    phone[0].inject(PhoneFault.GARBAGE)
    assert adb.shell(serial, "echo works").stdout != b"works\n"
    assert adb("pull", "/proc/version", str(tmp_path / "version"), serial=serial).returncode == 0
    assert b"Linux" not in (tmp_path / "version").read_bytes()
    phone[0].heal()
    assert works(adb, serial)


def test_endless(adb: Adb, phone: EmulatedPhones, tmp_path: Path) -> None:
    serial = phone.addresses[0]
    phone[0].inject(PhoneFault.ENDLESS)
    client = adb.start("shell", "echo on and on", serial=serial)
    assert client.stdout is not None
    assert len(client.stdout.read(1_000_000)) == 1_000_000
    client.kill()
    client.communicate()
    pull = adb.start("pull", "/proc/version", str(tmp_path / "version"), serial=serial)
    until(lambda: (tmp_path / "version").exists() and (tmp_path / "version").stat().st_size > 1_000_000)
    pull.kill()
    pull.communicate()
    phone[0].heal()
    assert works(adb, serial)
    assert host_memory_mib(phone) < 150


def test_wrong_lengths(adb: Adb, phone: EmulatedPhones, tmp_path: Path) -> None:
    serial = phone.addresses[0]
    phone[0].inject(PhoneFault.WRONG_LENGTHS)
    assert adb.shell(serial, "echo works").returncode != 0
    done = adb("pull", "/proc/version", str(tmp_path / "version"), serial=serial)
    assert done.returncode == 1 and b"too large" in done.stderr
    phone[0].heal()
    assert works(adb, serial)


def test_garbage_on_the_link(adb: Adb, phone: EmulatedPhones) -> None:
    serial = phone.addresses[0]
    phone[0].inject(PhoneFault.LINK_GARBAGE)
    adb.wait_for(serial, ["offline"])
    until(lambda: b"connected to" in connect_again(adb, serial))
    assert works(adb, serial)


def test_flipped_answers_of_a_pushed_file_of_images(adb: Adb, phone: EmulatedPhones) -> None:
    """`classify` writes its answers into a file; test_measuring.py has those of `bench`."""
    serial = phone.addresses[0]
    script = "#!/system/bin/sh\nprintf 'abcdefgh' > $5\n"
    adb.shell(serial, f"mkdir -p {WORK}; cat > {WORK}/script; chmod 755 {WORK}/script", stdin=script.encode())
    phone[0].inject(PhoneFault.FLIPPED)
    adb.text(serial, f"cd {WORK} && ./script classify --input in --output out")
    assert adb.text(serial, f"cat {WORK}/out") == "abcdefgh"  # a script is no program


def test_a_fault_that_is_none(phone: EmulatedPhones) -> None:
    with pytest.raises(ValueError, match="no fault is called 'flood': there are reboot, unplug"):
        phone.command("inject 0 flood")
    with pytest.raises(ValueError, match="expected a phone from 0 to 0"):
        phone.command("inject 5 mute")
    with pytest.raises(ValueError, match="expected inject, heal, set, status or quit"):
        phone.command("dance 0")


def test_a_file_is_never_whole_by_half(adb: Adb, phone: EmulatedPhones, tmp_path: Path) -> None:
    """A push that the link ends leaves nothing under the name."""
    serial = phone.addresses[0]
    content = os.urandom(60_000_000)
    (tmp_path / "big").write_bytes(content)
    phone[0].inject(PhoneFault.SLOW, value=0.02)
    push = adb.start("push", str(tmp_path / "big"), f"{WORK}/big", serial=serial)
    time.sleep(0.3)
    phone[0].inject(PhoneFault.UNPLUG)
    push.communicate(timeout=10)
    assert push.returncode != 0
    phone[0].heal()
    until(lambda: b"connected to" in connect_again(adb, serial))
    assert "big" not in adb.shell(serial, f"ls {WORK}").stdout.decode().split()
    assert adb("push", str(tmp_path / "big"), f"{WORK}/big", serial=serial).returncode == 0
    assert adb.text(serial, f"sha256sum -b {WORK}/big").strip() == hashlib.sha256(content).hexdigest()


def host_memory_mib(phones: EmulatedPhones) -> float:
    for line in Path(f"/proc/{phones.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    raise AssertionError
