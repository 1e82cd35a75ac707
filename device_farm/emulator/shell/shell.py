"""A shell process on a phone: its state, its signals, its commands and programs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import posixpath
import signal
from collections.abc import Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from device_farm.emulator.descriptors import write_all
from device_farm.emulator.files import PhoneFiles
from device_farm.emulator.processes import Process, TooManyProcesses
from device_farm.emulator.running import run_program
from device_farm.emulator.shell import tree
from device_farm.emulator.shell.commands import BUILT_IN, COMMANDS
from device_farm.emulator.shell.commands.registry import CommandFunction
from device_farm.emulator.shell.control import LoopControl, ShellExit
from device_farm.emulator.shell.expansion import Expander
from device_farm.emulator.shell.interpreter import Interpreter, single_command
from device_farm.emulator.shell.parser import parse
from device_farm.emulator.shell.redirection import Redirector

if TYPE_CHECKING:
    from device_farm.emulator.phone import Phone

MAX_VARIABLE_CHARACTERS = 4 << 20  # of all together
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
        self.interpreter = Interpreter(self)

    async def run_line(self, text: str) -> None:
        """One line of an interactive shell. Raises ShellExit."""
        try:
            await self.interpreter.run_list(parse(text))
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
                single = single_command(script) if whole else None
                if single is not None:
                    self.status = await self.interpreter.simple(single, replaces_shell=True)
                else:
                    await self.interpreter.run_list(script)
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

    async def complain(self, message: str) -> None:
        with contextlib.suppress(OSError):
            await write_all(self.descriptors[2], message.encode(errors="surrogateescape") + b"\n")

    async def assign(self, variables: Mapping[str, str]) -> None:
        """Raises ShellExit where a script keeps more than a shell can."""
        self.variables |= variables
        if sum(len(name) + len(value) for name, value in self.variables.items()) > MAX_VARIABLE_CHARACTERS:
            await self.complain("sh: out of memory")
            raise ShellExit(1)

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
        child.traps = {name: "" for name, script in self.traps.items() if not script}  # what is ignored, stays so
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
