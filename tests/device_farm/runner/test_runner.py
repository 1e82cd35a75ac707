"""The C runner around a real little network, as an executable."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device_farm.compiler.artifact import Artifact
from device_farm.compiler.target import AVX2, NEON, host_target
from device_farm.testing.tiny import CLASSES, INPUT_SHAPE, tiny_artifact, tiny_reference

Build = Callable[..., Path]

_SHORT = ("--warmup-s", "0", "--min-time-s", "0.01", "--max-time-s", "0.02")


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Executables by their switches, each built once."""
    directory = tmp_path_factory.mktemp("artifacts")
    built: dict[tuple[str, ...], Artifact] = {}

    def artifact(*defines: str) -> Path:
        if defines not in built:
            built[defines] = tiny_artifact(directory, host_target(), defines=defines)
        return built[defines].path

    return artifact


def run(program: Path, *arguments: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([program, *arguments], capture_output=True, timeout=30, **options)


def bench(program: Path, *arguments: str) -> dict[str, Any]:
    done = run(program, "bench", *_SHORT, *arguments)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def failure(program: Path, *arguments: str) -> tuple[int, str]:
    """Exit status and the one line of error; nothing may be on stdout."""
    done = run(program, *arguments)
    lines = done.stderr.decode().splitlines()
    assert done.stdout == b""
    assert len(lines) == 1
    assert lines[0].startswith("npas-runner: ")
    return done.returncode, lines[0]


def test_info_names_the_network(build: Build) -> None:
    report = json.loads(run(build(), "info").stdout)
    assert (report["schema"], report["mode"], report["key"]) == (1, "info", "tiny-7")
    assert (report["input_elements"], report["output_elements"]) == (8 * 8 * 3, 5)
    assert [(step["name"], step["kind"]) for step in report["steps"]] == [
        ("stem", "conv2d"), ("pool", "pool2d"), ('head "quoted"', "conv2d")
    ]  # fmt: skip


def test_bench_answers_the_seeded_input_exactly(tmp_path: Path) -> None:
    artifact = tiny_artifact(tmp_path, host_target(), input_seed=2**64 - 1)
    report = bench(artifact.path, "--input-seed", str(2**64 - 1))
    np.testing.assert_allclose(report["output"], artifact.expected_output, rtol=1e-5, atol=1e-6)
    assert report["output_repeats"] is True
    assert all(float(np.float32(value)) == pytest.approx(value, rel=1e-8) for value in report["output"])


def test_bench_divides_its_samples_into_probed_windows(build: Build) -> None:
    report = bench(build(), "--min-time-s", "0.03")
    samples, windows = report["samples_ns"], report["windows"]
    assert all(value > 0 for value in samples)
    assert windows[0][0] == 0 and windows[-1][0] == len(samples)
    assert all(a[0] < b[0] for a, b in itertools.pairwise(windows))
    assert all(probe > 0 for _, probe in windows)
    assert sum(samples) > 0.02 * 1e9 or len(samples) == 20_000


@pytest.mark.parametrize(("low", "high", "expected"), [(1, 1, 1), (30, 30, 30), (1, 100_000_0, None)])
def test_bench_keeps_to_the_number_of_samples(build: Build, low: int, high: int, expected: int | None) -> None:
    report = bench(build(), "--min-samples", str(low), "--max-samples", str(high))
    assert len(report["samples_ns"]) == expected if expected else 1 <= len(report["samples_ns"]) < high


def test_bench_takes_the_least_samples_of_a_slow_network(build: Build) -> None:
    report = bench(build("REPEATS=2000"), "--min-samples", "7", "--min-time-s", "0", "--max-time-s", "0")
    assert len(report["samples_ns"]) == 7
    assert len(report["windows"]) == 8


def test_bench_waits_for_a_quiet_core_no_longer_than_asked(build: Build) -> None:
    """An issue ratio that no core reaches: never quiet."""
    report = bench(build("REPEATS=100"), "--issue-ratio", "1e-6", "--max-time-s", "0.06")
    assert sum(report["samples_ns"]) > 0.04 * 1e9


def test_bench_profiles_only_when_asked(build: Build) -> None:
    assert bench(build())["profile"] is None
    profile = bench(build("REPEATS=100"), "--profile", "--max-samples", "30", "--min-samples", "3")["profile"]
    times = {step["name"]: step["median_ns"] for step in profile["steps"]}
    assert profile["passes"] >= 3
    assert times["stem"] > 10 * max(times["pool"], 1)


def test_bench_reports_the_affinity_asked_and_obtained(build: Build) -> None:
    cpu = max(os.sched_getaffinity(0))
    assert bench(build(), "--cpu", str(cpu))["affinity"] == {"asked": cpu, "obtained": [cpu]}
    free = bench(build(), "--cpu", "-1")["affinity"]
    assert free == {"asked": None, "obtained": sorted(os.sched_getaffinity(0))}


@pytest.mark.parametrize("cpu", ["1000000", "1023"])
def test_a_core_that_cannot_be_used_ends_the_run_with_the_ones_that_can(build: Build, cpu: str) -> None:
    status, line = failure(build(), "bench", "--cpu", cpu)
    allowed = " ".join(map(str, sorted(os.sched_getaffinity(0))))
    assert status == 11
    assert line.endswith(f"core {cpu} is switched off or not for this program; allowed are cores {allowed}")


def test_bench_reports_its_conditions(build: Build) -> None:
    report = bench(build())
    for moment in ("before", "after"):
        assert report[moment]["load_1min"] >= 0
        assert 10_000 < report[moment]["spin_ns"] < 10_000_000
        assert isinstance(report[moment]["cpu_khz"], dict)


def test_a_value_that_is_not_finite_is_null(build: Build) -> None:
    assert bench(build("FAULT_NAN"))["output"][1] is None


def test_an_answer_that_changes_is_seen(build: Build) -> None:
    assert bench(build("FAULT_STATE"))["output_repeats"] is False


def test_denormals_are_flushed(build: Build) -> None:
    assert bench(build("FAULT_DENORMAL"))["output"][0] == 0.0


def test_kernels_find_tvms_workspace(build: Build) -> None:
    assert bench(build("WITH_WORKSPACE"))["output"] == bench(build())["output"]


def test_classify_answers_every_image(build: Build, tmp_path: Path) -> None:
    images = np.random.default_rng(0).standard_normal((17, *INPUT_SHAPE)).astype(np.float32)
    (tmp_path / "in").write_bytes(images.tobytes())
    done = run(build(), "classify", "--input", "in", "--output", "out", cwd=tmp_path)
    assert json.loads(done.stdout) == {"schema": 1, "mode": "classify", "key": "tiny-7", "images": 17}
    outputs = np.fromfile(tmp_path / "out", dtype=np.float32).reshape(17, CLASSES)
    np.testing.assert_allclose(outputs, tiny_reference(images), rtol=1e-4, atol=1e-5)


def test_classify_of_no_image_is_empty(build: Build, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"")
    assert run(build(), "classify", "--input", "in", "--output", "out", cwd=tmp_path).returncode == 0
    assert (tmp_path / "out").read_bytes() == b""


@pytest.mark.parametrize("size", [1, 8 * 8 * 3 * 4 - 1, 8 * 8 * 3 * 4 + 4])
def test_classify_refuses_a_wrong_size(build: Build, tmp_path: Path, size: int) -> None:
    (tmp_path / "in").write_bytes(bytes(size))
    status, line = failure(build(), "classify", "--input", str(tmp_path / "in"), "--output", str(tmp_path / "out"))
    assert status == 3
    assert f"has {size} bytes, expected a multiple of 768" in line
    assert not (tmp_path / "out").exists()


def test_classify_says_which_file_fails(build: Build, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"")
    missing, unwritable = str(tmp_path / "missing"), str(tmp_path / "no" / "out")
    status, line = failure(build(), "classify", "--input", missing, "--output", str(tmp_path / "out"))
    assert status == 3 and f"cannot read {missing}: No such file" in line
    status, line = failure(build(), "classify", "--input", str(tmp_path / "in"), "--output", unwritable)
    assert status == 3 and f"cannot write {unwritable}" in line
    status, line = failure(build(), "classify", "--input", str(tmp_path), "--output", str(tmp_path / "out"))
    assert status == 3 and "not a regular file" in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "expected a mode"),
        (("fly",), "got 'fly'"),
        (("bench", "--speed", "3"), "unknown option of 'bench': --speed"),
        (("bench", "--min-samples"), "value is missing"),
        (("bench", "--min-samples", "0"), "between 1 and"),
        (("bench", "--min-samples", "3x"), "got '3x'"),
        (("bench", "--min-samples", "99999999999999999999"), "between 1 and"),
        (("bench", "--min-samples", "9", "--max-samples", "8"), "is more than"),
        (("bench", "--warmup-s", "nan"), "got 'nan'"),
        (("bench", "--warmup-s", "-1"), "between 0 and"),
        (("bench", "--input-seed", "-1"), "2^64"),
        (("bench", "--input", "x"), "unknown option of 'bench': --input"),
        (("classify", "--input", "x"), "needs --input FILE and --output FILE"),
        (("info", "--profile"), "--profile"),
    ],
)
def test_a_wrong_command_line_is_one_line_of_help(build: Build, arguments: tuple[str, ...], message: str) -> None:
    status, line = failure(build(), *arguments)
    assert status == 2
    assert message in line


