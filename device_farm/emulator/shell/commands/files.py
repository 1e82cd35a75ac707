"""Commands that look at files, or change them."""

from __future__ import annotations

import os
import posixpath
import re
import shutil
import stat
import time
from typing import TYPE_CHECKING

from device_farm.emulator.descriptors import read_some
from device_farm.emulator.shell.commands.registry import command, options, say

if TYPE_CHECKING:
    from device_farm.emulator.shell.shell import Shell


@command("cat")
async def _cat(shell: Shell, words: list[str]) -> int:
    _, operands = options(words, "u")
    status = 0
    if not operands:
        while piece := await read_some(shell.descriptors[0]):
            await say(shell, piece)
        return 0
    for operand in operands:
        try:
            content = shell.phone.files.read(shell.path(operand))
        except OSError as error:
            await shell.complain(f"cat: {operand}: {error.strerror}")
            status = 1
        else:
            await say(shell, content)
    return status


@command("ls")
async def _ls(shell: Shell, words: list[str]) -> int:
    letters, operands = options(words, "la1dAR")
    status = 0
    for operand in operands or ["."]:
        path = shell.path(operand)
        try:
            found = shell.phone.files.status(path)
            if stat.S_ISDIR(found.mode) and "d" not in letters:
                names = [
                    name for name in shell.phone.files.names(path) if letters & {"a", "A"} or not name.startswith(".")
                ]
                lines = [_listed(shell, posixpath.join(path, name), name, letters) for name in names]
                if len(operands) > 1:
                    lines.insert(0, f"{operand}:\n")
            else:
                lines = [_listed(shell, path, operand, letters)]
        except OSError as error:
            await shell.complain(f"ls: {operand}: {error.strerror}")
            status = 1
        else:
            await say(shell, "".join(lines))
    return status


def _listed(shell: Shell, path: str, name: str, letters: set[str]) -> str:
    if "l" not in letters:
        return name + "\n"
    found = shell.phone.files.status(path)
    at = time.strftime("%Y-%m-%d %H:%M", time.gmtime(found.modified_s))
    return f"{stat.filemode(found.mode)} 1 shell shell {found.size} {at} {name}\n"


@command("mkdir")
async def _mkdir(shell: Shell, words: list[str]) -> int:
    letters, operands = options(words, "p")
    for operand in operands:
        path = shell.path(operand)
        if "p" in letters and shell.phone.files.is_directory(path):
            continue
        shell.phone.files.check_space(operand)
        try:
            host = shell.phone.files.writable(path)
            host.mkdir(parents="p" in letters, exist_ok="p" in letters)
        except OSError as error:
            await shell.complain(f"mkdir: '{operand}': {error.strerror}")
            return 1
    return 0


@command("rm", "rmdir")
async def _rm(shell: Shell, words: list[str]) -> int:
    letters, operands = options(words, "rRf")
    status = 0
    for operand in operands:
        try:
            host = shell.phone.files.writable(shell.path(operand))
            if words[0] == "rmdir":
                host.rmdir()
            elif host.is_dir() and not host.is_symlink():
                if not letters & {"r", "R"}:
                    raise IsADirectoryError(21, "is a directory")
                shutil.rmtree(host)
            else:
                host.unlink()
        except FileNotFoundError as error:
            if "f" not in letters:
                await shell.complain(f"{words[0]}: {operand}: {error.strerror}")
                status = 1
        except OSError as error:
            await shell.complain(f"{words[0]}: {operand}: {error.strerror}")
            status = 1
    return status


@command("mv", "cp")
async def _mv(shell: Shell, words: list[str]) -> int:
    _, operands = options(words, "fnTprRa")
    if len(operands) < 2:
        raise ValueError("Need 2 arguments")
    files = shell.phone.files
    for operand in operands[:-1]:
        target = shell.path(operands[-1])
        if files.is_directory(target):
            target = posixpath.join(target, posixpath.basename(operand))
        try:
            if words[0] == "mv":
                os.replace(files.writable(shell.path(operand)), files.writable(target))
                continue
            files.check_space(operand)
            content, mode = files.read(shell.path(operand)), files.status(shell.path(operand)).mode
            host = files.writable(target)
            host.write_bytes(content)
            host.chmod(stat.S_IMODE(mode))
        except OSError as error:
            await shell.complain(f"{words[0]}: bad '{operand}': {error.strerror}")
            return 1
    return 0


