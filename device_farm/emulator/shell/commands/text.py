"""Commands that print, and filters."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

from device_farm.emulator.shell.commands.patterns import Pattern
from device_farm.emulator.shell.commands.registry import command, options, say, whole_input

if TYPE_CHECKING:
    from device_farm.emulator.shell.shell import Shell


@command("echo", built_in=True)
async def _echo(shell: Shell, words: list[str]) -> int:
    operands = words[1:]
    end = "\n"
    while operands and operands[0] in ("-n", "-e", "-E"):
        end = "" if operands[0] == "-n" else end
        operands = operands[1:]
    await say(shell, " ".join(operands) + end)
    return 0


_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "0": "\0", "\\": "\\", "a": "\a", '"': '"'}


@command("printf", built_in=True)
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


@command("sha256sum", "sha1sum", "md5sum")
async def _digest(shell: Shell, words: list[str]) -> int:
    letters, operands = options(words, "b")
    status = 0
    for operand in operands or ["-"]:
        try:
            content = await whole_input(shell, [operand])
        except OSError as error:
            await shell.complain(f"{words[0]}: {operand}: {error.strerror}")
            status = 1
            continue
        digest = hashlib.new(words[0].removesuffix("sum"), content).hexdigest()
        await say(shell, f"{digest}\n" if "b" in letters else f"{digest}  {operand}\n")
    return status


@command("head", "tail")
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
    content = await whole_input(shell, operands)
    pieces = [content[i : i + 1] for i in range(len(content))] if unit == "c" else content.splitlines(keepends=True)
    await say(shell, b"".join(pieces[:count] if words[0] == "head" else pieces[-count:] if count else []))
    return 0


@command("wc")
async def _wc(shell: Shell, words: list[str]) -> int:
    letters, operands = options(words, "lwc")
    content = await whole_input(shell, operands)
    counts = {"l": content.count(b"\n"), "w": len(content.split()), "c": len(content)}
    shown = [str(counts[letter]) for letter in "lwc" if not letters or letter in letters]
    await say(shell, " ".join([*shown, *operands]) + "\n")
    return 0


@command("grep", "egrep", "fgrep")
async def _grep(shell: Shell, words: list[str]) -> int:
    letters, operands = options(words, "qivcEFlshnHe")
    plain = "F" in letters or words[0] == "fgrep"
    wanted = Pattern(re.escape(operands[0]) if plain else operands[0], ignore_case="i" in letters)
    found = 0
    for name in operands[1:] or ["-"]:
        try:
            content = await whole_input(shell, [name])
        except OSError as error:
            if "s" not in letters:
                await shell.complain(f"grep: {name}: {error.strerror}")
            continue
        lines = [
            line
            for line in content.splitlines()
            if wanted.matches(line.decode(errors="surrogateescape")) is ("v" not in letters)
        ]
        found += len(lines)
        prefix = f"{name}:".encode(errors="surrogateescape") if len(operands) > 2 and "h" not in letters else b""
        if lines and "l" in letters:
            await say(shell, name + "\n")
        elif "c" in letters:
            await say(shell, prefix + f"{len(lines)}\n".encode())
        elif not letters & {"q", "l"}:
            await say(shell, b"".join(prefix + line + b"\n" for line in lines))
    return int(not found)
