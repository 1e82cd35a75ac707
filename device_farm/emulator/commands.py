"""The commands of a phone's shell, as far as tools that speak adb use them. Each returns its exit status."""

from __future__ import annotations

import asyncio
import fnmatch
import hashlib
import os
import posixpath
import re
import shutil
import signal
import stat
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from device_farm.emulator.descriptors import read_some, write_all

if TYPE_CHECKING:
    from device_farm.emulator.shell import Shell

CommandFunction = Callable[["Shell", list[str]], Awaitable[int]]
MAX_READ_BYTES = 64 << 20

BUILT_IN: dict[str, CommandFunction] = {}
COMMANDS: dict[str, CommandFunction] = {}


def _command(*names: str, built_in: bool = False) -> Callable[[CommandFunction], CommandFunction]:
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


def _options(words: list[str], known: str) -> tuple[set[str], list[str]]:
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


async def _input(shell: Shell, operands: list[str]) -> bytes:
    """The named files, or stdin, together."""
    if operands and operands != ["-"]:
        return b"".join([shell.phone.files.read(shell.path(operand)) for operand in operands])
    collected = bytearray()
    while piece := await read_some(shell.descriptors[0]):
        collected += piece
        if len(collected) > MAX_READ_BYTES:
            raise ValueError("out of memory")
    return bytes(collected)


# -- of the shell itself


@_command(":", "true", "sync", built_in=True)
async def _true(shell: Shell, words: list[str]) -> int:
    return 0


@_command("false", built_in=True)
async def _false(shell: Shell, words: list[str]) -> int:
    return 1


@_command("exit", "return", built_in=True)
async def _exit(shell: Shell, words: list[str]) -> int:
    from device_farm.emulator.shell import ShellExit

    raise ShellExit(int(words[1]) & 255 if len(words) > 1 and words[1].isdigit() else shell.status)


@_command("break", "continue", built_in=True)
async def _loop_control(shell: Shell, words: list[str]) -> int:
    from device_farm.emulator.shell import LoopControl

    raise LoopControl(goes_on=words[0] == "continue")


@_command("cd", built_in=True)
async def _cd(shell: Shell, words: list[str]) -> int:
    target = shell.path(words[1] if len(words) > 1 else "/")
    if not shell.phone.files.is_directory(target):
        await shell.complain(f"sh: cd: {words[-1]}: No such file or directory")
        return 2
    shell.cwd = target
    return 0


@_command("export", built_in=True)
async def _export(shell: Shell, words: list[str]) -> int:
    for word in words[1:]:
        name, has_value, value = word.partition("=")
        if has_value:
            shell.variables[name] = value
        shell.exported.add(name)
    return 0


@_command("unset", built_in=True)
async def _unset(shell: Shell, words: list[str]) -> int:
    for name in words[1:]:
        shell.variables.pop(name, None)
    return 0


@_command("set", built_in=True)
async def _set(shell: Shell, words: list[str]) -> int:
    for position, word in enumerate(words[1:], 1):
        if word == "--":
            shell.parameters = words[position + 1 :]
            break
        if word in ("-e", "+e"):
            shell.stops_at_error = word == "-e"
    return 0


@_command("shift", built_in=True)
async def _shift(shell: Shell, words: list[str]) -> int:
    del shell.parameters[:1]
    return 0


@_command("umask", "ulimit", built_in=True)
async def _ignored(shell: Shell, words: list[str]) -> int:
    return 0


@_command("trap", built_in=True)
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


@_command("wait", built_in=True)
async def _wait(shell: Shell, words: list[str]) -> int:
    if len(words) == 1:
        await asyncio.gather(*(asyncio.shield(task) for task in shell.jobs.values()))
        return 0
    status = 127
    for word in words[1:]:
        task = shell.jobs.get(int(word)) if word.isdigit() else None
        status = 127 if task is None else await asyncio.shield(task)
    return status


@_command("read", built_in=True)
async def _read(shell: Shell, words: list[str]) -> int:
    names = [word for word in words[1:] if not word.startswith("-")] or ["REPLY"]
    line = bytearray()
    ended = False
    while not line.endswith(b"\n") and len(line) < 65536:
        byte = await read_some(shell.descriptors[0], 1)
        if not byte:
            ended = True
            break
        line += byte
    fields = line.decode(errors="surrogateescape").strip().split(maxsplit=len(names) - 1)
    for position, name in enumerate(names):
        shell.variables[name] = fields[position] if position < len(fields) else ""
    return int(ended)


