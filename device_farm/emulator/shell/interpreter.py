"""Runs trees of the shell language: lists, pipes, conditions, loops."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from device_farm.emulator.descriptors import read_some
from device_farm.emulator.processes import TooManyProcesses
from device_farm.emulator.shell import tree
from device_farm.emulator.shell.control import LoopControl, ShellExit

if TYPE_CHECKING:
    from device_farm.emulator.shell.shell import Shell

MAX_SUBSTITUTED_BYTES = 1 << 20
_MOST_JOBS = 300  # that `wait` may still ask for


class Interpreter:
    """Of one shell."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self._condition = 0  # how many conditions are being evaluated

    async def run_list(self, script: tree.List) -> None:
        """Raises ShellExit, LoopControl."""
        for chain in script.chains:
            await asyncio.sleep(0)  # an endless loop of the script is none of the host
            if chain.background:
                await self._background(chain)
                continue
            for position, (operator, pipeline) in enumerate(chain.pipelines):
                if (operator == "&&" and self._shell.status != 0) or (operator == "||" and self._shell.status == 0):
                    continue
                tested = position < len(chain.pipelines) - 1 or pipeline.negated
                self._condition += tested
                try:
                    self._shell.status = await self._pipeline(pipeline)
                finally:
                    self._condition -= tested
                if self._shell.status and self._shell.stops_at_error and not tested and not self._condition:
                    raise ShellExit(self._shell.status)

    async def _background(self, chain: tree.Chain) -> None:
        single = single_command(tree.List((tree.Chain(chain.pipelines, False),)))
        child = self._shell.fork("sh", group=self._shell.process.group)
        null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        os.close(child.descriptors[0])
        child.descriptors[0] = null

        async def work() -> int:
            if single is not None:
                return await child.interpreter.simple(single, replaces_shell=True)
            await child.interpreter.run_list(tree.List((tree.Chain(chain.pipelines, False),)))
            return child.status

        self._shell.job = child.process
        self._shell.jobs[child.process.pid] = child.in_task(work())
        if len(self._shell.jobs) > _MOST_JOBS:
            self._shell.jobs = {pid: task for pid, task in self._shell.jobs.items() if not task.done()}
        self._shell.status = 0

    async def _pipeline(self, pipeline: tree.Pipeline) -> int:
        if len(pipeline.commands) == 1:
            status = await self.command(pipeline.commands[0])
        else:
            status = await self._pipes(pipeline.commands)
        return int(status == 0) if pipeline.negated else status

    async def _pipes(self, commands: Sequence[tree.Command]) -> int:
        """The status of the last one."""
        tasks = []
        source: int | None = None
        for position, command in enumerate(commands):
            descriptors = dict(self._shell.descriptors)
            if source is not None:
                descriptors[0] = source
            following: int | None = None
            sink: int | None = None
            if position < len(commands) - 1:
                following, sink = os.pipe2(os.O_CLOEXEC)
                descriptors[1] = sink
            try:
                child = self._shell.fork("sh", descriptors, group=self._shell.process.group)
            except TooManyProcesses:
                if following is not None:
                    os.close(following)
                raise
            finally:
                for used in (source, sink):
                    if used is not None:
                        os.close(used)
            source = following
            tasks.append(asyncio.shield(child.in_task(child.interpreter.command(command))))
        return (await asyncio.gather(*tasks))[-1]

    async def command(self, command: tree.Command) -> int:
        """One of a pipeline. Raises ShellExit, LoopControl."""
        if isinstance(command, tree.Simple):
            return await self.simple(command)
        try:
            saved = await self._shell.redirector.apply(command.redirections)
        except OSError as error:
            await self._shell.complain(f"sh: {error.filename}: {error.strerror}")
            return 1
        try:
            return await self._compound(command)
        finally:
            self._shell.redirector.restore(saved)

    async def _compound(self, command: tree.Compound | tree.If | tree.Loop | tree.For) -> int:
        if isinstance(command, tree.Compound):
            if command.subshell:
                child = self._shell.fork("sh", group=self._shell.process.group)

                async def work() -> int:
                    await child.interpreter.run_list(command.body)
                    return child.status

                return await asyncio.shield(child.in_task(work()))
            await self.run_list(command.body)
            return self._shell.status
        if isinstance(command, tree.If):
            for condition, body in command.branches:
                if await self._holds(condition):
                    self._shell.status = 0
                    await self.run_list(body)
                    return self._shell.status
            self._shell.status = 0
            if command.otherwise is not None:
                await self.run_list(command.otherwise)
            return self._shell.status
        if isinstance(command, tree.Loop):
            status = 0
            while await self._holds(command.condition) is not command.until:
                if not await self._turn(command.body):
                    break
                status = self._shell.status
            return status
        self._shell.status = 0
        for value in await self._shell.expander.arguments(command.words):
            await self._shell.assign({command.name: value})
            if not await self._turn(command.body):
                break
        return self._shell.status

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
        return self._shell.status == 0

    async def simple(self, command: tree.Simple, *, replaces_shell: bool = False) -> int:
        """Words, assignments, redirections. Raises ShellExit, LoopControl."""
        words = await self._shell.expander.arguments(command.words)
        assigned = {name: await self._shell.expander.text(word) for name, word in command.assignments}
        try:
            saved = await self._shell.redirector.apply(command.redirections)
        except OSError as error:
            await self._shell.complain(f"sh: {error.filename}: {error.strerror}")
            return 1
        if not words:
            self._shell.redirector.restore(saved)
            await self._shell.assign(assigned)
            return 0
        if words[0] == "exec":
            if len(words) == 1:
                _give_up(saved)
                return 0
            try:
                raise ShellExit(await self._shell.execute(words[1:], assigned, replaces_shell=True))
            finally:
                self._shell.redirector.restore(saved)
        if replaces_shell:
            _give_up(saved)  # no shell comes back to them, and who holds them open holds others up
        try:
            return await self._shell.execute(words, assigned, replaces_shell=replaces_shell)
        except TooManyProcesses as problem:
            await self._shell.complain(f"sh: {problem}")
            return 1
        finally:
            self._shell.redirector.restore(saved)

    async def substitute(self, script: tree.List) -> str:
        """What a script prints, without the newlines at its end."""
        reader, writer = os.pipe2(os.O_CLOEXEC)
        try:
            child = self._shell.fork("sh", {**self._shell.descriptors, 1: writer}, group=self._shell.process.group)
        finally:
            os.close(writer)

        async def work() -> int:
            await child.interpreter.run_list(script)
            return child.status

        task = child.in_task(work())
        collected = bytearray()
        try:
            while piece := await read_some(reader):
                if len(collected) < MAX_SUBSTITUTED_BYTES:
                    collected += piece
        finally:
            os.close(reader)
        self._shell.status = await asyncio.shield(task)
        return bytes(collected).replace(b"\0", b"").decode(errors="surrogateescape").rstrip("\n")


def _give_up(saved: dict[int, int | None]) -> None:
    """What was redirected stays so."""
    for descriptor in saved.values():
        if descriptor is not None:
            os.close(descriptor)
    saved.clear()


def single_command(script: tree.List) -> tree.Simple | None:
    """The simple command that a script consists of, if it does."""
    if len(script.chains) == 1 and not script.chains[0].background and len(script.chains[0].pipelines) == 1:
        pipeline = script.chains[0].pipelines[0][1]
        if len(pipeline.commands) == 1 and not pipeline.negated and isinstance(pipeline.commands[0], tree.Simple):
            return pipeline.commands[0]
    return None
