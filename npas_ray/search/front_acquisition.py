"""Which candidates would widen the front most: the expected hypervolume improvement with costs as good as known (own).

The volume under a front is an integral over targets: over all rows of costs `t` up to the reference, of the accuracy
that the best network within `t` has. So the expected improvement of a candidate is the mean over targets of what is
maximised for one budget, the expected improvement of the accuracy times the probability that the target is kept:

    EHVI(x) = integral over t of  EI(accuracy(x); best accuracy within t) * product over axes of P(cost(x) <= t)

With one axis whose costs are known exactly this is the expected hypervolume improvement of Emmerich et al. (2006); here
latency has its error bars. The integral is a mean over evenly spread targets, anew for every batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_ndtr, logsumexp

from npas_ray.search.acquisition import KrigingBeliever, best, log_expected_improvement
from npas_ray.search.axes import model_of
from npas_ray.search.encoding import Encoding, IntArray
from npas_ray.search.hypervolume import nondominated
from npas_ray.search.latency_surrogate import LatencySurrogate
from npas_ray.search.reward import Objective

Floats = NDArray[np.float64]

#: targets over which the improvement is averaged, for one axis and for more
_TARGETS_OF_ONE, _TARGETS = 96, 256
#: costs are known to this share of the reference at best, so that equal ones do not fall between two targets
_LEAST_STD = 1e-3


@dataclass(frozen=True)
class KnownCosts:
    """What is believed of the costs of `m` candidates, as shares of the reference: `mean` and `std` `[m, axes]`.

    `log_kept` `[m]`: log P(the budgets that are no axis of the front are kept).
    """

    mean: Floats
    std: Floats
    log_kept: Floats


class CostBeliefs:
    """Costs of rows: latencies from a surrogate, size and energy from the architecture."""

    def __init__(self, objective: Objective, encoding: Encoding, latency: LatencySurrogate) -> None:
        self._objective = objective
        self._encoding = encoding
        self._latency = latency
        self._computed: dict[bytes, tuple[float, ...]] = {}

    def __call__(self, rows: IntArray) -> KnownCosts:
        """Of rows `[m, L]`. A latency that nothing is known of may lie anywhere below its reference."""
        objective, count = self._objective, len(rows)
        mean, std = np.full((count, len(objective.axes)), 0.5), np.full((count, len(objective.axes)), 0.5)
        computed = self._of_architecture(rows)
        for place, axis in enumerate(objective.axes):
            model, reference = model_of(axis), objective.reference_of(axis) or 1.0
            if model is None:
                mean[:, place], std[:, place] = computed[:, place] / reference, 0.0
            elif (belief := self._latency.predict(model, rows)) is not None:
                mean[:, place], std[:, place] = belief[0] / reference, belief[1] / reference
        log_kept = np.zeros(count)
        for model, budget_ms in objective.budgets_ms.items():
            belief = self._latency.predict(model, rows)
            if belief is not None:
                log_kept += log_ndtr((budget_ms - belief[0]) / np.maximum(belief[1], 1e-3 * budget_ms))
        return KnownCosts(mean, np.maximum(std, _LEAST_STD), log_kept)

    def _of_architecture(self, rows: IntArray) -> Floats:
        """Size and energy `[m, axes]`, asked once for each architecture; zeros where the axis is a latency."""
        wanted = [axis if model_of(axis) is None else None for axis in self._objective.axes]
        costs = self._objective.costs
        if costs is None or not any(wanted):
            return np.zeros((len(rows), len(wanted)))
        if len(self._computed) > 50_000:
            self._computed.clear()
        for row in rows:
            if (key := row.tobytes()) not in self._computed:
                known = costs(self._encoding.decode(row))
                self._computed[key] = tuple(0.0 if axis is None else float(known[axis]) for axis in wanted)
        return np.array([self._computed[row.tobytes()] for row in rows]).reshape(len(rows), len(wanted))


class FrontAcquisition:
    """Scores candidates by what they add to the front of the trained ones.

    Args:
        beliefs: of the costs of any rows.
        accuracies: what is believed of the trained candidates' accuracies `[n]`.
        shares: their costs as shares of the reference `[n, axes]`.
        feasible: whether they keep the budgets `[n]`.
        floor: accuracy that everybody has, below which nothing is gained (0: the whole box counts).
        rng: for the targets.
    """

    def __init__(
        self,
        beliefs: CostBeliefs,
        *,
        accuracies: Floats,
        shares: Floats,
        feasible: NDArray[np.bool_],
        rng: np.random.Generator,
        floor: float = 0.0,
    ) -> None:
        self._beliefs = beliefs
        self._accuracies, self._shares, self._feasible = accuracies, shares, feasible
        self.targets = spread(shares.shape[1], rng)  # t x axes
        within = (shares[None] <= self.targets[:, None]).all(axis=2) & feasible  # t x n
        self.heights = np.where(within, accuracies, floor).max(axis=1, initial=floor)  # t

    def elite(self, count: int) -> NDArray[np.int64]:
        """Indices of the trained candidates whose variations are promising: the front, then the fronts behind it."""
        points = np.column_stack([1 - self._accuracies, self._shares])
        left = np.flatnonzero(self._feasible & (self._shares < 1).all(axis=1))
        if not len(left):  # nothing counts yet: those that come nearest
            return np.argsort(np.maximum(self._shares, 0).max(axis=1), kind="stable")[:count]
        chosen: list[int] = []
        while len(left) and len(chosen) < count:
            layer = nondominated(points[left])
            chosen += left[layer].tolist()
            left = left[~layer]
        return np.array(chosen, dtype=np.int64)

    def score(self, rows: IntArray, mean: Floats, std: Floats) -> Floats:
        """log EHVI `[m]` of candidates `[m, L]` whose accuracy is believed to be `N(mean, std^2)`, each `[m]`."""
        costs = self._beliefs(rows)
        return self._score(mean, std, self._log_within(costs), costs.log_kept)

    def choose(
        self, rows: IntArray, mean: Floats, covariance: Floats, *, noise: float, count: int, pending: int = 0
    ) -> list[int]:
        """Indices of `count` of the rows to try together, best first; the last `pending` are under way, never chosen.

        Each choice is believed to turn out as predicted before the next is made (kriging believer).
        """
        costs, believer = self._beliefs(rows), KrigingBeliever(mean, covariance, noise)
        candidates = len(mean) - pending
        log_within = self._log_within(costs)
        for index in range(candidates, len(mean)):
            believer.believe(index)
            self._believe(float(mean[index]), costs.mean[index])
        chosen: list[int] = []
        for _ in range(min(count, candidates)):
            some = slice(0, candidates)
            scores = self._score(mean[some], believer.std[some], log_within[some], costs.log_kept[some])
            scores[chosen] = -np.inf
            index = best(scores)
            chosen.append(index)
            believer.believe(index)
            self._believe(float(mean[index]), costs.mean[index])
        return chosen

    def _log_within(self, costs: KnownCosts) -> Floats:
        """log P(all costs are within the target), `[m, t]`."""
        total = np.zeros((len(costs.mean), len(self.targets)))
        for axis in range(self.targets.shape[1]):
            gap = self.targets[None, :, axis] - costs.mean[:, axis, None]
            total += log_ndtr(gap / costs.std[:, axis, None])
        return total

    def _score(self, mean: Floats, std: Floats, log_within: Floats, log_kept: Floats) -> Floats:
        heights, which = np.unique(self.heights, return_inverse=True)
        log_gain = log_expected_improvement(mean[:, None], std[:, None], heights[None])  # m x heights
        volume = logsumexp(log_gain[:, which] + log_within, axis=1) - np.log(len(self.targets))
        return np.asarray(volume + log_kept)

    def _believe(self, accuracy: float, shares: Floats) -> None:
        within = (shares <= self.targets).all(axis=1)
        self.heights[within] = np.maximum(self.heights[within], accuracy)


def spread(axes: int, rng: np.random.Generator) -> Floats:
    """Evenly spread targets in (0, 1): `[t, axes]`. A lattice of generalised golden ratios, shifted at random."""
    if axes == 1:
        return np.asarray((np.arange(_TARGETS_OF_ONE)[:, None] + rng.random()) / _TARGETS_OF_ONE)
    ratio = 2.0
    for _ in range(40):
        ratio = (1 + ratio) ** (1 / (axes + 1))
    steps = ratio ** -np.arange(1, axes + 1)
    return np.asarray((rng.random(axes) + np.arange(_TARGETS)[:, None] * steps) % 1.0)


def spread_start(shares: Floats, count: int) -> NDArray[np.int64]:
    """Indices of all candidates with costs `[m, axes]`, those first that stand evenly below the reference."""
    load = shares.max(axis=1)
    order = np.argsort(np.where(load <= 1, load, np.inf), kind="stable")
    within = int((load <= 1).sum())
    picks = order[np.unique(np.linspace(0, max(within - 1, 0), count).round().astype(np.int64))]
    # the expensive end first: what a batch begins with is tried whatever its size
    return np.concatenate([picks[::-1], np.setdiff1d(order, picks, assume_unique=True)])
