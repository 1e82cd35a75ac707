"""How far a device is from its own best: the sentinel's readings against its baseline. Plain numbers in and out.

A sentinel feels the clock, the caches and the memory, as an artifact does, but not in the same proportions: how much of
its drift an artifact shares is known within a range only (`SHARED`), and only while it is the clock that fell. The
core's own clock (`spin_ns` of the runner) tells whether it did. So a drift is corrected while it is small and the clock
explains it, with that range as uncertainty; else it is refused. docs/measurement.md, "Phones", has the simulation.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

READING_NOISE = 0.005  # standard deviation between readings of one state / reading; docs/measurement.md
SHARED = (0.6, 1.25)  # how much of the sentinel's drift an artifact shows, while it is the clock that fell
CLOCK_BOUND = (0.6, 1.1)  # how much of the clock's fall the sentinel shows
DEAD_BAND = 2 * READING_NOISE  # a drift within the readings' own noise is none
BASELINE_READINGS = 5
STALE_READINGS = 3  # in a row, faster than the baseline: then the baseline was taken in a worse state

_TWO_SIDED = 1.96


class Verdict(StrEnum):
    """What a drift means for what was measured beside it."""

    FIT = "fit"  # nothing to do
    CORRECTED = "corrected"  # the latency is divided by what the artifact shares of the drift
    TIRED = "tired"  # too far to correct, by less than `max_drift`: a rest helps as a rule
    OFF = "off"  # the device is not itself: hot, throttled, shared or broken


@dataclass(frozen=True)
class Drift:
    """Reading / baseline: 1.04 is a device that takes 4 % longer than at its best."""

    ratio: float
    verdict: Verdict
    factor: float = 1.0  # what a latency is multiplied by
    uncertainty: float = 0.0  # standard deviation of the factor, relative
    explained: bool = True  # by the clock

    @property
    def is_fit(self) -> bool:
        return self.verdict in (Verdict.FIT, Verdict.CORRECTED)

    def correct(self, latency_ms: float, low_ms: float, high_ms: float) -> tuple[float, float, float]:
        """Latency and its 95 % interval in the device's own best state; the correction's uncertainty is added."""
        if self.factor == 1.0 and self.uncertainty == 0.0:
            return latency_ms, low_ms, high_ms
        corrected = latency_ms * self.factor
        added = _TWO_SIDED * self.uncertainty * corrected
        return (
            corrected,
            corrected - math.hypot((latency_ms - low_ms) * self.factor, added),
            corrected + math.hypot((high_ms - latency_ms) * self.factor, added),
        )


def judge(
    readings_ms: Sequence[float],
    baseline_ms: float,
    *,
    clock: float | None,
    max_correction: float,
    max_unexplained: float,
    max_drift: float,
) -> Drift:
    """The drift of readings that were taken around one session, and what follows from it.

    `clock` is the core's clock as a slowness: 1.05 takes 5 % longer than when the baseline was taken; None: unknown.
    Raises ValueError for no readings, or for readings or a baseline that are no times.
    """
    if not readings_ms or min(*readings_ms, baseline_ms) <= 0:
        raise ValueError(f"expected readings and a baseline above 0 ms, got {list(readings_ms)} and {baseline_ms}")
    # The session lay between its readings: their mean is its state, the worst of them decides whether it counts.
    off = statistics.fmean(readings_ms) / baseline_ms - 1
    worst = max((reading / baseline_ms - 1 for reading in readings_ms), key=abs)
    explained = _explains(clock, off)
    if abs(worst) > max_drift:
        return Drift(1 + worst, Verdict.OFF, explained=_explains(clock, worst))
    if abs(worst) > max(max_correction, max_unexplained):
        return Drift(1 + worst, Verdict.TIRED, explained=_explains(clock, worst))
    if abs(off) <= DEAD_BAND:
        return Drift(1 + off, Verdict.FIT)
    if not explained or abs(worst) > max_correction:
        return Drift(1 + off, Verdict.FIT if abs(off) <= max_unexplained else Verdict.TIRED, explained=explained)
    shared = statistics.fmean(SHARED)
    spread = (SHARED[1] - SHARED[0]) / math.sqrt(12)  # of a uniform distribution
    noise = READING_NOISE / math.sqrt(len(readings_ms))
    return Drift(1 + off, Verdict.CORRECTED, 1 / (1 + shared * off), math.hypot(spread * off, shared * noise))


def _explains(clock: float | None, off: float) -> bool:
    """Whether the sentinel would be that far off by its clock alone, give or take the readings' noise."""
    if clock is None:
        return False
    bounds = [share * (clock - 1) for share in CLOCK_BOUND]
    return min(bounds) - DEAD_BAND <= off <= max(bounds) + DEAD_BAND


