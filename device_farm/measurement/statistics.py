"""From samples to a latency with its interval. Pure numpy; docs/measurement.md has the evidence for every choice.

A session is a run of samples in windows of about 2 ms, with a probe of the core between two windows. The latency is the
10th percentile of the samples in *quiet* windows, those between two probes that are near the best one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LATENCY_QUANTILE = 0.10
CONFIDENCE = 0.95
_TWO_SIDED = 1.96  # standard deviations to each side that hold 95 % of a normal distribution

# A quiet core repeats its probe within 0.5 %; a shared one is slower by at least 8 % and never twice the same.
QUIET_RATIO = 1.015
CREDIBLE_RATIO = 1.005
CREDIBLE_PROBES = 8
# The ratio to the core's own clock is less sharp: it also holds the error of the clock's own probe.
KNOWN_RATIO = 1.08

# What no single session can know: how much the latency differs between sessions (standard deviation / latency),
# measured by benchmarks/repeatability.py on a machine under heavy load.
BETWEEN_QUIET_SESSIONS = 0.005
BETWEEN_SHARED_SESSIONS = 0.03

_ENOUGH = 0.3  # of the samples, for a quantile of 0.1 of those drawn
_MOST_AT_ONCE = 200_000
_RESAMPLES = 400
_MAX_BLOCKS = 40
_PERCENTILES = (1, 10, 50, 90, 99)


@dataclass(frozen=True)
class Session:
    """What one run of the runner timed."""

    samples_ns: NDArray[np.float64]  # [samples], in the order in which they were taken
    first: NDArray[np.int64]  # [windows + 1], the sample behind each probe; the last one is the number of samples
    probe_ns: NDArray[np.float64]  # [windows + 1]
    spin_ns: float  # a fixed chain of dependent multiplications: the clock of the core


@dataclass(frozen=True)
class Summary:
    """A latency and how far it can be trusted. Times in ns."""

    latency_ns: float
    ci_low_ns: float  # 95 % interval, between sessions
    ci_high_ns: float
    own_half_width: float  # relative; of the interval that the samples alone give, within these sessions
    quiet: bool  # whether the latency is that of quiet windows; else it is that of all samples
    quiet_fraction: float  # of all samples
    issue_ratio: float  # best probe / best spin: a constant of the kind of core while nothing shares it
    samples: int
    percentiles_ns: dict[str, float]  # of all samples, disturbed ones included


def issue_ratio(sessions: Sequence[Session]) -> float:
    """Best probe over best spin, both in the same clock cycles: it does not depend on the frequency."""
    return min(float(s.probe_ns.min()) for s in sessions) / min(s.spin_ns for s in sessions)


def quiet_windows(sessions: Sequence[Session], *, known_ratio: float | None = None) -> list[NDArray[np.bool_]]:
    """For each session, which of its windows ([windows]) nothing disturbed; all False if no quiet state can be told.

    Without `known_ratio`, the issue ratio of a quiet core of this device, the quiet state is believed when the best
    probe was repeated; with it, when the best probe reaches that ratio.
    """
    best = min(float(s.probe_ns.min()) for s in sessions)
    if known_ratio is None:
        credible = sum(int((s.probe_ns <= CREDIBLE_RATIO * best).sum()) for s in sessions) >= CREDIBLE_PROBES
    else:
        credible = issue_ratio(sessions) <= KNOWN_RATIO * known_ratio
    calm = [(s.probe_ns <= QUIET_RATIO * best) & credible for s in sessions]
    return [c[:-1] & c[1:] for c in calm]


def summarise(sessions: Sequence[Session], *, min_samples: int, known_ratio: float | None = None) -> Summary:
    """Pools the sessions. With fewer than `min_samples` quiet samples all count, and `quiet` is False."""
    quiet = quiet_windows(sessions, known_ratio=known_ratio)
    everything = np.concatenate([s.samples_ns for s in sessions])
    chosen = _windows(sessions, quiet)
    count = sum(map(len, chosen))
    is_quiet = count >= min_samples
    if not is_quiet:
        chosen = _windows(sessions, [np.ones_like(q) for q in quiet])
    latency = _quantile(np.concatenate(chosen))
    low, high = bootstrap_interval(_blocks(chosen))
    between = _TWO_SIDED * latency * (BETWEEN_QUIET_SESSIONS if is_quiet else BETWEEN_SHARED_SESSIONS)
    return Summary(
        latency_ns=latency,
        ci_low_ns=latency - math.hypot(latency - low, between),
        ci_high_ns=latency + math.hypot(high - latency, between),
        own_half_width=(high - low) / 2 / latency,
        quiet=is_quiet,
        quiet_fraction=count / len(everything),
        issue_ratio=issue_ratio(sessions),
        samples=len(everything),
        percentiles_ns={f"p{p}": float(np.percentile(everything, p)) for p in _PERCENTILES},
    )


def bootstrap_interval(blocks: Sequence[NDArray[np.float64]], *, seed: int = 0) -> tuple[float, float]:
    """95 % interval of the latency quantile, by drawing whole blocks with replacement.

    Neighbouring samples are alike, so drawing single ones would promise too much; blocks keep what is alike together.
    """
    pooled = np.concatenate(blocks)
    order = np.argsort(pooled, kind="stable")
    values = pooled[order]
    owner = np.repeat(np.arange(len(blocks)), [len(b) for b in blocks])[order]  # [samples]
    drawn = np.random.default_rng(seed).multinomial(len(blocks), np.full(len(blocks), 1 / len(blocks)), _RESAMPLES)
    estimates = values[_quantile_places(drawn, owner, np.array([len(b) for b in blocks]))]
    tail = (1 - CONFIDENCE) / 2
    latency = _quantile(pooled)
    low, high = np.quantile(estimates, [tail, 1 - tail])
    return min(float(low), latency), max(float(high), latency)


def _quantile_places(drawn: NDArray[np.int64], owner: NDArray[np.int64], sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each resample where among the sorted samples its latency quantile is.

    drawn: [resamples, blocks], how often each block is in it; owner: [samples], the block of each; sizes: [blocks].
    The quantile is a low one, so the first part of the samples is mostly enough; a few resamples at a time, as the
    products would be large and a loop over single ones takes longer than everything else in a measurement's end.
    """
    wanted = LATENCY_QUANTILE * (drawn @ sizes)
    least = np.ceil(wanted).astype(np.int32)
    by_block = np.ascontiguousarray(drawn.T, dtype=np.int32)  # [blocks, resamples]: whole rows are copied and added
    places = np.empty(len(drawn), dtype=np.int64)
    first = owner[: int(_ENOUGH * len(owner)) + 1]
    step = max(1, _MOST_AT_ONCE // len(first))
    for begin in range(0, len(drawn), step):
        some = slice(begin, begin + step)
        cumulated = np.cumsum(by_block[:, some][first], axis=0, dtype=np.int32)
        places[some] = (cumulated < least[some]).sum(axis=0)
    for i in np.flatnonzero(places == len(first)):
        places[i] = np.searchsorted(np.cumsum(drawn[i][owner]), wanted[i])
    return places


def _quantile(samples: NDArray[np.float64]) -> float:
    # The smallest sample that a tenth of them does not exceed: one that was really taken, as in the bootstrap.
    return float(np.quantile(samples, LATENCY_QUANTILE, method="inverted_cdf"))


def _windows(sessions: Sequence[Session], chosen: Sequence[NDArray[np.bool_]]) -> list[NDArray[np.float64]]:
    return [
        session.samples_ns[session.first[w] : session.first[w + 1]]
        for session, mask in zip(sessions, chosen, strict=True)
        for w in np.flatnonzero(mask)
    ]


def _blocks(windows: Sequence[NDArray[np.float64]]) -> list[NDArray[np.float64]]:
    """At most 40 blocks of consecutive windows: what disturbs lasts for several."""
    size = -(-len(windows) // _MAX_BLOCKS)
    return [np.concatenate(windows[i : i + size]) for i in range(0, len(windows), size)]
