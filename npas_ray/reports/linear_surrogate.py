"""A surrogate for reports: linear in plain features of an architecture, with its uncertainty. Pure.

It is not the searcher's own model, which would flatter the searcher: it shares neither its kernel nor its fit. The
effects have Gaussian priors; the noise, and how much a layer may differ from the others, maximise the evidence.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from npas_ray.search.encoding import Encoding, IntArray
from npas_ray.space.choices import LayerChoice, Operator, Scheme

Floats = NDArray[np.float64]
#: features `[m, d]` of rows `[m, L]` that are sums over layers; of how much a layer differs from the others
Features = Callable[[IntArray, float], Floats]

#: prior deviations of what a layer has of its own, relative to what all layers share; the most likely is used
DETAILS = (0.1, 0.3, 1.0)
#: noise variance / signal variance that are tried
_RATIOS: Floats = np.geomspace(1e-4, 30.0, 25)
#: the scale is known as well as after so many observations of variance 1
_PRIOR_WEIGHT = 2.0
#: results that it is fitted to at most, evenly spaced
MAX_RESULTS = 600


class ChoiceFeatures:
    """Effects on accuracy of operators, and of pruning by scheme and by operator: in all layers alike, and in each."""

    def __init__(self, encoding: Encoding) -> None:
        self._traits = [np.array([_traits(choice) for choice in choices]) for choices in encoding.choices]  # k x d
        self._sums = [np.array([_sums(choice) for choice in choices]) for choices in encoding.choices]  # k x 2

    def __call__(self, rows: IntArray, details: float) -> Floats:
        """`[m, d]` of rows `[m, L]`."""
        scale = 1 / np.sqrt(rows.shape[1])
        traits = [scale * table[rows[:, layer]] for layer, table in enumerate(self._traits)]
        return np.concatenate([np.sum(traits, axis=0), *(details * of_layer for of_layer in traits)], axis=1)

    def whole(self, rows: IntArray) -> Floats:
        """`[m, 2]`: mean log rate and share of skips, squared: pruned all over, a network collapses."""
        sums = sum(table[rows[:, layer]] for layer, table in enumerate(self._sums))
        return np.asarray((sums / rows.shape[1]) ** 2)


def _traits(choice: LayerChoice) -> list[float]:
    rate = float(np.log(choice.rate))
    operators = [float(choice.operator is operator) for operator in Operator]
    schemes = [rate * (choice.scheme is scheme) for scheme in Scheme if scheme is not Scheme.DENSE]
    return [*operators, *(rate * operator for operator in operators), *schemes, 0.5 * rate * rate]


def _sums(choice: LayerChoice) -> list[float]:
    return [float(np.log(choice.rate)), float(choice.operator is Operator.SKIP)]


def _no_whole(rows: IntArray) -> Floats:
    return np.empty((len(rows), 0))


@dataclass(frozen=True)
class LinearSurrogate:
    """The posterior of a linear function, in units of its targets; make it with `fit`.

    Attributes:
        details: how much layers differ, of DETAILS.
        noise: standard deviation of a result around the function.
    """

    details: float
    noise: float
    _features: Features
    _whole: Callable[[IntArray], Floats]
    _observed: Floats  # n x d
    _targets: Floats  # n, standardised
    _inverse: Floats  # n x n, of gram + ratio
    _ratio: float
    _signal: float  # prior standard deviation, standardised
    _offset: float
    _scale: float

    @classmethod
    def fit(
        cls,
        features: Features,
        rows: IntArray,
        targets: Floats,
        *,
        whole: Callable[[IntArray], Floats] = _no_whole,
        details: Sequence[float] = DETAILS,
    ) -> LinearSurrogate:
        """From targets `[n]` of rows `[n, L]`, n > 1; `whole` gives features that are no sums. Deterministic."""
        some = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), MAX_RESULTS)).round().astype(np.int64))
        rows, targets = rows[some], targets[some]
        offset, scale = float(targets.mean()), float(targets.std()) or 1.0
        y = (targets - offset) / scale
        n, best = len(y), (-np.inf, 0.0, 0.0)
        for detail in details:
            observed = np.concatenate([features(rows, detail), whole(rows)], axis=1)
            left, singular, _ = np.linalg.svd(observed, full_matrices=False)
            power = (left.T @ y) ** 2
            spectrum = singular[:, None] ** 2 + _RATIOS  # directions x ratios
            outside = max(float(y @ y - power.sum()), 0.0)  # of the targets, in the directions without a feature
            residual = (power[:, None] / spectrum).sum(axis=0) + outside / _RATIOS
            volume = np.log(spectrum).sum(axis=0) + (n - len(power)) * np.log(_RATIOS)
            evidence = -0.5 * (volume + (n + _PRIOR_WEIGHT) * np.log(_PRIOR_WEIGHT + residual))
            at = int(evidence.argmax())
            if evidence[at] > best[0]:
                best = (float(evidence[at]), detail, float(_RATIOS[at]))
        _, detail, ratio = best
        observed = np.concatenate([features(rows, detail), whole(rows)], axis=1)
        inverse = np.linalg.inv(observed @ observed.T + ratio * np.eye(n))
        signal = float(np.sqrt((y @ inverse @ y + _PRIOR_WEIGHT) / (n + _PRIOR_WEIGHT)))
        noise = float(np.sqrt(ratio)) * signal * scale
        return cls(detail, noise, features, whole, observed, y, inverse, ratio, signal, offset, scale)

    @property
    def mean(self) -> Floats:
        """The most likely effects `[d]`, standardised."""
        return np.asarray(self._observed.T @ (self._inverse @ self._targets))

    def draw(self, rng: np.random.Generator) -> Floats:
        """Effects `[d]` that the results do not contradict (Matheron's rule)."""
        effects = self._signal * rng.normal(size=self._observed.shape[1])
        noise = self._signal * np.sqrt(self._ratio) * rng.normal(size=len(self._targets))
        residual = self._targets - self._observed @ effects - noise
        return np.asarray(effects + self._observed.T @ (self._inverse @ residual))

    def function(self, effects: Floats, sizes: IntArray) -> Callable[[IntArray], Floats]:
        """Rows `[m, L]` -> values `[m]` in units of the targets, as sums of one number for each layer's choice.

        `sizes` `[L]` are the numbers of choices.
        """
        of_sums = len(effects) - self._whole(np.zeros((1, len(sizes)), dtype=np.int64)).shape[1]
        layers = np.repeat(np.arange(len(sizes)), sizes)
        choices = np.concatenate([np.arange(size) for size in sizes])
        single = np.zeros((len(layers), len(sizes)), dtype=np.int64)  # the first choice everywhere but in one layer
        single[np.arange(len(layers)), layers] = choices
        value = self._features(single, self.details) @ effects[:of_sums]
        base = value[0]
        table = np.zeros((len(sizes), int(sizes.max())))
        table[layers, choices] = value - base
        everywhere = np.arange(len(sizes))

        def evaluate(rows: IntArray) -> Floats:
            linear = base + table[everywhere, rows].sum(axis=1) + self._whole(rows) @ effects[of_sums:]
            return np.asarray(self._offset + self._scale * linear)

        return evaluate


def cross_validated(
    features: Features,
    rows: IntArray,
    targets: Floats,
    *,
    sizes: IntArray,
    whole: Callable[[IntArray], Floats] = _no_whole,
    details: Sequence[float] = DETAILS,
    folds: int = 10,
) -> Floats:
    """What surrogates fitted without each result's own fold say of it `[n]`; results in turn belong to the folds."""
    folds = min(folds, len(targets))
    fold = np.arange(len(targets)) % folds
    predicted = np.empty(len(targets))
    for index in range(folds):
        held = fold == index
        fitted = LinearSurrogate.fit(features, rows[~held], targets[~held], whole=whole, details=details)
        predicted[held] = fitted.function(fitted.mean, sizes)(rows[held])
    return predicted