@pytest.mark.parametrize(
    ("switch", "status", "message"),
    [
        ("ABI=99", 4, "ABI 99, this runner 2: build the artifact again"),
        ("FAULT_PREPARE", 4, "error 42"),
        ("FAULT_KERNEL", 5, "ValueError: shape mismatch in dense"),
        ("FAULT_CRASH", 9, "memory that is not its own"),
        ("FAULT_ILLEGAL", 9, "illegal instruction"),
    ],
)
def test_a_broken_network_is_one_line_and_a_status(build: Build, switch: str, status: int, message: str) -> None:
    got, line = failure(build(switch), "bench", *_SHORT)
    assert got == status
    assert message in line


@pytest.mark.parametrize("threads", [2, 4, 9])
def test_threads_give_the_same_answer(build: Build, threads: int) -> None:
    alone = bench(build("REPEATS=20"))
    together = bench(build(f"THREADS={threads}", "REPEATS=20"), "--min-samples", "200")
    assert together["output"] == alone["output"]
    assert together["output_repeats"] is True
    assert len(together["threads"]) == threads


def test_every_thread_goes_to_its_core(build: Build) -> None:
    cores = sorted(os.sched_getaffinity(0))
    program = build("THREADS=4")
    free = bench(program)
    assert free["affinity"] == {"asked": None, "obtained": cores}
    assert free["threads"] == [cores] * 4
    two = [cores[-1], cores[0]]
    asked = bench(program, "--cpus", ",".join(map(str, two)))
    assert asked["affinity"] == {"asked": two, "obtained": sorted(set(two))}
    assert asked["threads"] == [[two[0]], [two[1]]] * 2
    one = bench(program, "--cpu", str(cores[0]))
    assert one["affinity"] == {"asked": cores[0], "obtained": [cores[0]]}
    assert one["threads"] == [[cores[0]]] * 4
    status, line = failure(program, "bench", "--cpus", f"{cores[0]},100000,{cores[0]},{cores[0]}")
    assert status == 11 and "core 100000 is switched off" in line


