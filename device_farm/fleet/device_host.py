"""The actor of one node's devices: passes calls on to a process for each of them, which it can end and start anew.

Devices for which Ray sets CPUs or a resource aside have an actor of their own instead (staffing.py).
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import itertools
import math
import os
import pickle
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from typing import Any

from device_farm.errors import DeviceGone
from device_farm.fleet.offspring import LENGTH, send_message

# Spread over less than the whole time, so that turns never hold up devices that are spread already.
_SPREAD = 0.8
_MEMORY = 0.1  # weight of the last one in the mean


class Turns:
    """Spreads the beginnings of what many devices do over and over.

    All measure for equally long, so what began together ends together and then wants the host together, for ever; the
    system serves all of them a little, and each waits for all. Devices that take `mean_s` begin `count / mean_s` times
    a second at most: nothing is lost by letting none begin much sooner after another than that.
    """

    def __init__(self) -> None:
        self._mean_s = 0.0
        self._next_s = -math.inf

    async def wait(self, *, among: int) -> None:
        """Returns when it is the turn of a device among so many."""
        now_s = asyncio.get_running_loop().time()
        turn_s = max(now_s, self._next_s)
        self._next_s = turn_s + _SPREAD * self._mean_s / max(1, among)
        if turn_s > now_s:
            await asyncio.sleep(turn_s - now_s)

    def took(self, seconds: float) -> None:
        """So long a device was busy."""
        self._mean_s = (1 - _MEMORY) * self._mean_s + _MEMORY * seconds if self._mean_s else seconds


@dataclass
class _Child:
    """A process that serves a device."""

    pid: int
    handle: int  # a pidfd: the number may belong to somebody else one day
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    pending: dict[int, asyncio.Future[Any]] = field(default_factory=dict)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.handle, signal.SIGKILL)


class DeviceHost:
    """Made a Ray actor by the broker. All methods belong to one event loop; a device is named by its serial.

    Its processes end with it, however it ends.
    """

    def __init__(self) -> None:
        self._parent: subprocess.Popen[bytes] | None = None
        self._forks: socket.socket | None = None
        self._forking = asyncio.Lock()
        self._children: dict[str, _Child] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._numbers = itertools.count()
        self._turns = Turns()

    async def call(self, serial: str, made_with: tuple[Any, ...], method: str, *arguments: Any) -> Any:
        """What a method of the device's DeviceActor returns; `made_with` is what that is made with, if there is none.

        Raises what it raises, and DeviceGone when its process has ended meanwhile.
        """
        if method == "measure":
            await self._turns.wait(among=len(self._children))
        child = await self._child(serial, made_with)
        began_s = asyncio.get_running_loop().time()
        number = next(self._numbers)
        child.pending[number] = asyncio.get_running_loop().create_future()
        try:
            data = pickle.dumps((number, method, arguments), protocol=pickle.HIGHEST_PROTOCOL)
            child.writer.write(LENGTH.pack(len(data)) + data)
            return await child.pending[number]
        finally:
            child.pending.pop(number, None)
            if method == "measure":
                self._turns.took(asyncio.get_running_loop().time() - began_s)

    async def end(self, serial: str) -> None:
        """Kills the device's process; the next call starts another one."""
        if (child := self._children.pop(serial, None)) is not None:
            child.kill()
            await child.ended.wait()

    async def close(self) -> None:
        """Ends all of its processes."""
        for serial in list(self._children):
            await self.end(serial)
        if self._forks is not None:
            self._forks.close()
        if self._parent is not None:
            await asyncio.to_thread(self._parent.wait)

    async def _child(self, serial: str, made_with: tuple[Any, ...]) -> _Child:
        async with self._forking:
            child = self._children.get(serial)
            if child is None or child.ended.is_set():
                child = self._children[serial] = await self._fork(made_with)
                task = asyncio.ensure_future(self._listen(serial, child))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            return child

    async def _fork(self, made_with: tuple[Any, ...]) -> _Child:
        if self._parent is None or self._parent.poll() is not None:
            self._start_parent()
        assert self._forks is not None
        ours, theirs = socket.socketpair()
        with theirs:
            self._forks.sendmsg([b"f"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [theirs.fileno()]))])
            told = await asyncio.to_thread(self._forks.recv, LENGTH.size)
        if len(told) < LENGTH.size:
            ours.close()
            raise DeviceGone("the process that starts others has ended")
        (pid,) = LENGTH.unpack(told)
        await asyncio.to_thread(send_message, ours, made_with)
        ours.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=ours)
        return _Child(pid, os.pidfd_open(pid), reader, writer)

    def _start_parent(self) -> None:
        self._forks, theirs = socket.socketpair()
        with theirs:
            self._parent = subprocess.Popen(
                [sys.executable, "-m", "device_farm.fleet.offspring", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                start_new_session=True,
            )

    async def _listen(self, serial: str, child: _Child) -> None:
        """Hands out answers until the process has ended; what it owes then is an error."""
        try:
            while True:
                (length,) = LENGTH.unpack(await child.reader.readexactly(LENGTH.size))
                number, result, error = pickle.loads(await child.reader.readexactly(length))
                pending = child.pending.get(number)
                if pending is None or pending.done():
                    continue
                if error is None:
                    pending.set_result(result)
                else:
                    pending.set_exception(error)
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            child.kill()  # it may have closed its socket only
            child.ended.set()
            if self._children.get(serial) is child:
                del self._children[serial]
            for pending in child.pending.values():
                if not pending.done():
                    pending.set_exception(DeviceGone(f"the process that serves {serial} died"))
            child.writer.close()
            os.close(child.handle)