@_command("command", "type", built_in=True)
async def _which_built_in(shell: Shell, words: list[str]) -> int:
    if words[0] == "command" and words[1:2] not in (["-v"], ["-V"]):
        return await shell.execute(words[1:], {})
    return await _which(shell, [words[0], *[word for word in words[1:] if word not in ("-v", "-V")]])


@_command("which")
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


@_command("echo", built_in=True)
async def _echo(shell: Shell, words: list[str]) -> int:
    operands = words[1:]
    end = "\n"
    while operands and operands[0] in ("-n", "-e", "-E"):
        end = "" if operands[0] == "-n" else end
        operands = operands[1:]
    await say(shell, " ".join(operands) + end)
    return 0


_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "0": "\0", "\\": "\\", "a": "\a", '"': '"'}


@_command("printf", built_in=True)
async def _printf(shell: Shell, words: list[str]) -> int:
    layout = re.sub(r"\\([ntr0\\a\"])", lambda match: _ESCAPES[match[1]], words[1])
    left = iter(words[2:])
    count = len(words) - 2
    while True:
        taken = 0

        def one(match: re.Match[str]) -> str:
            nonlocal taken
            if match[0] == "%%":
                return "%"
            value = next(left, "")
            taken += 1
            width = min(int(match[1] or 0), 1000) if (match[1] or "0").lstrip("-").isdigit() else 0
            text = str(int(value or 0)) if match[2] in "di" else f"{int(value or 0):x}" if match[2] == "x" else value
            return text.rjust(width) if width >= 0 else text.ljust(-width)

        await say(shell, re.sub(r"%(-?[0-9]*)([%sdixc])", one, layout))
        count -= taken
        if not taken or count <= 0:
            return 0


@_command("test", "[", built_in=True)
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


# -- files


@_command("cat")
async def _cat(shell: Shell, words: list[str]) -> int:
    _, operands = _options(words, "u")
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


@_command("ls")
async def _ls(shell: Shell, words: list[str]) -> int:
    letters, operands = _options(words, "la1dAR")
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


@_command("mkdir")
async def _mkdir(shell: Shell, words: list[str]) -> int:
    letters, operands = _options(words, "p")
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


@_command("rm", "rmdir")
async def _rm(shell: Shell, words: list[str]) -> int:
    letters, operands = _options(words, "rRf")
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


@_command("mv", "cp")
async def _mv(shell: Shell, words: list[str]) -> int:
    _, operands = _options(words, "fnTprRa")
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


@_command("chmod")
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


@_command("touch")
async def _touch(shell: Shell, words: list[str]) -> int:
    for operand in words[1:]:
        shell.phone.files.check_space(operand)
        shell.phone.files.writable(shell.path(operand)).touch()
    return 0


@_command("stat")
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


@_command("readlink", "realpath")
async def _realpath(shell: Shell, words: list[str]) -> int:
    _, operands = _options(words, "fe")
    for operand in operands:
        await say(shell, shell.path(operand) + "\n")
    return 0


@_command("basename", "dirname")
async def _name_of(shell: Shell, words: list[str]) -> int:
    function = posixpath.basename if words[0] == "basename" else posixpath.dirname
    await say(shell, (function(words[1].rstrip("/") or "/") or ".") + "\n")
    return 0


@_command("sha256sum", "sha1sum", "md5sum")
async def _digest(shell: Shell, words: list[str]) -> int:
    letters, operands = _options(words, "b")
    status = 0
    for operand in operands or ["-"]:
        try:
            content = await _input(shell, [operand])
        except OSError as error:
            await shell.complain(f"{words[0]}: {operand}: {error.strerror}")
            status = 1
            continue
        digest = hashlib.new(words[0].removesuffix("sum"), content).hexdigest()
        await say(shell, f"{digest}\n" if "b" in letters else f"{digest}  {operand}\n")
    return status


@_command("head", "tail")
async def _ends(shell: Shell, words: list[str]) -> int:
    count, unit, operands = 10, "n", []
    rest = iter(words[1:])
    for word in rest:
        if word in ("-n", "-c"):
            count, unit = int(next(rest)), word[1]
        elif re.fullmatch("-[nc]?[0-9]+", word):
            count, unit = int(word.lstrip("-nc")), "c" if word[1] == "c" else "n"
        else:
            operands.append(word)
    content = await _input(shell, operands)
    pieces = [content[i : i + 1] for i in range(len(content))] if unit == "c" else content.splitlines(keepends=True)
    await say(shell, b"".join(pieces[:count] if words[0] == "head" else pieces[-count:] if count else []))
    return 0


