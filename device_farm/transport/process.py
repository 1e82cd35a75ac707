"""A child process with one deadline and a bounded output, of which nothing survives the call."""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from device_farm.errors import Refused
from device_farm.transport.base import Completed, Deadline

_POLL_S = 0.02  # only to notice a program that ended while its children hold its pipes open
_CHUNK = 65536


def run_process(
    argv: Sequence[str], *, cwd: Path, stdin: bytes | None, deadline: Deadline, max_output_bytes: int
) -> Completed:
    """Runs `argv` (the first one a path) in a process group of its own and an empty environment.

    The group is killed when the program has ended, when the deadline has passed, and on any exception. A killed parent
    cannot kill; then the child's stdin ends, and a child that watches it (runner: --die-with-stdin) ends too.

    Raises DeadlineExceeded; Refused if it cannot be started or prints more than `max_output_bytes`.
    """
    process = _start(argv, cwd=cwd, deadline=deadline)
    try:
        output = _communicate(process, stdin=stdin, deadline=deadline, max_output_bytes=max_output_bytes)
    finally:
        _end_group(process)
    status = process.returncode
    return Completed(status if status >= 0 else 128 - status, *output)


def _start(argv: Sequence[str], *, cwd: Path, deadline: Deadline) -> subprocess.Popen[bytes]:
    while True:
        try:
            return subprocess.Popen(
                argv,
                cwd=cwd,
                env={},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
                bufsize=0,
            )
        except OSError as error:
            # A fork in another thread may hold a freshly written program open for an instant.
            if error.errno != errno.ETXTBSY:
                raise Refused(f"{Path(argv[0]).name} cannot be started: {error.strerror}") from error
            deadline.check()
            time.sleep(0.005)


def _communicate(
    process: subprocess.Popen[bytes], *, stdin: bytes | None, deadline: Deadline, max_output_bytes: int
) -> tuple[bytes, bytes]:
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    outputs = {process.stdout.fileno(): bytearray(), process.stderr.fileno(): bytearray()}
    to_write = memoryview(stdin or b"")
    ended = False
    with selectors.DefaultSelector() as selector:
        for descriptor in outputs:
            os.set_blocking(descriptor, False)
            selector.register(descriptor, selectors.EVENT_READ)
        if stdin is not None:
            os.set_blocking(process.stdin.fileno(), False)
            selector.register(process.stdin.fileno(), selectors.EVENT_WRITE)
        while not ended or _reading(selector, outputs):
            # With all pipes closed it is about to end, within microseconds as a rule.
            poll_s = _POLL_S if _reading(selector, outputs) else _POLL_S / 20
            for key, _ in selector.select(min(poll_s, deadline.remaining_s)):
                if key.fd in outputs:
                    chunk = os.read(key.fd, _CHUNK)
                    outputs[key.fd] += chunk
                    if not chunk:
                        selector.unregister(key.fd)
                else:
                    to_write = to_write[_write(key.fd, to_write) :]
                    if not to_write:
                        selector.unregister(key.fd)
                        process.stdin.close()
            if sum(map(len, outputs.values())) > max_output_bytes:
                raise Refused(f"the program printed more than {max_output_bytes} bytes and was ended")
            if not ended and _has_ended(process):
                ended = True
                _kill_group(process)  # its children, or their copies of the pipes would never end
            deadline.check()
    stdout, stderr = outputs.values()
    return bytes(stdout), bytes(stderr)


def _reading(selector: selectors.BaseSelector, outputs: dict[int, bytearray]) -> bool:
    return any(descriptor in outputs for descriptor in selector.get_map())


def _write(descriptor: int, data: memoryview) -> int:
    """Bytes written; all of them if nobody reads any more."""
    try:
        return os.write(descriptor, data[:_CHUNK])
    except BlockingIOError:
        return 0
    except BrokenPipeError:
        return len(data)


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Without reaping it: until then its process group's number cannot belong to anybody else."""
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    if process.returncode is None:
        _kill_group(process)
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            stream.close()
    process.wait()
