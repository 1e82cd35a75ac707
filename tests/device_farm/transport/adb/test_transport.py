"""What the phone is left with, several transports on it, and the adb server's end in the middle."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from device_farm.compiler.target import AVX2, AVX512, NEON, Precision
from device_farm.emulator.faults import PhoneFault
from device_farm.errors import DeadlineExceeded, DeviceGone, Refused, TransportError
from device_farm.testing.build import build_device_program
from device_farm.testing.phones import EmulatedPhone, EmulatedPhones
from device_farm.transport.adb import scripts
from device_farm.transport.adb.link import PhoneLink
from device_farm.transport.adb.server import AdbServer, PrivateAdbServer
from device_farm.transport.adb.transport import AdbTransport
from device_farm.transport.base import Deadline
from tests.device_farm.transport.adb.conftest import Opens

_FOLDER = "/data/local/tmp/npas"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_device_program(tmp_path_factory.mktemp("program"), triple=AVX2.triple)


def _shell(server: AdbServer, serial: str, script: str) -> str:
    return PhoneLink(server, serial).shell(script, Deadline(10, "a look")).stdout.decode()


def _until_alive(phone: EmulatedPhone) -> None:
    end = time.monotonic() + 5
    while phone.status.alive == 0:
        assert time.monotonic() < end, "no program started"
        time.sleep(0.01)


def test_facts_of_emulated_phones(server: AdbServer, shared_phones: EmulatedPhones, opens: Opens) -> None:
    fast, entry = (opens(server, address).facts() for address in shared_phones.addresses)
    assert (fast.model, fast.target, fast.emulated, fast.cpu) == ("emu-x86-fast", AVX512.name, True, 4)
    assert fast.details["clusters"] == [[4, 5], [0, 1, 2, 3]]
    assert (fast.serial, fast.details["android"]) == (shared_phones.addresses[0], "14")
    assert (entry.model, entry.target, entry.details["abi"]) == ("emu-entry", NEON.name, "arm64-v8a")
    with pytest.raises(Refused, match="lacks asimdhp and fphp"):
        opens(server, shared_phones.addresses[1], precision=Precision.FP16).facts()


def test_conditions_follow_the_phone(server: AdbServer, phone: EmulatedPhone, opens: Opens) -> None:
    transport = opens(server, phone.address)
    phone.set(battery_percent=41, charging=False, screen_on=True)
    conditions = transport.conditions()
    assert (conditions.battery_level, conditions.charging, conditions.screen_on) == (0.41, False, True)
    phone.set(screen_on=False, charging=True, heat_c=55)
    hot = transport.conditions()
    assert (hot.charging, hot.screen_on) == (True, False)
    assert sorted(hot.cpu_khz) == [0, 1, 2, 3] and hot.thermal_status is not None
    assert max(hot.temperature_c.values()) > max(conditions.temperature_c.values()) + 5


def test_close_leaves_nothing_on_the_phone(server: AdbServer, phone: EmulatedPhone, program: Path) -> None:
    transport = AdbTransport(server, phone.address)
    transport.push(program, "program")
    transport.run(["program", "exit", "0"], timeout_s=5)
    assert "program" in _shell(server, phone.address, f"ls {_FOLDER}/*")
    transport.close()
    assert _shell(server, phone.address, "ls /data/local/tmp") == ""
    assert phone.status.alive == 0


def test_a_client_that_comes_again_finds_its_files_and_no_halves(
    server: AdbServer, phone: EmulatedPhone, program: Path, opens: Opens
) -> None:
    killed = AdbTransport(server, phone.address, client="mine")
    killed.push(program, "program")
    killed.run(["program", "exit", "7"], timeout_s=5)  # a file has its name by the next call
    _shell(server, phone.address, f"echo half > {_FOLDER}/mine/.program.1234.partial")
    again = opens(server, phone.address, client="mine")
    assert again.run(["program", "exit", "7"], timeout_s=5).exit_status == 7
    assert _shell(server, phone.address, f"ls -A {_FOLDER}/mine").split() == ["program"]


def test_two_transports_on_one_phone_do_not_meet(
    server: AdbServer, phone: EmulatedPhone, program: Path, opens: Opens, tmp_path: Path
) -> None:
    one, other = opens(server, phone.address), opens(server, phone.address)
    for transport, text in ((one, "one"), (other, "other")):
        (tmp_path / "file").write_text(text)
        transport.push(tmp_path / "file", "data")
        transport.push(program, "program")
    assert (one.pull("data"), other.pull("data")) == (b"one", b"other")
    with ThreadPoolExecutor() as threads:
        long = threads.submit(one.run, ["program", "stdin-is-open", "600"], timeout_s=5)
        with pytest.raises(DeadlineExceeded):
            other.run(["program", "heartbeat", "beats"], timeout_s=0.2)
        other.close()
        assert long.result().exit_status == 0
    assert one.pull("data") == b"one"


def test_output_of_a_run_is_its_own_even_if_it_looks_like_ours(
    server: AdbServer, phone: EmulatedPhone, opens: Opens, tmp_path: Path
) -> None:
    (tmp_path / "script").write_text("#!/bin/sh\necho run 1\necho no-file\nexit 127\n")
    (tmp_path / "script").chmod(0o755)
    transport = opens(server, phone.address)
    transport.push(tmp_path / "script", "script")
    done = transport.run(["script"], timeout_s=5)
    assert (done.exit_status, done.stdout) == (127, b"run 1\nno-file\n")


def test_a_file_without_its_executable_bit_is_refused(
    server: AdbServer, phone: EmulatedPhone, program: Path, opens: Opens, tmp_path: Path
) -> None:
    (tmp_path / "plain").write_bytes(program.read_bytes())
    (tmp_path / "plain").chmod(0o644)
    transport = opens(server, phone.address)
    transport.push(tmp_path / "plain", "plain")
    with pytest.raises(Refused, match=r"run of plain .*not executable"):
        transport.run(["plain"], timeout_s=5)


def test_a_folder_in_the_way_is_refused_and_nothing_half_stays(
    server: AdbServer, phone: EmulatedPhone, program: Path, opens: Opens
) -> None:
    transport = opens(server, phone.address, client="mine")
    transport.facts()
    _shell(server, phone.address, f"mkdir {_FOLDER}/mine/name")
    with pytest.raises(Refused, match="a folder is in the way"):
        transport.push(program, "name")
    assert _shell(server, phone.address, f"ls -a {_FOLDER}/mine {_FOLDER}/mine/name").count("partial") == 0


def test_another_phone_under_the_same_serial_is_noticed(
    own_server: PrivateAdbServer, phone: EmulatedPhone, program: Path, opens: Opens
) -> None:
    """Whatever the next call is: nothing is measured on a phone that the facts are not of."""
    own_server.connect(phone.address)
    transport = opens(own_server, phone.address)
    facts = transport.facts()
    assert transport.facts() is facts
    transport.push(program, "program")
    own_server.disconnect(phone.address)
    own_server.connect(phone.address)
    assert transport.run(["program", "exit", "3"], timeout_s=5).exit_status == 3  # it is the same
    transport._identity = "SM-1 28091 (aarch64-neon)"  # what it was, before somebody swapped them
    own_server.disconnect(phone.address)
    own_server.connect(phone.address)
    ran = len(phone.runs)
    for _ in range(2):
        with pytest.raises(DeviceGone, match=r"another phone answers .* SM-1 28091 .*open it anew"):
            transport.run(["program", "exit", "3"], timeout_s=5)
    with pytest.raises(DeviceGone, match="another phone answers"):
        transport.push(program, "program")
    assert len(phone.runs) == ran


def test_the_server_is_killed_in_the_middle_of_a_run(
    own_server: PrivateAdbServer, phone: EmulatedPhone, program: Path, opens: Opens
) -> None:
    """The program ends with its link; the next call starts the server again and connects the phone."""
    transport = opens(own_server, phone.address)
    own_server.connect(phone.address)
    transport.push(program, "program")
    with ThreadPoolExecutor() as threads:
        run = threads.submit(transport.run, ["program", "heartbeat", "beats"], timeout_s=8)
        _until_alive(phone)
        own_server.kill()
        with pytest.raises(DeviceGone):
            run.result()
    assert transport.run(["program", "exit", "3"], timeout_s=5).exit_status == 3
    assert phone.status.alive == 0


def test_the_server_is_killed_in_the_middle_of_a_push(
    own_server: PrivateAdbServer, phone: EmulatedPhone, program: Path, opens: Opens, tmp_path: Path
) -> None:
    with (tmp_path / "big").open("wb") as big:
        big.truncate(400 << 20)
    transport = opens(own_server, phone.address, client="mine")
    own_server.connect(phone.address)
    transport.push(program, "big")
    timer = threading.Timer(0.1, own_server.kill)
    timer.start()
    with pytest.raises(DeviceGone):
        transport.push(tmp_path / "big", "big")
    timer.join()
    assert transport.pull("big") == program.read_bytes()
    assert "partial" not in _shell(own_server, phone.address, f"ls -a {_FOLDER}/mine")


def test_a_server_that_is_gone_and_may_not_be_started_here_is_a_device_gone(phone: EmulatedPhone) -> None:
    with pytest.raises(DeviceGone, match=r"no adb server at 127\.0\.0\.2:.*start one on its machine"):
        AdbTransport(AdbServer("127.0.0.2", 9), phone.address).facts(timeout_s=2)


def test_an_unknown_phone_is_a_device_gone(server: AdbServer) -> None:
    for serial in ("R5CT20ABCDE", 'it\'s; $(reboot) "x"\n`id`', "a b", "model:*", "x" * 200):
        with pytest.raises(DeviceGone, match=r"adb does not see it.*plug it in|cannot be connected"):
            AdbTransport(server, serial).facts(timeout_s=2)


def test_hostile_text_from_a_phone_is_one_line_of_an_error(server: AdbServer, phone: EmulatedPhone) -> None:
    link = PhoneLink(server, phone.address)
    transport = AdbTransport(server, phone.address)
    script = "printf '\\033[31mevil\\n\\n$(id)%s' \"'\" >&2; exit 1"
    assert link.shell(script, Deadline(5, "x")).exit_status == 1
    with pytest.raises(Refused) as raised:
        transport._do(script, Deadline(5, "x"))
    assert str(raised.value).isprintable() and "evil" in str(raised.value)


@pytest.fixture
def eight(server: AdbServer) -> Iterator[EmulatedPhones]:
    with EmulatedPhones(["emu-x86-fast", "emu-x86-slow"] * 4, pace=0.0) as phones:
        yield phones
        for address in phones.addresses:
            server.disconnect(address)


def test_eight_phones_side_by_side(server: AdbServer, eight: EmulatedPhones, program: Path, opens: Opens) -> None:
    def work(address: str) -> list[int]:
        server.connect(address)
        transport = opens(server, address)
        transport.push(program, "program")
        return [transport.run(["program", "exit", str(i)], timeout_s=20).exit_status for i in range(8)]

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(work, eight.addresses)) == [list(range(8))] * 8
    assert [len(phone.runs) for phone in eight] == [8] * 8
    assert sum(phone.status.alive for phone in eight) == 0


def test_calls_after_an_interrupt_find_no_old_program(
    server: AdbServer, phone: EmulatedPhone, program: Path, opens: Opens, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C in the middle of a run ends the program, too."""
    from device_farm.transport.adb.shell import ShellSession

    transport = opens(server, phone.address)
    transport.push(program, "program")
    finish = ShellSession.finish

    def interrupted(session: ShellSession, stdin: bytes | None = None) -> object:
        _until_alive(phone)
        monkeypatch.setattr(ShellSession, "finish", finish)
        raise KeyboardInterrupt

    monkeypatch.setattr(ShellSession, "finish", interrupted)
    with pytest.raises(KeyboardInterrupt):
        transport.run(["program", "heartbeat", "beats"], timeout_s=8)
    assert phone.status.alive == 0


