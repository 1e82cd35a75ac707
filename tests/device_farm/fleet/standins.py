"""Real, tiny parts for the fleet's shells: a compiler whose artifact is a Python script, a device that runs it.

A network's script says how each device fares with it: `{"d0": "hang", "*": "well"}`; "hang once" hangs the first time
only. Every run leaves a line in the devices' log, so a test can count what was really run, and where.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any

from device_farm.compiler.artifact import Artifact
from device_farm.compiler.graph import Activate, Graph, Input, Shape
from device_farm.compiler.target import AVX2, Target
from device_farm.errors import (
    DeadlineExceeded,
    DeviceGone,
    Refused,
    RunnerFailed,
    Unstable,
    UnsupportedOperator,
    WrongAnswer,
)
from device_farm.fleet.config import FarmConfig
from device_farm.fleet.devices import phone_resource
from device_farm.fleet.host_watcher import PhoneHost
from device_farm.fleet.words import Policy
from device_farm.measurement.drift import Baseline
from device_farm.measurement.sentinel import Sentinel
from device_farm.measurement.types import DeviceFacts, Measurement, Protocol

_PROGRAM = """\
import json, os, pathlib, signal, sys, time
script, key = {script!r}, {key!r}
serial, log = sys.argv[1], pathlib.Path(sys.argv[2])
with log.open("a") as lines:
    lines.write(f"{{serial}} {{key}}\\n")
fault = script.get(serial, script.get("*", "well"))
if fault.endswith(" once"):
    fault = fault.removesuffix(" once") if log.read_text().count(key) == 1 else "well"
if fault == "hang":
    sys.stdin.read()  # until whoever started it is gone
    os._exit(3)
if fault == "crash":
    os.kill(os.getpid(), signal.SIGSEGV)
if fault == "kill actor":
    os.kill(os.getppid(), signal.SIGKILL)
    sys.stdin.read()
