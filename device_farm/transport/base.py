"""The way to a device, whatever it is: six verbs, one deadline each, three errors.

Every call has one total deadline, `timeout_s`, and raises exactly

    DeviceGone         the device or its link vanished, or the transport is closed
    DeadlineExceeded   the deadline has passed; what the call started is ended
    Refused            the device answered, and said no: no such file, disk full, not executable, endless output

beside ValueError for what no device could do (an impossible name). A new transport shows that it keeps this contract by
passing `device_farm.testing.transport_conformance`.
"""

from __future__ import annotations

import re
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from device_farm.errors import DeadlineExceeded
from device_farm.measurement.types import DeviceConditions, DeviceFacts

MAX_OUTPUT_BYTES = 32 * 1024 * 1024

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}")


@dataclass(frozen=True)
class Completed:
    """A program that has ended. `exit_status` is 128 + n after signal n, as a shell says it."""

    exit_status: int
    stdout: bytes
    stderr: bytes


class Transport(ABC):
    """One device. Names are files in a directory of its own on the device, never paths and never shell text."""

    @abstractmethod
    def facts(self, *, timeout_s: float = 10.0) -> DeviceFacts:
        """What is known of the device. Equal on every call while the device is the same."""

    @abstractmethod
    def conditions(self, *, timeout_s: float = 10.0) -> DeviceConditions:
        """How the device is now: clocks, temperatures, battery, screen. What it does not tell is left out."""

    @abstractmethod
    def push(self, local: Path, remote_name: str, *, timeout_s: float = 30.0) -> None:
        """Copies a file and its executable bit. All or nothing: a half-written file never gets the name.

        Raises OSError, too, if the local file cannot be read.
        """

    @abstractmethod
    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes | None = None,
        timeout_s: float,
        max_output_bytes: int = MAX_OUTPUT_BYTES,
    ) -> Completed:
        """Runs a pushed program, `argv[0]`, in the device's directory; the other arguments reach it untouched.

        With `stdin=None` the program's stdin stays open and silent until the call ends or the link is lost, so a
        program that must not outlive the link ends when its stdin does. Bytes are written and then stdin is closed.
        Refused if stdout and stderr together exceed `max_output_bytes`. Nothing of it survives the call.
        """

    def run_and_look(
        self,
        argv: Sequence[str],
        *,
        timeout_s: float,
        max_output_bytes: int = MAX_OUTPUT_BYTES,
    ) -> tuple[Completed, DeviceConditions]:
        """`run`, and `conditions` when it has ended, within one deadline: one call where a call costs time."""
        deadline = Deadline(timeout_s, f"run of {argv[0]}")
        completed = self.run(argv, timeout_s=timeout_s, max_output_bytes=max_output_bytes)
        deadline.check()
        return completed, self.conditions(timeout_s=deadline.remaining_s)

    def holds(self, remote_name: str) -> bool | None:
        """Whether a file is there, as far as is known without asking; None: nothing is known. It may be out of date."""
        return None

    @property
    def boot_id(self) -> str:
        """Another one after every restart of the device, as last seen; "" where that is not known."""
        return ""

    def is_linked(self, *, timeout_s: float = 2.0) -> bool:
        """Whether the way to the device is there, as far as can be told without asking the device. Raises nothing."""
        return True

    @abstractmethod
    def pull(self, remote_name: str, *, timeout_s: float = 30.0) -> bytes:
        """Content of a file that was pushed, or that a program wrote into its directory."""

    @abstractmethod
    def remove(self, remote_name: str, *, timeout_s: float = 10.0) -> None:
        """Deletes a file, at the latest with the next call. It is no error if there is none."""

    @abstractmethod
    def close(self) -> None:
        """Ends the link; later calls raise DeviceGone. May be called twice, never raises."""


def check_name(remote_name: str) -> str:
    """The name itself if a device may be asked for it. Raises ValueError."""
    if _NAME.fullmatch(remote_name) is None:
        raise ValueError(
            f"a file on a device is named by letters, digits, '.', '_' and '-' (at most 200, not beginning with"
            f" '.' or '-'), got {remote_name!r}"
        )
    return remote_name


class Deadline:
    """The moment at which a call has taken too long."""

    def __init__(self, timeout_s: float, what: str) -> None:
        self.timeout_s = timeout_s
        self.what = what
        self._end = time.monotonic() + timeout_s
        self.check()

    @property
    def remaining_s(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self._end - time.monotonic())

    def check(self) -> None:
        """Raises DeadlineExceeded when nothing is left."""
        if self.remaining_s <= 0.0:
            raise DeadlineExceeded(f"{self.what}: not done within {self.timeout_s:g} s")
