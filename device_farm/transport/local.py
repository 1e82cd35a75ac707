"""This machine as a device: the host-target artifact runs as a child process."""

from __future__ import annotations

import itertools
import os
import platform
import shutil
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from device_farm.compiler.target import HALF_FEATURES, Precision, host_features, host_target
from device_farm.errors import CompileError, DeviceGone, Refused
from device_farm.measurement.types import DeviceConditions, DeviceFacts
from device_farm.transport.base import MAX_OUTPUT_BYTES, Completed, Deadline, Transport, check_name
from device_farm.transport.process import run_process
from device_farm.transport.sysfs import read_conditions

_COPY_BYTES = 1 << 20
_partial_numbers = itertools.count()


class LocalTransport(Transport):
    """Files live in `work_dir` (made if missing, not deleted). Measurements pin themselves to core `cpu`, if given.

    `precision` chooses the target: what this machine is asked to compute with. With `threads` above 1, artifacts are
    compiled for so many, and each thread is pinned to one of `cpus`, if given.

    Example:
        >>> with tempfile.TemporaryDirectory() as work:
        ...     device = LocalTransport(Path(work), cpu=cores.reserve().reserved)
        ...     measure(device, artifact).latency_ms

    Raises ValueError if there is no core `cpu`, or one of `cpus`, Refused if its processor cannot compute at that
    precision.
    """

    def __init__(
        self,
        work_dir: Path,
        cpu: int | None = None,
        *,
        precision: Precision = Precision.FP32,
        threads: int = 1,
        cpus: tuple[int, ...] = (),
    ) -> None:
        for core in cpus if cpu is None else (cpu, *cpus):
            if not 0 <= core < (os.cpu_count() or 1):
                raise ValueError(f"cpu: this machine has cores 0 to {(os.cpu_count() or 1) - 1}, got {core}")
        if threads < 1:
            raise ValueError(f"threads must be at least 1, got {threads}")
        try:
            target = host_target(precision)
        except CompileError as error:
            raise Refused(f"this machine: {error}") from error
        work_dir.mkdir(parents=True, exist_ok=True)
        self._work_dir = work_dir.resolve()
        self._closed = False
        self._facts = DeviceFacts(
            serial=f"local-{socket.gethostname()}",
            model="local",
            target=target.name,
            cpu=cpu,
            details=_details(),
            threads=threads,
            cpus=cpus,
        )

    def facts(self, *, timeout_s: float = 10.0) -> DeviceFacts:
        self._begin("facts", timeout_s)
        return self._facts

    def conditions(self, *, timeout_s: float = 10.0) -> DeviceConditions:
        self._begin("conditions", timeout_s)
        return read_conditions()

    def push(self, local: Path, remote_name: str, *, timeout_s: float = 30.0) -> None:
        target = self._path(remote_name)
        deadline = self._begin(f"push of {remote_name}", timeout_s)
        partial = self._work_dir / f".{os.getpid()}-{next(_partial_numbers)}.partial"
        with local.open("rb") as source:
            try:
                with partial.open("wb") as copy:
                    while chunk := source.read(_COPY_BYTES):
                        copy.write(chunk)
                        deadline.check()
                shutil.copymode(local, partial)
                partial.replace(target)
            except OSError as error:
                raise Refused(f"cannot push {local} as {remote_name}: {error.strerror}") from error
            finally:
                partial.unlink(missing_ok=True)

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes | None = None,
        timeout_s: float,
        max_output_bytes: int = MAX_OUTPUT_BYTES,
    ) -> Completed:
        program = self._path(argv[0])
        deadline = self._begin(f"run of {argv[0]}", timeout_s)
        return run_process(
            [str(program), *argv[1:]],
            cwd=self._work_dir,
            stdin=stdin,
            deadline=deadline,
            max_output_bytes=max_output_bytes,
        )

    def pull(self, remote_name: str, *, timeout_s: float = 30.0) -> bytes:
        path = self._path(remote_name)
        deadline = self._begin(f"pull of {remote_name}", timeout_s)
        content = bytearray()
        try:
            with path.open("rb") as source:
                while chunk := source.read(_COPY_BYTES):
                    content += chunk
                    deadline.check()
        except OSError as error:
            raise Refused(f"cannot pull {remote_name}: {error.strerror}") from error
        return bytes(content)

    def remove(self, remote_name: str, *, timeout_s: float = 10.0) -> None:
        path = self._path(remote_name)
        self._begin(f"removal of {remote_name}", timeout_s)
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise Refused(f"cannot remove {remote_name}: {error.strerror}") from error

    def close(self) -> None:
        self._closed = True

    def _path(self, remote_name: str) -> Path:
        return self._work_dir / check_name(remote_name)

    def _begin(self, what: str, timeout_s: float) -> Deadline:
        if self._closed:
            raise DeviceGone(f"{what}: this local device is closed")
        if not self._work_dir.is_dir():
            raise DeviceGone(f"{what}: the directory of this local device is gone: {self._work_dir}")
        return Deadline(timeout_s, what)


def _details() -> dict[str, Any]:
    """Of /proc and the platform, as far as this machine tells."""
    fields: dict[str, str] = {}
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    return {
        "processor": fields.get("model name", fields.get("CPU part", platform.machine())),
        "features": (fields.get("flags") or fields.get("Features") or "").split(),
        "half_arithmetic": host_features() >= HALF_FEATURES,
        "cores": os.cpu_count(),
        "allowed_cores": sorted(os.sched_getaffinity(0)),
        "system": f"{platform.system()} {platform.release()}",
    }
