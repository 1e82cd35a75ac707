"""The real sentinel, compiled and run here; and what becomes of it when the device's clock is not what it was."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from device_farm.compiler.artifact import Artifact
from device_farm.compiler.compile import compile_network
from device_farm.compiler.target import NEON, Target, host_target
from device_farm.errors import Refused, Unfit, WrongAnswer
from device_farm.measurement.admission import AdmissionRules
from device_farm.measurement.codec import conditions_from_json, measurement_from_json, measurement_to_json
from device_farm.measurement.report import BenchReport
from device_farm.measurement.sentinel import SENTINEL_PROTOCOL, Sentinel, sentinel_graph
from device_farm.measurement.session import Meter, measure
from device_farm.measurement.types import DeviceFacts, Protocol
from device_farm.testing.tiny import tiny_artifact
from device_farm.transport.base import MAX_OUTPUT_BYTES, Completed
from device_farm.transport.local import LocalTransport

# Of a test machine nothing is expected: it may be three times slower from one second to the next, but not ten times.
LOOSE = Protocol(
    warmup_s=0.0,
    min_time_s=0.02,
    max_time_s=0.04,
    max_relative_ci=1e9,
    max_correction=2.0,
    max_unexplained=2.0,
    max_drift=5.0,
)
QUICK = dataclasses.replace(SENTINEL_PROTOCOL, max_relative_ci=1e9, max_time_s=0.05)
ANYTHING = AdmissionRules(
    max_thermal_status=None,
    max_temperature_c=None,
    min_battery_level=None,
    max_clock_change=5.0,
    need_quiet=False,
    cool_s=7.0,
)


class Throttled(LocalTransport):
    """This machine with another clock: every time that a program tells is `factor` of what it was."""

    factor = 1
    flipped = False

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes | None = None,
        timeout_s: float,
        max_output_bytes: int = MAX_OUTPUT_BYTES,
    ) -> Completed:
        done = super().run(argv, stdin=stdin, timeout_s=timeout_s, max_output_bytes=max_output_bytes)
        if done.exit_status != 0:
            return done
        report = json.loads(done.stdout)
        report["samples_ns"] = [self.factor * ns for ns in report["samples_ns"]]
        report["windows"] = [[first, self.factor * ns] for first, ns in report["windows"]]
        for end in ("before", "after"):
            report[end]["spin_ns"] *= self.factor
        if self.flipped:
            report["output"][0] = -report["output"][0]
        return dataclasses.replace(done, stdout=json.dumps(report).encode())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sentinel")


def compiled(folder: Path, target: Target) -> Artifact:
    return compile_network(sentinel_graph(), target=target, out_dir=folder / "artifacts", cache_dir=folder / "cache")


@pytest.fixture(scope="module")
def sentinel(folder: Path) -> Sentinel:
    return Sentinel(compiled(folder, host_target()), protocol=QUICK)


@pytest.fixture(scope="module")
def artifact(folder: Path) -> Artifact:
    return tiny_artifact(folder, host_target(), defines=("REPEATS=20",))


@pytest.fixture
def device(tmp_path: Path) -> Throttled:
    return Throttled(tmp_path / "device", cpu=max(os.sched_getaffinity(0)))


def test_the_sentinel_answers_rightly_and_in_less_than_a_few_milliseconds(
    sentinel: Sentinel, device: Throttled
) -> None:
    measurement = measure(device, sentinel.artifact, QUICK)
    assert measurement.max_relative_error < 1e-4
    assert 0.01 < measurement.latency_ms < 20
    assert {"dense", "punched", "blocked", "head"} <= {name for name, _ in measurement.steps_ms}
    assert sentinel.artifact.path.stat().st_size < 300_000


@pytest.mark.qemu
@pytest.mark.skipif(shutil.which("qemu-aarch64") is None, reason="qemu-user is not installed")
def test_the_sentinel_answers_rightly_on_arm(folder: Path) -> None:
    artifact = compiled(folder, NEON)
    command = [
        "qemu-aarch64",
        str(artifact.path),
        "bench",
        "--warmup-s",
        "0",
        "--max-samples",
        "20",
        "--max-time-s",
        "0.01",
    ]
    said = BenchReport.model_validate_json(subprocess.run(command, check=True, capture_output=True).stdout)
    largest = max(map(abs, artifact.expected_output))
    errors = [abs((a or 0.0) - b) / largest for a, b in zip(said.output, artifact.expected_output, strict=True)]
    assert max(errors) < artifact.tolerance


def test_every_session_lies_between_two_readings(sentinel: Sentinel, artifact: Artifact, device: Throttled) -> None:
    meter = Meter(device, sentinel=sentinel, rules=ANYTHING)
    measurement = meter.measure(artifact, LOOSE)
    said = measurement.conditions["sentinel"]
    assert meter.baseline is not None
    assert said["key"] == sentinel.artifact.key and len(said["readings_ms"]) == 2
    assert said["baseline_ms"] == meter.baseline.baseline_ms
    for end in ("device_before", "device_after"):
        assert conditions_from_json(measurement.conditions[end]).load_1min is not None
    assert measurement_from_json(json.loads(json.dumps(measurement_to_json(measurement)))) == measurement
    assert measurement.protocol_key == LOOSE.key


def test_a_throttled_device_gives_no_latency(sentinel: Sentinel, artifact: Artifact, device: Throttled) -> None:
    meter = Meter(device, sentinel=sentinel, rules=ANYTHING)
    meter.measure(artifact, LOOSE)
    device.factor = 20
    with pytest.raises(Unfit, match=r"above its baseline|was [\d.]+% slower than beside it") as caught:
        meter.measure(artifact, dataclasses.replace(LOOSE, sentinel_every_s=0.0))
    assert caught.value.retry_after_s in (3.5, 7.0)
    device.factor = 1
    assert meter.measure(artifact, LOOSE).latency_ms > 0


def test_a_device_that_was_always_slow_is_told_by_its_model(
    sentinel: Sentinel, artifact: Artifact, device: Throttled
) -> None:
    usual = Meter(device, sentinel=sentinel, rules=ANYTHING).calibrate(LOOSE).baseline_ms
    device.factor = 20
    meter = Meter(device, sentinel=dataclasses.replace(sentinel, model_ms=usual), rules=ANYTHING)
    with pytest.raises(Unfit, match="longer than on the median phone of its model"):
        meter.measure(artifact, LOOSE)


def test_flipped_answers_are_the_devices_fault_when_the_sentinels_are_flipped_too(
    sentinel: Sentinel, artifact: Artifact, device: Throttled
) -> None:
    device.flipped = True
    with pytest.raises(WrongAnswer):
        Meter(device).measure(artifact, LOOSE)
    with pytest.raises(Unfit, match=r"it fails its sentinel: output 0 of 500 is .*, expected") as caught:
        Meter(device, sentinel=sentinel).measure(artifact, LOOSE)
    assert caught.value.retry_after_s == 600


def test_a_core_that_may_not_be_used_is_refused_with_those_that_may(tmp_path: Path, artifact: Artifact) -> None:
    class Elsewhere(LocalTransport):
        def facts(self, *, timeout_s: float = 10.0) -> DeviceFacts:
            return dataclasses.replace(super().facts(timeout_s=timeout_s), cpu=1000)

    allowed = " ".join(map(str, sorted(os.sched_getaffinity(0))))
    with pytest.raises(
        Refused, match=rf"core 1000 is switched off or not for .*; allowed are cores {allowed} \(choose"
    ):
        measure(Elsewhere(tmp_path / "device"), artifact, LOOSE)
