"""A kernel that knows how much alike two layer choices are, where WL labels are only equal or not (own).

The distance of two choices is `a * [operators differ] + b * [schemes differ] + c * |log of the rates' ratio|`, their
similarity `s = exp(-distance)`. Three terms make the kernel of two architectures x, y of L layers:

    layers     sum over l of alpha_l * s(x_l, y_l)                 every layer adds its own effect
    histogram  shared * sum over l, m of s(x_l, y_m) / L^2         a choice has an effect wherever it stands
    product    joint * exp(-p * mean over l of distance(x_l, y_l)) all layers interact

Each is the covariance of a Gaussian process, hence PSD. The parameters are fitted to the targets, so that the layers
and the differences that matter are found: maximum a posteriori with log-normal priors and an exact gradient.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize

from npas_ray.search.encoding import Encoding, IntArray

Floats = NDArray[np.float64]

#: parameters are fitted on at most this many observations, evenly spaced
_FIT_POINTS = 250
#: evaluations of the posterior and its gradient in one fit
_STEPS = 30
#: deviations of the log-normal priors: a, b, c, p, shared, joint, noise, and of every alpha
_SPREAD, _ALPHA_SPREAD = np.array([0.7, 0.7, 0.7, 0.7, 1.0, 1.0, 1.0]), 1.0


@dataclass(frozen=True)
class SoftParameters:
    """What is fitted, as logarithms `[7 + L]`: a, b, c, p, shared, joint, noise, then alpha of every layer.

    Variances (shared, joint, noise, alpha) are in units of standardised targets.
    """

    log: Floats

    @classmethod
    def prior(cls, layers: int) -> SoftParameters:
        """The medians of the priors."""
        return cls(np.log(np.array([1.0, 0.4, 0.5, 1.5, 0.3, 0.3, 0.03, *[0.5 / layers] * layers])))

    @property
    def distance(self) -> Floats:
        """a, b, c."""
        return np.exp(self.log[:3])

    @property
    def stretch(self) -> float:
        """p."""
        return float(np.exp(self.log[3]))

    @property
    def shared(self) -> float:
        return float(np.exp(self.log[4]))

    @property
    def joint(self) -> float:
        return float(np.exp(self.log[5]))

    @property
    def noise(self) -> float:
        return float(np.exp(self.log[6]))

    @property
    def alpha(self) -> Floats:
        """`[L]`."""
        return np.exp(self.log[7:])


class SoftKernel:
    """Kernel matrices over rows of an `Encoding`, and the fit of their parameters."""

    def __init__(self, encoding: Encoding) -> None:
        words = list(dict.fromkeys(choice for choices in encoding.choices for choice in choices))
        index = {word: i for i, word in enumerate(words)}
        #: per layer: index of its choice -> word of the vocabulary
        self._words: list[IntArray] = [np.array([index[c] for c in choices]) for choices in encoding.choices]
        operators = np.array([list(type(w.operator)).index(w.operator) for w in words])
        schemes = np.array([list(type(w.scheme)).index(w.scheme) for w in words])
        rates = np.log([w.rate for w in words])
        #: how two words differ in operator, scheme, rate: 3 x V x V
        self._differ: Floats = np.stack(
            [
                (operators[:, None] != operators).astype(np.float64),
                (schemes[:, None] != schemes).astype(np.float64),
                np.abs(rates[:, None] - rates),
            ]
        )

    @property
    def layers(self) -> int:
        return len(self._words)

    def _spell(self, rows: IntArray) -> tuple[IntArray, Floats]:
        """Words `[n, L]` of rows `[n, L]`, and how often each word occurs in each row, divided by L: `[n, V]`."""
        words = np.stack([ids[rows[:, layer]] for layer, ids in enumerate(self._words)], axis=1)
        size = self._differ.shape[1]
        flat = (np.arange(len(rows))[:, None] * size + words).ravel()
        counts = np.bincount(flat, minlength=len(rows) * size).reshape(len(rows), size)
        return words, counts / self.layers

    def _table(self, parameters: SoftParameters) -> Floats:
        """Distances between words `[V, V]`."""
        return np.tensordot(parameters.distance, self._differ, axes=1)

    def gram(self, parameters: SoftParameters, left: IntArray, right: IntArray) -> Floats:
        """Kernel matrix `[n, m]` without noise of rows `[n, L]` and `[m, L]`."""
        table = self._table(parameters)
        similar = np.exp(-table)
        words, counts = self._spell(left)
        others, other_counts = self._spell(right)
        gram = parameters.shared * (counts @ similar @ other_counts.T)
        distance = np.zeros_like(gram)
        for layer, alpha in enumerate(parameters.alpha):
            mine, theirs = words[:, layer], others[:, layer]  # small table first, then whole rows of it
            gram += (alpha * similar[:, theirs]).take(mine, axis=0)
            distance += table[:, theirs].take(mine, axis=0)
        distance *= -parameters.stretch / self.layers
        gram += parameters.joint * np.exp(distance, out=distance)
        return gram

    def diagonal(self, parameters: SoftParameters, rows: IntArray) -> Floats:
        """Kernel `[n]` of every row with itself."""
        _, counts = self._spell(rows)
        shared = np.einsum("nv,nv->n", counts @ np.exp(-self._table(parameters)), counts)
        return np.asarray(parameters.alpha.sum() + parameters.joint + parameters.shared * shared)

    def fit(self, rows: IntArray, targets: Floats) -> SoftParameters:
        """Parameters that explain standardised targets `[n]` of rows `[n, L]` best. The prior's medians if n < 2."""
        prior = SoftParameters.prior(self.layers)
        if len(rows) < 2:
            return prior
        some = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), _FIT_POINTS)).round().astype(np.int64))
        posterior = _Posterior(self, rows[some], targets[some], prior)
        reach = 3 * posterior.spread  # a line search that leaves it meets matrices without a factor
        found = minimize(
            posterior,
            prior.log,
            jac=True,
            method="L-BFGS-B",
            bounds=np.stack([prior.log - reach, prior.log + reach], axis=1),
            options={"maxfun": _STEPS, "maxiter": _STEPS},
        )
        return SoftParameters(np.asarray(found.x))


