"""Numbers -> positions on a chart, and the round numbers to label. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """Maps low..high onto start..end (pixels), linearly or by logarithm; what lies outside is put on the edge."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        low, high, value = (self._linear(number) for number in (self.low, self.high, value))
        share = (min(max(value, low), high) - low) / (high - low)
        return round(self.start + share * (self.end - self.start), 2)

    def ticks(self, count: int) -> list[float]:
        """About `count` round numbers in low..high, ascending."""
        if self.logarithmic:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            steps = (1, 2, 5) if len(decades) <= count else (1,)
            return [t for d in decades for s in steps if self.low <= (t := float(f"{s}e{d}")) <= self.high]
        step = round_step((self.high - self.low) / max(count, 1))
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [float(f"{index * step:.12g}") for index in range(first, last + 1)]

    def _linear(self, value: float) -> float:
        return math.log(max(value, 1e-12)) if self.logarithmic else value


def round_step(rough: float) -> float:
    """The smallest of 1, 2, 2.5, 5 x 10^n that is at least `rough`."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * (1 - 1e-9))


def padded(low: float, high: float, *, share: float = 0.06, least: float = 1e-9) -> tuple[float, float]:
    """A little more room on both sides; never an empty range."""
    room = max((high - low) * share, least)
    return low - room, high + room
