"""Measurements of real executables on this machine, and of devices that answer nonsense."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device_farm.compiler.artifact import Artifact
from device_farm.compiler.target import host_target
from device_farm.errors import DeadlineExceeded, DeviceGone, Refused, RunnerFailed, Unstable, WrongAnswer
from device_farm.measurement.classify import classify
from device_farm.measurement.codec import measurement_from_json, measurement_to_json
from device_farm.measurement.session import Meter, measure, remote_name
from device_farm.measurement.types import Protocol
from device_farm.testing.tiny import CLASSES, INPUT_SHAPE, tiny_artifact, tiny_reference
from device_farm.transport.base import MAX_OUTPUT_BYTES, Completed
from device_farm.transport.local import LocalTransport

Build = Callable[..., Artifact]

# Of a test machine nothing but a number is expected: any spread will do.
LOOSE = Protocol(warmup_s=0.0, min_time_s=0.02, max_time_s=0.04, max_relative_ci=math.inf, deadline_s=20.0)


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    directory = tmp_path_factory.mktemp("artifacts")
    built: dict[tuple[str, ...], Artifact] = {}

    def artifact(*defines: str) -> Artifact:
        if defines not in built:
            built[defines] = tiny_artifact(directory, host_target(), defines=defines)
        return built[defines]

    return artifact


@pytest.fixture
def local(tmp_path: Path) -> LocalTransport:
    return LocalTransport(tmp_path / "device", cpu=max(os.sched_getaffinity(0)))


class Recording(LocalTransport):
    """Counts the verbs, and lets a test change what a run says."""

    def __init__(self, work_dir: Path, change: Callable[[Completed], Completed] = lambda completed: completed) -> None:
        super().__init__(work_dir)
        self.verbs: list[str] = []
        self._change = change

    def push(self, local: Path, remote_name: str, *, timeout_s: float = 30.0) -> None:
        self.verbs.append("push")
        super().push(local, remote_name, timeout_s=timeout_s)

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes | None = None,
        timeout_s: float,
        max_output_bytes: int = MAX_OUTPUT_BYTES,
    ) -> Completed:
        self.verbs.append("run")
        done = super().run(argv, stdin=stdin, timeout_s=timeout_s, max_output_bytes=max_output_bytes)
        return self._change(done)


def test_a_measurement_of_a_real_executable(local: LocalTransport, build: Build) -> None:
    artifact = build("REPEATS=20")
    measurement = measure(local, artifact, LOOSE)
    assert measurement.artifact_key == artifact.key
    assert measurement.device == local.facts()
    assert measurement.protocol_key == LOOSE.key
    assert 0.001 < measurement.ci_low_ms <= measurement.latency_ms <= measurement.ci_high_ms < 100
    assert measurement.samples >= LOOSE.min_samples
    assert sorted(measurement.percentiles_ms) == ["p1", "p10", "p50", "p90", "p99"]
    assert measurement.max_relative_error < 1e-5
    assert [name for name, _ in measurement.steps_ms] == ["stem", "pool", 'head "quoted"']
    assert 0.2 < sum(time for _, time in measurement.steps_ms) / measurement.percentiles_ms["p50"] < 5
    assert measurement.conditions["affinity"] == {"asked": local.facts().cpu, "obtained": [local.facts().cpu]}
    assert measurement.conditions["before"]["spin_ns"] > 0


def test_a_latency_of_several_threads_says_so(tmp_path: Path, build: Build) -> None:
    artifact = dataclasses.replace(build("THREADS=2", "REPEATS=20"), threads=2)
    cores = sorted(os.sched_getaffinity(0))
    cpus = (cores[-1], cores[0])
    device = LocalTransport(tmp_path / "device", cpu=cpus[0], threads=2, cpus=cpus)
    assert (device.facts().threads, device.facts().cpus) == (2, cpus)
    measurement = measure(device, artifact, dataclasses.replace(LOOSE, max_relative_ci=10.0))
    assert measurement.conditions["threads"] == 2
    assert measurement.conditions["thread_cores"] == [[core] for core in cpus]
    assert measurement.conditions["affinity"] == {"asked": list(cpus), "obtained": sorted(set(cpus))}
    assert measurement_from_json(json.loads(json.dumps(measurement_to_json(measurement)))) == measurement
    alone = measure(device, build("REPEATS=20"), LOOSE)  # an artifact of one thread does not mind
    assert alone.conditions["threads"] == 1
    assert alone.conditions["affinity"] == {"asked": cpus[0], "obtained": [cpus[0]]}


def test_measurements_from_before_there_were_threads_are_read(local: LocalTransport, build: Build) -> None:
    data = measurement_to_json(measure(local, build("REPEATS=20"), LOOSE))
    del data["device"]["threads"], data["device"]["cpus"]
    assert (measurement_from_json(data).device.threads, measurement_from_json(data).device.cpus) == (1, ())


def test_an_artifact_is_pushed_once(tmp_path: Path, build: Build) -> None:
    device = Recording(tmp_path / "device")
    one_attempt = dataclasses.replace(LOOSE, attempts=1)
    measure(device, build(), one_attempt)
    assert device.verbs == ["run", "push", "run"]  # the first one was refused
    measure(device, build(), one_attempt)
    assert device.verbs[3:] == ["run"]
    assert remote_name(build().path) == remote_name(build().path) != remote_name(build("FAULT_NAN").path)


@pytest.mark.parametrize(
    ("switch", "message"),
    [
        ("FAULT_NAN", "output 1 of 5 is a value that is not finite, expected"),
        ("FAULT_DENORMAL", "output 0 of 5 is 0, expected"),
        ("FAULT_STATE", "state leaks"),
    ],
)
def test_no_latency_without_correctness(local: LocalTransport, build: Build, switch: str, message: str) -> None:
    with pytest.raises(WrongAnswer, match=message):
        measure(local, build(switch), LOOSE)


def test_the_tolerance_is_relative_to_the_largest_expected_value(local: LocalTransport, build: Build) -> None:
    artifact = build()
    expected = np.array(artifact.expected_output)
    off = expected + 0.01 * np.abs(expected).max() * (np.arange(CLASSES) == np.abs(expected).argmin())
    shifted = dataclasses.replace(artifact, expected_output=tuple(off), tolerance=0.011)
    assert measure(local, shifted, LOOSE).max_relative_error == pytest.approx(0.01, rel=1e-3)
    with pytest.raises(WrongAnswer, match=r"relative error 0\.01, tolerated 0\.009"):
        measure(local, dataclasses.replace(shifted, tolerance=0.009), LOOSE)
    with pytest.raises(WrongAnswer, match="gave 5 outputs, expected 4"):
        measure(local, dataclasses.replace(artifact, expected_output=(1.0,) * 4), LOOSE)


@pytest.mark.parametrize(
    ("switch", "message"),
    [
        ("FAULT_KERNEL", r"status 5 \(a kernel reported an error\): npas-runner: a kernel failed: ValueError"),
        ("FAULT_CRASH", r"status 9 \(a kernel crashed\)"),
        ("ABI=99", r"status 4 .*build the artifact again"),
    ],
)
def test_a_broken_artifact_is_a_failed_runner(local: LocalTransport, build: Build, switch: str, message: str) -> None:
    with pytest.raises(RunnerFailed, match=message):
        measure(local, build(switch), LOOSE)


def test_a_hanging_artifact_meets_the_deadline(local: LocalTransport, build: Build) -> None:
    with pytest.raises(DeadlineExceeded):
        measure(local, build("FAULT_HANG"), dataclasses.replace(LOOSE, deadline_s=0.3))


def test_a_closed_device_is_gone(local: LocalTransport, build: Build) -> None:
    local.close()
    with pytest.raises(DeviceGone):
        measure(local, build(), LOOSE)


def _edited(**fields: Any) -> Callable[[Completed], Completed]:
    def change(completed: Completed) -> Completed:
        return dataclasses.replace(completed, stdout=json.dumps(json.loads(completed.stdout) | fields).encode())

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: dataclasses.replace(c, stdout=b""), "cannot be read .*begins with b''"),
        (lambda c: dataclasses.replace(c, stdout=b"sh: not found\n"), "begins with b'sh: not found"),
        (lambda c: dataclasses.replace(c, stdout=c.stdout[:300]), "cannot be read"),
        (lambda c: dataclasses.replace(c, stdout=c.stdout * 2), "cannot be read"),
        (lambda c: dataclasses.replace(c, stdout=b"[]"), "at the whole"),
        (_edited(key="another"), "another artifact ran: expected key 'tiny-7', got 'another'"),
        (_edited(schema=2), "at schema"),
        (_edited(samples_ns=[]), "at samples_ns"),
        (_edited(samples_ns=[100, math.nan]), "cannot be read"),
        (_edited(samples_ns=[100, -5]), "at samples_ns.1"),
        (_edited(samples_ns=[100, 1e9]), "at samples_ns.1"),
        (_edited(windows=[[0, 5], [3, 5], [2, 5]]), "windows do not divide"),
        (_edited(windows=[[0, 5], [10**6, 5]]), "windows do not divide"),
        (_edited(surprise=1), "at surprise"),
        (lambda c: Completed(137, b"", b""), r"status 137 \(signal 9\): it said nothing"),
        (lambda c: Completed(77, b"", b"odd\n"), r"status 77 \(unknown\): odd"),
    ],
)
def test_garbage_is_a_failed_runner(
    tmp_path: Path, build: Build, change: Callable[[Completed], Completed], message: str
) -> None:
    with pytest.raises(RunnerFailed, match=message):
        measure(Recording(tmp_path / "device", change), build(), LOOSE)


def test_a_runner_that_lost_its_link_is_a_device_gone(tmp_path: Path, build: Build) -> None:
    device = Recording(tmp_path / "device", lambda c: Completed(7, b"", b"npas-runner: stdin ended\n"))
    with pytest.raises(DeviceGone, match="stdin ended"):
        measure(device, build(), LOOSE)


def _scattered(completed: Completed) -> Completed:
    """As on a core that others use all the time: no probe twice the same, samples of any length."""
    rng = np.random.default_rng(len(completed.stdout))
    windows = [[i, int(probe)] for i, probe in enumerate(rng.integers(15_000, 90_000, 26))]
    return _edited(samples_ns=[int(s) for s in rng.integers(1_000, 90_000, 25)], windows=windows)(completed)


def test_what_does_not_settle_is_unstable_after_the_attempts(tmp_path: Path, build: Build) -> None:
    device = Recording(tmp_path / "device", _scattered)
    with pytest.raises(Unstable, match=r"3 attempts: latency .* ms \+- .* % \(at most 1\.0 % is allowed\)"):
        measure(device, build(), dataclasses.replace(LOOSE, max_relative_ci=0.01))
    assert device.verbs.count("run") == 1 + 3


def test_attempts_are_pooled_and_an_unknown_quiet_state_is_said(tmp_path: Path, build: Build) -> None:
    measurement = measure(Recording(tmp_path / "device", _scattered), build(), LOOSE)
    assert measurement.samples == 3 * 25
    assert (measurement.conditions["attempts"], measurement.conditions["quiet"]) == (3, False)
    assert measurement.ci_high_ms > 1.05 * measurement.latency_ms


def test_a_core_shared_all_the_time_is_unstable_where_quiet_is_known(tmp_path: Path, build: Build) -> None:
    constant = _edited(samples_ns=[1240] * 30, windows=[[i, 17_000] for i in range(31)])
    meter = Meter(Recording(tmp_path / "device", constant))
    assert meter.measure(build(), LOOSE).latency_ms == 0.00124
    assert meter.issue_ratio is not None
    meter.issue_ratio /= 1.4
    shared = meter.measure(build(), LOOSE)
    assert (shared.conditions["quiet"], shared.conditions["attempts"]) == (False, 3)
    with pytest.raises(
        Unstable, match=r"shares the core all the time: its issue ratio is \d\.\d+ and is \d\.\d+ when quiet"
    ):
        meter.measure(build(), dataclasses.replace(LOOSE, require_quiet=True))


def test_classification_is_that_of_the_reference(local: LocalTransport, build: Build, tmp_path: Path) -> None:
    images = np.random.default_rng(0).standard_normal((33, *INPUT_SHAPE)).astype(np.float32)
    outputs = classify(local, build(), images, timeout_s=20)
    assert outputs.shape == (33, CLASSES) and outputs.dtype == np.float32
    np.testing.assert_allclose(outputs, tiny_reference(images), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(classify(local, build(), images[::2], timeout_s=20), outputs[::2])
    assert [path.name for path in (tmp_path / "device").iterdir()] == [remote_name(build().path)]


def test_classification_of_no_image(local: LocalTransport, build: Build) -> None:
    assert classify(local, build(), np.zeros((0, *INPUT_SHAPE), np.float32), timeout_s=20).shape == (0, CLASSES)


def test_images_of_another_shape_or_type_are_the_callers_error(local: LocalTransport, build: Build) -> None:
    with pytest.raises(ValueError, match=r"expected shape \(n, 8, 8, 3\), got \(8, 8, 3\)"):
        classify(local, build(), np.zeros(INPUT_SHAPE, np.float32), timeout_s=20)
    with pytest.raises(ValueError, match="expected float32, got float64"):
        classify(local, build(), np.zeros((1, *INPUT_SHAPE)), timeout_s=20)  # type: ignore[arg-type]


def test_classification_cleans_up_after_a_failure(local: LocalTransport, build: Build, tmp_path: Path) -> None:
    images = np.zeros((2, *INPUT_SHAPE), np.float32)
    with pytest.raises(RunnerFailed, match="a kernel crashed"):
        classify(local, build("FAULT_CRASH"), images, timeout_s=20)
    assert all(path.suffix not in (".in", ".out") for path in (tmp_path / "device").iterdir())


def test_a_missing_executable_is_the_hosts_error(local: LocalTransport, build: Build, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        measure(local, dataclasses.replace(build(), path=tmp_path / "missing"), LOOSE)


def test_a_foreign_executable_is_refused(local: LocalTransport, build: Build, tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"\x7fELF of another world")
    (tmp_path / "other").chmod(0o755)
    with pytest.raises(Refused, match="cannot be started"):
        measure(local, dataclasses.replace(build(), path=tmp_path / "other"), LOOSE)


def test_a_measurement_survives_json(local: LocalTransport, build: Build) -> None:
    measurement = measure(local, build(), LOOSE)
    text = json.dumps(measurement_to_json(measurement), allow_nan=False)
    assert measurement_from_json(json.loads(text)) == measurement


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({"schema": 2}, "schema"),
        ({"latency_ms": -1.0}, "latency_ms"),
        ({"latency_ms": math.nan}, "latency_ms"),
        ({"latency_ms": 1e6}, "outside its interval"),
        ({"samples": 0}, "samples"),
        ({"device": {"serial": "x"}}, r"device\.model"),
        ({"extra": 1}, "extra"),
    ],
)
def test_json_of_something_else_is_refused(
    local: LocalTransport, build: Build, edit: dict[str, Any], message: str
) -> None:
    data = measurement_to_json(measure(local, build(), LOOSE))
    with pytest.raises(ValueError, match=f"not a measurement: .*{message}"):
        measurement_from_json(data | edit)
    with pytest.raises(ValueError, match="not a measurement: the whole"):
        measurement_from_json(["a list"])