class _Posterior:
    """Negative log posterior of the parameters, and its gradient."""

    def __init__(self, kernel: SoftKernel, rows: IntArray, targets: Floats, prior: SoftParameters) -> None:
        self._kernel = kernel
        self._targets = targets
        self._prior = prior.log
        self.spread = np.concatenate([_SPREAD, np.full(kernel.layers, _ALPHA_SPREAD)])
        self._words, self._counts = kernel._spell(rows)
        self._one_hot = [  # per layer: which words occur, and where: n x words of the layer that occur
            (used, (self._words[:, layer, None] == used).astype(np.float64))
            for layer in range(kernel.layers)
            for used in [np.unique(self._words[:, layer])]
        ]

    def __call__(self, log: Floats) -> tuple[float, Floats]:
        parameters = SoftParameters(log)
        kernel, layers, n = self._kernel, self._kernel.layers, len(self._targets)
        table = kernel._table(parameters)
        similar = np.exp(-table)
        shared = self._counts @ similar @ self._counts.T
        gram = parameters.shared * shared
        mean_distance = np.zeros_like(gram)
        per_layer = []
        for layer, alpha in enumerate(parameters.alpha):
            words = self._words[:, layer]
            per_layer.append(similar[:, words].take(words, axis=0))
            gram += alpha * per_layer[-1]
            mean_distance += table[:, words].take(words, axis=0)
        mean_distance /= layers
        joint = np.exp(-parameters.stretch * mean_distance)
        gram += parameters.joint * joint
        gram[np.diag_indices(n)] += parameters.noise + 1e-6

        factor = cho_factor(gram, lower=True, check_finite=False)
        weights = cho_solve(factor, self._targets, check_finite=False)
        inverse = cho_solve(factor, np.eye(n), check_finite=False)
        away = (log - self._prior) / self.spread
        value = 0.5 * self._targets @ weights + np.log(np.diag(factor[0])).sum() + 0.5 * away @ away

        slope = 0.5 * (inverse - np.outer(weights, weights))  # d value / d gram
        slope_joint = slope * joint
        gradient = np.empty_like(log)
        gradient[3] = -parameters.joint * parameters.stretch * np.vdot(slope_joint, mean_distance)
        gradient[4] = parameters.shared * np.vdot(slope, shared)
        gradient[5] = parameters.joint * slope_joint.sum()
        gradient[6] = parameters.noise * np.trace(slope)
        # d value / d table, through the histogram, the layers and the product
        by_table = -parameters.shared * similar * (self._counts.T @ slope @ self._counts)
        stretch = parameters.joint * parameters.stretch / layers
        for layer, (used, one_hot) in enumerate(self._one_hot):
            alpha = parameters.alpha[layer]
            gradient[7 + layer] = alpha * np.vdot(slope, per_layer[layer])
            block = np.ix_(used, used)
            by_table[block] -= alpha * similar[block] * (one_hot.T @ slope @ one_hot)
            by_table[block] -= stretch * (one_hot.T @ slope_joint @ one_hot)
        gradient[:3] = parameters.distance * np.tensordot(kernel._differ, by_table, axes=2)
        return float(value), gradient + away / self.spread
