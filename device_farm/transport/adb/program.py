"""The adb program, and what a server of it is started with."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import adbutils


def adb_path() -> str:
    """The adb program: that of the PATH, else the one in adbutils."""
    return str(adbutils.adb_path())


def environment(home: Path | None) -> dict[str, str]:
    """Of a server: the user's own, or apart from it with a key in `home`."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("ANDROID_ADB_SERVER")}
    if home is not None:  # starts in 0.1 s, and meddles neither with the network nor with emulators of other people
        variables |= {"HOME": str(home), "TMPDIR": str(home), "ADB_LIBUSB": "0"}
        variables |= {"ADB_MDNS": "0", "ADB_LOCAL_TRANSPORT_MAX_PORT": "5553"}
    return variables


def free_port() -> int:
    """A port of loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