@dataclass(frozen=True)
class Baseline:
    """What the sentinel takes on one device at its best. Another artifact of the sentinel has another baseline.

    `spin_ns` is the core's clock beside it (None: not known yet). `faster` are readings since that contradict it.
    """

    artifact_key: str
    baseline_ms: float
    spin_ns: float | None = None
    faster: tuple[tuple[float, float | None], ...] = field(default=())  # (ms, spin_ns)

    def clock(self, spin_ns: float | None) -> float | None:
        """The core's clock as a slowness against that of the baseline, if both are known."""
        return None if self.spin_ns is None or spin_ns is None else spin_ns / self.spin_ns

    def observe(self, reading_ms: float, spin_ns: float | None, *, max_correction: float) -> Baseline:
        """The baseline after one more reading of an admitted session.

        Nothing makes a device faster than its best. So readings that are faster, several in a row, say that the
        baseline was taken while it was not at its best, and take its place; slower ones never move it.
        """
        if reading_ms >= self.baseline_ms * (1 - max(max_correction, DEAD_BAND)):
            is_like_it = abs(reading_ms / self.baseline_ms - 1) <= DEAD_BAND
            clock = spin_ns if self.spin_ns is None and is_like_it else self.spin_ns
            return Baseline(self.artifact_key, self.baseline_ms, clock)
        faster = (*self.faster, (reading_ms, spin_ns))
        if len(faster) < STALE_READINGS:
            return Baseline(self.artifact_key, self.baseline_ms, self.spin_ns, faster)
        clocks = [spin for _, spin in faster if spin is not None]
        return Baseline(self.artifact_key, robust_baseline(ms for ms, _ in faster), min(clocks, default=None))


def robust_baseline(readings_ms: Iterable[float]) -> float:
    """The lower quartile of readings: disturbances only ever add time, and one lucky reading decides nothing."""
    ordered = sorted(readings_ms)
    if not ordered or ordered[0] <= 0:
        raise ValueError(f"expected readings above 0 ms, got {ordered}")
    return ordered[(len(ordered) - 1) // 4]


@dataclass(frozen=True)
class ModelBaseline:
    """What the sentinel takes on phones of one model, and which of them are off it."""

    baseline_ms: float  # the median phone's
    ratios: dict[str, float]  # by serial: 1.2 is a phone that takes 20 % longer than its model
    off: tuple[str, ...]  # serials further off than was allowed, the furthest first

    def describe(self, serial: str) -> str:
        """One line about one phone."""
        ratio = self.ratios[serial]
        return f"{serial} takes {abs(ratio - 1):.0%} {'longer' if ratio > 1 else 'less'} than its model's median phone"


def baseline_of_model(baselines_ms: Mapping[str, float], *, max_off: float = 0.10) -> ModelBaseline | None:
    """Compares the baselines of the phones of one model (by serial, of one sentinel artifact).

    A phone that was slow from the start never drifts from its own baseline; only its sisters show it. None for fewer
    than three phones: of two that disagree nobody knows which one is right.
    """
    if len(baselines_ms) < 3:
        return None
    median = statistics.median(baselines_ms.values())
    ratios = {serial: baseline / median for serial, baseline in baselines_ms.items()}
    off = sorted((s for s in ratios if abs(ratios[s] - 1) > max_off), key=lambda s: -abs(ratios[s] - 1))
    return ModelBaseline(median, ratios, tuple(off))
