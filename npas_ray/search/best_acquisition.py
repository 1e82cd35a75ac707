"""Which candidates would improve the best one within the budgets most: expected improvement times feasibility (own)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from npas_ray.search.acquisition import choose_batch, log_expected_improvement
from npas_ray.search.encoding import IntArray
from npas_ray.search.latency_surrogate import LatencySurrogate

Floats = NDArray[np.float64]


class BestAcquisition:
    """Scores candidates by the expected improvement over the best, times the probability that every budget is kept.

    Args:
        latency: what is believed of latencies.
        fitted: what is believed of the trained candidates' accuracies `[n]`, in any unit: the best is the one that is
            believed to be, not the one that was lucky.
        feasible: whether they are trained to the end and keep the budgets `[n]`.
        floor: what anybody reaches, where no trained candidate is feasible.
    """

    def __init__(self, latency: LatencySurrogate, *, fitted: Floats, feasible: NDArray[np.bool_], floor: float) -> None:
        self._latency = latency
        self._fitted, self._feasible = fitted, feasible
        self._incumbent = float(fitted[feasible].max()) if feasible.any() else floor

    def elite(self, count: int) -> NDArray[np.int64]:
        """Indices of the trained candidates whose variations are promising: the feasible ones first, best first."""
        return np.lexsort((-self._fitted, ~self._feasible))[:count]

    def score(self, rows: IntArray, mean: Floats, std: Floats) -> Floats:
        """Log score `[m]` of candidates `[m, L]` whose accuracy is believed to be `N(mean, std^2)`, each `[m]`."""
        return log_expected_improvement(mean, std, self._incumbent) + self._latency.log_feasible(rows)

    def choose(
        self, rows: IntArray, mean: Floats, covariance: Floats, *, noise: float, count: int, pending: int = 0
    ) -> list[int]:
        """Indices of `count` of the rows to try together, best first; the last `pending` are under way, never chosen.

        Each choice is believed to turn out as predicted before the next is made (kriging believer).
        """
        return choose_batch(
            mean,
            covariance,
            noise=noise,
            incumbent=self._incumbent,
            count=count,
            pending=pending,
            log_weight=self._latency.log_feasible(rows),
        )
