"""What accuracies after few epochs say of the accuracy after all of them (own)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

#: prior of the slope: gaps between candidates shrink as they train
_SLOPE, _SLOPE_STD = 0.7, 0.3
#: deviation of the residuals that is assumed beforehand, in units of log error, worth so many pairs
_RESIDUAL, _RESIDUAL_WEIGHT = 0.2, 3.0
#: pairs below which nothing is said
_LEAST_PAIRS = 3


@dataclass(frozen=True)
class RungRelation:
    """A line through the candidates that have both values, learned with a prior on its slope.

    Who climbs is chosen by the value at the rung, so the regression of the top on the rung is not biased by it.
    """

    rung_mean: float
    top_mean: float
    slope: float
    slope_variance: float
    residual_variance: float
    pairs: int

    @classmethod
    def fit(cls, rung: Sequence[float], top: Sequence[float]) -> RungRelation | None:
        """From values at a rung and at the top of the same candidates, `[n]` each; None if there are too few."""
        n = len(rung)
        if n < _LEAST_PAIRS:
            return None
        x, y = np.array(rung), np.array(top)
        dx, dy = x - x.mean(), y - y.mean()
        residual = _RESIDUAL**2
        for _ in range(3):  # slope and residuals depend on each other
            precision = dx @ dx / residual + 1 / _SLOPE_STD**2
            slope = float((dx @ dy / residual + _SLOPE / _SLOPE_STD**2) / precision)
            squares = float(((dy - slope * dx) ** 2).sum())
            residual = (squares + _RESIDUAL_WEIGHT * _RESIDUAL**2) / (n - 1 + _RESIDUAL_WEIGHT)
        return cls(float(x.mean()), float(y.mean()), slope, 1 / precision, residual, n)

    def __call__(self, value: float) -> tuple[float, float]:
        """Mean and variance of the value at the top, given one at the rung."""
        away = value - self.rung_mean
        variance = self.residual_variance * (1 + 1 / self.pairs) + self.slope_variance * away**2
        return self.top_mean + self.slope * away, variance


def relations(climbed: Sequence[tuple[Mapping[int, float], float]]) -> dict[int, RungRelation]:
    """By epochs, from candidates that reached the top: (values by epochs of every rung, value at the top)."""
    pairs: dict[int, tuple[list[float], list[float]]] = {}
    for rungs, top in climbed:
        for epochs, value in rungs.items():
            if epochs < max(rungs):
                of_rung, of_top = pairs.setdefault(epochs, ([], []))
                of_rung.append(value)
                of_top.append(top)
    fitted = {epochs: RungRelation.fit(*both) for epochs, both in pairs.items()}
    return {epochs: relation for epochs, relation in fitted.items() if relation is not None}
