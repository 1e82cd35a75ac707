"""What is worth trying next, given a surrogate's beliefs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import erfcx, ndtr

Floats = NDArray[np.float64]


def log_expected_improvement(mean: Floats, std: Floats, incumbent: Floats | float) -> Floats:
    """log E[max(0, f - incumbent)] for `f ~ N(mean, std^2)`, shapes `[m]` or any that broadcast (nas-bowl).

    `std` is the uncertainty of the latent function without the noise of a measurement, and `incumbent` is the best
    *posterior mean* at an observed point, not the best observation: a lucky one must not stop the search. The
    logarithm orders points as the improvement does, and still tells them apart where that underflows (logei).
    """
    std = np.maximum(std, 1e-12)
    z = (mean - incumbent) / std
    log_density = -0.5 * z * z - 0.5 * np.log(2 * np.pi)
    near = np.log(np.maximum(np.exp(log_density) + z * ndtr(z), 1e-300))
    ratio = np.sqrt(np.pi / 2) * erfcx(np.maximum(-z, 1.0) / np.sqrt(2))  # (1 - Phi) / phi
    far = log_density + np.log(np.maximum(1 - np.maximum(-z, 1.0) * ratio, 1e-16))
    return np.asarray(np.log(std) + np.where(z > -1, near, far))


def best(scores: Floats) -> int:
    """Index of the highest score, the first of those that differ in the last digits only."""
    return int(np.flatnonzero(scores >= scores.max() - 1e-9)[0])


class KrigingBeliever:
    """The joint posterior of `m` points, under the belief that the ones chosen so far turn out as predicted.

    Believing a point leaves all means as they are and shrinks the variance around it: a rank-one update.

    Args:
        mean: posterior mean `[m]`.
        covariance: posterior covariance of the latent function `[m, m]`.
        noise: variance of a measurement.
    """

    def __init__(self, mean: Floats, covariance: Floats, noise: float) -> None:
        self.mean = mean
        self._covariance = covariance.copy()
        self._noise = noise
        self.believed: list[int] = []

    @property
    def std(self) -> Floats:
        """Current posterior standard deviation `[m]`."""
        return np.sqrt(np.maximum(np.diag(self._covariance), 0.0))

    def believe(self, index: int) -> None:
        """Condition on point `index` being measured as predicted."""
        column = self._covariance[:, index].copy()  # m
        self._covariance -= np.outer(column, column) / (max(column[index], 0.0) + self._noise + 1e-12)
        self.believed.append(index)


def choose_batch(
    mean: Floats,
    covariance: Floats,
    *,
    noise: float,
    incumbent: float,
    count: int,
    pending: int = 0,
    log_weight: Floats | float = 0.0,
) -> list[int]:
    """Indices of `count` points to try together, best first: expected improvement with kriging believer.

    The last `pending` of the `m` points are under way already: they are believed first and never chosen.
    `log_weight` `[m]`, such as the logarithm of a probability of feasibility, is added to the score.
    """
    believer = KrigingBeliever(mean, covariance, noise)
    candidates = len(mean) - pending
    for index in range(candidates, len(mean)):
        believer.believe(index)
        incumbent = max(incumbent, float(mean[index]))
    chosen: list[int] = []
    for _ in range(min(count, candidates)):
        scores = (log_expected_improvement(mean, believer.std, incumbent) + log_weight)[:candidates]
        scores[chosen] = -np.inf
        index = best(scores)
        chosen.append(index)
        believer.believe(index)
        incumbent = max(incumbent, float(mean[index]))
    return chosen
