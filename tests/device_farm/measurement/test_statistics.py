from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from device_farm.measurement.statistics import (
    LATENCY_QUANTILE,
    Session,
    bootstrap_interval,
    issue_ratio,
    quiet_windows,
    summarise,
)

QUIET_PROBE, SPIN = 12_000.0, 80_000.0


def session(probes: Sequence[float], windows: Sequence[Sequence[float]], *, spin_ns: float = SPIN) -> Session:
    first = np.cumsum([0, *map(len, windows)])
    return Session(np.concatenate(windows).astype(float), first, np.array(probes), spin_ns)


def noisy(rng: np.random.Generator, *, disturbed: NDArray[np.bool_], latency: float = 1000.0) -> Session:
    """Windows of ten samples; a disturbed stretch is 20 % slower throughout, as next to a busy hyperthread."""
    ends = np.append(disturbed, False) | np.append(False, disturbed)  # the probes on both sides of a window
    probes = np.where(ends, rng.uniform(16_000, 22_000, len(ends)), QUIET_PROBE + 10 * rng.integers(0, 3, len(ends)))
    jitter = 1 + 0.01 * rng.exponential(size=(len(disturbed), 10))
    return session(list(probes), list(latency * jitter * np.where(disturbed, 1.2, 1.0)[:, None]))


def test_the_latency_is_that_of_quiet_windows() -> None:
    rng = np.random.default_rng(0)
    truth = summarise([noisy(rng, disturbed=np.zeros(100, bool))], min_samples=20)
    disturbed = np.arange(100) < 95  # nearly always: any percentile of all samples is wrong
    found = summarise([noisy(rng, disturbed=disturbed), noisy(rng, disturbed=disturbed)], min_samples=20)
    assert truth.quiet and found.quiet
    assert truth.quiet_fraction == 1.0
    assert found.quiet_fraction == pytest.approx(0.05, abs=0.02)
    assert found.latency_ns == pytest.approx(truth.latency_ns, rel=0.005)
    assert found.percentiles_ns["p10"] > 1.15 * truth.latency_ns


def test_a_window_is_quiet_between_two_quiet_probes() -> None:
    q, b = QUIET_PROBE, 15_000.0
    one = session([q, q, b, q, q, *[q] * 6], [[1.0]] * 10)
    assert quiet_windows([one])[0].tolist() == [True, False, False, True, *[True] * 6]


def test_a_best_probe_that_does_not_repeat_is_not_believed() -> None:
    rng = np.random.default_rng(1)
    shared = session(list(rng.uniform(16_000, 22_000, 101)), [[1200.0] * 10] * 100)
    summary = summarise([shared], min_samples=20)
    assert not summary.quiet
    assert summary.quiet_fraction == 0.0
    assert summary.latency_ns == 1200.0  # of all samples, and marked


def test_a_shared_core_that_repeats_itself_is_told_by_the_known_ratio() -> None:
    constant = session([17_000.0] * 101, [[1240.0] * 10] * 100)
    assert summarise([constant], min_samples=20).quiet
    assert not summarise([constant], min_samples=20, known_ratio=QUIET_PROBE / SPIN).quiet


def test_the_known_ratio_does_not_depend_on_the_frequency() -> None:
    slower = session([1.3 * QUIET_PROBE] * 101, [[1300.0] * 10] * 100, spin_ns=1.3 * SPIN)
    assert issue_ratio([slower]) == pytest.approx(QUIET_PROBE / SPIN)
    assert summarise([slower], min_samples=20, known_ratio=QUIET_PROBE / SPIN).quiet


def test_sessions_share_the_quiet_state() -> None:
    """The first session was disturbed throughout at a constant level; the second one shows it."""
    constant = session([17_000.0] * 101, [[1240.0] * 10] * 100)
    quiet = session([QUIET_PROBE] * 101, [[1000.0] * 10] * 100)
    summary = summarise([constant, quiet], min_samples=20)
    assert summary.latency_ns == 1000.0
    assert summary.quiet_fraction == 0.5


def test_too_few_quiet_samples_are_not_enough() -> None:
    one = session([QUIET_PROBE] * 11, [[1000.0]] * 10)
    assert not summarise([one], min_samples=11).quiet
    assert summarise([one], min_samples=10).quiet


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    """Autocorrelated samples (whole windows are slow together): 300 sessions of 60 windows."""
    rng = np.random.default_rng(2)

    def windows(count: int) -> NDArray[np.float64]:
        level = 1 + 0.02 * rng.exponential(size=(count, 1))
        return 1000 * level * (1 + 0.002 * rng.exponential(size=(count, 20)))

    truth = np.quantile(windows(200_000), LATENCY_QUANTILE)
    intervals = np.array([bootstrap_interval(list(windows(60))) for _ in range(300)])
    covered = ((intervals[:, 0] <= truth) & (truth <= intervals[:, 1])).mean()
    assert 0.90 <= covered <= 0.99


def test_single_samples_would_promise_too_much() -> None:
    rng = np.random.default_rng(3)
    blocks = list(1000 + 50 * rng.exponential(size=(40, 1)) + rng.exponential(size=(40, 20)))
    low, high = bootstrap_interval(blocks)
    single_low, single_high = bootstrap_interval(list(np.concatenate(blocks)[:, None]))
    assert high - low > 2 * (single_high - single_low)


@given(st.lists(st.lists(st.integers(1, 10**9), min_size=1, max_size=5), min_size=1, max_size=30))
@settings(max_examples=50)
def test_the_interval_holds_the_latency(windows: list[list[int]]) -> None:
    summary = summarise([session([QUIET_PROBE] * (len(windows) + 1), windows)], min_samples=20)
    assert summary.ci_low_ns < summary.latency_ns < summary.ci_high_ns
    assert summary.latency_ns in {float(value) for window in windows for value in window}
    assert summary.samples == sum(map(len, windows))


def test_equal_samples_give_equal_summaries() -> None:
    sessions = [noisy(np.random.default_rng(4), disturbed=np.arange(60) % 3 == 0)]
    assert summarise(sessions, min_samples=20) == summarise(sessions, min_samples=20)
