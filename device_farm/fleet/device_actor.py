"""The actor of one device: opens its transport on the device's host and measures, one artifact at a time."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import socket
import tempfile
import threading
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from device_farm.errors import FarmError, Fenced
from device_farm.fleet.config import imported
from device_farm.fleet.devices import DeviceSpec, file_name
from device_farm.measurement.drift import Baseline
from device_farm.measurement.sentinel import Sentinel
from device_farm.measurement.session import remote_name
from device_farm.measurement.types import DeviceFacts, Measurement, Protocol

if TYPE_CHECKING:
    from device_farm.compiler.artifact import Artifact
    from device_farm.measurement.admission import AdmissionRules
    from device_farm.transport.base import Transport


_TIDY_S = 1.0  # beyond the protocol's deadline
_LOOK_EVERY_S, _MISSED_LOOKS = 5.0, 2  # at an idle device's link


@dataclass(frozen=True)
class Greeting:
    """What an actor says when it is ready. `instance` is another one after every restart."""

    instance: str
    pid: int
    facts: DeviceFacts | FarmError | None = None
    boot_id: str = ""  # of the device; another one after every restart of it


@dataclass(frozen=True)
class Answer:
    """What became of a measurement or a calibration, and the sentinel's baseline on this device by now."""

    result: Measurement | FarmError | None
    baseline: Baseline | None = None


class DeviceActor:
    """Made a Ray actor by the broker. Errors of the farm are answers here, so that they arrive as what they are.

    Three calls may run side by side: `watch`, `hello` and one `measure`. Every one but `watch` ends by itself: opening
    and greeting by the transport's deadlines, a measurement by the protocol's, all of push and run together.
    """

    def __init__(
        self, spec: DeviceSpec, work_dir: Path, measure_with: str, rules: AdmissionRules | None = None
    ) -> None:
        self._spec = spec
        self._work_dir = _folder_of_this_process(work_dir / file_name(spec.serial))
        self._measure_with = measure_with
        self._rules = rules
        self._sentinel: Sentinel | None = None
        self._instance = uuid.uuid4().hex
        self._transport: Transport | None = None
        self._meter: Any = None
        self._fence = 0
        self._lock = threading.Lock()

    def hello(self) -> Greeting:
        """Opens the device and tells its facts, under the farm's name for it."""
        boot_id = ""
        try:
            facts: DeviceFacts | FarmError = self._facts()
            boot_id = self._open().boot_id
        except FarmError as error:
            facts = error
        return Greeting(self._instance, os.getpid(), facts, boot_id)

    def watch(self) -> None:
        """Returns when the link of an idle device is gone; its caller learns at once when this process is.

        A job finds out by itself. A link that is missing once, or before a job and after it, may just be coming back.
        """
        missed = 0
        while missed < _MISSED_LOOKS:
            time.sleep(_LOOK_EVERY_S)
            if not self._lock.acquire(blocking=False):
                missed = 0
                continue
            try:
                is_there = self._transport is None or self._transport.is_linked()
            finally:
                self._lock.release()
            missed = 0 if is_there else missed + 1

    def watch_over(
        self, artifact: Artifact, program: bytes, baseline: Baseline | None, model_ms: float | None
    ) -> FarmError | None:
        """From now on this sentinel runs beside every measurement. Its executable stays while this actor lives."""
        with self._lock:
            try:
                folder = self._work_dir / "sentinel"
                folder.mkdir(parents=True, exist_ok=True)
                here = _written(folder, artifact, program)
                self._sentinel = Sentinel.remembering(here, baseline, model_ms=model_ms)
                if self._transport is not None:
                    self._meter = self._make_meter(self._transport)
            except FarmError as error:
                return error
        return None

    def measure(self, fence: int, artifact: Artifact, program: bytes, protocol: Protocol) -> Answer:
        """Measures `artifact`, whose executable is `program`. A fence not above all before it is refused."""
        with self._lock:
            if fence <= self._fence:
                return Answer(Fenced(f"lease {fence} of {self._spec.serial} is older than lease {self._fence}"))
            self._fence = fence
            try:
                result: Measurement | FarmError = self._measure(artifact, program, protocol)
            except FarmError as error:
                result = error
            return Answer(result, getattr(self._meter, "baseline", None))

    def calibrate(self, protocol: Protocol) -> Answer:
        """Takes the sentinel's baseline anew."""
        with self._lock:
            try:
                self._open()
                return Answer(None, self._meter.calibrate(protocol))
            except FarmError as error:
                return Answer(error)

    def _measure(self, artifact: Artifact, program: bytes, protocol: Protocol) -> Measurement:
        transport = self._open()
        with tempfile.TemporaryDirectory(dir=self._work_dir, prefix="artifact-") as folder:
            here = _written(Path(folder), artifact, program)
            try:
                measurement: Measurement = self._meter.measure(here, protocol)
            finally:
                # Its result is remembered, so it is not needed there again. A phone that says nothing any more must
                # not hold up the error that tells so: what stays there is swept one day.
                with contextlib.suppress(FarmError):
                    transport.remove(remote_name(here.path), timeout_s=_TIDY_S)
        return dataclasses.replace(measurement, device=self._named(measurement.device))

    def _open(self) -> Transport:
        if self._transport is None:
            (self._work_dir / "device").mkdir(parents=True, exist_ok=True)
            self._transport = self._spec.open(self._work_dir / "device")
            self._meter = self._make_meter(self._transport)
        return self._transport

    def _make_meter(self, transport: Transport) -> Any:
        extras = {"sentinel": self._sentinel, "rules": self._rules}
        return imported(self._measure_with)(transport, **{k: v for k, v in extras.items() if v is not None})

    def _facts(self) -> DeviceFacts:
        with self._lock:
            return self._named(self._open().facts())

    def _named(self, facts: DeviceFacts) -> DeviceFacts:
        return dataclasses.replace(facts, serial=self._spec.serial, model=self._spec.model or facts.model)


def _written(folder: Path, artifact: Artifact, program: bytes) -> Artifact:
    """The artifact with its executable in that folder."""
    path = folder / file_name(artifact.key)
    path.write_bytes(program)
    path.chmod(0o755)
    return dataclasses.replace(artifact, path=path)


def _folder_of_this_process(parent: Path) -> Path:
    """A folder that no other process uses; what killed processes of this host left, for any device, is deleted."""
    host = file_name(socket.gethostname())
    for left in parent.parent.glob(f"*/{host}.*"):
        if not Path("/proc", left.suffix[1:]).exists():
            shutil.rmtree(left, ignore_errors=True)
    return parent / f"{host}.{os.getpid()}"
