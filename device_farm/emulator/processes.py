"""Programs on a phone: native ones in groups of their own, and the phone's shells, all under the phone's own numbers.

No program outlives its phone: it gets SIGKILL when the process that hosts the phone dies (PR_SET_PDEATHSIG), and
`ProcessTable.close` finds children of children by a mark in their environment.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import itertools
import os
import resource
import shutil
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

MARK = "NPAS_EMULATED_PHONE"
MAX_PROCESSES = 200
_SPARE = 64  # for shells that a host opens: it may want to end the others
MAX_RUNS = 10_000  # that are remembered
_FIRST_PID = 3000
_PR_SET_PDEATHSIG = 1
_SETPRIV = shutil.which("setpriv")  # of util-linux: asks for a signal at its parent's death, then becomes the program
_libc = ctypes.CDLL(None, use_errno=True)


class TooManyProcesses(Exception):
    """A phone does not run any number of programs at once."""


@dataclass
class Process:
    """An entry of the table. `group` is the number of the first process of its group, as in POSIX."""

    pid: int
    group: int
    name: str
    arguments: tuple[str, ...]
    started_s: float
    stop: Callable[[int], None]  # how a signal reaches it
    environment: dict[str, str] = field(default_factory=dict)
    host_pid: int | None = None
    is_stray: bool = False  # a program made it
    is_modelled: bool = False  # a program that runs on only by the phone's own time
    ended: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass
class Run:
    """A native program that ran, or runs."""

    name: str
    arguments: tuple[str, ...]
    host_pid: int
    started_s: float  # seconds since the phone was made
    ended_s: float | None = None
    exit_status: int | None = None


class ProcessTable:
    """All that runs on one phone. `mark` is its own among all phones of all hosts."""

    def __init__(self, mark: str) -> None:
        self.mark = mark
        self.runs: deque[Run] = deque(maxlen=MAX_RUNS)
        self.started = 0  # native programs
        self._began_s = time.monotonic()
        self._numbers = itertools.count(_FIRST_PID)
        self._alive: dict[int, Process] = {}
        self._tasks: set[asyncio.Future[int]] = set()
        self._host_groups: dict[int, set[int]] = {}  # of the phone's group: native groups, children's included

    def __iter__(self) -> Iterator[Process]:
        return iter(list(self._alive.values()))

    def add(
        self,
        name: str,
        arguments: Sequence[str],
        *,
        stop: Callable[[int], None],
        group: int | None = None,
        is_spared: bool = False,
    ) -> Process:
        """A process in a group, or in a new one. Raises TooManyProcesses, less soon for one that `is_spared`."""
        if len(self._alive) >= MAX_PROCESSES + (_SPARE if is_spared else 0):
            raise TooManyProcesses(f"a phone runs at most {MAX_PROCESSES} processes at once")
        pid = next(self._numbers)
        process = Process(pid, group or pid, name, tuple(arguments), time.monotonic(), stop)
        self._alive[pid] = process
        return process

    def keep(self, task: asyncio.Future[int]) -> None:
        """Holds a task until it is done; the event loop itself would let it go."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def went_on(self, run: Run, exit_status: int) -> None:
        """A program whose time is modelled has ended only now, as seen by whoever waits for it."""
        run.ended_s, run.exit_status = time.monotonic() - self._began_s, exit_status

    def remove(self, process: Process) -> None:
        self._alive.pop(process.pid, None)
        process.ended.set()

    def find(self, pid: int) -> Process | None:
        return self._alive.get(pid)

    def discover(self) -> list[Process]:
        """All, also those that programs made themselves: they get numbers now."""
        alive = set(self.alive_host_pids())
        for process in self:
            if process.is_stray and process.host_pid not in alive:
                self.remove(process)
        known = {process.host_pid for process in self}
        for host_pid in sorted(alive - known):
            host_group = _group_of(host_pid)
            group = next((group for group, members in self._host_groups.items() if host_group in members), None)
            arguments = _host_text(host_pid, "cmdline")
            name, stop = arguments[0] if arguments else "?", self._stop_stray(host_pid)
            try:
                stray = self.add(name, arguments, stop=stop, group=group, is_spared=True)
            except TooManyProcesses:
                break
            stray.host_pid, stray.is_stray = host_pid, True
            pairs = [line.partition("=") for line in _host_text(host_pid, "environ")]
            stray.environment = {name: value for name, _, value in pairs if name != MARK}
        return list(self)

    def _stop_stray(self, host_pid: int) -> Callable[[int], None]:
        """The number may belong to somebody else by the time that it is used."""

        def stop(number: int) -> None:
            if host_pid in self.alive_host_pids():
                _signal(host_pid, number)

        return stop

    def kill(self, pid: int, number: int) -> bool:
        """Like kill(2): a negative `pid` is a group. Whether there was anybody."""
        if pid >= 0:
            process = self._alive.get(pid)
            if process is not None and number:
                process.stop(number)
            return process is not None
        members = [process for process in self._alive.values() if process.group == -pid]
        lingering = {child for group in self._host_groups.get(-pid, ()) for child in self._members(group)}
        lingering -= {process.host_pid for process in members}
        if number:
            for process in members:
                process.stop(number)
            for host_pid in lingering:
                _signal(host_pid, number)
        return bool(members or lingering)

    async def run(
        self,
        host_arguments: Sequence[str | os.PathLike[str]],
        *,
        name: str,
        arguments: Sequence[str],
        cwd: Path,
        environment: dict[str, str],
        descriptors: tuple[int, int, int],
        group: int,
        replaces: Process | None = None,
        max_file_bytes: int | None = None,
        after_start: Callable[[Run], None] = lambda run: None,
    ) -> int:
        """Runs a native program to its end and returns its exit status, 128 + n after signal n.

        With `replaces` it takes the number of that process, as after exec(2). Raises OSError if it cannot be started,
        TooManyProcesses. When the task is cancelled the program lives on, unless the canceller sees to it.
        """
        process = replaces or self.add(name, arguments, stop=lambda number: None, group=group)
        try:
            child = await _start(
                host_arguments,
                cwd=cwd,
                environment=environment | {MARK: self.mark},
                descriptors=descriptors,
                max_file_bytes=max_file_bytes,
            )
        except BaseException:
            if replaces is None:
                self.remove(process)
            raise
        process.name, process.arguments = name, tuple(arguments)
        process.stop = lambda number: _signal(child.pid, number)
        process.host_pid, process.environment = child.pid, dict(environment)
        self._host_groups.setdefault(process.group, set()).add(child.pid)
        run = Run(name, tuple(arguments), child.pid, time.monotonic() - self._began_s)
        self.runs.append(run)
        self.started += 1
        after_start(run)
        watch = asyncio.ensure_future(self._watch(child, process, run, owned=replaces is None))
        self.keep(watch)
        return await asyncio.shield(watch)

    async def _watch(self, child: subprocess.Popen[bytes], process: Process, run: Run, *, owned: bool) -> int:
        await _exit_of(child.pid)
        code = child.wait()
        run.exit_status = status = code if code >= 0 else 128 - code
        run.ended_s = time.monotonic() - self._began_s
        process.host_pid, process.stop = None, lambda number: None  # the host may give the number to another
        if not self._members(child.pid):
            groups = self._host_groups[process.group]
            groups.discard(child.pid)
            if not groups:
                del self._host_groups[process.group]
        if owned:
            self.remove(process)
        return status

    def alive_host_pids(self) -> list[int]:
        """Native processes, children of children included."""
        return marked_processes(self.mark)

    def count_programs(self) -> int:
        """Native processes, children of children included, and those whose time is modelled."""
        return len(self.alive_host_pids()) + sum(process.is_modelled for process in self)

    def kill_all(self) -> None:
        """Everything, at once and without mercy."""
        for process in list(self._alive.values()):
            if process.host_pid is None:
                process.stop(signal.SIGKILL)
        for _ in range(20):  # what forks while it is being counted
            pids = self.alive_host_pids()
            for pid in pids:
                _signal(pid, signal.SIGKILL)
            if not pids:
                return
            time.sleep(0.005)

    def _members(self, host_group: int) -> list[int]:
        """Living processes of a native group. Nothing costs as long as the group is empty, which it mostly is."""
        try:
            os.killpg(host_group, 0)
        except (ProcessLookupError, PermissionError):
            return []
        return [pid for pid in self.alive_host_pids() if _group_of(pid) == host_group]


