"""Commands that start, list and end programs."""

from __future__ import annotations

import asyncio
import posixpath
import re
import signal
from typing import TYPE_CHECKING

from device_farm.emulator.shell.commands.patterns import Pattern
from device_farm.emulator.shell.commands.registry import command, say, whole_input

if TYPE_CHECKING:
    from device_farm.emulator.shell.shell import Shell


@command("kill", built_in=True)
async def _kill(shell: Shell, words: list[str]) -> int:
    number, operands = int(signal.SIGTERM), words[1:]
    if operands[:1] == ["-s"]:
        number, operands = _signal_number(operands[1]), operands[2:]
    elif operands and operands[0] != "--" and operands[0].startswith("-") and len(operands) > 1:
        number, operands = _signal_number(operands[0][1:]), operands[1:]
    status = 0
    for operand in operands:
        if operand == "--":
            continue
        if not re.fullmatch("-?[0-9]+", operand):
            await shell.complain(f"sh: kill: {operand}: arguments must be jobs or process IDs")
            status = 1
        elif not shell.phone.processes.kill(int(operand), number):
            await shell.complain(f"sh: kill: {operand}: No such process")
            status = 1
    await asyncio.sleep(0)  # a signal to this shell itself arrives
    return status


def _signal_number(text: str) -> int:
    if text.isdigit() and int(text) < 65:
        return int(text)
    try:
        return int(signal.Signals["SIG" + text.upper().removeprefix("SIG")])
    except KeyError:
        raise ValueError(f"bad signal '{text}'") from None


@command("pidof", "pgrep", "pkill", "killall")
async def _by_name(shell: Shell, words: list[str]) -> int:
    number, whole, exact, names = int(signal.SIGTERM), False, words[0] in ("pidof", "killall"), []
    for word in words[1:]:
        if word == "-f":
            whole = True
        elif word == "-x":
            exact = True
        elif word.startswith("-") and word != "--":
            number = _signal_number(word[1:])
        else:
            names.append(word)
    found = [
        process
        for process in shell.phone.processes.discover()
        if process.pid != shell.process.pid
        and any(_called(process.name, " ".join(process.arguments), name, whole=whole, exact=exact) for name in names)
    ]
    for process in found:
        if words[0] in ("pkill", "killall"):
            shell.phone.processes.kill(process.pid, number)
    if found and words[0] == "pidof":
        await say(shell, " ".join(str(process.pid) for process in found) + "\n")
    elif words[0] == "pgrep":
        await say(shell, "".join(f"{process.pid}\n" for process in found))
    return int(not found)


def _called(name: str, line: str, wanted: str, *, whole: bool, exact: bool) -> bool:
    if exact:
        return posixpath.basename(name) == wanted
    return Pattern(wanted).matches(line if whole else posixpath.basename(name))


@command("ps")
async def _ps(shell: Shell, words: list[str]) -> int:
    columns = ["USER", "PID", "PGID", "NAME"]
    for position, word in enumerate(words[:-1]):
        if word == "-o":
            columns = words[position + 1].upper().split(",")
    lines = [" ".join(columns)]
    for process in shell.phone.processes.discover():
        fields = {
            "USER": "shell",
            "PID": str(process.pid),
            "PGID": str(process.group),
            "PPID": "1",
            "NAME": posixpath.basename(process.name),
            "COMM": posixpath.basename(process.name)[:15],
            "ARGS": " ".join(process.arguments),
            "CMD": posixpath.basename(process.name),
        }
        lines.append(" ".join(fields.get(column.rstrip("="), "-") for column in columns))
    await say(shell, "\n".join(lines) + "\n")
    return 0


@command("setsid", "nohup", "nice", "ionice", "taskset", "env", "toybox", "stdbuf")
async def _wrapper(shell: Shell, words: list[str]) -> int:
    """Runs the rest; setsid in a group of its own."""
    rest = words[1:]
    waits = False
    while rest and rest[0].startswith("-"):
        waits |= rest[0] in ("-w", "--wait")
        rest = rest[2:] if rest[0] in ("-n", "-c") else rest[1:]
    if words[0] == "taskset" and rest:
        rest = rest[1:]
    assigned = {}
    while words[0] == "env" and rest and "=" in rest[0]:
        name, _, value = rest[0].partition("=")
        assigned[name] = value
        rest = rest[1:]
    if not rest:
        if words[0] == "env":
            await say(shell, "".join(f"{name}={value}\n" for name, value in shell.variables.items()))
        return 0
    may_replace = shell.replaceable
    if words[0] == "setsid" and not (may_replace and shell.process.group != shell.process.pid):
        child = shell.fork(rest[0])
        task = child.in_task(_execute(child, rest, assigned))
        if may_replace and not waits:
            return 0  # the leader of a group cannot leave it: its child does, and nobody waits
        return await asyncio.shield(task)
    if words[0] == "setsid":
        shell.process.group = shell.process.pid
    return await shell.execute(rest, assigned, replaces_shell=may_replace)


async def _execute(shell: Shell, words: list[str], assigned: dict[str, str]) -> int:
    return await shell.execute(words, assigned, replaces_shell=True)


@command("timeout")
async def _timeout(shell: Shell, words: list[str]) -> int:
    number, rest, extra_s = int(signal.SIGTERM), words[1:], None
    while rest and rest[0].startswith("-"):
        if rest[0] in ("-s", "-k"):
            if rest[0] == "-s":
                number = _signal_number(rest[1])
            else:
                extra_s = float(rest[1].rstrip("s"))
            rest = rest[2:]
        else:
            rest = rest[1:]
    limit_s = float(rest[0].rstrip("s"))
    child = shell.fork(rest[1], group=shell.process.group)
    task = child.in_task(_execute(child, rest[1:], {}))
    for signal_number, patience_s in ((number, limit_s), (int(signal.SIGKILL), extra_s)):
        if patience_s is None:
            break
        done, _ = await asyncio.wait([task], timeout=patience_s)
        if done:
            return task.result() if signal_number == number and limit_s == patience_s else 124
        shell.phone.processes.kill(child.process.pid, signal_number)
    await asyncio.shield(task)
    return 124


@command("sh")
async def _sh(shell: Shell, words: list[str]) -> int:
    rest = words[1:]
    if rest[:1] == ["-c"]:
        text, parameters, name = rest[1], rest[3:], rest[2] if len(rest) > 2 else "sh"
    elif rest:
        text = shell.phone.files.read(shell.path(rest[0])).decode(errors="surrogateescape")
        parameters, name = rest[1:], rest[0]
    else:
        text, parameters, name = (await whole_input(shell, [])).decode(errors="surrogateescape"), [], "sh"
    child = shell.fork("sh", group=shell.process.group)
    child.process.arguments = tuple(words)
    child.parameters, child.name = parameters, name
    child.variables = {key: value for key, value in shell.variables.items() if key in shell.exported}
    return await asyncio.shield(child.in_task(child.run_script(text)))
