"""`test` and `[`."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from device_farm.emulator.shell.commands.registry import command

if TYPE_CHECKING:
    from device_farm.emulator.shell.shell import Shell


@command("test", "[", built_in=True)
async def _test(shell: Shell, words: list[str]) -> int:
    operands = words[1:]
    if words[0] == "[":
        if operands[-1:] != ["]"]:
            await shell.complain("sh: [: missing ]")
            return 2
        operands = operands[:-1]
    return int(not _holds(shell, operands))


def _holds(shell: Shell, operands: list[str]) -> bool:
    for joiner, combine in (("-o", any), ("-a", all)):
        if joiner in operands[1:-1] and len(operands) > 3:
            at = operands.index(joiner, 1)
            return combine((_holds(shell, operands[:at]), _holds(shell, operands[at + 1 :])))
    if operands[:1] == ["!"]:
        return not _holds(shell, operands[1:])
    if len(operands) < 2:
        return bool(operands and operands[0])
    if len(operands) == 2:
        return _is(shell, operands[0], operands[1])
    left, operator, right = operands[:3]
    if operator in ("=", "==", "!="):
        return (left == right) is (operator != "!=")
    a, b = int(left), int(right)
    return {"-eq": a == b, "-ne": a != b, "-lt": a < b, "-le": a <= b, "-gt": a > b, "-ge": a >= b}[operator]


def _is(shell: Shell, operator: str, operand: str) -> bool:
    if operator in ("-z", "-n"):
        return bool(operand) is (operator == "-n")
    try:
        status = shell.phone.files.status(shell.path(operand))
    except OSError:
        return False
    return {
        "-e": True,
        "-f": stat.S_ISREG(status.mode),
        "-d": stat.S_ISDIR(status.mode),
        "-s": status.size > 0,
        "-r": True,
        "-w": shell.path(operand).startswith(("/data/local/tmp", "/sdcard")),
        "-x": bool(status.mode & 0o111),
        "-L": stat.S_ISLNK(status.mode),
    }[operator]