time.sleep(script.get("seconds", 0))
print(json.dumps({{"fault": fault, "output": 41 if fault == "wrong" else 42}}))
"""


@dataclass(frozen=True)
class ScriptedDevice:
    """A device that runs Python children. `log` lies on a disk that the test can read."""

    serial: str
    log: Path
    model: str | None = None
    target: str = AVX2.name
    resource: str | None = None
    node_id: str | None = None
    num_cpus: float = 0.0
    opens: str = "well"

    def open(self, work_dir: Path) -> Any:
        if self.opens == "refused":
            raise Refused("unauthorized: accept the key on its screen")
        if self.opens == "hang":
            time.sleep(1e6)
        return ScriptedTransport(self)


@dataclass
class ScriptedTransport:
    device: ScriptedDevice

    boot_id = ""

    def is_linked(self) -> bool:
        return True

    def facts(self) -> DeviceFacts:
        return DeviceFacts(serial="by-the-transport", model="scripted", target=self.device.target)

    def remove(self, remote_name: str, *, timeout_s: float = 10.0) -> None:
        raise DeviceGone("nothing is kept here")


@dataclass(frozen=True)
class FolderSource:
    """A host whose phones are the files in a folder."""

    folder: Path
    log: Path

    def follow(self) -> Iterator[Sequence[ScriptedDevice]]:
        before: list[str] | None = None
        while True:
            serials = sorted(path.name for path in self.folder.iterdir())
            if serials != before:
                yield [ScriptedDevice(serial, self.log) for serial in serials]
                before = serials
            time.sleep(0.05)


def network(key: str, **script: Any) -> Graph:
    """A graph that is compiled into the script; `key` tells it from others."""
    name = json.dumps({"key": key, **script}, sort_keys=True)
    return Graph((Input("x", (), Shape(1, 1, 1)), Activate(name, ("x",))))


def compile_script(
    graph: Graph,
    *,
    target: Target,
    out_dir: Path,
    cache_dir: Path,
    weights: Mapping[str, Any] | None = None,
    seed: int = 0,
    threads: int = 1,
) -> Artifact:
    """Stands for compile_network."""
    script = json.loads(graph.output.name)
    with (cache_dir / "compiled").open("a") as lines:
        lines.write(f"{script['key']} {target.name}\n")
    match script.get("compile"):
        case "segfault":
            os.kill(os.getpid(), signal.SIGKILL)
        case "unsupported":
            raise UnsupportedOperator("layer 3: no kernel for erf; replace it in phase 1")
        case "hang":
            time.sleep(1e6)
    values = None if weights is None else {name: array.tolist() for name, array in weights.items()}
    key = f"{script['key']}-{values}-{seed}"
    path = out_dir / "program.py"
    path.write_text(_PROGRAM.format(script=script, key=key))
    return Artifact(key, path, target.name, (1, 1, 1), 1, 0, (42.0,), 0.0, 1, 1)


def lab_config(folder: Path) -> FarmConfig:
    """A farm with everything: a journal, sentinels, hosts whose phones are files, clients with little grace."""
    (folder / "plugged").mkdir(exist_ok=True)
    serials = ("d0", "d1", "d2")
    return FarmConfig(
        devices=tuple(ScriptedDevice(s, folder / "log", resource=phone_resource(s)) for s in serials),
        cache_dir=folder,
        hosts=(PhoneHost(FolderSource(folder / "plugged", folder / "log"), resource="phone_host"),),
        journal=folder / "lab.sqlite",
        grace_s=0.5,
        compile_workers=2,
        protocol=Protocol(deadline_s=2.0),
        lease_timeout_s=2.5,
        sentinel="standins:sentinel_network",
        policy=Policy(cool_s=0.05, absent_s=20, infrastructure_attempts=3, same_device_attempts=2),
        name="lab",
        namespace="npas-tests",
        compile_with="standins:compile_script",
        measure_with="standins:ScriptedMeter",
    )


def sentinel_network() -> Graph:
    """Stands for sentinel_graph."""
    return network("sentinel")


@dataclass
class ScriptedMeter:
    """Stands for Meter. A sentinel's baseline is 2 ms, and 3 ms when it is taken anew."""

    transport: ScriptedTransport
    _: KW_ONLY
    sentinel: Sentinel | None = None
    baseline: Baseline | None = None

    def __post_init__(self) -> None:
        if self.sentinel is not None and self.sentinel.baseline_ms is not None:
            self.baseline = Baseline(self.sentinel.artifact.key, self.sentinel.baseline_ms)

    def measure(self, artifact: Artifact, protocol: Protocol) -> Measurement:
        if self.sentinel is None:
            return _measure(self.transport, artifact, protocol)
        assert self.sentinel.artifact.path.stat().st_mode & 0o100
        if self.baseline is None:
            self.baseline = Baseline(self.sentinel.artifact.key, 2.0)
        measurement = _measure(self.transport, artifact, protocol)
        model_ms = self.sentinel.model_ms
        said = {
            "key": self.baseline.artifact_key,
            "baseline_ms": self.baseline.baseline_ms,
            "readings_ms": [2.02, 2.02],
            "drift": 1.01,
            "corrected": False,
            "uncorrected_ms": measurement.latency_ms,
            "of_model": None if model_ms is None else self.baseline.baseline_ms / model_ms,
        }
        after = {"temperature_c": {"skin": 31.5}}
        conditions = {**measurement.conditions, "sentinel": said, "device_after": after}
        return dataclasses.replace(measurement, conditions=conditions)

    def calibrate(self, protocol: Protocol) -> Baseline:
        assert self.sentinel is not None
        self.baseline = Baseline(self.sentinel.artifact.key, 3.0)
        return self.baseline


def _measure(transport: ScriptedTransport, artifact: Artifact, protocol: Protocol) -> Measurement:
    """A child process, and the errors that it may end in."""
    device = transport.device
    assert artifact.path.stat().st_mode & 0o100
    with subprocess.Popen(
        [sys.executable, "-I", "-S", str(artifact.path), device.serial, str(device.log)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as child:
        assert child.stdout is not None
        stdout = child.stdout.read()
        status = child.wait()
    if status != 0:
        raise RunnerFailed(f"exit status {status}")
    answer = json.loads(stdout)
    match answer["fault"]:
        case "gone":
            raise DeviceGone("unplugged")
        case "deadline":
            raise DeadlineExceeded("push: 30 s")
        case "refused":
            raise Refused("disk full")
        case "unstable":
            raise Unstable("the interval is 12 % wide")
        case "bug":
            raise ZeroDivisionError("a bug of the actor's")
    if (answer["output"],) != artifact.expected_output:
        raise WrongAnswer(f"expected {artifact.expected_output}, got {answer['output']}")
    return Measurement(
        artifact_key=artifact.key,
        device=transport.facts(),
        protocol_key=protocol.key,
        latency_ms=1.5,
        ci_low_ms=1.4,
        ci_high_ms=1.6,
        samples=3,
        percentiles_ms={"p50": 1.5},
        max_relative_error=0.0,
        steps_ms=(),
        conditions={"pid": os.getpid()},
    )