@command("chmod")
async def _chmod(shell: Shell, words: list[str]) -> int:
    operands = [word for word in words[1:] if word not in ("-R", "-f", "--")]
    for operand in operands[1:]:
        host = shell.phone.files.writable(shell.path(operand))
        try:
            host.chmod(_mode(operands[0], stat.S_IMODE(host.stat().st_mode)))
        except OSError as error:
            await shell.complain(f"chmod: '{operand}': {error.strerror}")
            return 1
    return 0


def _mode(text: str, before: int) -> int:
    if re.fullmatch("[0-7]{3,4}", text):
        return int(text, 8) & 0o777
    match = re.fullmatch("([ugoa]*)([-+=])([rwx]*)", text)
    if match is None:
        raise ValueError(f"bad mode '{text}'")
    who = {"u": 0o700, "g": 0o070, "o": 0o007}
    mask = sum(who[letter] for letter in "ugo") if not match[1] or "a" in match[1] else sum(who[c] for c in match[1])
    bits = mask & sum({"r": 0o444, "w": 0o222, "x": 0o111}[c] for c in set(match[3]))
    return {"+": before | bits, "-": before & ~bits, "=": before & ~mask | bits}[match[2]]


@command("touch")
async def _touch(shell: Shell, words: list[str]) -> int:
    for operand in words[1:]:
        shell.phone.files.check_space(operand)
        shell.phone.files.writable(shell.path(operand)).touch()
    return 0


@command("stat")
async def _stat(shell: Shell, words: list[str]) -> int:
    layout, operands = None, words[1:]
    if operands[:1] == ["-c"]:
        layout, operands = operands[1], operands[2:]
    for operand in operands:
        try:
            found = shell.phone.files.status(shell.path(operand))
        except OSError as error:
            await shell.complain(f"stat: '{operand}': {error.strerror}")
            return 1
        fields = {
            "s": str(found.size),
            "a": f"{stat.S_IMODE(found.mode):o}",
            "A": stat.filemode(found.mode),
            "n": operand,
            "Y": str(found.modified_s),
        }
        text = layout or "  File: %n\n  Size: %s\tMode: %a %A"
        for letter, value in fields.items():
            text = text.replace(f"%{letter}", value)
        await say(shell, text + "\n")
    return 0


@command("readlink", "realpath")
async def _realpath(shell: Shell, words: list[str]) -> int:
    _, operands = options(words, "fe")
    for operand in operands:
        await say(shell, shell.path(operand) + "\n")
    return 0


@command("basename", "dirname")
async def _name_of(shell: Shell, words: list[str]) -> int:
    function = posixpath.basename if words[0] == "basename" else posixpath.dirname
    await say(shell, (function(words[1].rstrip("/") or "/") or ".") + "\n")
    return 0


@command("df")
async def _df(shell: Shell, words: list[str]) -> int:
    total, free = (count // 1024 for count in shell.phone.files.space())
    used = total - free
    line = f"/dev/block/dm-46 {total:>11} {used:>11} {free:>11} {100 * used // total:>3}% /data\n"
    await say(shell, "Filesystem         1K-blocks        Used   Available Use% Mounted on\n" + line)
    return 0


@command("du")
async def _du(shell: Shell, words: list[str]) -> int:
    _, operands = options(words, "skh")
    for operand in operands:
        host = shell.phone.files.host(shell.path(operand))
        size = sum(path.lstat().st_size for path in host.rglob("*")) if host.is_dir() else host.stat().st_size
        await say(shell, f"{-(-size // 1024)}\t{operand}\n")
    return 0
