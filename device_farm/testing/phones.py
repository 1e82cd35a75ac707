"""Emulated phones for tests: a process of their own that the real adb server connects to. See docs/emulated_phones.md.

with EmulatedPhones(["emu-x86-fast", "emu-x86-slow"]) as phones:
    server.connect(phones.addresses[0])
    phones[0].inject(PhoneFault.MUTE)
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import device_farm
from device_farm.emulator.faults import PhoneFault
from device_farm.emulator.phone import PhoneStatus
from device_farm.emulator.processes import Run

_END_S = 10.0


class EmulatedPhone:
    """One of `EmulatedPhones`."""

    def __init__(self, phones: EmulatedPhones, number: int, address: str) -> None:
        self._phones = phones
        self.number = number
        self.address = address  # what `adb connect` takes, and adb's serial

    def inject(self, fault: PhoneFault, *, value: float | None = None, times: int | None = None) -> None:
        """A fault begins, or happens. `value` and `times`: see PhoneFault."""
        line = f"inject {self.number} {fault} {'-' if value is None else value}"
        self._phones.command(line if times is None else f"{line} {times}")

    def heal(self, fault: PhoneFault | None = None) -> None:
        """One fault ends, or all do."""
        self._phones.command(f"heal {self.number} {fault or ''}")

    def set(
        self,
        *,
        battery_percent: int | None = None,
        charging: bool | None = None,
        screen_on: bool | None = None,
        heat_c: float | None = None,
    ) -> None:
        """How the phone is: what `dumpsys` and /sys will say. `heat_c` is the processor's temperature, which cools."""
        if battery_percent is not None:
            self._phones.command(f"set {self.number} battery {battery_percent}")
        if charging is not None:
            self._phones.command(f"set {self.number} charging {'yes' if charging else 'no'}")
        if screen_on is not None:
            self._phones.command(f"set {self.number} screen {'on' if screen_on else 'off'}")
        if heat_c is not None:
            self._phones.command(f"set {self.number} heat {heat_c}")

    @property
    def status(self) -> PhoneStatus:
        """Model, faults, links, programs."""
        (found,) = self._phones.command(f"status {self.number}")["phones"]
        runs = tuple(Run(**run | {"arguments": tuple(run["arguments"])}) for run in found.pop("runs"))
        return PhoneStatus(**found | {"faults": tuple(found["faults"]), "runs": runs})

    @property
    def runs(self) -> tuple[Run, ...]:
        """Programs that ran or run, the last 10,000."""
        return self.status.runs


class EmulatedPhones:
    """Context manager. `clock` is "model" or "host"; a modelled second takes `pace` seconds of the host's, 0: none."""

    def __init__(self, models: Sequence[str], *, seed: int = 0, clock: str = "model", pace: float = 1.0) -> None:
        self._command = [sys.executable, "-m", "device_farm.emulator", str(len(models)), "--control"]
        self._command += ["--seed", str(seed), "--clock", clock, "--pace", str(pace)]
        for name in models:
            self._command += ["--model", name]
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._phones: list[EmulatedPhone] = []

    def __enter__(self) -> EmulatedPhones:
        root = Path(device_farm.__file__).parent.parent
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root, start_new_session=True
        )
        try:
            addresses = self._read(self._process)["addresses"]
        except BaseException:
            self.close()
            raise
        self._phones = [EmulatedPhone(self, number, address) for number, address in enumerate(addresses)]
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._phones)

    def __getitem__(self, number: int) -> EmulatedPhone:
        return self._phones[number]

    def __iter__(self) -> Iterator[EmulatedPhone]:
        return iter(self._phones)

    @property
    def addresses(self) -> list[str]:
        """HOST:PORT of each: what `adb connect` takes, and adb's serials."""
        return [phone.address for phone in self._phones]

    @property
    def pid(self) -> int:
        """Of the process that hosts them all."""
        assert self._process is not None
        return self._process.pid

    def command(self, line: str) -> dict[str, Any]:
        """See device_farm/emulator/control.py. Raises ValueError if it is none, RuntimeError if the host has ended."""
        with self._lock:
            if self._process is None or self._process.stdin is None:
                raise RuntimeError("the emulated phones are not running")
            try:
                self._process.stdin.write(line + "\n")
                self._process.stdin.flush()
            except BrokenPipeError as error:
                raise RuntimeError("the emulated phones have ended") from error
            answer = self._read(self._process)
        if not answer["ok"]:
            raise ValueError(answer["error"])
        return answer

    def kill(self) -> None:
        """kill -9 of the process that hosts them: what is left must end by itself."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def close(self) -> None:
        """Ends phones and programs. May be called twice."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None and process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        try:
            process.wait(_END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()

    @staticmethod
    def _read(process: subprocess.Popen[str]) -> dict[str, Any]:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise RuntimeError("the emulated phones have ended")
        answer: dict[str, Any] = json.loads(line)
        return answer
