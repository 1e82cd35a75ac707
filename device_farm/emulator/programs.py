"""What was pushed to a phone: native executables, those of other processors under qemu-user, scripts."""

from __future__ import annotations

import os
import platform
import shutil
import stat
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from device_farm.emulator.files import WRITABLE

if TYPE_CHECKING:
    from device_farm.emulator.shell.shell import Shell

_MACHINES = {62: "x86_64", 183: "aarch64"}
NOT_FOUND, NOT_EXECUTABLE = 127, 126


@dataclass(frozen=True)
class Executable:
    """How the host runs a file: what goes before it, and the name of its processor."""

    host_path: Path
    machine: str
    before: tuple[str, ...] = ()


class CannotRun(Exception):
    """With the exit status that a shell gives."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def find_executable(shell: Shell, name: str) -> Executable | None:
    """None for a text, which a shell reads itself. Raises CannotRun."""
    files = shell.phone.files
    path = shell.path(name)
    try:
        found = files.status(path)
        if files.is_virtual(path) or stat.S_ISDIR(found.mode) or not found.mode & 0o111:
            raise CannotRun(f"{name}: can't execute: Permission denied", NOT_EXECUTABLE)
        host = files.host(path)
        with host.open("rb") as file:
            head = file.read(20)
    except OSError as error:
        raise CannotRun(f"{name}: inaccessible or not found", NOT_FOUND) from error
    if not head.startswith(b"\x7fELF"):
        if b"\0" in head:
            raise CannotRun(f"{name}: not executable: magic {head[:2].hex().upper()}", NOT_EXECUTABLE)
        return None
    machine = _MACHINES.get(struct.unpack_from("<H", head.ljust(20, b"\0"), 18)[0], "unknown")
    if machine != shell.phone.model.machine:
        raise CannotRun(f"{name}: not executable: 64-bit ELF file", NOT_EXECUTABLE)
    return Executable(host, machine, _before(name, machine))


def _before(name: str, machine: str) -> tuple[str, ...]:
    if machine == platform.machine():
        return ()
    emulator = shutil.which(f"qemu-{machine}") or shutil.which(f"qemu-{machine}-static")
    if emulator is None:
        raise CannotRun(f"{name}: this host runs no {machine} programs: install qemu-user", NOT_EXECUTABLE)
    return (emulator,)


def host_argument(shell: Shell, argument: str) -> str:
    """A path of the phone where the program will find it, everything else untouched."""
    if any(argument.startswith(place + "/") for place in WRITABLE):
        return os.fspath(shell.phone.files.host(shell.path(argument)))
    return argument
