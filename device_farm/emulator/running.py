"""Runs programs on a phone, with its clock and its faults."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from device_farm.emulator import clock
from device_farm.emulator.descriptors import Pipe, read_some, write_all
from device_farm.emulator.faults import PhoneFault
from device_farm.emulator.processes import Process, Run
from device_farm.emulator.programs import CannotRun, Executable, find_executable, host_argument

if TYPE_CHECKING:
    from device_farm.emulator.phone import Phone
    from device_farm.emulator.shell.shell import Shell

MAX_REPORT_BYTES = 32 << 20
_WALL_LIMIT, _LINK_LOST, _NO_CORE = 6, 7, 11  # exit codes of the runner


async def run_program(shell: Shell, words: Sequence[str], environment: dict[str, str], *, replaces_shell: bool) -> int:
    """A file that was pushed, to its end. 126 or 127 if it cannot be run."""
    try:
        executable = find_executable(shell, words[0])
        if executable is None:
            script = shell.phone.files.read(shell.path(words[0])).decode(errors="surrogateescape")
            child = shell.fork("sh", group=shell.process.group)
            child.parameters, child.name = list(words[1:]), words[0]
            return await asyncio.shield(child.in_task(child.run_script(script)))
        program = _Program(shell, executable, words, environment, replaces_shell=replaces_shell)
        options = clock.parse_bench(words[1:])
        if options is not None:
            return await program.bench(options)
        status = await program.run(words[1:], stdout=shell.descriptors[1])
        if words[1:2] == ["classify"] and status == 0:
            _flip_answers(shell, words)
        return status
    except CannotRun as problem:
        await shell.complain(f"sh: {problem}")
        return problem.status
    except OSError as error:
        await shell.complain(f"sh: {words[0]}: {error.strerror}")
        return 126


class _Program:
    def __init__(
        self,
        shell: Shell,
        executable: Executable,
        words: Sequence[str],
        environment: dict[str, str],
        *,
        replaces_shell: bool,
    ) -> None:
        self._shell = shell
        self._phone: Phone = shell.phone
        self._executable = executable
        self._words = words
        self._environment = environment
        self._replaces: Process | None = shell.process if replaces_shell else None
        self._run: Run | None = None  # what the phone remembers of it

    async def run(self, arguments: Sequence[str], *, stdout: int) -> int:
        """To its end. Raises OSError, TooManyProcesses."""
        shell, phone = self._shell, self._phone
        status = await phone.processes.run(
            [*self._executable.before, self._executable.host_path, *(host_argument(shell, word) for word in arguments)],
            name=self._words[0],
            arguments=self._words,
            cwd=phone.files.host(shell.cwd),
            environment=self._environment,
            descriptors=(shell.descriptors[0], stdout, shell.descriptors[2]),
            group=shell.process.group,
            replaces=self._replaces,
            max_file_bytes=0 if phone.files.full else None,
            after_start=self._started,
        )
        if status == 128 + signal.SIGPWR:  # what no program of a phone can do without taking the phone with it
            phone.inject(PhoneFault.REBOOT)
        return status

    def _started(self, run: Run) -> None:
        self._run = run
        _strike(self._phone, run.host_pid)

    async def bench(self, options: clock.BenchOptions) -> int:
        """The runner: computes for real; what it says of time is the model's, if the phone has one."""
        phone = self._phone
        if missing := [cpu for cpu in options.cpus if cpu >= phone.model.cores]:
            allowed = " ".join(map(str, range(phone.model.cores)))
            message = f"core {missing[0]} is switched off or not for this program; allowed are cores {allowed}"
            await self._shell.complain(f"npas-runner: {message}")
            return _NO_CORE
        began_s, real_began_s = phone.now_s(), time.monotonic()
        if phone.modelled_times:
            arguments = clock.shortest_run(options)
        else:
            cores = sorted(os.sched_getaffinity(0))
            first = phone.seed % len(cores)  # not the same for all phones
            arguments = clock.on_host_cores(self._words[1:], cores[first:] + cores[:first])
        status, output = await self._captured(arguments)
        report = clock.parse_report(output) if status == 0 else None
        if report is None:
            await write_all(self._shell.descriptors[1], output)
            return status
        if phone.modelled_times:
            timed = self._timed(report, options, began_s)
            report = timed.report
            last = status
            try:
                ended = await self._pass_time(timed.took_s, options, began_s=began_s, real_began_s=real_began_s)
                last = status if ended is None else ended
            except asyncio.CancelledError:  # with its shell
                last = 128 + (self._shell.killed_by or signal.SIGHUP)
                raise
            finally:
                if self._run is not None:
                    phone.processes.went_on(self._run, last)
            if ended is not None:
                return ended
        else:
            report = clock.on_phone_cores(report, options, phone.model)
        if phone.faults.strikes(PhoneFault.FLIPPED):
            report["output"] = [None if value is None else -value for value in reversed(report["output"])]
        await write_all(self._shell.descriptors[1], json.dumps(report, separators=(",", ":")).encode() + b"\n")
        return status

    def _timed(self, report: dict[str, Any], options: clock.BenchOptions, began_s: float) -> clock.Modelled:
        phone = self._phone
        thermal = phone.warmth().copy()
        threads = max(1, len(report["threads"]))

        def state_at(elapsed_s: float) -> clock.State:
            thermal.advance(began_s + elapsed_s, load=threads)
            return phone.state(thermal)

        def khz_at(elapsed_s: float) -> Sequence[int]:
            thermal.advance(began_s + elapsed_s, load=threads)
            return phone.clocks(thermal)

        number = phone.sessions[report["key"]]
        phone.sessions[report["key"]] += 1
        rng = clock.session_rng(phone.seed, report["key"], number)
        speed = phone.speed * (1 + rng.gauss(0.0, phone.model.session_spread))
        noise = phone.faults.value(PhoneFault.NOISY) or 0.0
        timed = clock.modelled(report, options, clock.Session(phone.model, speed, noise, state_at, khz_at, rng))
        phone.thermal = thermal
        return timed

    async def _captured(self, arguments: Sequence[str]) -> tuple[int, bytes]:
        pipe = Pipe(phone_reads=True)
        stdout = pipe.give()
        collected = bytearray()

        async def collect() -> None:
            while piece := await pipe.read():
                if len(collected) < MAX_REPORT_BYTES:
                    collected.extend(piece)

        collecting = asyncio.ensure_future(collect())
        try:
            status = await self.run(arguments, stdout=stdout)
            os.close(stdout)
            stdout = -1
            await collecting
        finally:
            if stdout >= 0:
                os.close(stdout)
            collecting.cancel()
            await asyncio.gather(collecting, return_exceptions=True)
            pipe.close()
        return status, bytes(collected)

    async def _pass_time(
        self, took_s: float, options: clock.BenchOptions, *, began_s: float, real_began_s: float
    ) -> int | None:
        """The program goes on for as long as its report says; an exit status if something ends it meanwhile."""
        phone, shell = self._phone, self._shell
        limit_s = options.wall_limit_s or took_s
        real_s = min(took_s, limit_s) * phone.pace - (time.monotonic() - real_began_s)
        status = await self._wait(real_s, options) if real_s > 0 else None
        phone.skip(max(0.0, took_s - (phone.now_s() - began_s)))
        if status is None and limit_s < took_s:
            await shell.complain("npas-runner: the wall-clock limit has passed")
            status = _WALL_LIMIT
        elif status == _LINK_LOST:
            await shell.complain("npas-runner: stdin ended, so the link is lost")
        return status

    async def _wait(self, real_s: float, options: clock.BenchOptions) -> int | None:
        shell, processes = self._shell, self._phone.processes
        killed: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()

        def stop(number: int) -> None:
            if not killed.done():
                killed.set_result(128 + number)

        process = self._replaces
        if process is None:
            process = processes.add(self._words[0], self._words, stop=stop, group=shell.process.group)
        process.stop, process.is_modelled = stop, True
        link = asyncio.ensure_future(_end_of(shell.descriptors[0], only_if=options.dies_with_stdin))
        try:
            done, _ = await asyncio.wait([killed, link], timeout=real_s, return_when=asyncio.FIRST_COMPLETED)
            if killed in done:
                return killed.result()
            return link.result() if link in done else None
        finally:
            link.cancel()
            await asyncio.gather(link, return_exceptions=True)
            process.is_modelled = False
            if self._replaces is None:
                processes.remove(process)


async def _end_of(descriptor: int, *, only_if: bool) -> int | None:
    """The exit status when stdin ends, if the program minds."""
    while only_if and await read_some(descriptor):
        pass
    if not only_if:
        await asyncio.Event().wait()
    return _LINK_LOST


def _strike(phone: Phone, host_pid: int) -> None:
    if phone.faults.strikes(PhoneFault.HANG):
        os.kill(host_pid, signal.SIGSTOP)
    elif phone.faults.strikes(PhoneFault.CRASH):
        os.kill(host_pid, signal.SIGABRT)


def _flip_answers(shell: Shell, words: Sequence[str]) -> None:
    """Negates every number that `artifact classify` wrote."""
    if not shell.phone.faults.strikes(PhoneFault.FLIPPED) or "--output" not in words[:-1]:
        return
    with contextlib.suppress(OSError):
        host = shell.phone.files.host(shell.path(words[words.index("--output") + 1]))
        content = bytearray(host.read_bytes())
        for i in range(3, len(content), 4):
            content[i] ^= 0x80
        host.write_bytes(content)
