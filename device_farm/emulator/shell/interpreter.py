"""Runs scripts of the shell language on a phone: expansions, pipes, redirections, programs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import posixpath
import signal
from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Any

from device_farm.emulator.descriptors import read_some, write_all
from device_farm.emulator.files import PhoneFiles
from device_farm.emulator.processes import Process, TooManyProcesses
from device_farm.emulator.running import run_program
from device_farm.emulator.shell import tree
from device_farm.emulator.shell.commands import BUILT_IN, COMMANDS
from device_farm.emulator.shell.commands.registry import CommandFunction
from device_farm.emulator.shell.control import LoopControl, ShellExit
from device_farm.emulator.shell.expansion import Expander
from device_farm.emulator.shell.parser import parse
from device_farm.emulator.shell.redirection import Redirector

if TYPE_CHECKING:
    from device_farm.emulator.phone import Phone

MAX_SUBSTITUTED_BYTES = 1 << 20
_HARMLESS = frozenset({signal.SIGCHLD, signal.SIGCONT, signal.SIGSTOP, signal.SIGWINCH})
_PATH = "/product/bin:/apex/com.android.runtime/bin:/system/bin:/system/xbin:/vendor/bin"


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
        self.replaceable = False  # whether the command that runs may take this shell's place
        self.job: Process | None = None  # the last one in the background
        self.jobs: dict[int, asyncio.Task[int]] = {}
        self.expander = Expander(self)
        self.redirector = Redirector(self)
        self._condition = 0  # how many conditions are being evaluated

    async def run_line(self, text: str) -> None:
        """One line of an interactive shell. Raises ShellExit."""
        try:
            await self.run_list(parse(text))
        except tree.SyntaxProblem as problem:
            await self.complain(f"sh: syntax error: {problem}")
            self.status = 1

    async def run_script(self, text: str, *, whole: bool = True) -> int:
        """Runs a text. A single simple command takes the place of the shell if the text is `whole`, as in mksh."""
        try:
            script = parse(text)
        except tree.SyntaxProblem as problem:
            await self.complain(f"sh: syntax error: {problem}")
            return 1
        try:
            try:
                single = _single_command(script) if whole else None
                if single is not None:
                    self.status = await self._simple(single, replaces_shell=True)
                else:
                    await self.run_list(script)
            finally:
                await self._run_traps()
        except ShellExit as end:
            self.status = end.status
        except LoopControl:
            pass
        return self.status

    async def _run_traps(self) -> None:
        """That of the signal which ended the shell, then that of EXIT. Raises ShellExit if one of them says so."""
        name = _signal_name(self.killed_by) if self.killed_by else ""
        scripts = [self.traps.pop(name, ""), self.traps.pop("EXIT", "")]
        self.traps.clear()
        status = self.status
        wanted: ShellExit | None = None
        for script in filter(None, scripts):
            try:
                await self.run_line(script)
            except ShellExit as end:
                wanted = end
        if wanted is not None:
            raise wanted
        self.status = status

    async def run_list(self, script: tree.List) -> None:
        """Raises ShellExit."""
        for chain in script.chains:
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
            process=self.phone.processes.add(name, self.process.arguments, stop=lambda number: None, group=group),
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
        """Runs the work of this shell as a process of its own, which signals can end; then closes the shell.

        Wait for it with `asyncio.shield`: as with real processes, what ends the one that waits does not end this one.
        """
        started = False

        async def run() -> int:
            nonlocal started
            started = True
            try:
                if self.killed_by is not None:
                    work.close()
                    return 128 + self.killed_by
                return await work
            except ShellExit as end:
                return end.status
            except LoopControl:
                return 0
            except BrokenPipeError:
                return 128 + signal.SIGPIPE
            except TooManyProcesses as problem:
                await self.complain(f"sh: {problem}")
                return 1
            except asyncio.CancelledError:
                return 128 + (self.killed_by or signal.SIGTERM)
            finally:
                self.close()

        task = asyncio.ensure_future(run())
        self.phone.processes.keep(task)

        def stop(number: int) -> None:
            if number in _HARMLESS or (self.traps.get(_signal_name(number)) == "" and number != signal.SIGKILL):
                return
            self.killed_by = number
            if number == signal.SIGKILL:
                self.traps.clear()
            if started:
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

    async def _background(self, chain: tree.Chain) -> None:
        single = _single_command(tree.List((tree.Chain(chain.pipelines, False),)))
        child = self.fork("sh", group=self.process.group)
        null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        os.close(child.descriptors[0])
        child.descriptors[0] = null

        async def work() -> int:
            if single is not None:
                return await child._simple(single, replaces_shell=True)
            await child.run_list(tree.List((tree.Chain(chain.pipelines, False),)))
            return child.status

        self.job = child.process
        self.jobs[child.process.pid] = child.in_task(work())
        self.status = 0

    async def _pipeline(self, pipeline: tree.Pipeline) -> int:
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
                tasks.append(asyncio.shield(child.in_task(child._command(command))))
            status = (await asyncio.gather(*tasks))[-1]
        return int(status == 0) if pipeline.negated else status

    async def _command(self, command: tree.Command) -> int:
        if isinstance(command, tree.Simple):
            return await self._simple(command)
        try:
            saved = await self.redirector.apply(command.redirections)
        except OSError as error:
            await self.complain(f"sh: {error.filename}: {error.strerror}")
            return 1
        try:
            return await self._compound(command)
        finally:
            self.redirector.restore(saved)

    async def _compound(self, command: tree.Compound | tree.If | tree.Loop | tree.For) -> int:
        if isinstance(command, tree.Compound):
            if command.subshell:
                child = self.fork("sh", group=self.process.group)

                async def work() -> int:
                    await child.run_list(command.body)
                    return child.status

                return await asyncio.shield(child.in_task(work()))
            await self.run_list(command.body)
            return self.status
        if isinstance(command, tree.If):
            for condition, body in command.branches:
                if await self._holds(condition):
                    self.status = 0
                    await self.run_list(body)
                    return self.status
            self.status = 0
            if command.otherwise is not None:
                await self.run_list(command.otherwise)
            return self.status
        if isinstance(command, tree.Loop):
            status = 0
            while await self._holds(command.condition) is not command.until:
                if not await self._turn(command.body):
                    break
                status = self.status
            return status
        self.status = 0
        for value in await self.expander.arguments(command.words):
            self.variables[command.name] = value
            if not await self._turn(command.body):
                break
        return self.status

    async def _turn(self, body: tree.List) -> bool:
        """One turn of a loop; whether it goes on."""
        try:
            await self.run_list(body)
        except LoopControl as control:
            return control.goes_on
        return True

    async def _holds(self, condition: tree.List) -> bool:
        self._condition += 1
        try:
            await self.run_list(condition)
        finally:
            self._condition -= 1
        return self.status == 0

    async def _simple(self, command: tree.Simple, *, replaces_shell: bool = False) -> int:
        words = await self.expander.arguments(command.words)
        assigned = {name: await self.expander.text(word) for name, word in command.assignments}
        try:
            saved = await self.redirector.apply(command.redirections)
        except OSError as error:
            await self.complain(f"sh: {error.filename}: {error.strerror}")
            return 1
        if not words:
            self.variables |= assigned
            self.redirector.restore(saved)
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
                self.redirector.restore(saved)
        try:
            return await self.execute(words, assigned, replaces_shell=replaces_shell)
        except TooManyProcesses as problem:
            await self.complain(f"sh: {problem}")
            return 1
        finally:
            self.redirector.restore(saved)

    async def execute(self, words: list[str], assigned: dict[str, str], *, replaces_shell: bool = False) -> int:
        """A built-in command, a command of the phone, or a program. 127 if there is none, 126 if it cannot run."""
        name = words[0]
        built_in = BUILT_IN.get(name)
        if built_in is not None:
            return await self._run_command(built_in, words, assigned)
        command = COMMANDS.get(posixpath.basename(name) if name.startswith("/system/bin/") else name)
        if command is not None:
            if replaces_shell:
                self.process.name, self.process.arguments = name, tuple(words)
            self.replaceable = replaces_shell
            return await self._run_command(command, words, assigned)
        if "/" not in name:
            await self.complain(f"sh: {name}: inaccessible or not found")
            return 127
        environment = {key: value for key, value in self.variables.items() if key in self.exported} | assigned
        return await run_program(self, words, environment, replaces_shell=replaces_shell)

    async def _run_command(self, command: CommandFunction, words: list[str], assigned: dict[str, str]) -> int:
        before = {name: self.variables.get(name) for name in assigned}
        exported = self.exported
        if assigned:
            self.variables |= assigned
            self.exported = exported | set(assigned)
        try:
            return await command(self, words)
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
                self.exported = exported
            for name, value in before.items():
                if value is None:
                    self.variables.pop(name, None)
                else:
                    self.variables[name] = value

    async def substitute(self, script: tree.List) -> str:
        """What a script prints, without the newlines at its end."""
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
        self.status = await asyncio.shield(task)
        return bytes(collected).replace(b"\0", b"").decode(errors="surrogateescape").rstrip("\n")


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


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name.removeprefix("SIG")
    except ValueError:
        return str(number)


def _single_command(script: tree.List) -> tree.Simple | None:
    if len(script.chains) == 1 and not script.chains[0].background and len(script.chains[0].pipelines) == 1:
        pipeline = script.chains[0].pipelines[0][1]
        if len(pipeline.commands) == 1 and not pipeline.negated and isinstance(pipeline.commands[0], tree.Simple):
            return pipeline.commands[0]
    return None
