"""The tables of commands, and what commands share."""

from __future__ import annotations

import os
import stat
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from device_farm.emulator.descriptors import read_some, write_all

if TYPE_CHECKING:
    from device_farm.emulator.shell.shell import Shell

CommandFunction = Callable[["Shell", list[str]], Awaitable[int]]
MAX_READ_BYTES = 16 << 20

BUILT_IN: dict[str, CommandFunction] = {}
COMMANDS: dict[str, CommandFunction] = {}


def command(*names: str, built_in: bool = False) -> Callable[[CommandFunction], CommandFunction]:
    def register(function: CommandFunction) -> CommandFunction:
        for name in names:
            (BUILT_IN if built_in else COMMANDS)[name] = function
        return function

    return register


async def say(shell: Shell, text: str | bytes) -> None:
    """To stdout. Raises BrokenPipeError where nobody reads, OSError (ENOSPC) into a file of a full phone."""
    data = text.encode(errors="surrogateescape") if isinstance(text, str) else text
    if shell.phone.files.full and stat.S_ISREG(os.fstat(shell.descriptors[1]).st_mode):
        shell.phone.files.check_space("write error")
    await write_all(shell.descriptors[1], data)


def options(words: list[str], known: str) -> tuple[set[str], list[str]]:
    """Letters and operands. Raises ValueError at a letter that is not emulated."""
    letters: set[str] = set()
    operands = []
    rest = iter(words[1:])
    for word in rest:
        if word == "--":
            operands += list(rest)
        elif word.startswith("-") and len(word) > 1:
            letters |= set(word[1:])
        else:
            operands.append(word)
    if unknown := letters - set(known):
        raise ValueError(f"Unknown option {''.join(sorted(unknown))}")
    return letters, operands


async def whole_input(shell: Shell, operands: list[str]) -> bytes:
    """The named files, or stdin, together."""
    if operands and operands != ["-"]:
        return b"".join([shell.phone.files.read(shell.path(operand)) for operand in operands])
    collected = bytearray()
    while piece := await read_some(shell.descriptors[0]):
        collected += piece
        if len(collected) > MAX_READ_BYTES:
            raise ValueError("out of memory")
    return bytes(collected)
