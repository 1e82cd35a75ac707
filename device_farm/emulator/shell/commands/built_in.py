"""What a shell does itself: variables, traps, jobs, where it is."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

from device_farm.emulator.descriptors import read_line
from device_farm.emulator.shell.commands.registry import BUILT_IN, COMMANDS, command, say
from device_farm.emulator.shell.control import LoopControl, ShellExit

if TYPE_CHECKING:
    from device_farm.emulator.shell.shell import Shell


@command(":", "true", "sync", built_in=True)
async def _true(shell: Shell, words: list[str]) -> int:
    return 0


@command("false", built_in=True)
async def _false(shell: Shell, words: list[str]) -> int:
    return 1


@command("exit", "return", built_in=True)
async def _exit(shell: Shell, words: list[str]) -> int:
    raise ShellExit(int(words[1]) & 255 if len(words) > 1 and words[1].isdigit() else shell.status)


@command("break", "continue", built_in=True)
async def _loop_control(shell: Shell, words: list[str]) -> int:
    raise LoopControl(goes_on=words[0] == "continue")


@command("cd", built_in=True)
async def _cd(shell: Shell, words: list[str]) -> int:
    target = shell.path(words[1] if len(words) > 1 else "/")
    if not shell.phone.files.is_directory(target):
        await shell.complain(f"sh: cd: {words[-1]}: No such file or directory")
        return 2
    shell.cwd = target
    return 0


@command("export", built_in=True)
async def _export(shell: Shell, words: list[str]) -> int:
    for word in words[1:]:
        name, has_value, value = word.partition("=")
        if has_value:
            await shell.assign({name: value})
        shell.exported.add(name)
    return 0


@command("unset", built_in=True)
async def _unset(shell: Shell, words: list[str]) -> int:
    for name in words[1:]:
        shell.variables.pop(name, None)
    return 0


@command("set", built_in=True)
async def _set(shell: Shell, words: list[str]) -> int:
    for position, word in enumerate(words[1:], 1):
        if word == "--":
            shell.parameters = words[position + 1 :]
            break
        if word in ("-e", "+e"):
            shell.stops_at_error = word == "-e"
    return 0


@command("shift", built_in=True)
async def _shift(shell: Shell, words: list[str]) -> int:
    del shell.parameters[:1]
    return 0


@command("umask", "ulimit", built_in=True)
async def _ignored(shell: Shell, words: list[str]) -> int:
    return 0


@command("trap", built_in=True)
async def _trap(shell: Shell, words: list[str]) -> int:
    for name in words[2:]:
        name = "EXIT" if name == "0" else name.removeprefix("SIG")
        if name.isdigit():
            name = signal.Signals(int(name)).name.removeprefix("SIG")
        if words[1] == "-":
            shell.traps.pop(name, None)
        else:
            shell.traps[name] = words[1]
    return 0


@command("wait", built_in=True)
async def _wait(shell: Shell, words: list[str]) -> int:
    if len(words) == 1:
        await asyncio.gather(*(asyncio.shield(task) for task in shell.jobs.values()))
        return 0
    status = 127
    for word in words[1:]:
        task = shell.jobs.get(int(word)) if word.isdigit() else None
        status = 127 if task is None else await asyncio.shield(task)
    return status


@command("read", built_in=True)
async def _read(shell: Shell, words: list[str]) -> int:
    names = [word for word in words[1:] if not word.startswith("-")] or ["REPLY"]
    line = await read_line(shell.descriptors[0])
    text = line.removesuffix(b"\n").replace(b"\0", b"").decode(errors="surrogateescape")
    splits = shell.variables.get("IFS") != ""
    fields = text.strip().split(maxsplit=len(names) - 1) if splits else [text]
    values = [*fields, *[""] * len(names)]
    await shell.assign(dict(zip(names, values, strict=False)))
    return int(not line.endswith(b"\n"))


@command("command", "type", built_in=True)
async def _which_built_in(shell: Shell, words: list[str]) -> int:
    if words[0] == "command" and words[1:2] not in (["-v"], ["-V"]):
        return await shell.execute(words[1:], {})
    return await _which(shell, [words[0], *[word for word in words[1:] if word not in ("-v", "-V")]])


@command("which")
async def _which(shell: Shell, words: list[str]) -> int:
    missing = 0
    for name in words[1:]:
        if name in BUILT_IN:
            await say(shell, name + "\n")
        elif name in COMMANDS:
            await say(shell, f"/system/bin/{name}\n")
        else:
            missing = 1
    return missing


@command("pwd", built_in=True)
async def _pwd(shell: Shell, words: list[str]) -> int:
    await say(shell, shell.cwd + "\n")
    return 0
