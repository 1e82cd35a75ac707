"""From words of a script to arguments: variables, commands, splitting, patterns of file names."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

from device_farm.emulator.shell import tree
from device_farm.emulator.shell.arithmetic import calculate
from device_farm.emulator.shell.control import ShellExit
from device_farm.emulator.shell.words import Part

if TYPE_CHECKING:
    from device_farm.emulator.shell.shell import Shell

MAX_WORDS = 10_000
MAX_CHARACTERS = 1 << 20  # of all arguments of a command, and of a variable
_LONGEST_STRIPPED = 2048  # characters that ${name#pattern} takes away


class Expander:
    """Of one shell."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell

    async def arguments(self, words: Sequence[tree.Word]) -> list[str]:
        """Words to arguments: variables, splitting, patterns of file names."""
        arguments: list[str] = []
        characters = 0
        for word in words:
            fields = await self._fields(word)
            arguments += fields
            characters += sum(map(len, fields))
            if len(arguments) > MAX_WORDS or characters > MAX_CHARACTERS:
                await self._give_up()
        return arguments

    async def _give_up(self) -> NoReturn:
        await self._shell.complain("sh: Argument list too long")
        raise ShellExit(126)

    async def _fields(self, word: tree.Word) -> list[str]:
        fields: list[list[tuple[str, bool]]] = []  # each of pieces, quoted or not
        current: list[tuple[str, bool]] | None = None
        for part in word.parts:
            if isinstance(part, tree.Variable) and part.name == "@" and part.quoted:
                for position, parameter in enumerate(self._shell.parameters):
                    if position and current is not None:
                        fields.append(current)
                        current = None
                    current = [*(current or []), (parameter, True)]
                continue
            text = await self._part(part)
            if isinstance(part, tree.Text) or part.quoted:
                current = [*(current or []), (text, part.quoted)]
                continue
            pieces = text.split()
            if text[:1].isspace() and current is not None:
                fields.append(current)
                current = None
            for position, piece in enumerate(pieces):
                if position and current is not None:
                    fields.append(current)
                    current = None
                current = [*(current or []), (piece, False)]
            if pieces and text[-1:].isspace() and current is not None:
                fields.append(current)
                current = None
        if current is not None:
            fields.append(current)
        return [argument for pieces in fields for argument in self._names(pieces)]

    def _names(self, pieces: list[tuple[str, bool]]) -> list[str]:
        plain = "".join(text for text, _ in pieces)
        if not any(c in text for text, quoted in pieces if not quoted for c in "*?["):
            return [plain]
        pattern = "".join(re.sub(r"([*?[])", r"[\1]", text) if quoted else text for text, quoted in pieces)
        return self._matches(pattern) or [plain]

    def _matches(self, pattern: str) -> list[str]:
        found = ["/" if pattern.startswith("/") else ""]
        for component in pattern.strip("/").split("/"):
            following = []
            for base in found:
                if not any(c in component for c in "*?["):
                    candidate = base + component
                    if self._exists(candidate):
                        following.append(candidate + "/")
                    continue
                try:
                    names = self._shell.phone.files.names(self._shell.path(base or "."))
                except OSError:
                    continue
                hidden = component.startswith(".")
                following += [
                    base + name + "/"
                    for name in names
                    if fnmatch.fnmatchcase(name, component) and (hidden or not name.startswith("."))
                ]
            found = following
        return [name.rstrip("/") for name in found]

    def _exists(self, path: str) -> bool:
        return self._shell.phone.files.exists(self._shell.path(path))

    async def text(self, word: tree.Word) -> str:
        """A word as one text: no splitting, no patterns."""
        parts: list[str] = []
        for part in word.parts:
            parts.append(await self._part(part))
            if sum(map(len, parts)) > MAX_CHARACTERS:
                await self._give_up()
        return "".join(parts)

    async def _part(self, part: Part) -> str:
        if isinstance(part, tree.Text):
            return part.text
        if isinstance(part, tree.Substitution):
            return await self._shell.interpreter.substitute(part.script)
        if isinstance(part, tree.Arithmetic):
            return await self._calculate(part.expression)
        return await self._variable(part)

    async def _variable(self, part: tree.Variable) -> str:
        value = self._value(part.name)
        operator = part.operator
        if operator == "length":
            return str(len(value or ""))
        if operator in (":-", "-", ":+", "+"):
            is_set = value is not None if len(operator) == 1 else bool(value)
            if is_set == operator.endswith("-"):
                return (value or "") if operator.endswith("-") else ""
            return await self.text(part.operand or tree.Word(()))
        if operator:
            pattern = await self.text(part.operand or tree.Word(()))
            return _strip(value or "", pattern, operator)
        return value or ""

    def _value(self, name: str) -> str | None:
        if name == "?":
            return str(self._shell.status)
        if name == "$":
            return str(self._shell.process.pid)
        if name == "!":
            return str(self._shell.job.pid) if self._shell.job is not None else ""
        if name == "#":
            return str(len(self._shell.parameters))
        if name in "@*":
            return " ".join(self._shell.parameters)
        if name.isdigit():
            number = int(name)
            return self._shell.name if number == 0 else dict(enumerate(self._shell.parameters, 1)).get(number)
        return self._shell.variables.get(name)

    async def _calculate(self, expression: tree.Word) -> str:
        text = await self.text(expression)
        try:
            return str(calculate(re.sub(r"[A-Za-z_]\w*", lambda match: self._value(match[0]) or "0", text)))
        except ValueError as error:
            await self._shell.complain(f"sh: {text}: bad arithmetic: {error}")
            raise ShellExit(1) from error


def _strip(value: str, pattern: str, operator: str) -> str:
    """Takes the beginning (`#`) or the end (`%`) away: the shortest that matches, or with `##` and `%%` the longest."""
    lengths = range(min(len(value), _LONGEST_STRIPPED) + 1)
    matcher = re.compile(fnmatch.translate(pattern))
    for length in lengths[::-1] if len(operator) == 2 else lengths:
        if operator[0] == "#" and matcher.match(value[:length]):
            return value[length:]
        if operator[0] == "%" and matcher.match(value[len(value) - length :]):
            return value[: len(value) - length]
    return value
