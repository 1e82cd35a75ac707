"""The real adb, as adbutils bundles it: a server of its own on a free port, and its command-line client."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import adbutils

_START_S = 10.0
_ADB = Path(adbutils.__file__).parent / "binaries" / "adb"


@dataclass(frozen=True)
class Adb:
    """The client. Commands that take longer than `timeout_s` raise subprocess.TimeoutExpired."""

    environment: dict[str, str]

    def __call__(
        self, *arguments: str, serial: str | None = None, stdin: bytes = b"", timeout_s: float = 10.0
    ) -> subprocess.CompletedProcess[bytes]:
        chosen = () if serial is None else ("-s", serial)
        return subprocess.run(
            [_ADB, *chosen, *arguments], env=self.environment, input=stdin, capture_output=True, timeout=timeout_s
        )

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
            env=self.environment,
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


@contextlib.contextmanager
def private_adb(home: Path) -> Iterator[Adb]:
    """A server whose keys and log are in `home`; it ends with the block. RuntimeError if it does not start."""
    port = _free_port()
    environment = {
        "HOME": str(home),
        "PATH": os.environ["PATH"],
        "ADB_LIBUSB": "0",  # else it takes seconds to look for a bus
        "ANDROID_ADB_SERVER_PORT": str(port),
    }
    with (home / "log").open("wb") as log:
        server = subprocess.Popen(
            [_ADB, "-L", f"tcp:localhost:{port}", "server", "nodaemon"], env=environment, stdout=log, stderr=log
        )
    try:
        until = time.monotonic() + _START_S
        while not _answers(port):
            if time.monotonic() > until or server.poll() is not None:
                raise RuntimeError(f"adb's server does not start: {(home / 'log').read_text()[-2000:]}")
            time.sleep(0.02)
        yield Adb(environment)
    finally:
        server.terminate()
        server.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