@pytest.mark.parametrize("cpus", ["", ",", "1,", "1,,2", "x", "-1", "1,2-3", "0," * 64 + "0", "1" * 40])
def test_a_wrong_list_of_cores_is_one_line_of_help(build: Build, cpus: str) -> None:
    status, line = failure(build(), "bench", "--cpus", cpus)
    assert status == 2 and "--cpus" in line


@pytest.mark.parametrize("threads", [2, 4])
def test_a_crash_of_a_worker_is_a_status_too(build: Build, threads: int) -> None:
    status, line = failure(build(f"THREADS={threads}", "FAULT_WORKER_CRASH"), "bench", *_SHORT)
    assert status == 9 and "illegal instruction" in line


@pytest.mark.parametrize("threads", [-1, 1, 65])
def test_a_plan_for_a_number_of_threads_that_is_none_is_refused(build: Build, threads: int) -> None:
    status, line = failure(build(f"THREADS={threads}"), "bench", *_SHORT)
    assert status == 4 and f"the plan wants {threads} threads" in line


def test_the_wall_limit_ends_a_worker_that_hangs(build: Build) -> None:
    begin = time.monotonic()
    status, line = failure(build("THREADS=4", "FAULT_WORKER_HANG"), "bench", "--wall-limit-s", "0.3")
    assert status == 6 and "wall-clock limit" in line
    assert time.monotonic() - begin < 5


