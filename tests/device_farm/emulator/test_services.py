"""Every service of a phone, through the real adb server and client."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from pathlib import Path

import pytest

from device_farm.testing.adb import Adb
from device_farm.testing.phones import EmulatedPhones

WORK = "/data/local/tmp/npas"


@pytest.fixture
def serial(shared: EmulatedPhones) -> str:
    return shared.addresses[0]


def push_program(adb: Adb, serial: str, program: str, name: str | None = None) -> str:
    found = shutil.which(program)
    assert found is not None
    remote = f"{WORK}/{name or program}"
    assert adb("push", found, remote, serial=serial).returncode == 0
    return remote


def test_a_phone_is_a_device_that_says_that_it_is_emulated(adb: Adb, shared: EmulatedPhones) -> None:
    for phone, model, abi in zip(shared, ("emu-x86-fast", "emu-midrange"), ("x86_64", "arm64-v8a"), strict=True):
        assert adb.state(phone.address) == "device"
        assert adb.text(phone.address, "getprop ro.npas.emulated") == "1\n"
        assert adb.text(phone.address, "getprop ro.product.model") == f"{model}\n"
        assert adb.text(phone.address, "getprop ro.product.cpu.abi") == f"{abi}\n"
        assert adb.text(phone.address, "getprop ro.serialno").strip() == phone.status.serial
        assert "[ro.soc.model]: [" in adb.text(phone.address, "getprop")


def test_a_shell_has_an_exit_status_and_two_outputs(adb: Adb, serial: str) -> None:
    done = adb.shell(serial, "echo to stdout; echo to stderr >&2; exit 42")
    assert (done.returncode, done.stdout, done.stderr) == (42, b"to stdout\n", b"to stderr\n")


def test_the_old_shell_and_exec_mix_the_outputs(adb: Adb, serial: str) -> None:
    assert adb("exec-out", "echo one; echo two >&2", serial=serial).stdout == b"one\ntwo\n"
    assert adb("shell", "-x", "echo one; echo two >&2", serial=serial).stdout == b"one\ntwo\n"


def test_stdin_arrives_and_ends(adb: Adb, serial: str) -> None:
    content = os.urandom(300_000)
    assert adb.shell(serial, "cat", stdin=content).stdout == content
    assert (
        adb.shell(serial, "sha256sum", stdin=content).stdout.split()[0] == hashlib.sha256(content).hexdigest().encode()
    )
    assert adb.shell(serial, "exit 3", stdin=content).returncode == 3  # which nobody reads


def test_lines_of_an_interactive_shell_are_run_one_by_one(adb: Adb, serial: str) -> None:
    done = adb("shell", serial=serial, stdin=b"cd /data\npwd\nnothing-like-that\nexit 5\necho not reached\n")
    assert (done.returncode, done.stdout) == (5, b"/data\n")


@pytest.mark.parametrize("size", [0, 1, 65536, 3_000_007])
def test_files_come_back_as_they_were(adb: Adb, serial: str, tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    (tmp_path / "there").write_bytes(content)
    assert adb("push", str(tmp_path / "there"), f"{WORK}/file", serial=serial).returncode == 0
    assert adb.text(serial, f"sha256sum -b {WORK}/file").strip() == hashlib.sha256(content).hexdigest()
    assert adb("pull", f"{WORK}/file", str(tmp_path / "back"), serial=serial).returncode == 0
    assert (tmp_path / "back").read_bytes() == content


def test_folders_are_pushed_listed_and_pulled(adb: Adb, serial: str, tmp_path: Path) -> None:
    names = ["plain", "a b", "it's", 'quo"te', "$HOME", "ä", "-rf"]
    (tmp_path / "folder").mkdir()
    for name in names:
        (tmp_path / "folder" / name).write_text(name)
    assert adb("push", str(tmp_path / "folder"), f"{WORK}/", serial=serial).returncode == 0
    assert sorted(adb.text(serial, f"ls {WORK}/folder").splitlines()) == sorted(names)
    assert adb("pull", f"{WORK}/folder", str(tmp_path / "back"), serial=serial).returncode == 0
    assert {path.name: path.read_text() for path in (tmp_path / "back").iterdir()} == {name: name for name in names}
    assert b"plain" in adb("ls", f"{WORK}/folder", serial=serial).stdout
    adb.text(serial, f"rm -r {WORK}/folder")


def test_what_is_not_there_or_not_allowed_is_refused(adb: Adb, serial: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    assert b"No such file" in adb("pull", f"{WORK}/nothing", str(tmp_path), serial=serial).stderr
    assert b"Read-only file system" in adb("push", str(tmp_path / "file"), "/system/bin/sh", serial=serial).stderr
    assert adb("push", str(tmp_path / "file"), "/data/local/tmp/../../../../etc/npas", serial=serial).returncode == 1
    assert not Path("/etc/npas").exists()


def test_a_pushed_program_runs_natively_with_its_exit_status(adb: Adb, shared: EmulatedPhones, serial: str) -> None:
    program = push_program(adb, serial, "sh", "dash")
    script = "echo out; echo err >&2; exit 9"
    done = adb.shell(serial, f"cd {WORK} && ./dash -c '{script}'")
    assert (done.returncode, done.stdout, done.stderr) == (9, b"out\n", b"err\n")
    assert adb.shell(serial, f"{program} -c 'kill -9 $$'").returncode == 137
    assert adb.text(serial, f"X=1 {program} -c 'echo $X'") == "1\n"
    assert shared[0].runs[-1].exit_status == 0
    assert shared[0].status.alive == 0


def test_programs_that_cannot_run(adb: Adb, shared: EmulatedPhones, serial: str) -> None:
    assert adb.shell(serial, f"{WORK}/nothing").returncode == 127
    assert adb.shell(serial, "nothing-like-that").returncode == 127
    program = push_program(adb, serial, "true")
    assert adb.shell(serial, f"chmod 644 {program}; {program}").returncode == 126
    arm = shared.addresses[1]
    wrong = push_program(adb, arm, "true")
    done = adb.shell(arm, wrong)
    assert done.returncode == 126 and b"not executable: 64-bit ELF file" in done.stderr


def test_a_lost_client_hangs_up_on_the_program(adb: Adb, shared: EmulatedPhones, serial: str) -> None:
    program = push_program(adb, serial, "sleep")
    client = adb.start("shell", f"{program} 60", serial=serial)
    _until(lambda: shared[0].status.alive == 1)
    client.kill()
    client.communicate()
    _until(lambda: shared[0].status.alive == 0)
    assert shared[0].runs[-1].exit_status == 129  # SIGHUP


def test_programs_are_found_and_ended_by_their_group(adb: Adb, shared: EmulatedPhones, serial: str) -> None:
    program = push_program(adb, serial, "sleep")
    client = adb.start("shell", f"echo $$; {program} 60; echo not reached", serial=serial)
    assert client.stdout is not None
    group = int(client.stdout.readline())
    _until(lambda: shared[0].status.alive == 1)
    assert f"{group} sleep" in adb.text(serial, "ps -o PGID,NAME")
    assert adb.shell(serial, f"kill -9 -{group}").returncode == 0
    assert client.wait(5) == 137
    _until(lambda: shared[0].status.alive == 0)
    assert adb.shell(serial, f"kill -9 -{group}").returncode == 1
    client.communicate()


def test_only_what_runs_on_the_phone_can_be_killed(adb: Adb, shared: EmulatedPhones, serial: str) -> None:
    for victim in (os.getpid(), shared.pid, 1, -os.getpgid(0)):
        assert adb.shell(serial, f"kill -9 -- {victim}").returncode == 1
    assert adb.state(serial) == "device"


def test_unknown_services_are_refused(adb: Adb, serial: str) -> None:
    assert adb("root", serial=serial).returncode != 0
    assert adb("reverse", "tcp:1", "tcp:2", serial=serial).returncode != 0
    assert adb.text(serial, "echo still here") == "still here\n"


def _until(holds: object, timeout_s: float = 5.0) -> None:
    until = time.monotonic() + timeout_s
    while not holds():  # type: ignore[operator]
        assert time.monotonic() < until
        time.sleep(0.02)
