"""Runs scripts of the shell language on a phone: expansions, pipes, redirections, programs."""

from __future__ import annotations

import asyncio
import contextlib
import fnmatch
import os
import posixpath
import re
import signal
from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Any

from device_farm.emulator import shell_syntax as syntax
from device_farm.emulator.arithmetic import calculate
from device_farm.emulator.descriptors import read_some, write_all
from device_farm.emulator.files import PhoneFiles
from device_farm.emulator.processes import Process, TooManyProcesses

if TYPE_CHECKING:
    from device_farm.emulator.phone import Phone

MAX_SUBSTITUTED_BYTES = 1 << 20
MAX_WORDS = 10_000
_HARMLESS = frozenset({signal.SIGCHLD, signal.SIGCONT, signal.SIGSTOP, signal.SIGWINCH})
_PATH = "/product/bin:/apex/com.android.runtime/bin:/system/bin:/system/xbin:/vendor/bin"


class ShellExit(Exception):
    """`exit N`, or `exec` of a program that has ended."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class LoopControl(Exception):
    """`break` and `continue`."""

    def __init__(self, *, goes_on: bool) -> None:
        super().__init__(goes_on)
        self.goes_on = goes_on


class Shell:
    """One shell process. It owns its descriptors, and closes them with `close`."""

    def __init__(
        self,
        phone: Phone,
        *,
        descriptors: dict[int, int],
        process: Process,
        cwd: str = "/",
        variables: dict[str, str] | None = None,
        parameters: Sequence[str] = (),
        name: str = "sh",
    ) -> None:
        self.phone = phone
        self.descriptors = descriptors
        self.process = process
        self.cwd = cwd
        self.variables = dict(variables) if variables is not None else initial_variables()
        self.exported = set(self.variables)
        self.parameters = list(parameters)
        self.name = name
        self.status = 0
        self.traps: dict[str, str] = {}
        self.stops_at_error = False
        self.killed_by: int | None = None  # a signal
        self.job: Process | None = None  # the last one in the background
        self.jobs: dict[int, asyncio.Task[int]] = {}
        self._condition = 0  # how many conditions are being evaluated

    async def run_line(self, text: str) -> None:
        """One line of an interactive shell. Raises ShellExit."""
        try:
            await self.run_list(syntax.parse(text))
        except syntax.SyntaxProblem as problem:
            await self.complain(f"sh: syntax error: {problem}")
            self.status = 1

    async def run_script(self, text: str, *, whole: bool = True) -> int:
        """Runs a text. A single simple command takes the place of the shell if the text is `whole`, as in mksh."""
        try:
            tree = syntax.parse(text)
        except syntax.SyntaxProblem as problem:
            await self.complain(f"sh: syntax error: {problem}")
            return 1
        try:
            try:
                single = _single_command(tree) if whole else None
                if single is not None:
                    self.status = await self._simple(single, replaces_shell=True)
                else:
                    await self.run_list(tree)
            finally:
                await self._run_traps()
        except ShellExit as end:
            self.status = end.status
        except LoopControl:
            pass
        return self.status

    async def _run_traps(self) -> None:
        """That of the signal which ended the shell, then that of EXIT."""
        name = signal.Signals(self.killed_by).name.removeprefix("SIG") if self.killed_by else ""
        scripts = [self.traps.pop(name, ""), self.traps.pop("EXIT", "")]
        self.traps.clear()
        status = self.status
        for script in filter(None, scripts):
            await self.run_script(script, whole=False)
        self.status = status

    async def run_list(self, tree: syntax.List) -> None:
        """Raises ShellExit."""
        for chain in tree.chains:
            await asyncio.sleep(0)  # an endless loop of the script is none of the host
            if chain.background:
                await self._background(chain)
                continue
            for position, (operator, pipeline) in enumerate(chain.pipelines):
                if (operator == "&&" and self.status != 0) or (operator == "||" and self.status == 0):
                    continue
                tested = position < len(chain.pipelines) - 1 or pipeline.negated
                self._condition += tested
                try:
                    self.status = await self._pipeline(pipeline)
                finally:
                    self._condition -= tested
                if self.status and self.stops_at_error and not tested and not self._condition:
                    raise ShellExit(self.status)

    async def complain(self, message: str) -> None:
        with contextlib.suppress(OSError):
            await write_all(self.descriptors[2], message.encode(errors="surrogateescape") + b"\n")

    def path(self, path: str) -> str:
        """A path as this shell means it, absolute."""
        return PhoneFiles.absolute(path, self.cwd)

    def fork(self, name: str, descriptors: dict[int, int] | None = None, *, group: int | None = None) -> Shell:
        """A shell with copies of everything. Raises TooManyProcesses. Run it with `in_task`."""
        child = Shell(
            self.phone,
            descriptors={},
            process=self.phone.processes.add(name, (name,), stop=lambda number: None, group=group),
            cwd=self.cwd,
            variables=self.variables,
            parameters=self.parameters,
            name=self.name,
        )
        child.exported = set(self.exported)
        child.status = self.status
        child.stops_at_error = self.stops_at_error
        child.descriptors = {n: os.dup(fd) for n, fd in (descriptors or self.descriptors).items()}
        return child

    def in_task(self, work: Coroutine[Any, Any, int]) -> asyncio.Task[int]:
        """Runs the work of this shell as a process of its own, which signals can end. Closes the shell."""

        async def run() -> int:
            try:
                return await work
            except ShellExit as end:
                return end.status
            except LoopControl:
                return 0
            except BrokenPipeError:
                return 128 + signal.SIGPIPE
            except asyncio.CancelledError:
                return 128 + (self.killed_by or signal.SIGTERM)
            finally:
                self.close()

        task = asyncio.ensure_future(run())

        def stop(number: int) -> None:
            name = signal.Signals(number).name.removeprefix("SIG")
            if number in _HARMLESS or (self.traps.get(name) == "" and number != signal.SIGKILL):
                return
            self.killed_by = number
            if number == signal.SIGKILL:
                self.traps.clear()
            task.cancel()

        self.process.stop = stop
        return task

    def close(self) -> None:
        for descriptor in self.descriptors.values():
            with contextlib.suppress(OSError):
                os.close(descriptor)
        self.descriptors = {}
        self.phone.processes.remove(self.process)

    # -- commands

    async def _background(self, chain: syntax.Chain) -> None:
        single = _single_command(syntax.List((syntax.Chain(chain.pipelines, False),)))
        child = self.fork("sh", group=self.process.group)
        null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        os.close(child.descriptors[0])
        child.descriptors[0] = null

        async def work() -> int:
            if single is not None:
                return await child._simple(single, replaces_shell=True)
            await child.run_list(syntax.List((syntax.Chain(chain.pipelines, False),)))
            return child.status

        self.job = child.process
        self.jobs[child.process.pid] = child.in_task(work())
        self.status = 0

    async def _pipeline(self, pipeline: syntax.Pipeline) -> int:
        if len(pipeline.commands) == 1:
            status = await self._command(pipeline.commands[0])
        else:
            tasks = []
            source: int | None = None
            for position, command in enumerate(pipeline.commands):
                descriptors = dict(self.descriptors)
                if source is not None:
                    descriptors[0] = source
                following: int | None = None
                sink: int | None = None
                if position < len(pipeline.commands) - 1:
                    following, sink = os.pipe2(os.O_CLOEXEC)
                    descriptors[1] = sink
                child = self.fork("sh", descriptors, group=self.process.group)
                for used in (source, sink):
                    if used is not None:
                        os.close(used)
                source = following
                tasks.append(child.in_task(child._command(command)))
            status = (await asyncio.gather(*tasks))[-1]
        return int(status == 0) if pipeline.negated else status

    async def _command(self, command: syntax.Command) -> int:
        if isinstance(command, syntax.Simple):
            return await self._simple(command)
        try:
            saved = await self._redirect(command.redirections)
        except OSError as error:
            await self.complain(f"sh: {error.filename}: {error.strerror}")
            return 1
        try:
            return await self._compound(command)
        finally:
            self._restore(saved)

    async def _compound(self, command: syntax.Compound | syntax.If | syntax.Loop | syntax.For) -> int:
        if isinstance(command, syntax.Compound):
            if command.subshell:
                child = self.fork("sh", group=self.process.group)

                async def work() -> int:
                    await child.run_list(command.body)
                    return child.status

                return await child.in_task(work())
            await self.run_list(command.body)
            return self.status
        if isinstance(command, syntax.If):
            for condition, body in command.branches:
                if await self._holds(condition):
                    self.status = 0
                    await self.run_list(body)
                    return self.status
            self.status = 0
            if command.otherwise is not None:
                await self.run_list(command.otherwise)
            return self.status
        if isinstance(command, syntax.Loop):
            status = 0
            while await self._holds(command.condition) is not command.until:
                if not await self._turn(command.body):
                    break
                status = self.status
            return status
        self.status = 0
        for value in await self._expand(command.words):
            self.variables[command.name] = value
            if not await self._turn(command.body):
                break
        return self.status

    async def _turn(self, body: syntax.List) -> bool:
        """One turn of a loop; whether it goes on."""
        try:
            await self.run_list(body)
        except LoopControl as control:
            return control.goes_on
        return True

    async def _holds(self, condition: syntax.List) -> bool:
        self._condition += 1
        try:
            await self.run_list(condition)
        finally:
            self._condition -= 1
        return self.status == 0

    async def _simple(self, command: syntax.Simple, *, replaces_shell: bool = False) -> int:
        words = await self._expand(command.words)
        assigned = {name: await self._text(word) for name, word in command.assignments}
        try:
            saved = await self._redirect(command.redirections)
        except OSError as error:
            await self.complain(f"sh: {error.filename}: {error.strerror}")
            return 1
        if not words:
            self.variables |= assigned
            self._restore(saved)
            return 0
        if words[0] == "exec":
            if len(words) == 1:
                for descriptor in saved.values():
                    if descriptor is not None:
                        os.close(descriptor)
                return 0
            try:
                raise ShellExit(await self.execute(words[1:], assigned, replaces_shell=True))
            finally:
                self._restore(saved)
        try:
            return await self.execute(words, assigned, replaces_shell=replaces_shell)
        except TooManyProcesses as problem:
            await self.complain(f"sh: {problem}")
            return 1
        finally:
            self._restore(saved)

    async def execute(self, words: list[str], assigned: dict[str, str], *, replaces_shell: bool = False) -> int:
        """A built-in command, a command of the phone, or a program. 127 if there is none, 126 if it cannot run."""
        from device_farm.emulator.commands import BUILT_IN, COMMANDS

        name = words[0]
        built_in = BUILT_IN.get(name)
        if built_in is not None:
            self.variables |= assigned
            return await built_in(self, words)
        command = COMMANDS.get(posixpath.basename(name) if name.startswith("/system/bin/") else name)
        if command is not None:
            return await self._run_command(command, words, assigned)
        if "/" not in name:
            await self.complain(f"sh: {name}: inaccessible or not found")
            return 127
        environment = {key: value for key, value in self.variables.items() if key in self.exported} | assigned
        return await self.phone.run_program(self, words, environment, replaces_shell=replaces_shell)

    async def _run_command(self, command: Any, words: list[str], assigned: dict[str, str]) -> int:
        before = dict(self.variables)
        self.variables |= assigned
        try:
            return int(await command(self, words))
        except BrokenPipeError:
            return 128 + signal.SIGPIPE
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            await self.complain(f"{words[0]}: {where}{error.strerror}")
            return 1
        except (ValueError, IndexError) as error:
            await self.complain(f"{words[0]}: {error}")
            return 1
        finally:
            if assigned:
                self.variables = before

    # -- redirections

    async def _redirect(self, redirections: Sequence[syntax.Redirection]) -> dict[int, int | None]:
        """What the descriptors were before. Raises OSError, and then nothing is changed."""
        saved: dict[int, int | None] = {}
        try:
            for redirection in redirections:
                opened = await self._open(redirection)
                if redirection.descriptor not in saved:
                    saved[redirection.descriptor] = self.descriptors.get(redirection.descriptor)
                else:
                    os.close(self.descriptors[redirection.descriptor])
                self.descriptors[redirection.descriptor] = opened
        except BaseException:
            self._restore(saved)
            raise
        return saved

    async def _open(self, redirection: syntax.Redirection) -> int:
        target = await self._text(redirection.target)
        if redirection.operator in (">&", "<&"):
            if not target.isdigit() or int(target) not in self.descriptors:
                raise OSError(9, "bad file descriptor", target)
            return os.dup(self.descriptors[int(target)])
        path = self.path(target)
        if path == "/dev/null":
            return os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        if redirection.operator == "<":
            if self.phone.files.is_virtual(path):
                reader, writer = os.pipe2(os.O_CLOEXEC)
                os.write(writer, self.phone.files.read(path)[:60_000])  # fits into the pipe
                os.close(writer)
                return reader
            return _with_name(target, lambda: os.open(self.phone.files.host(path), os.O_RDONLY | os.O_CLOEXEC))
        self.phone.files.check_space(target)
        how = os.O_APPEND if redirection.operator == ">>" else os.O_TRUNC
        flags = os.O_WRONLY | os.O_CREAT | how | os.O_CLOEXEC | os.O_NONBLOCK
        return _with_name(target, lambda: os.open(self.phone.files.writable(path), flags, 0o644))

    def _restore(self, saved: dict[int, int | None]) -> None:
        for number, before in saved.items():
            if number in self.descriptors:
                os.close(self.descriptors.pop(number))
            if before is not None:
                self.descriptors[number] = before

    # -- expansions

    async def _expand(self, words: Sequence[syntax.Word]) -> list[str]:
        """Words to arguments: variables, splitting, patterns of file names."""
        arguments: list[str] = []
        for word in words:
            arguments += await self._fields(word)
            if len(arguments) > MAX_WORDS:
                raise ShellExit(1)
        return arguments

    async def _fields(self, word: syntax.Word) -> list[str]:
        fields: list[list[tuple[str, bool]]] = []  # each of pieces, quoted or not
        current: list[tuple[str, bool]] | None = None
        for part in word.parts:
            if isinstance(part, syntax.Variable) and part.name == "@" and part.quoted:
                for position, parameter in enumerate(self.parameters):
                    if position and current is not None:
                        fields.append(current)
                        current = None
                    current = [*(current or []), (parameter, True)]
                continue
            text = await self._part(part)
            if isinstance(part, syntax.Text) or part.quoted:
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
                    names = self.phone.files.names(self.path(base or "."))
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
        try:
            self.phone.files.status(self.path(path))
        except OSError:
            return False
        return True

    async def _text(self, word: syntax.Word) -> str:
        """A word as one text: no splitting, no patterns."""
        return "".join([await self._part(part) for part in word.parts])

    async def _part(self, part: syntax.Text | syntax.Variable | syntax.Substitution | syntax.Arithmetic) -> str:
        if isinstance(part, syntax.Text):
            return part.text
        if isinstance(part, syntax.Substitution):
            return await self._substitute(part.script)
        if isinstance(part, syntax.Arithmetic):
            return await self._calculate(part.expression)
        return await self._variable(part)

    async def _variable(self, part: syntax.Variable) -> str:
        value = self._value(part.name)
        operator = part.operator
        if operator == "length":
            return str(len(value or ""))
        if operator in (":-", "-", ":+", "+"):
            is_set = value is not None if len(operator) == 1 else bool(value)
            if is_set == operator.endswith("-"):
                return (value or "") if operator.endswith("-") else ""
            return await self._text(part.operand or syntax.Word(()))
        if operator:
            pattern = await self._text(part.operand or syntax.Word(()))
            return _strip(value or "", pattern, operator)
        return value or ""

    def _value(self, name: str) -> str | None:
        if name == "?":
            return str(self.status)
        if name == "$":
            return str(self.process.pid)
        if name == "!":
            return str(self.job.pid) if self.job is not None else ""
        if name == "#":
            return str(len(self.parameters))
        if name in "@*":
            return " ".join(self.parameters)
        if name.isdigit():
            number = int(name)
            return self.name if number == 0 else dict(enumerate(self.parameters, 1)).get(number)
        return self.variables.get(name)

    async def _substitute(self, script: syntax.List) -> str:
        reader, writer = os.pipe2(os.O_CLOEXEC)
        try:
            child = self.fork("sh", {**self.descriptors, 1: writer}, group=self.process.group)
        finally:
            os.close(writer)

        async def work() -> int:
            await child.run_list(script)
            return child.status

        task = child.in_task(work())
        collected = bytearray()
        try:
            while piece := await read_some(reader):
                if len(collected) < MAX_SUBSTITUTED_BYTES:
                    collected += piece
        finally:
            os.close(reader)
        self.status = await task
        return bytes(collected).replace(b"\0", b"").decode(errors="surrogateescape").rstrip("\n")

    async def _calculate(self, expression: syntax.Word) -> str:
        text = await self._text(expression)
        try:
            return str(calculate(re.sub(r"[A-Za-z_]\w*", lambda match: self._value(match[0]) or "0", text)))
        except ValueError as error:
            await self.complain(f"sh: {text}: bad arithmetic: {error}")
            raise ShellExit(1) from error


def initial_variables() -> dict[str, str]:
    """What adbd gives its shells."""
    return {
        "PATH": _PATH,
        "HOME": "/",
        "USER": "shell",
        "LOGNAME": "shell",
        "SHELL": "/system/bin/sh",
        "TMPDIR": "/data/local/tmp",
        "ANDROID_ROOT": "/system",
        "ANDROID_DATA": "/data",
    }


def _single_command(tree: syntax.List) -> syntax.Simple | None:
    if len(tree.chains) == 1 and not tree.chains[0].background and len(tree.chains[0].pipelines) == 1:
        pipeline = tree.chains[0].pipelines[0][1]
        if len(pipeline.commands) == 1 and not pipeline.negated and isinstance(pipeline.commands[0], syntax.Simple):
            return pipeline.commands[0]
    return None


def _strip(value: str, pattern: str, operator: str) -> str:
    lengths = range(len(value) + 1)
    if len(operator) == 2:
        lengths = lengths[::-1]
    for length in lengths:
        if operator[0] == "#" and fnmatch.fnmatchcase(value[:length], pattern):
            return value[length:]
        if operator[0] == "%" and fnmatch.fnmatchcase(value[len(value) - length :], pattern):
            return value[: len(value) - length]
    return value


def _with_name(name: str, opens: Any) -> int:
    """The phone's name of a file in the error, not the host's."""
    try:
        return int(opens())
    except OSError as error:
        raise OSError(error.errno, os.strerror(error.errno or 5), name) from None
