"""What is believed of the accuracy of candidates: a Gaussian process around a trend, over all rungs (own).

- The process models `-log(error)`: accuracies saturate, and near the top equal gains of accuracy are harder to get.
- Before anything is measured, a candidate that keeps more of the network is believed to be better (`Capacity`).
- A candidate that was stopped on a lower rung is learned as what the rung says of the top, with the error of that.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from npas_ray.search.capacity import Capacity
from npas_ray.search.encoding import Encoding, IntArray
from npas_ray.search.gaussian_process import GaussianProcess
from npas_ray.search.kernel_fit import fit_kernel
from npas_ray.search.rung_relation import relations
from npas_ray.search.soft_kernel import CrossKernel, SoftKernel, SoftParameters

Floats = NDArray[np.float64]

#: what `-log(error)` is believed to gain, in deviations among candidates, for one deviation of each trait
_TREND = 0.4
#: deviation of `-log(error)` among candidates before there are results, and how many results that is worth
_SCALE, _SCALE_WEIGHT = 0.4, 4.0
#: the kernel's parameters are fitted anew whenever there are this many times as many results
_GROWTH = 1.2
_FIRST_FIT = 5
#: errors below this are taken for this
_LEAST_ERROR = 0.01


def progress(accuracy: Floats | float) -> Floats:
    """`-log(error)` of accuracies in 0..1."""
    return -np.log(np.maximum(1 - np.asarray(accuracy, dtype=np.float64), _LEAST_ERROR))


@dataclass(frozen=True)
class Result:
    """One trained candidate: `value` after `epochs`, at the top if `complete`; `rungs` by epochs. All `progress`."""

    row: IntArray
    value: float
    complete: bool
    rungs: Mapping[int, float]


@dataclass(frozen=True)
class Targets:
    """What `n` results say of the top: their `indices` `[n]`, rows `[n, L]`, `values` and known `variances` `[n]`."""

    indices: NDArray[np.int64]
    rows: IntArray
    values: Floats
    variances: Floats

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, some: NDArray[np.int64]) -> Targets:
        return Targets(self.indices[some], self.rows[some], self.values[some], self.variances[some])


class AccuracySurrogate:
    """Learns results in their order; `belief` is a function of them alone, whatever was asked in between.

    Args:
        max_results: learns from at most this many results, the best half and the latest half.
    """

    def __init__(self, encoding: Encoding, capacity: Capacity, *, max_results: int) -> None:
        self._kernel = SoftKernel(encoding, capacity)
        self._capacity = capacity
        self._max_results = max_results
        self._results: list[Result] = []
        self._belief: AccuracyBelief | None = None  # given all of them, if it was asked for
        self._milestone, self._parameters = 0, SoftParameters.prior(encoding.layers)

    def __len__(self) -> int:
        return len(self._results)

    def learn(self, row: IntArray, accuracy: float, *, complete: bool, rungs: Mapping[int, float]) -> None:
        """Take in the accuracy of a candidate `[L]`, after all epochs if `complete`, and of the `rungs` before."""
        values = {epochs: float(progress(value)) for epochs, value in rungs.items()}
        self._results.append(Result(row, float(progress(accuracy)), complete, values))
        self._belief = None

    def belief(self, *, as_accuracy: bool = False) -> AccuracyBelief:
        """What all results together say, of `progress` or of the accuracy itself."""
        if self._belief is None:
            self._fit()
            targets = self._targets(len(self._results))
            targets = targets[self._kept(targets.values)]
            self._belief = AccuracyBelief.given(self._kernel, self._parameters, self._capacity, targets)
        return LinearBelief.of(self._belief) if as_accuracy else self._belief

    def _fit(self) -> None:
        """Fits at every milestone, each from the one before, so that a replay comes to the same parameters."""
        while (milestone := max(_FIRST_FIT, int(self._milestone * _GROWTH) + 1)) <= len(self._results):
            targets = self._targets(milestone)
            start = self._parameters if self._milestone else None
            self._milestone = milestone
            if len(targets) >= 2:
                residuals, scale = _residuals(targets.values, self._capacity(targets.rows))
                known = targets.variances / scale**2
                self._parameters = fit_kernel(self._kernel, targets.rows, residuals, known_noise=known, start=start)

    def _targets(self, count: int) -> Targets:
        """What the first `count` results say of the top. A result of a rung of which nothing is known says nothing."""
        results = self._results[:count]
        relation = relations([(result.rungs, result.value) for result in results if result.complete and result.rungs])
        values, variances = np.array([result.value for result in results]), np.zeros(len(results))
        says = np.ones(len(results), dtype=bool)
        for index, result in enumerate(results):
            if not result.complete:
                last = max(result.rungs, default=0)
                says[index] = last in relation
                if says[index]:
                    values[index], variances[index] = relation[last](result.rungs[last])
        rows = np.array([result.row for result in results], dtype=np.int64).reshape(-1, self._kernel.layers)
        return Targets(np.arange(len(results)), rows, values, variances)[np.flatnonzero(says)]

    def _kept(self, values: Floats) -> NDArray[np.int64]:
        """Indices of the results that are learned from."""
        n, most = len(values), self._max_results
        if n <= most:
            return np.arange(n)
        latest = np.arange(n - most // 2, n)
        best = np.argsort(-values[: latest[0]], kind="stable")[: most - len(latest)]
        return np.concatenate([np.sort(best), latest])


def _residuals(values: Floats, traits: Floats) -> tuple[Floats, float]:
    """Values in deviations from the trend, and the deviation among candidates."""
    trend = _TREND * traits.sum(axis=1)
    away = values - values.mean()
    scale = float(np.sqrt((away @ away + _SCALE_WEIGHT * _SCALE**2) / (len(values) + _SCALE_WEIGHT)))
    return away / scale - (trend - trend.mean()), scale


@dataclass(frozen=True)
class AccuracyBelief:
    """Beliefs of `progress`, in units of its deviation among the results.

    Attributes:
        results: indices `[n]` of the results that it comes from, in the order in which they were learned.
        rows: of them, `[n, L]`.
        fitted: what is believed of them by now, `[n]`.
        noise: variance of one result.
    """

    results: NDArray[np.int64]
    rows: IntArray
    fitted: Floats
    noise: float
    _kernel: SoftKernel
    _parameters: SoftParameters
    _capacity: Capacity
    _process: GaussianProcess | None  # None without results
    _cross: CrossKernel  # with the rows
    _offset: float
    _scale: float

    @classmethod
    def given(
        cls, kernel: SoftKernel, parameters: SoftParameters, capacity: Capacity, targets: Targets
    ) -> AccuracyBelief:
        """Given what results say, which may be nothing."""
        rows, process, fitted, offset, scale, noise = targets.rows, None, np.empty(0), 0.0, 1.0, parameters.noise
        cross = kernel.cross(parameters, rows)
        if len(targets):
            traits = capacity(rows)
            residuals, scale = _residuals(targets.values, traits)
            process = GaussianProcess.given(
                cross(rows),
                residuals,
                noise_ratio=parameters.noise,
                known_ratio=targets.variances / scale**2,
            )
            trend = _TREND * traits.sum(axis=1)
            offset = float(targets.values.mean()) / scale - float(trend.mean())
            fitted, noise = offset + trend + process.fitted, process.noise
        return cls(targets.indices, rows, fitted, noise, kernel, parameters, capacity, process, cross, offset, scale)

    def predict(self, rows: IntArray) -> tuple[Floats, Floats]:
        """Mean and standard deviation `[m]` of candidates `[m, L]`."""
        diagonal = self._cross.diagonal(rows)
        if self._process is None:
            return self._trend(rows), np.sqrt(diagonal)
        mean, std = self._process.predict(self._cross(rows), diagonal)
        return self._trend(rows) + mean, std

    def joint(self, rows: IntArray) -> tuple[Floats, Floats]:
        """Mean `[m]` and covariance `[m, m]` of candidates `[m, L]`."""
        own = self._kernel.gram(self._parameters, rows, rows)
        if self._process is None:
            return self._trend(rows), own
        mean, covariance = self._process.joint(self._cross(rows), own)
        return self._trend(rows) + mean, covariance

    def _trend(self, rows: IntArray) -> Floats:
        return np.asarray(self._offset + _TREND * self._capacity(rows).sum(axis=1))

    def of_accuracy(self, accuracy: float) -> float:
        """An accuracy in the units of this belief."""
        return float(progress(accuracy)) / self._scale


class LinearBelief(AccuracyBelief):
    """The same in accuracies: normal ones around each mean."""

    @classmethod
    def of(cls, belief: AccuracyBelief) -> LinearBelief:
        values = {field.name: getattr(belief, field.name) for field in dataclasses.fields(belief)}
        linear = cls(**values)
        fitted, slopes = linear._linear(belief.fitted)
        slope = float(slopes.min(initial=1.0))
        return dataclasses.replace(linear, fitted=fitted, noise=belief.noise * slope**2)

    def predict(self, rows: IntArray) -> tuple[Floats, Floats]:
        mean, std = super().predict(rows)
        accuracy, slopes = self._linear(mean)
        return accuracy, slopes * std

    def joint(self, rows: IntArray) -> tuple[Floats, Floats]:
        mean, covariance = super().joint(rows)
        accuracy, slopes = self._linear(mean)
        return accuracy, slopes[:, None] * covariance * slopes

    def of_accuracy(self, accuracy: float) -> float:
        return accuracy

    def _linear(self, mean: Floats) -> tuple[Floats, Floats]:
        """Accuracies `[m]` at beliefs `[m]` of progress, and by how much they change with them."""
        error = np.exp(-mean * self._scale)
        return 1 - error, error * self._scale
