"""The fit of a soft kernel's parameters: maximum a posteriori with log-normal priors and an exact gradient (own)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, lapack
from scipy.optimize import minimize

from npas_ray.search.encoding import IntArray
from npas_ray.search.soft_kernel import SCALARS, SoftKernel, SoftParameters

Floats = NDArray[np.float64]

#: parameters are fitted on at most this many observations, evenly spaced
FIT_POINTS = 200
#: evaluations of the posterior and its gradient in a first fit, and in one that starts from an earlier fit
STEPS, STEPS_AGAIN = 30, 10
#: deviations of the log-normal priors: a, b, c, p, shared, joint, trend, noise, and of every alpha
_SPREAD, _ALPHA_SPREAD = np.array([0.7, 0.7, 0.7, 0.7, 1.0, 1.0, 1.0, 1.0]), 1.0


def fit_kernel(
    kernel: SoftKernel,
    rows: IntArray,
    targets: Floats,
    *,
    known_noise: Floats | None = None,
    start: SoftParameters | None = None,
) -> SoftParameters:
    """Parameters that explain standardised targets `[n]` of rows `[n, L]` best. The prior's medians if n < 2.

    `known_noise` `[n]`: variance that each target has beside the fitted noise. `start`: parameters of an earlier fit.
    """
    prior = SoftParameters.prior(kernel.layers)
    if len(rows) < 2:
        return prior
    some = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), FIT_POINTS)).round().astype(np.int64))
    known = np.zeros(len(rows)) if known_noise is None else known_noise
    posterior = KernelPosterior(kernel, rows[some], targets[some], known_noise=known[some])
    steps = STEPS if start is None else STEPS_AGAIN
    reach = 3 * posterior.spread  # a line search that leaves it meets matrices without a factor
    found = minimize(
        posterior,
        (prior if start is None else start).log,
        jac=True,
        method="L-BFGS-B",
        bounds=np.stack([prior.log - reach, prior.log + reach], axis=1),
        options={"maxfun": steps, "maxiter": steps},
    )
    return SoftParameters(np.asarray(found.x))


class KernelPosterior:
    """Negative log posterior of the parameters, and its gradient."""

    def __init__(self, kernel: SoftKernel, rows: IntArray, targets: Floats, *, known_noise: Floats) -> None:
        self._kernel = kernel
        self._targets = targets
        self._known_noise = known_noise
        self._prior = SoftParameters.prior(kernel.layers).log
        self.spread = np.concatenate([_SPREAD, np.full(kernel.layers, _ALPHA_SPREAD)])
        spelled = kernel.spell(rows)
        self._counts = spelled.counts
        self._trend = spelled.traits @ spelled.traits.T
        #: per layer the words that occur; one-hot columns of all of them side by side, n x K, and where each layer ends
        self._used = [np.unique(spelled.words[:, layer]) for layer in range(kernel.layers)]
        self._one_hot = np.concatenate(
            [spelled.words[:, layer, None] == used for layer, used in enumerate(self._used)], axis=1
        ).astype(np.float64)
        ends = np.cumsum([len(used) for used in self._used])
        self._columns = [slice(end - len(used), end) for end, used in zip(ends, self._used, strict=True)]
        #: mean over layers of how two rows differ in operator, scheme, rate: 3 x n x n
        self._differ = np.stack([self._paired(differ) for differ in kernel.differ]) / kernel.layers

    def _paired(self, table: Floats, weights: Floats | None = None) -> Floats:
        """Sum over layers of weight * table[word of a row, word of another] `[n, n]`."""
        left = np.empty_like(self._one_hot)
        for layer, (used, columns) in enumerate(zip(self._used, self._columns, strict=True)):
            scale = 1.0 if weights is None else weights[layer]
            left[:, columns] = self._one_hot[:, columns] @ (scale * table[np.ix_(used, used)])
        return left @ self._one_hot.T

    def __call__(self, log: Floats) -> tuple[float, Floats]:
        parameters = SoftParameters(log)
        n = len(self._targets)
        similar = np.exp(-self._kernel.table(parameters))
        shared = self._counts @ similar @ self._counts.T
        joint = np.exp(-parameters.stretch * np.tensordot(parameters.distance, self._differ, axes=1))
        gram = parameters.shared * shared + parameters.trend * self._trend + parameters.joint * joint
        gram += self._paired(similar, parameters.alpha)
        gram[np.diag_indices(n)] += parameters.noise + self._known_noise + 1e-6

        factor = cho_factor(gram, lower=True, check_finite=False)
        weights = cho_solve(factor, self._targets, check_finite=False)
        inverse, _ = lapack.dpotri(factor[0], lower=1)
        inverse = np.tril(inverse) + np.tril(inverse, -1).T
        away = (log - self._prior) / self.spread
        value = 0.5 * self._targets @ weights + np.log(np.diag(factor[0])).sum() + 0.5 * away @ away

        slope = 0.5 * (inverse - np.outer(weights, weights))  # d value / d gram
        slope_joint = parameters.joint * slope * joint
        by_differ = np.array([np.vdot(slope_joint, differ) for differ in self._differ])
        gradient = np.empty_like(log)
        gradient[3] = -parameters.stretch * parameters.distance @ by_differ
        gradient[4] = parameters.shared * np.vdot(slope, shared)
        gradient[5] = slope_joint.sum()
        gradient[6] = parameters.trend * np.vdot(slope, self._trend)
        gradient[7] = parameters.noise * np.trace(slope)
        # d value / d table of distances, through the histogram and the layers
        by_table = -parameters.shared * similar * (self._counts.T @ slope @ self._counts)
        half = slope @ self._one_hot  # n x K
        for layer, (used, columns) in enumerate(zip(self._used, self._columns, strict=True)):
            block = np.ix_(used, used)
            by_block = parameters.alpha[layer] * similar[block] * (self._one_hot[:, columns].T @ half[:, columns])
            gradient[SCALARS + layer] = by_block.sum()
            by_table[block] -= by_block
        through_table = np.tensordot(self._kernel.differ, by_table, axes=2)
        gradient[:3] = parameters.distance * (through_table - parameters.stretch * by_differ)
        return float(value), gradient + away / self.spread