@pytest.mark.parametrize("fault", ["FAULT_WORKER_HANG", "REPEATS=100000000"])
def test_the_end_of_stdin_ends_all_threads(build: Build, fault: str) -> None:
    command = [str(build("THREADS=4", fault)), "bench", "--die-with-stdin"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.2)
        assert len(os.listdir(f"/proc/{process.pid}/task")) == 5  # the watcher of stdin is the fifth
        process.stdin.close()
        assert process.wait(5) == 7


def test_a_killed_program_leaves_no_thread(build: Build) -> None:
    command = [str(build("THREADS=4", "REPEATS=100000000")), "bench"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        time.sleep(0.1)
        process.kill()
        assert process.wait(5) == -9
    assert not os.path.exists(f"/proc/{process.pid}")


def test_starting_and_ending_many_times(build: Build) -> None:
    """Each end finds the workers somewhere else: starting, looking, asleep."""
    program = build("THREADS=4")
    for spell in range(40):
        done = run(program, "bench", "--warmup-s", "0", "--min-samples", "1", "--max-samples", str(1 + spell % 3))
        assert done.returncode == 0, done.stderr


def test_the_wall_limit_ends_a_hanging_network(build: Build) -> None:
    begin = time.monotonic()
    status, line = failure(build("FAULT_HANG"), "bench", "--wall-limit-s", "0.2")
    assert status == 6
    assert "wall-clock limit" in line
    assert 0.15 < time.monotonic() - begin < 3


def test_the_end_of_stdin_ends_a_hanging_network(build: Build) -> None:
    command = [str(build("FAULT_HANG")), "bench", "--die-with-stdin"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stderr is not None
        process.stdin.write(b"is ignored")
        process.stdin.flush()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.2)
        process.stdin.close()
        assert process.wait(3) == 7
        assert b"link is lost" in process.stderr.read()


def test_without_the_flag_stdin_does_not_matter(build: Build) -> None:
    assert run(build(), "bench", *_SHORT, stdin=subprocess.DEVNULL).returncode == 0


def test_a_missing_instruction_is_refused_before_any_kernel_runs(build: Build) -> None:
    """No processor that is not an Arm one has what a half-precision plan needs."""
    if host_target().triple.startswith("aarch64"):
        pytest.skip("this machine may have half-precision arithmetic; see test_float16.py for the cores of qemu")
    program = build("NEEDS=NPAS_NEEDS_HALF", "FAULT_ILLEGAL")
    status, line = failure(program, "bench", *_SHORT)
    assert status == 10
    assert "half-precision" in line and "fp32" in line
    assert run(program, "info").returncode == 0


@pytest.mark.parametrize("target", [AVX2, NEON])
def test_it_builds_for_every_triple_without_a_warning(tmp_path: Path, target: Any) -> None:
    artifact = tiny_artifact(tmp_path, target, defines=("WITH_WORKSPACE",))
    machine = {"x86_64-linux-musl": 62, "aarch64-linux-musl": 183}[target.triple]
    header = artifact.path.read_bytes()[:20]
    assert header[:4] == b"\x7fELF"
    assert int.from_bytes(header[18:20], "little") == machine
    assert artifact.path.stat().st_size < 200_000
