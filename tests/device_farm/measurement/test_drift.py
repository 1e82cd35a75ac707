from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_farm.measurement.codec import baseline_from_json, baseline_to_json
from device_farm.measurement.drift import (
    STALE_READINGS,
    Baseline,
    Verdict,
    baseline_of_model,
    judge,
    robust_baseline,
)
from device_farm.measurement.sentinel import Sentinel, sentinel_graph
from device_farm.measurement.types import Protocol
from device_farm.testing.simulated_phone import write_program

LIMITS = {
    "max_correction": Protocol.max_correction,
    "max_unexplained": Protocol.max_unexplained,
    "max_drift": Protocol.max_drift,
}


@pytest.mark.parametrize(
    ("readings", "verdict"),
    [
        ([1.0], Verdict.FIT),
        ([1.009, 0.992], Verdict.FIT),
        ([1.03, 1.04], Verdict.CORRECTED),
        ([0.97], Verdict.CORRECTED),
        ([1.0, 1.06], Verdict.TIRED),  # the worst one counts: it came within the session
        ([1.09], Verdict.TIRED),
        ([0.93], Verdict.TIRED),
        ([1.0, 1.11], Verdict.OFF),
        ([0.5], Verdict.OFF),
    ],
)
def test_verdicts(readings: list[float], verdict: Verdict) -> None:
    mean = sum(readings) / len(readings)
    drift = judge([0.4 * r for r in readings], 0.4, clock=1 + (mean - 1) / 0.9, **LIMITS)
    assert drift.verdict is verdict
    assert drift.is_fit == (verdict in (Verdict.FIT, Verdict.CORRECTED))


@pytest.mark.parametrize("clock", [None, 1.0, 0.95, 1.1])
def test_what_the_clock_does_not_explain_is_not_corrected(clock: float | None) -> None:
    drift = judge([0.4 * 1.03], 0.4, clock=clock, **LIMITS)
    assert drift.verdict is Verdict.TIRED and not drift.explained
    small = judge([0.4 * 1.014], 0.4, clock=clock, **LIMITS | {"max_unexplained": 0.015})
    assert small.verdict is Verdict.FIT and small.correct(2.0, 1.9, 2.1) == (2.0, 1.9, 2.1)


def test_what_is_fit_is_left_as_it_is() -> None:
    assert judge([0.401], 0.4, clock=None, **LIMITS).correct(2.0, 1.9, 2.1) == (2.0, 1.9, 2.1)


@given(st.floats(1.011, 1.049), st.floats(0.01, 100), st.floats(0, 0.1))
def test_a_correction_goes_the_right_way_and_its_uncertainty_is_added(ratio: float, ms: float, half: float) -> None:
    drift = judge([0.4 * ratio], 0.4, clock=ratio, **LIMITS)
    corrected, low, high = drift.correct(ms, ms * (1 - half), ms * (1 + half))
    assert ms / ratio <= corrected < ms
    assert low < corrected < high
    assert (high - low) / corrected > 2 * half * 0.999
    faster = judge([0.4 / ratio], 0.4, clock=1 / ratio, **LIMITS).correct(ms, ms, ms)[0]
    assert faster > ms


def test_simulated_corrections_are_within_three_percent_and_their_intervals_cover() -> None:
    """Where max_correction comes from: clocks fall up to 7 %, artifacts wait for memory up to half of their time.

    Not correcting is wrong as soon as drifts pass 3 %; correcting stays within it up to 5 % in all but 1 of 1,000.
    """
    random = np.random.default_rng(0)
    errors, plain, covered, refused = [], [], [], 0
    for _ in range(20_000):
        fall, of_artifact = random.uniform(0, 0.07), random.uniform(0, 0.5)
        readings = 0.4 * (1 + 0.8 * fall) * (1 + 0.005 * random.standard_normal(2))
        measured = (1 + (1 - of_artifact) * fall) * (1 + 0.005 * random.standard_normal())
        drift = judge(list(readings), 0.4, clock=1 + fall, **LIMITS)
        if not drift.is_fit:
            refused += 1
            continue
        own = 1.96 * 0.005 * measured
        latency, low, high = drift.correct(measured, measured - own, measured + own)
        errors.append(abs(latency - 1))
        plain.append(abs(measured - 1))
        covered.append(low <= 1 <= high)
    assert np.quantile(errors, 0.999) <= 0.03
    assert np.mean(np.array(plain) > 0.03) > 0.2
    assert 0.90 <= np.mean(covered) <= 0.99
    assert 0.05 < refused / 20_000 < 0.4


@pytest.mark.parametrize(("readings", "baseline"), [([], 1.0), ([0.0], 1.0), ([1.0], 0.0), ([1.0, -1.0], 1.0)])
def test_what_is_no_time_is_refused(readings: list[float], baseline: float) -> None:
    with pytest.raises(ValueError, match="expected readings and a baseline above 0 ms"):
        judge(readings, baseline, clock=None, **LIMITS)


