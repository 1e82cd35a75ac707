"""The command-line client of adb, as adbutils bundles it: what people type, and what answers they get."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import adbutils

_ADB = Path(adbutils.__file__).parent / "binaries" / "adb"


@dataclass(frozen=True)
class Adb:
    """The client of the server at `port`. A command that takes longer raises subprocess.TimeoutExpired."""

    port: int
    home: Path  # of its keys

    def __call__(
        self, *arguments: str, serial: str | None = None, stdin: bytes = b"", timeout_s: float = 10.0
    ) -> subprocess.CompletedProcess[bytes]:
        chosen = () if serial is None else ("-s", serial)
        return subprocess.run(
            [_ADB, *chosen, *arguments], env=self._environment, input=stdin, capture_output=True, timeout=timeout_s
        )

    @property
    def _environment(self) -> dict[str, str]:
        return {"HOME": str(self.home), "PATH": os.environ["PATH"], "ANDROID_ADB_SERVER_PORT": str(self.port)}

    def shell(self, serial: str, script: str, *, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return self("shell", script, serial=serial, stdin=stdin)

    def connect(self, address: str) -> None:
        """Raises RuntimeError if the phone does not answer as a device."""
        self("disconnect", address)  # an earlier phone had the same port, perhaps
        done = self("connect", address)
        if not done.stdout.startswith(b"connected to"):
            raise RuntimeError(f"adb connect {address}: {done.stdout.decode()}")

    def text(self, serial: str, script: str) -> str:
        """What a script that ends well prints."""
        done = self.shell(serial, script)
        if done.returncode != 0:
            raise RuntimeError(f"{script!r} ended with {done.returncode}: {done.stderr.decode()}")
        return done.stdout.decode()

    def start(self, *arguments: str, serial: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [_ADB, "-s", serial, *arguments],
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def state(self, serial: str) -> str | None:
        """What `adb devices` says of it; None if it does not know it."""
        lines = [line.split("\t") for line in self("devices").stdout.decode().splitlines()]
        return next((line[1] for line in lines if line[0] == serial), None)

    def wait_for(self, serial: str, states: Sequence[str | None], *, timeout_s: float = 15.0) -> str | None:
        until = time.monotonic() + timeout_s
        while (state := self.state(serial)) not in states:
            if time.monotonic() > until:
                raise TimeoutError(f"{serial} is {state!r}, not one of {states}, after {timeout_s:g} s")
            time.sleep(0.05)
        return state