def marked_processes(mark: str) -> list[int]:
    """Host processes that carry the mark of a phone, zombies not counted."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if wanted in Path("/proc", entry.name, "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
    return found


def _host_text(host_pid: int, name: str) -> list[str]:
    """The NUL-separated words of a file in /proc."""
    try:
        content = Path("/proc", str(host_pid), name).read_bytes()
    except OSError:
        return []
    return content.rstrip(b"\0").decode(errors="surrogateescape").split("\0")


def _group_of(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return None


def _signal(host_pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(host_pid, number)


async def _start(
    arguments: Sequence[str | os.PathLike[str]],
    *,
    cwd: Path,
    environment: dict[str, str],
    descriptors: tuple[int, int, int],
    max_file_bytes: int | None,
) -> subprocess.Popen[bytes]:
    host = os.getpid()

    def in_child() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != host:
            os._exit(127)
        if max_file_bytes is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (max_file_bytes, max_file_bytes))

    # What runs in a child needs a fork of this whole process: 11 ms of processor time where vfork and setpriv take 2.
    launcher = _SETPRIV if max_file_bytes is None and os.access(arguments[0], os.X_OK) else None
    command = [launcher, "--pdeathsig", "KILL", *arguments] if launcher is not None else list(arguments)
    stdin, stdout, stderr = descriptors
    for attempt in range(200):
        try:
            child = subprocess.Popen(
                command,
                cwd=cwd,
                env=environment,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
                preexec_fn=in_child if launcher is None else None,
            )
            with contextlib.suppress(ProcessLookupError):
                resource.prlimit(child.pid, resource.RLIMIT_CORE, (0, 0))
            return child
        except OSError as error:
            # A fork elsewhere in this process may hold a freshly written program open for an instant.
            if error.errno != errno.ETXTBSY or attempt == 199:
                raise
            await asyncio.sleep(0.005)
    raise AssertionError("unreachable")


async def _exit_of(pid: int) -> None:
    loop = asyncio.get_running_loop()
    descriptor = os.pidfd_open(pid)
    ended = loop.create_future()
    loop.add_reader(descriptor, lambda: None if ended.done() else ended.set_result(None))
    try:
        await ended
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