def test_a_baseline_is_robust() -> None:
    assert robust_baseline([0.40, 0.41, 0.40, 0.55, 0.90]) == 0.40  # disturbed readings only add time
    assert robust_baseline([0.3, 0.4, 0.4, 0.4, 0.4]) == 0.4  # one lucky one decides nothing
    with pytest.raises(ValueError, match="expected readings above 0 ms"):
        robust_baseline([])


def test_slow_readings_never_move_a_baseline_and_one_fast_one_neither() -> None:
    baseline = Baseline("key", 0.4)
    for reading in [0.5] * 50 + [0.41] * 50 + [0.3, 0.4, 0.3, 0.3, 0.4]:
        baseline = baseline.observe(reading, 80_000.0, max_correction=0.05)
    assert baseline == Baseline("key", 0.4, 80_000.0)  # the clock of the first one like it


def test_several_fast_readings_in_a_row_replace_it() -> None:
    baseline = Baseline("key", 0.5)
    for reading in [0.41, 0.40, 0.42][:STALE_READINGS]:
        baseline = baseline.observe(reading, 80_000.0, max_correction=0.05)
    assert baseline == Baseline("key", 0.40, 80_000.0)


@given(st.lists(st.floats(0.1, 2.0), max_size=60))
def test_a_baseline_never_rises(readings: list[float]) -> None:
    baseline, seen = Baseline("key", 1.0), [1.0]
    for reading in readings:
        baseline = baseline.observe(reading, 80_000.0, max_correction=0.05)
        seen.append(baseline.baseline_ms)
    assert seen == sorted(seen, reverse=True)


def test_phones_off_their_model_are_named() -> None:
    model = baseline_of_model({"a": 0.40, "b": 0.41, "c": 0.39, "slow": 0.50, "other": 0.2})
    assert model is not None
    assert model.baseline_ms == 0.40
    assert model.off == ("other", "slow")
    assert model.describe("slow") == "slow takes 25% longer than its model's median phone"
    assert model.describe("other") == "other takes 50% less than its model's median phone"
    assert baseline_of_model({"a": 0.4, "b": 0.5}) is None  # which one is right?


@pytest.mark.parametrize("baseline", [0.0, -1.0, math.inf, math.nan])
def test_a_sentinel_needs_a_possible_baseline(baseline: float, tmp_path: object) -> None:
    for name in ("baseline_ms", "spin_ns", "model_ms"):
        with pytest.raises(ValueError, match=f"{name} must be above 0"):
            Sentinel(None, **{name: baseline})  # type: ignore[arg-type]


def test_a_baseline_is_remembered_for_its_own_sentinel_only(tmp_path: Path) -> None:
    artifact = write_program(tmp_path, "sentinel", ms=0.4)
    baseline = Baseline("sentinel", 0.4, 80_000.0, ((0.3, None),))
    kept = baseline_from_json(json.loads(json.dumps(baseline_to_json(baseline))))
    assert kept == Baseline("sentinel", 0.4, 80_000.0)
    assert Sentinel.remembering(artifact, kept, model_ms=0.5) == Sentinel(artifact, 0.4, 80_000.0, 0.5)
    assert Sentinel.remembering(artifact, Baseline("another", 0.4)).baseline_ms is None
    assert Sentinel.remembering(artifact, None) == Sentinel(artifact)
    with pytest.raises(ValueError, match="not a sentinel's baseline: baseline_ms"):
        baseline_from_json({"artifact_key": "sentinel", "baseline_ms": 0.0})


def test_the_sentinel_is_small_and_mixes_what_networks_are_made_of() -> None:
    graph = sentinel_graph()
    kept = [op.kept_macs(*graph.input_shapes(op)) for op in graph.ops if op.inputs]
    assert 4e6 < sum(kept) < 10e6
    kinds = {op.kind for op in graph.ops}
    assert {"conv2d", "depthwise_conv2d", "pool2d"} <= kinds
    pruned = [op for op in graph.ops if getattr(op, "sparsity", None) is not None]
    assert {op.kernel for op in pruned} == {(1, 1), (3, 3)}  # type: ignore[attr-defined]
    assert sentinel_graph() == graph


def test_the_protocols_key_is_the_old_one_unless_the_number_would_change() -> None:
    assert Protocol().key == "0.05-0.2-1.0-20-20000-0.05-False"  # as journals have it
    assert Protocol(sentinel_every_s=0.0).key == Protocol().key
    others = [dataclasses.replace(Protocol(), **{name: 0.04}) for name in LIMITS]  # type: ignore[arg-type]
    assert len({Protocol().key, *(p.key for p in others)}) == 4
