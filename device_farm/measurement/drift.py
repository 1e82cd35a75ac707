"""How far a device is from its own best: the sentinel's readings against its baseline. Plain numbers in and out.

A sentinel feels the clock, the caches and the memory, as an artifact does, but not in the same proportions: how much of
its drift an artifact shares is known within a range only (`SHARED`). So a drift is corrected while it is small, with
that range as uncertainty, and refused when it is not. docs/measurement.md, "Phones", has the simulation behind it.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

READING_NOISE = 0.005  # standard deviation between readings of one state / reading; docs/measurement.md
SHARED = (0.6, 1.25)  # how much of the sentinel's drift an artifact shows, while it is the clock that fell
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


def judge(readings_ms: Sequence[float], baseline_ms: float, *, max_correction: float, max_drift: float) -> Drift:
    """The drift of readings that were taken around one session, and what follows from it.

    Raises ValueError for no readings, or for readings or a baseline that are no times.
    """
    if not readings_ms or min(*readings_ms, baseline_ms) <= 0:
        raise ValueError(f"expected readings and a baseline above 0 ms, got {list(readings_ms)} and {baseline_ms}")
    # The session lay between its readings: their mean is its state, the worst of them decides whether it counts.
    ratio = statistics.fmean(readings_ms) / baseline_ms
    worst = max((reading / baseline_ms for reading in readings_ms), key=lambda r: abs(r - 1))
    if abs(worst - 1) > max_drift:
        return Drift(worst, Verdict.OFF)
    if abs(worst - 1) > max(max_correction, DEAD_BAND):
        return Drift(worst, Verdict.TIRED)
    if abs(ratio - 1) <= DEAD_BAND or max_correction == 0:
        return Drift(ratio, Verdict.FIT)
    shared = statistics.fmean(SHARED)
    spread = (SHARED[1] - SHARED[0]) / math.sqrt(12)  # of a uniform distribution
    noise = READING_NOISE / math.sqrt(len(readings_ms))
    factor = 1 / (1 + shared * (ratio - 1))
    return Drift(ratio, Verdict.CORRECTED, factor, math.hypot(spread * (ratio - 1), shared * noise))


@dataclass(frozen=True)
class Baseline:
    """What the sentinel takes on one device at its best. Another artifact of the sentinel has another baseline.

    `faster_ms` are readings since that contradict it.
    """

    artifact_key: str
    baseline_ms: float
    faster_ms: tuple[float, ...] = field(default=())

    def observe(self, reading_ms: float, *, max_correction: float) -> Baseline:
        """The baseline after one more reading of an admitted session.

        Nothing makes a device faster than its best. So readings that are faster, several in a row, say that the
        baseline was taken while it was not at its best, and take its place; slower ones never move it.
        """
        if reading_ms >= self.baseline_ms * (1 - max(max_correction, DEAD_BAND)):
            return self if not self.faster_ms else Baseline(self.artifact_key, self.baseline_ms)
        faster = (*self.faster_ms, reading_ms)
        if len(faster) < STALE_READINGS:
            return Baseline(self.artifact_key, self.baseline_ms, faster)
        return Baseline(self.artifact_key, robust_baseline(faster))


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
