"""Commands that tell what the phone is and how it is."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from device_farm.emulator.shell.commands.registry import command, options, say

if TYPE_CHECKING:
    from device_farm.emulator.shell.shell import Shell


@command("id")
async def _id(shell: Shell, words: list[str]) -> int:
    if words[1:] == ["-u"]:
        await say(shell, "2000\n")
    else:
        await say(shell, "uid=2000(shell) gid=2000(shell) groups=2000(shell),1004(input),3003(inet)\n")
    return 0


@command("whoami")
async def _whoami(shell: Shell, words: list[str]) -> int:
    await say(shell, "shell\n")
    return 0


@command("uname")
async def _uname(shell: Shell, words: list[str]) -> int:
    letters, _ = options(words, "asrmnvo")
    fields = shell.phone.uname()
    chosen = [fields[letter] for letter in "snrvmo" if letter in letters or "a" in letters]
    await say(shell, " ".join(chosen or [fields["s"]]) + "\n")
    return 0


@command("getprop")
async def _getprop(shell: Shell, words: list[str]) -> int:
    properties = shell.phone.properties()
    if len(words) > 1:
        await say(shell, properties.get(words[1], words[2] if len(words) > 2 else "") + "\n")
    else:
        await say(shell, "".join(f"[{name}]: [{value}]\n" for name, value in sorted(properties.items())))
    return 0


@command("dumpsys")
async def _dumpsys(shell: Shell, words: list[str]) -> int:
    text = shell.phone.dumpsys(words[1] if len(words) > 1 else "")
    if text is None:
        await say(shell, f"Can't find service: {words[1] if len(words) > 1 else ''}\n")
        return 0
    await say(shell, text)
    return 0


@command("printenv")
async def _env(shell: Shell, words: list[str]) -> int:
    await say(shell, "".join(f"{name}={value}\n" for name, value in shell.variables.items()))
    return 0


@command("date")
async def _date(shell: Shell, words: list[str]) -> int:
    layout = words[1][1:] if len(words) > 1 and words[1].startswith("+") else "%a %b %e %H:%M:%S %Z %Y"
    await say(shell, time.strftime(layout.replace("%s", str(int(time.time()))), time.gmtime()) + "\n")
    return 0


@command("uptime")
async def _uptime(shell: Shell, words: list[str]) -> int:
    await say(shell, f" up {shell.phone.uptime_s():.0f} s, load average: {shell.phone.load():.2f}\n")
    return 0


@command("sleep")
async def _sleep(shell: Shell, words: list[str]) -> int:
    await asyncio.sleep(float(words[1]))
    return 0


@command("yes")
async def _yes(shell: Shell, words: list[str]) -> int:
    piece = (" ".join(words[1:]) or "y").encode() + b"\n"
    while True:
        await say(shell, piece * (4096 // len(piece) + 1))
