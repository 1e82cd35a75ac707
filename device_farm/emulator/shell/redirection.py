"""Where the descriptors of a command lead, and back."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from device_farm.emulator.shell import tree

if TYPE_CHECKING:
    from device_farm.emulator.shell.shell import Shell

_PIPE_BYTES = 60_000  # that a pipe holds without anybody reading


class Redirector:
    """Of one shell, whose descriptors it changes."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell

    async def apply(self, redirections: Sequence[tree.Redirection]) -> dict[int, int | None]:
        """What the descriptors were before. Raises OSError, and then nothing is changed."""
        saved: dict[int, int | None] = {}
        try:
            for redirection in redirections:
                opened = await self._open(redirection)
                if redirection.descriptor not in saved:
                    saved[redirection.descriptor] = self._shell.descriptors.get(redirection.descriptor)
                else:
                    os.close(self._shell.descriptors[redirection.descriptor])
                self._shell.descriptors[redirection.descriptor] = opened
        except BaseException:
            self.restore(saved)
            raise
        return saved

    async def _open(self, redirection: tree.Redirection) -> int:
        target = await self._shell.expander.text(redirection.target)
        if redirection.operator in (">&", "<&"):
            if not target.isdigit() or int(target) not in self._shell.descriptors:
                raise OSError(errno.EBADF, "bad file descriptor", target)
            return os.dup(self._shell.descriptors[int(target)])
        path = self._shell.path(target)
        if path == "/dev/null":
            return os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        if redirection.operator == "<":
            if self._shell.phone.files.is_virtual(path):
                reader, writer = os.pipe2(os.O_CLOEXEC)
                os.write(writer, self._shell.phone.files.read(path)[:_PIPE_BYTES])
                os.close(writer)
                return reader
            return _with_name(target, lambda: os.open(self._shell.phone.files.host(path), os.O_RDONLY | os.O_CLOEXEC))
        self._shell.phone.files.check_space(target)
        how = os.O_APPEND if redirection.operator == ">>" else os.O_TRUNC
        flags = os.O_WRONLY | os.O_CREAT | how | os.O_CLOEXEC | os.O_NONBLOCK
        return _with_name(target, lambda: os.open(self._shell.phone.files.writable(path), flags, 0o644))

    def restore(self, saved: dict[int, int | None]) -> None:
        for number, before in saved.items():
            if number in self._shell.descriptors:
                os.close(self._shell.descriptors.pop(number))
            if before is not None:
                self._shell.descriptors[number] = before


def _with_name(name: str, opens: Callable[[], int]) -> int:
    """The phone's name of a file in the error, not the host's."""
    try:
        return opens()
    except OSError as error:
        raise OSError(error.errno, os.strerror(error.errno or 5), name) from None