@_command("wc")
async def _wc(shell: Shell, words: list[str]) -> int:
    letters, operands = _options(words, "lwc")
    content = await _input(shell, operands)
    counts = {"l": content.count(b"\n"), "w": len(content.split()), "c": len(content)}
    shown = [str(counts[letter]) for letter in "lwc" if not letters or letter in letters]
    await say(shell, " ".join([*shown, *operands]) + "\n")
    return 0


_SEARCHED_BYTES = 4096


def _pattern(text: str, *, ignore_case: bool = False) -> re.Pattern[str]:
    """Raises ValueError for what could keep the host busy: groups, many repetitions."""
    plain = re.sub(r"\\.", "", text)
    if "(" in plain or sum(plain.count(c) for c in "*+?{") > 3:
        raise ValueError(f"bad pattern '{text}': groups and many repetitions are not emulated")
    try:
        return re.compile(text, re.IGNORECASE if ignore_case else 0)
    except re.error as error:
        raise ValueError(f"bad pattern '{text}': {error}") from error


@_command("grep")
async def _grep(shell: Shell, words: list[str]) -> int:
    letters, operands = _options(words, "qivcEFo")
    wanted = _pattern(re.escape(operands[0]) if "F" in letters else operands[0], ignore_case="i" in letters)
    lines = (await _input(shell, operands[1:])).splitlines()
    found = [
        line
        for line in lines
        if bool(wanted.search(line[:_SEARCHED_BYTES].decode(errors="surrogateescape"))) is ("v" not in letters)
    ]
    if "c" in letters:
        await say(shell, f"{len(found)}\n")
    elif "q" not in letters:
        await say(shell, b"".join(line + b"\n" for line in found))
    return int(not found)


@_command("find")
async def _find(shell: Shell, words: list[str]) -> int:
    places, pattern, kind = [], "*", ""
    rest = iter(words[1:])
    for word in rest:
        if word == "-name":
            pattern = next(rest)
        elif word == "-type":
            kind = next(rest)
        elif word in ("-maxdepth", "-mindepth"):
            next(rest)
        elif word.startswith("-"):
            raise ValueError(f"bad option '{word}'")
        else:
            places.append(word)
    for place in places or ["."]:
        waiting = [place]
        while waiting:
            name = waiting.pop()
            found = shell.phone.files.status(shell.path(name))
            is_directory = stat.S_ISDIR(found.mode)
            if is_directory:
                waiting += [f"{name}/{inner}" for inner in reversed(shell.phone.files.names(shell.path(name)))]
            if fnmatch.fnmatchcase(posixpath.basename(name), pattern) and kind in ("", "d" if is_directory else "f"):
                await say(shell, name + "\n")
    return 0


