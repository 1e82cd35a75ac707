"""What every transport must do, as tests. A back-end subclasses the suite in its own tests:

    class TestMyTransport(TransportConformance):
        @pytest.fixture
        def transport(self) -> Iterator[Transport]:
            yield MyTransport(...)

The suite runs device_program.c, built by zig for the target that the transport's facts name.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from device_farm.compiler.target import TARGETS
from device_farm.errors import DeadlineExceeded, DeviceGone, Refused
from device_farm.testing.build import build_device_program
from device_farm.transport.base import Completed, Transport

_PROGRAM = "device_program"
_built: dict[str, Path] = {}


class TransportConformance:
    """Override `transport`: a fresh one, to an empty directory of a device that works."""

    call_s = 10.0  # ample for any small call; a slow device may raise it
    slack_s = 2.0  # how much later than its deadline a call may return

    @pytest.fixture
    def transport(self) -> Iterator[Transport]:
        raise NotImplementedError("the subclass provides the transport")

    @pytest.fixture
    def device(self, transport: Transport, tmp_path_factory: pytest.TempPathFactory) -> Transport:
        """The transport, with the program pushed."""
        triple = TARGETS[transport.facts(timeout_s=self.call_s).target].triple
        if triple not in _built:
            _built[triple] = build_device_program(tmp_path_factory.mktemp("device_program"), triple=triple)
        transport.push(_built[triple], _PROGRAM, timeout_s=self.call_s)
        return transport

    def _run(self, device: Transport, *arguments: str, stdin: bytes | None = None) -> Completed:
        return device.run([_PROGRAM, *arguments], stdin=stdin, timeout_s=self.call_s)

    def _is_silent(self, device: Transport, name: str) -> bool:
        """Whether nobody writes to the file any more."""
        time.sleep(0.1)
        before = device.pull(name, timeout_s=self.call_s)
        time.sleep(0.3)
        return before == device.pull(name, timeout_s=self.call_s)

    def test_facts_name_the_device_and_do_not_change(self, transport: Transport) -> None:
        facts = transport.facts(timeout_s=self.call_s)
        assert facts.serial and facts.model and facts.target in TARGETS
        assert transport.facts(timeout_s=self.call_s) == facts

    def test_conditions_are_possible_values(self, transport: Transport) -> None:
        conditions = transport.conditions(timeout_s=self.call_s)
        assert all(cpu >= 0 and khz > 0 for cpu, khz in conditions.cpu_khz.items())
        assert all(-60 < celsius < 150 for celsius in conditions.temperature_c.values())
        assert conditions.battery_level is None or 0 <= conditions.battery_level <= 1
        assert conditions.thermal_status is None or 0 <= conditions.thermal_status <= 6

    @pytest.mark.parametrize("size", [0, 1, 3 * 1024 * 1024 + 7])
    def test_files_come_back_as_they_were(self, transport: Transport, tmp_path: Path, size: int) -> None:
        content = bytes(i * 31 % 256 for i in range(997)) * (size // 997 + 1)
        (tmp_path / "file").write_bytes(content[:size])
        transport.push(tmp_path / "file", "data.bin", timeout_s=self.call_s)
        assert transport.pull("data.bin", timeout_s=self.call_s) == content[:size]

    def test_a_second_push_replaces_the_first(self, transport: Transport, tmp_path: Path) -> None:
        for content in (b"long content", b"short"):
            (tmp_path / "file").write_bytes(content)
            transport.push(tmp_path / "file", "data", timeout_s=self.call_s)
        assert transport.pull("data", timeout_s=self.call_s) == b"short"

    def test_a_missing_local_file_is_the_callers_error(self, transport: Transport, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            transport.push(tmp_path / "missing", "data", timeout_s=self.call_s)
        with pytest.raises(Refused):
            transport.pull("data", timeout_s=self.call_s)

    def test_what_is_not_there_cannot_be_pulled_or_run(self, transport: Transport) -> None:
        with pytest.raises(Refused, match="missing"):
            transport.pull("missing", timeout_s=self.call_s)
        with pytest.raises(Refused, match="missing"):
            transport.run(["missing"], timeout_s=self.call_s)

    def test_a_file_that_is_no_program_is_refused(self, transport: Transport, tmp_path: Path) -> None:
        (tmp_path / "text").write_text("not a program")
        transport.push(tmp_path / "text", "text", timeout_s=self.call_s)
        with pytest.raises(Refused, match="text"):
            transport.run(["text"], timeout_s=self.call_s)

    def test_removed_files_are_gone_and_may_be_removed_again(self, transport: Transport, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"x")
        transport.push(tmp_path / "file", "data", timeout_s=self.call_s)
        for _ in range(2):
            transport.remove("data", timeout_s=self.call_s)
        with pytest.raises(Refused):
            transport.pull("data", timeout_s=self.call_s)

    @pytest.mark.parametrize("name", ["", ".", "..", "../up", "/etc/passwd", "a b", "a;b", "$HOME", "-rf", "a\n", "ä"])
    def test_impossible_names_are_the_callers_error(self, transport: Transport, tmp_path: Path, name: str) -> None:
        (tmp_path / "file").write_bytes(b"x")
        with pytest.raises(ValueError, match="named by letters"):
            transport.push(tmp_path / "file", name, timeout_s=self.call_s)
        with pytest.raises(ValueError, match="named by letters"):
            transport.pull(name, timeout_s=self.call_s)
        with pytest.raises(ValueError, match="named by letters"):
            transport.run([name], timeout_s=self.call_s)
        with pytest.raises(ValueError, match="named by letters"):
            transport.remove(name, timeout_s=self.call_s)

    @pytest.mark.parametrize("status", [0, 1, 42, 255])
    def test_exit_statuses(self, device: Transport, status: int) -> None:
        assert self._run(device, "exit", str(status)).exit_status == status

    def test_a_look_at_the_end_of_a_run_changes_nothing_of_it(self, device: Transport) -> None:
        completed, conditions = device.run_and_look([_PROGRAM, "exit", "42"], timeout_s=self.call_s)
        assert completed == self._run(device, "exit", "42")
        assert all(khz > 0 for khz in conditions.cpu_khz.values())
        with pytest.raises(Refused, match="missing"):
            device.run_and_look(["missing"], timeout_s=self.call_s)

    def test_what_was_pushed_is_held_and_what_was_removed_is_not(self, device: Transport) -> None:
        assert device.holds(_PROGRAM) is not False
        device.remove(_PROGRAM, timeout_s=self.call_s)
        assert device.holds(_PROGRAM) is not True

    def test_a_signal_is_an_exit_status_above_128(self, device: Transport) -> None:
        assert self._run(device, "signal", "9").exit_status == 137

    def test_stdout_and_stderr_are_kept_apart(self, device: Transport) -> None:
        assert self._run(device, "both") == Completed(0, b"to stdout", b"to stderr")

    def test_output_is_binary_and_complete(self, device: Transport) -> None:
        assert self._run(device, "bytes", "1000000").stdout == (bytes(range(256)) * 3907)[:1000000]

    def test_arguments_arrive_untouched(self, device: Transport) -> None:
        arguments = ["a b", "", "$HOME", "`id`", "'", '"', ";exit 3", "*", "a\nb", "\\", "--", "ä"]
        expected = b"".join(argument.encode() + b"\0" for argument in arguments)
        assert self._run(device, "arguments", *arguments).stdout == expected

    def test_stdin_arrives_and_ends(self, device: Transport) -> None:
        content = bytes(range(256)) * 4096
        assert self._run(device, "cat", stdin=content).stdout == content
        assert self._run(device, "cat", stdin=b"").stdout == b""

    def test_a_program_need_not_read_its_stdin(self, device: Transport) -> None:
        assert self._run(device, "exit", "4", stdin=bytes(1 << 20)).exit_status == 4

    def test_without_stdin_it_stays_open(self, device: Transport) -> None:
        assert self._run(device, "stdin-is-open", "300").exit_status == 0

    def test_programs_work_in_the_devices_directory(self, device: Transport) -> None:
        assert self._run(device, "write", "made.txt").exit_status == 0
        assert device.pull("made.txt", timeout_s=self.call_s) == b"written on the device"

    def test_a_program_that_runs_too_long_is_ended(self, device: Transport) -> None:
        begin = time.monotonic()
        with pytest.raises(DeadlineExceeded, match=_PROGRAM):
            device.run([_PROGRAM, "heartbeat", "beats"], timeout_s=0.5)
        assert 0.4 <= time.monotonic() - begin < 0.5 + self.slack_s
        assert self._is_silent(device, "beats")

    def test_children_do_not_survive_the_call(self, device: Transport) -> None:
        assert self._run(device, "orphan", "beats").exit_status == 0
        assert self._is_silent(device, "beats")

    def test_endless_output_is_cut(self, device: Transport) -> None:
        begin = time.monotonic()
        with pytest.raises(Refused, match="100000 bytes"):
            device.run([_PROGRAM, "endless"], timeout_s=self.call_s, max_output_bytes=100_000)
        assert time.monotonic() - begin < self.slack_s

    def test_no_time_is_a_deadline_that_has_passed(self, device: Transport, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"x")
        with pytest.raises(DeadlineExceeded):
            device.run([_PROGRAM, "exit", "0"], timeout_s=0.0)
        with pytest.raises(DeadlineExceeded):
            device.push(tmp_path / "file", "data", timeout_s=0.0)
        with pytest.raises(DeadlineExceeded):
            device.pull(_PROGRAM, timeout_s=0.0)

    def test_it_works_on_after_errors(self, device: Transport) -> None:
        with pytest.raises(DeadlineExceeded):
            device.run([_PROGRAM, "heartbeat", "beats"], timeout_s=0.2)
        with pytest.raises(Refused):
            device.pull("missing", timeout_s=self.call_s)
        assert self._run(device, "exit", "7").exit_status == 7

    def test_a_closed_transport_is_a_device_gone(self, device: Transport, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"x")
        device.close()
        device.close()
        with pytest.raises(DeviceGone):
            device.facts(timeout_s=self.call_s)
        with pytest.raises(DeviceGone):
            device.conditions(timeout_s=self.call_s)
        with pytest.raises(DeviceGone):
            self._run(device, "exit", "0")
        with pytest.raises(DeviceGone):
            device.push(tmp_path / "file", "data", timeout_s=self.call_s)
        with pytest.raises(DeviceGone):
            device.pull(_PROGRAM, timeout_s=self.call_s)
        with pytest.raises(DeviceGone):
            device.remove(_PROGRAM, timeout_s=self.call_s)
