"""What a host may open on a phone: shells, commands, files."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import struct
from typing import TYPE_CHECKING

from device_farm.emulator.descriptors import Pipe, read_line
from device_farm.emulator.faults import PhoneFault
from device_farm.emulator.link import Service, Stream, StreamClosed
from device_farm.emulator.packets import ProtocolError
from device_farm.emulator.processes import TooManyProcesses
from device_farm.emulator.shell.shell import Shell
from device_farm.emulator.shell_protocol import Frame, FrameKind, FrameReader
from device_farm.emulator.sync_service import serve_sync

if TYPE_CHECKING:
    from device_farm.emulator.phone import Phone

_GARBAGE_BYTES = 4096
_ENDLESS_BYTES = 32_768  # at a time


def find_service(phone: Phone, name: bytes) -> Service | None:
    """None for what this phone does not have."""
    text = name.decode(errors="surrogateescape")
    kind, colon, rest = text.partition(":")
    if not colon or PhoneFault.REFUSE in phone.faults:
        return None
    words = kind.split(",")
    if words[0] == "shell":
        return lambda stream: _serve_shell(phone, stream, rest, framed="v2" in words[1:])
    if words[0] == "exec":
        return lambda stream: _serve_shell(phone, stream, rest, framed=False)
    if kind == "sync":
        return lambda stream: serve_sync(phone, stream)
    if kind == "reboot":
        return lambda stream: _serve_reboot(phone)
    return None


async def _serve_reboot(phone: Phone) -> None:
    phone.inject(PhoneFault.REBOOT)


async def _serve_shell(phone: Phone, stream: Stream, script: str, *, framed: bool) -> None:
    """A shell with pipes. Its end is the end of all that hold its output, as with adbd."""
    try:
        process = phone.processes.add("sh", ("sh", "-c", script), stop=lambda number: None, is_spared=True)
    except TooManyProcesses:
        return
    stdin, stdout = Pipe(phone_reads=False), Pipe(phone_reads=True)
    stderr = Pipe(phone_reads=True) if framed else None
    descriptors = {0: stdin.give(), 1: stdout.give()}
    descriptors[2] = stderr.give() if stderr is not None else os.dup(descriptors[1])
    shell = Shell(phone, descriptors=descriptors, process=process)
    work = shell.run_script(script) if script else _run_lines(shell)
    task = shell.in_task(work)
    outputs = [asyncio.ensure_future(_send(phone, stream, stdout, FrameKind.STDOUT, framed=framed))]
    if stderr is not None:
        outputs.append(asyncio.ensure_future(_send(phone, stream, stderr, FrameKind.STDERR, framed=framed)))
    feeding = asyncio.ensure_future(_feed(stream, stdin, framed=framed))
    lost = asyncio.ensure_future(stream.closed.wait())
    finished = asyncio.ensure_future(asyncio.wait([task, *outputs]))
    try:
        await asyncio.wait([lost, finished], return_when=asyncio.FIRST_COMPLETED)
        if not lost.done() and framed:
            await stream.write(_frame(phone, FrameKind.EXIT, struct.pack("<B", task.result() & 255)))
    except StreamClosed:
        pass
    finally:
        for helper in (feeding, lost, finished, *outputs):
            helper.cancel()
        await asyncio.gather(feeding, *outputs, return_exceptions=True)
        pipes = [stdin, stdout, *([stderr] if stderr is not None else [])]
        if PhoneFault.ORPHAN in phone.faults and not task.done():
            phone.keep_open(pipes)
        else:
            for pipe in pipes:
                pipe.close()
            process.stop(signal.SIGHUP)


async def _run_lines(shell: Shell) -> int:
    """An interactive shell, without a terminal: one line after the other."""
    while line := await read_line(shell.descriptors[0]):
        await shell.run_line(line.decode(errors="surrogateescape"))
    return shell.status


async def _feed(stream: Stream, stdin: Pipe, *, framed: bool) -> None:
    frames = FrameReader()
    somebody_reads = True
    with contextlib.suppress(ProtocolError):
        while data := await stream.read():
            if not framed:
                somebody_reads = somebody_reads and await stdin.write(data)
                continue
            for frame in frames.feed(data):
                if frame.kind is FrameKind.STDIN and somebody_reads:
                    somebody_reads = await stdin.write(frame.data)
                elif frame.kind is FrameKind.CLOSE_STDIN:
                    stdin.close()
                    somebody_reads = False


async def _send(phone: Phone, stream: Stream, pipe: Pipe, kind: FrameKind, *, framed: bool) -> None:
    """Until all who hold the pipe have closed it."""
    while data := await pipe.read():
        if PhoneFault.GARBAGE in phone.faults:
            data = os.urandom(min(len(data), _GARBAGE_BYTES))
        if PhoneFault.ENDLESS in phone.faults:
            data *= 1 + _ENDLESS_BYTES // len(data)
        await stream.write(_frame(phone, kind, data) if framed else data)
        while PhoneFault.ENDLESS in phone.faults:
            await stream.write(_frame(phone, kind, data) if framed else data)


def _frame(phone: Phone, kind: FrameKind, data: bytes) -> bytes:
    if PhoneFault.WRONG_LENGTHS in phone.faults:
        return struct.pack("<BI", kind, 0xFFFFFFF0) + data
    return Frame(kind, data).encode()