@_command("df")
async def _df(shell: Shell, words: list[str]) -> int:
    total, free = (count // 1024 for count in shell.phone.files.space())
    used = total - free
    line = f"/dev/block/dm-46 {total:>11} {used:>11} {free:>11} {100 * used // total:>3}% /data\n"
    await say(shell, "Filesystem         1K-blocks        Used   Available Use% Mounted on\n" + line)
    return 0


@_command("du")
async def _du(shell: Shell, words: list[str]) -> int:
    _, operands = _options(words, "skh")
    for operand in operands:
        host = shell.phone.files.host(shell.path(operand))
        size = sum(path.lstat().st_size for path in host.rglob("*")) if host.is_dir() else host.stat().st_size
        await say(shell, f"{-(-size // 1024)}\t{operand}\n")
    return 0


# -- the system


@_command("pwd", built_in=True)
async def _pwd(shell: Shell, words: list[str]) -> int:
    await say(shell, shell.cwd + "\n")
    return 0


@_command("id")
async def _id(shell: Shell, words: list[str]) -> int:
    if words[1:] == ["-u"]:
        await say(shell, "2000\n")
    else:
        await say(shell, "uid=2000(shell) gid=2000(shell) groups=2000(shell),1004(input),3003(inet)\n")
    return 0


@_command("whoami")
async def _whoami(shell: Shell, words: list[str]) -> int:
    await say(shell, "shell\n")
    return 0


@_command("uname")
async def _uname(shell: Shell, words: list[str]) -> int:
    letters, _ = _options(words, "asrmnvo")
    fields = shell.phone.uname()
    chosen = [fields[letter] for letter in "snrvmo" if letter in letters or "a" in letters]
    await say(shell, " ".join(chosen or [fields["s"]]) + "\n")
    return 0


@_command("getprop")
async def _getprop(shell: Shell, words: list[str]) -> int:
    properties = shell.phone.properties()
    if len(words) > 1:
        await say(shell, properties.get(words[1], words[2] if len(words) > 2 else "") + "\n")
    else:
        await say(shell, "".join(f"[{name}]: [{value}]\n" for name, value in sorted(properties.items())))
    return 0


@_command("dumpsys")
async def _dumpsys(shell: Shell, words: list[str]) -> int:
    text = shell.phone.dumpsys(words[1] if len(words) > 1 else "")
    if text is None:
        await say(shell, f"Can't find service: {words[1] if len(words) > 1 else ''}\n")
        return 0
    await say(shell, text)
    return 0


@_command("printenv")
async def _env(shell: Shell, words: list[str]) -> int:
    await say(shell, "".join(f"{name}={value}\n" for name, value in shell.variables.items()))
    return 0


@_command("date")
async def _date(shell: Shell, words: list[str]) -> int:
    layout = words[1][1:] if len(words) > 1 and words[1].startswith("+") else "%a %b %e %H:%M:%S %Z %Y"
    await say(shell, time.strftime(layout.replace("%s", str(int(time.time()))), time.gmtime()) + "\n")
    return 0


@_command("uptime")
async def _uptime(shell: Shell, words: list[str]) -> int:
    await say(shell, f" up {shell.phone.uptime_s():.0f} s, load average: {shell.phone.load():.2f}\n")
    return 0


@_command("sleep")
async def _sleep(shell: Shell, words: list[str]) -> int:
    await asyncio.sleep(float(words[1]))
    return 0


@_command("yes")
async def _yes(shell: Shell, words: list[str]) -> int:
    piece = (" ".join(words[1:]) or "y").encode() + b"\n"
    while True:
        await say(shell, piece * (4096 // len(piece) + 1))


# -- processes


@_command("kill", built_in=True)
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


@_command("pidof", "pgrep", "pkill", "killall")
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
        for process in shell.phone.processes
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
    return _pattern(wanted).search((line if whole else posixpath.basename(name))[:_SEARCHED_BYTES]) is not None


@_command("ps")
async def _ps(shell: Shell, words: list[str]) -> int:
    columns = ["USER", "PID", "PGID", "NAME"]
    for position, word in enumerate(words[:-1]):
        if word == "-o":
            columns = words[position + 1].upper().split(",")
    lines = [" ".join(columns)]
    for process in shell.phone.processes:
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


@_command("setsid", "nohup", "nice", "ionice", "taskset", "env", "toybox", "stdbuf")
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
        return await _env(shell, ["env"]) if words[0] == "env" else 0
    if words[0] != "setsid":
        return await shell.execute(rest, assigned)
    child = shell.fork(rest[0])

    async def work() -> int:
        return await child.execute(rest, assigned, replaces_shell=True)

    return await asyncio.shield(child.in_task(work()))


@_command("timeout")
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

    async def work() -> int:
        return await child.execute(rest[1:], {}, replaces_shell=True)

    task = child.in_task(work())
    for signal_number, patience_s in ((number, limit_s), (int(signal.SIGKILL), extra_s)):
        if patience_s is None:
            break
        done, _ = await asyncio.wait([task], timeout=patience_s)
        if done:
            return task.result() if signal_number == number and limit_s == patience_s else 124
        shell.phone.processes.kill(child.process.pid, signal_number)
    await asyncio.shield(task)
    return 124


@_command("sh")
async def _sh(shell: Shell, words: list[str]) -> int:
    rest = words[1:]
    if rest[:1] == ["-c"]:
        text, parameters, name = rest[1], rest[3:], rest[2] if len(rest) > 2 else "sh"
    elif rest:
        text = shell.phone.files.read(shell.path(rest[0])).decode(errors="surrogateescape")
        parameters, name = rest[1:], rest[0]
    else:
        text, parameters, name = (await _input(shell, [])).decode(errors="surrogateescape"), [], "sh"
    child = shell.fork("sh", group=shell.process.group)
    child.parameters, child.name = parameters, name
    child.variables = {key: value for key, value in shell.variables.items() if key in shell.exported}
    return await child.in_task(child.run_script(text))
