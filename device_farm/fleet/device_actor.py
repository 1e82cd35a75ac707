"""The actor of one device: opens its transport on the device's host and measures, one artifact at a time."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import socket
import tempfile
import threading
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from device_farm.errors import FarmError, Fenced
from device_farm.fleet.config import imported
from device_farm.fleet.devices import DeviceSpec, file_name
from device_farm.measurement.session import remote_name
from device_farm.measurement.types import DeviceFacts, Measurement, Protocol

if TYPE_CHECKING:
    from device_farm.compiler.artifact import Artifact
    from device_farm.transport.base import Transport


@dataclass(frozen=True)
class Greeting:
    """What an actor says when it is ready. `instance` is another one after every restart."""

    instance: str
    pid: int
    facts: DeviceFacts | FarmError | None = None


class DeviceActor:
    """Made a Ray actor by the broker. Errors of the farm are answers here, so that they arrive as what they are.

    Three calls may run side by side: `watch`, `hello` and one `measure`.
    """

    def __init__(self, spec: DeviceSpec, work_dir: Path, measure_with: str) -> None:
        self._spec = spec
        self._work_dir = _folder_of_this_process(work_dir / file_name(spec.serial))
        self._measure_with = measure_with
        self._instance = uuid.uuid4().hex
        self._transport: Transport | None = None
        self._meter: Any = None
        self._fence = 0
        self._lock = threading.Lock()

    def hello(self) -> Greeting:
        """Opens the device and tells its facts, under the farm's name for it."""
        try:
            facts: DeviceFacts | FarmError = self._facts()
        except FarmError as error:
            facts = error
        return Greeting(self._instance, os.getpid(), facts)

    def watch(self) -> None:
        """Never returns; its caller learns at once when this process is gone."""
        threading.Event().wait()

    def measure(self, fence: int, artifact: Artifact, program: bytes, protocol: Protocol) -> Measurement | FarmError:
        """Measures `artifact`, whose executable is `program`. A fence not above all before it is refused."""
        with self._lock:
            if fence <= self._fence:
                return Fenced(f"lease {fence} of {self._spec.serial} is older than lease {self._fence}")
            self._fence = fence
            try:
                return self._measure(artifact, program, protocol)
            except FarmError as error:
                return error

    def _measure(self, artifact: Artifact, program: bytes, protocol: Protocol) -> Measurement:
        transport = self._open()
        with tempfile.TemporaryDirectory(dir=self._work_dir, prefix="artifact-") as folder:
            path = Path(folder) / file_name(artifact.key)
            path.write_bytes(program)
            path.chmod(0o755)
            here = dataclasses.replace(artifact, path=path)
            try:
                measurement: Measurement = self._meter.measure(here, protocol)
            finally:
                # Its result is remembered, so it is not needed there again.
                with contextlib.suppress(FarmError):
                    transport.remove(remote_name(path))
        return dataclasses.replace(measurement, device=self._named(measurement.device))

    def _open(self) -> Transport:
        if self._transport is None:
            (self._work_dir / "device").mkdir(parents=True, exist_ok=True)
            self._transport = self._spec.open(self._work_dir / "device")
            self._meter = imported(self._measure_with)(self._transport)
        return self._transport

    def _facts(self) -> DeviceFacts:
        with self._lock:
            return self._named(self._open().facts())

    def _named(self, facts: DeviceFacts) -> DeviceFacts:
        return dataclasses.replace(facts, serial=self._spec.serial, model=self._spec.model or facts.model)


def _folder_of_this_process(parent: Path) -> Path:
    """A folder that no other process uses; what killed processes of this host left beside it is deleted."""
    host = file_name(socket.gethostname())
    for left in parent.glob(f"{host}.*"):
        if not Path("/proc", left.suffix[1:]).exists():
            shutil.rmtree(left, ignore_errors=True)
    return parent / f"{host}.{os.getpid()}"
