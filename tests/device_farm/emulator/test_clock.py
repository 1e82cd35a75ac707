"""The modelled times, without a phone: whatever the protocol and the network, measurement believes them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_farm.emulator.clock import (
    BenchOptions,
    Modelled,
    Session,
    State,
    modelled,
    on_host_cores,
    on_phone_cores,
    parse_bench,
    parse_report,
    session_rng,
    shortest_run,
)
from device_farm.emulator.models import MODELS, find_model
from device_farm.measurement.report import BenchReport
from device_farm.measurement.report import parse_report as parse
from device_farm.measurement.statistics import summarise
from device_farm.transport.base import Completed

STEPS = [("stem", "conv2d", 1e7), ("depthwise", "depthwise_conv2d", 1e6), ("pool", "pool2d", 0.0)]


def real_report(steps: list[tuple[str, str, float]] = STEPS, threads: int = 1) -> dict[str, Any]:
    """As the runner writes it after its shortest run."""
    conditions = {"cpu_khz": {}, "thermal_millicelsius": [], "load_1min": 9.0, "spin_ns": 1}
    profile = [
        {"name": name, "kind": kind, "macs": 2 * macs, "kept_macs": macs, "median_ns": 5} for name, kind, macs in steps
    ]
    return {
        "schema": 1,
        "mode": "bench",
        "key": "k",
        "input_seed": 3,
        "denormals": "flushed",
        "output": [1.5, None],
        "output_repeats": True,
        "affinity": {"asked": None, "obtained": [0, 1]},
        "threads": [[0, 1]] * threads,
        "warmup_runs": 0,
        "samples_ns": [9],
        "windows": [[0, 1], [1, 1]],
        "profile": {"passes": 1, "steps": profile},
        "before": conditions,
        "after": conditions,
        "voluntary_switches": 7,
        "involuntary_switches": 7,
        "page_faults": 7,
    }


def run(
    report: dict[str, Any],
    options: BenchOptions,
    *,
    model: str = "emu-midrange",
    factor: float = 1.0,
    noise: float = 0.0,
    number: int = 0,
) -> Modelled:
    phone = find_model(model)
    khz = tuple(phone.cluster_of(core).step(factor) for core in range(phone.cores))
    state = State(khz, [["cpu", 30_000]], 1.0)
    return modelled(
        report,
        options,
        Session(phone, 1.0, noise, lambda elapsed_s: state, lambda elapsed_s: state.khz, session_rng(1, "k", number)),
    )


def believed(timed: Modelled) -> BenchReport:
    return parse(BenchReport, Completed(0, json.dumps(timed.report).encode(), b""), key="k")


def latency_ns(timed: Modelled) -> float:
    return summarise([believed(timed).session()], min_samples=5).latency_ns


@settings(max_examples=60)
@given(
    model=st.sampled_from(sorted(MODELS)),
    macs=st.lists(st.floats(0, 1e9), min_size=1, max_size=4),
    min_time_s=st.floats(0, 0.3),
    max_time_s=st.floats(0, 0.3),
    min_samples=st.integers(1, 50),
    cpu=st.integers(-1, 3),
    noise=st.sampled_from([0.0, 0.3]),
    profile=st.booleans(),
)
def test_measurement_believes_every_modelled_report(
    model: str,
    macs: list[float],
    min_time_s: float,
    max_time_s: float,
    min_samples: int,
    cpu: int,
    noise: float,
    profile: bool,
) -> None:
    words = ["bench", "--min-time-s", str(min_time_s), "--max-time-s", str(max_time_s), "--cpu", str(cpu)]
    words += ["--min-samples", str(min_samples), "--max-samples", "3000", *(["--profile"] if profile else [])]
    options = parse_bench(words)
    assert options is not None
    timed = run(real_report([(f"s{i}", "conv2d", m) for i, m in enumerate(macs)]), options, model=model, noise=noise)
    report = believed(timed)
    session = report.session()
    assert summarise([session], min_samples=1).latency_ns > 0
    assert min_samples <= len(report.samples_ns) <= 3000
    sampled_s = sum(report.samples_ns) * 1e-9
    assert sampled_s >= 0.9 * min_time_s or len(report.samples_ns) == 3000
    assert timed.took_s >= sampled_s + options.warmup_s
    assert (report.profile is not None) is profile
    assert report.output == [1.5, None] and report.output_repeats
    assert report.affinity.obtained == ([cpu] if cpu >= 0 else list(range(find_model(model).cores)))


def test_equal_arguments_give_equal_reports() -> None:
    options = BenchOptions(cpus=(6,))
    assert run(real_report(), options) == run(real_report(), options)
    other = run(real_report(), options, number=1)
    assert other != run(real_report(), options)
    assert latency_ns(other) == pytest.approx(latency_ns(run(real_report(), options)), rel=0.01)


def test_time_is_cycles_over_the_clock() -> None:
    options = BenchOptions(cpus=(6,), profile=True)
    full, half = (run(real_report(), options, factor=factor) for factor in (1.0, 0.5))
    khz = [believed(timed).before.cpu_khz["6"] for timed in (full, half)]
    assert khz[1] < 0.6 * khz[0]
    ratio = khz[0] / khz[1]
    assert latency_ns(half) / latency_ns(full) == pytest.approx(ratio, rel=0.01)
    assert believed(half).before.spin_ns / believed(full).before.spin_ns == pytest.approx(ratio, rel=0.01)
    ratios = [summarise([believed(timed).session()], min_samples=5).issue_ratio for timed in (full, half)]
    assert ratios[0] == pytest.approx(ratios[1], rel=0.005)  # a constant of the core, whatever the clock


def test_work_pruning_cores_and_threads_tell() -> None:
    def latency(macs: float, *, kind: str = "conv2d", cpus: tuple[int, ...] = (6,), threads: int = 1) -> float:
        return latency_ns(run(real_report([("s", kind, macs)], threads), BenchOptions(cpus=cpus)))

    assert 4.5 < latency(1e8) / latency(2e7) < 5.0  # steps cost something beside their multiplications
    assert latency(1e8, cpus=(0,)) > 2 * latency(1e8)
    assert 1.6 < latency(1e8) / latency(1e8, cpus=(6, 7), threads=2) < 2.0
    assert latency(1e8, kind="depthwise_conv2d") > 2 * latency(1e8)
    cpus = believed(run(real_report(threads=2), BenchOptions(cpus=(6, 7), asked=[6, 7])))
    assert cpus.affinity.obtained == [6, 7] and cpus.threads == [[6], [7]]


def test_noise_is_seen_by_the_probes() -> None:
    quiet, noisy = (
        summarise([believed(run(real_report(), BenchOptions(cpus=(6,)), noise=noise)).session()], min_samples=20)
        for noise in (0.0, 0.3)
    )
    assert quiet.quiet and quiet.own_half_width < 0.01
    assert not noisy.quiet


def test_options_of_the_runner() -> None:
    words = "bench --warmup-s 0.1 --min-time-s 2 --cpus 4,5 --input-seed 3 --profile --die-with-stdin --wall-limit-s 9"
    options = parse_bench(words.split())
    assert options is not None
    assert (options.warmup_s, options.min_time_s, options.max_time_s) == (0.1, 2.0, 2.0)
    assert (options.cpus, options.asked, options.profile, options.wall_limit_s) == ((4, 5), [4, 5], True, 9.0)
    real = " ".join(shortest_run(options))
    assert "--input-seed 3" in real and "--die-with-stdin" in real and "--cpu" not in real and "--profile" in real


@pytest.mark.parametrize(
    "words",
    [
        "",
        "classify --input a",
        "info",
        "bench --nonsense 1",
        "bench --min-time-s x",
        "bench --min-samples 0",
        "bench -p",
    ],
)
def test_what_the_runner_itself_must_judge(words: str) -> None:
    assert parse_bench(words.split()) is None


@pytest.mark.parametrize("output", [b"", b"{}", b"[]", b"\xff", b'{"schema": 1, "mode": "classify"}', b"[" * 100_000])
def test_what_is_no_report_is_left_alone(output: bytes) -> None:
    assert parse_report(output) is None


def test_cores_of_the_phone_stand_for_those_of_the_host() -> None:
    words = ["bench", "--cpus", "7,6,0", "--profile", "--cpu", "-1"]
    assert on_host_cores(words, [4, 9]) == ["bench", "--cpus", "9,4,4", "--profile", "--cpu", "-1"]
    report = on_phone_cores(real_report(threads=2), BenchOptions(cpus=(6, 7), asked=[6, 7]), find_model("emu-midrange"))
    assert report["affinity"] == {"asked": [6, 7], "obtained": [6, 7]} and report["threads"] == [[6], [7]]