def test_the_search_for_a_run_does_not_find_itself() -> None:
    token = "npas-client-00ff"
    script = scripts.end_run(token, 4711)
    assert token not in script and "00f[f]" in script


@pytest.mark.parametrize("argument", ["a\0b", "\0"])
def test_an_argument_with_nul_is_the_callers_error(server: AdbServer, argument: str) -> None:
    with pytest.raises(ValueError, match="cannot contain NUL"):
        AdbTransport(server, "x").run(["program", argument], timeout_s=5)


def test_impossible_options_are_the_callers_error(server: AdbServer) -> None:
    with pytest.raises(ValueError, match="threads must be at least 1, got 0"):
        AdbTransport(server, "x", threads=0)
    with pytest.raises(ValueError, match="absolute path"):
        AdbTransport(server, "x", work_dir="/data/a b")
    with pytest.raises(TransportError):
        AdbTransport(server, "x").conditions(timeout_s=0.0)


def test_what_can_wait_goes_with_the_next_script_and_in_its_order(
    server: AdbServer, phone: EmulatedPhone, program: Path, opens: Opens, tmp_path: Path
) -> None:
    transport = opens(server, phone.address, client="mine")
    for text in ("first", "second"):
        (tmp_path / "file").write_text(text)
        transport.push(tmp_path / "file", "data")
        transport.remove("data")
        transport.push(tmp_path / "file", "data")
    transport.push(program, "program")
    assert "partial" in _shell(server, phone.address, f"ls -A {_FOLDER}/mine")
    assert transport.run(["program", "exit", "0"], timeout_s=5).exit_status == 0
    assert _shell(server, phone.address, f"ls -A {_FOLDER}/mine").split() == ["data", "program"]
    assert transport.pull("data") == b"second"


def test_what_waited_is_done_when_the_phone_comes_back(
    server: AdbServer, phone: EmulatedPhone, program: Path, opens: Opens
) -> None:
    transport = opens(server, phone.address)
    transport.push(program, "program")
    phone.inject(PhoneFault.REBOOT, value=0.1)
    deadline_s = time.monotonic() + 10
    while True:
        try:
            assert transport.run(["program", "exit", "3"], timeout_s=5).exit_status == 3
            return
        except DeviceGone:
            assert time.monotonic() < deadline_s
