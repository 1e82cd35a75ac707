"""The latency of a network from the times of its steps: measured ones where they were seen, modelled ones elsewhere.

    latency = overhead + sum over the steps of their times

One linear Gaussian model of all times at once. A step's time has as its prior what a model of its kind says (work,
bytes and calls, fitted to the observed steps of that kind), is observed in every profile that it was in, and the sum of
the steps is observed as the latency of every measured network, which is known far better than the profiles are: they
share out what the latencies fix. So a step that was never seen is worth its kind's model with that model's error, and a
network of well-known steps is known nearly as well as it could be measured.

The interval is the model's own, stretched so that it held what it promises on networks that were left out of the fit
(`validation.py`). Pure numpy: no Ray, no TVM, no clock.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, cho_factor, cho_solve
from scipy.optimize import nnls

from device_farm.calibration.steps import StepShape
from device_farm.errors import CalibrationError

Floats = NDArray[np.float64]

# Standard deviations, relative to a time unless they are absolute. What they are wrong by, the stretch mends.
PROFILE_ERROR = 0.06  # of one profile's word on a step: its surroundings, the quiet that it found
PROFILE_ERROR_MS = 4e-5  # the same, absolute: the clock
LATENCY_ERROR = 0.01  # of a network around the sum of its steps: caches, where things lie
KIND_ERROR = 0.05  # least error of a kind's model, however well it fits
SHARED_ERROR = 0.15  # of whatever was measured on a core that something shared
LEAST_SHARED_ERROR = 0.03  # the same, where enough was measured on a quiet one to know how much slower it is
LEAST_QUIET = 10  # networks that are enough
OVERHEAD_MS, STEP_MS, MEGABYTE_MS = 2e-3, 5e-5, 5e-3  # priors of what belongs to no step: constant, a step, weights
CLOCK_MS = 2e-5  # that reading the clock adds to a profiled step
FEW_STRETCH = 4.0  # standard deviations of an interval that too few networks vouch for
CHUNK = 256  # networks at once


@dataclass(frozen=True)
class Observation:
    """One measured network. `steps_ms` is the runner's profile, in the order of the steps."""

    steps: tuple[StepShape, ...]
    steps_ms: tuple[float, ...]
    latency_ms: float
    relative_error: float  # standard deviation of the latency / latency
    quiet: bool = True


@dataclass(frozen=True)
class Prediction:
    """Latencies of `[m]` networks in ms. A measurement lies in low_ms..high_ms with probability `confidence`."""

    mean_ms: Floats
    std_ms: Floats
    low_ms: Floats
    high_ms: Floats
    confidence: float
    unseen: Floats  # share of the time that is in steps which were never measured


@dataclass(frozen=True)
class Part:
    """Some steps of a network, as the predictor sees them. Parts are made once and used in many networks."""

    known: NDArray[np.int64]  # steps that were measured
    unseen_ms: float
    unseen_var: float
    steps: int
    weight_bytes: int


@dataclass(frozen=True)
class _Kind:
    """Time of one kind of step: coefficients [5] of `_features`, and the relative error."""

    coefficients: Floats
    error: float


@dataclass(frozen=True)
class Predictor:
    """A fitted model; make it by `fit`. `stretch` are |errors| / std of networks left out of a fit, ascending."""

    stretch: Floats
    _index: Mapping[str, int]
    _kinds: Mapping[str, _Kind]
    _mean: Floats  # [K + G]: times of the K known steps in ms, and what belongs to no step
    _variance: Floats  # [K + G], before the latencies were seen
    _gain: Floats  # [N, K + G]: X D of the N observed networks
    _factor: Any  # Cholesky's, of X D X' + R
    _hinges: Floats  # bytes of weights from which a byte costs more

    def part(self, steps: Sequence[StepShape]) -> Part:
        """The steps of a network or of a piece of one."""
        known, unseen_ms, variance = [], 0.0, 0.0
        for step in steps:
            if step.key in self._index:
                known.append(self._index[step.key])
            else:
                kind = self._kinds.get(step.kind) or self._kinds[_ANY]
                time_ms = float(_features(step) @ kind.coefficients)
                unseen_ms += time_ms
                variance += (kind.error * time_ms) ** 2
        weight_bytes = sum(step.weight_bytes for step in steps)
        return Part(np.array(known, dtype=np.int64), unseen_ms, variance, len(steps), weight_bytes)

    def predict(self, networks: Sequence[Sequence[Part]], *, confidence: float = 0.95) -> Prediction:
        """Of `[m]` networks, each the sum of its parts. Raises ValueError unless 0 < confidence < 1."""
        stretch = self._stretch(confidence)
        mean, variance, unseen = np.empty(len(networks)), np.empty(len(networks)), np.empty(len(networks))
        for start in range(0, len(networks), CHUNK):
            chunk = networks[start : start + CHUNK]
            rows = slice(start, start + len(chunk))
            x = self._design(chunk)
            unseen[rows] = [sum(part.unseen_ms for part in network) for network in chunk]
            mean[rows] = x @ self._mean + unseen[rows]
            variance[rows] = self._spread(x) + [sum(part.unseen_var for part in network) for network in chunk]
        mean = np.maximum(mean, 1e-6)
        std = np.sqrt(np.maximum(variance, 0) + (LATENCY_ERROR * mean) ** 2)
        low = np.maximum(mean - stretch * std, 0.0)
        return Prediction(mean, std, low, mean + stretch * std, confidence, np.clip(unseen / mean, 0.0, 1.0))

    def time_ms(self, parts: Sequence[Part]) -> float:
        """Time of the steps of some parts alone, in ms: without what belongs to no step."""
        known = np.concatenate([part.known for part in parts] or [np.empty(0, np.int64)])
        return float(self._mean[known].sum()) + sum(part.unseen_ms for part in parts)

    def difference(self, a: Sequence[Part], b: Sequence[Part]) -> tuple[float, float]:
        """Time of `a` less that of `b`, which may be parts of networks, and its standard deviation, in ms."""
        x = self._design([a, b])
        x = x[:1] - x[1:]
        unseen = [(sum(part.unseen_ms for part in side), sum(part.unseen_var for part in side)) for side in (a, b)]
        mean = float((x @ self._mean)[0]) + unseen[0][0] - unseen[1][0]
        return mean, math.sqrt(max(float(self._spread(x)[0]) + unseen[0][1] + unseen[1][1], 0.0))

    def _stretch(self, confidence: float) -> float:
        """Standard deviations to each side that hold this share of networks, by those that were left out."""
        if not 0 < confidence < 1:
            raise ValueError(f"confidence is a number between 0 and 1, got {confidence!r}")
        count = len(self.stretch)
        rank = math.ceil(confidence * (count + 1))
        if rank > count:  # too few were left out to tell
            return max(FEW_STRETCH, float(self.stretch.max(initial=0.0)))
        return float(self.stretch[rank - 1])

    def _design(self, networks: Sequence[Sequence[Part]]) -> Floats:
        """[m, K + G]"""
        x = np.zeros((len(networks), len(self._mean)))
        for row, network in zip(x, networks, strict=True):
            np.add.at(row, np.concatenate([part.known for part in network] or [np.empty(0, np.int64)]), 1.0)
        x[:, len(self._index) :] = _globals(networks, self._hinges)
        return x

    def _spread(self, x: Floats) -> Floats:
        """Variance [m] of x times what is known."""
        seen = self._gain @ x.T  # N x m
        reduced: Floats = (x * x) @ self._variance - (seen * cho_solve(self._factor, seen)).sum(axis=0)
        return reduced


def fit(observations: Sequence[Observation], *, stretch: Sequence[float] = ()) -> Predictor:
    """The model that these measured networks give. Raises CalibrationError: fewer than two, or beyond reason."""
    if len(observations) < 2:
        raise CalibrationError(f"a predictor needs at least 2 measured networks, got {len(observations)}")
    return replace(_fit(_calmed(observations)), stretch=np.sort(np.asarray(stretch, dtype=np.float64)))


def _calmed(observations: Sequence[Observation]) -> list[Observation]:
    """What was measured on a shared core, as if it had been quiet: such cores are slower by much the same factor.

    The factor is the median of what the others predict; its spread is the error. Without others, nothing is known.
    """
    quiet = [o for o in observations if o.quiet]
    shared = [o for o in observations if not o.quiet]
    if len(quiet) < LEAST_QUIET or len(shared) < 2:
        return [o if o.quiet else replace(o, relative_error=max(o.relative_error, SHARED_ERROR)) for o in observations]
    first = _fit(quiet)
    slower = np.array([o.latency_ms for o in shared]) / first.predict([[first.part(o.steps)] for o in shared]).mean_ms
    factor = float(np.median(slower))
    spread = max(float(np.median(np.abs(slower / factor - 1))) / 0.6745, LEAST_SHARED_ERROR)  # of a normal distribution
    return quiet + [replace(o, latency_ms=o.latency_ms / factor, relative_error=spread) for o in shared]


def _fit(observations: Sequence[Observation]) -> Predictor:
    shapes = {step.key: step for observation in observations for step in observation.steps}
    index = {key: number for number, key in enumerate(shapes)}
    words = _profiles(observations, index)
    typical = np.array([np.average(values, weights=1 / errors**2) for values, errors in words])
    kinds = _kind_models(list(shapes.values()), typical)
    prior = np.array([max(_features(s) @ kinds[s.kind].coefficients, 1e-6) for s in shapes.values()])
    precision = 1 / (np.array([kinds[s.kind].error for s in shapes.values()]) * prior) ** 2
    weighted = prior * precision
    for number, (values, errors) in enumerate(words):
        weights = 1 / ((errors * typical[number]) ** 2 + PROFILE_ERROR_MS**2)
        precision[number] += weights.sum()
        weighted[number] += weights @ values
    sizes = [sum(step.weight_bytes for step in observation.steps) for observation in observations]
    hinges = np.quantile(sizes, [0.0, 1 / 3, 2 / 3])
    plain = Predictor(np.empty(0), index, kinds, np.empty(len(index) + 5), np.empty(0), np.empty(0), None, hinges)
    x = plain._design([[plain.part(observation.steps)] for observation in observations])
    variance = np.concatenate([1 / precision, [OVERHEAD_MS**2, STEP_MS**2, *[MEGABYTE_MS**2] * len(hinges)]])
    mean = np.concatenate([weighted / precision, np.zeros(2 + len(hinges))])
    latency = np.array([observation.latency_ms for observation in observations])
    error = [math.hypot(o.relative_error, LATENCY_ERROR) for o in observations]
    gain = x * variance
    try:
        factor = cho_factor(gain @ x.T + np.diag((np.array(error) * latency) ** 2))
    except (LinAlgError, ValueError) as failure:
        raise CalibrationError(f"no predictor fits these measurements: {failure}") from failure
    mean = mean + gain.T @ cho_solve(factor, latency - x @ mean)
    return Predictor(np.empty(0), index, kinds, mean, variance, gain, factor, hinges)


_ANY = "any"  # the model of kinds that were never seen


def _features(step: StepShape) -> Floats:
    """What a step's time grows with."""
    return np.array([1.0, step.calls, step.kept_macs / 1e6, step.weight_bytes / 1e6, step.image_bytes / 1e6])


def _globals(networks: Sequence[Sequence[Part]], hinges: Floats) -> Floats:
    """[m, 2 + hinges]: one, the number of steps, and megabytes of weights beyond each hinge."""
    steps = np.array([sum(part.steps for part in network) for network in networks], dtype=np.float64)
    weights = np.array([sum(part.weight_bytes for part in network) for network in networks], dtype=np.float64)
    beyond = np.maximum(weights[:, None] - hinges, 0.0) / 1e6
    return np.column_stack([np.ones(len(networks)), steps, beyond])


def _profiles(observations: Sequence[Observation], index: Mapping[str, int]) -> list[tuple[Floats, Floats]]:
    """For every step what the profiles say of its time in ms, and their relative errors.

    A profile is taken apart from the samples and in its own disturbance: it is scaled to the latency.
    """
    words: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for observation in observations:
        times = np.maximum(np.array(observation.steps_ms) - CLOCK_MS, 1e-6)
        times *= float(np.clip(observation.latency_ms / float(times.sum()), 0.5, 1.5))
        error = PROFILE_ERROR if observation.quiet else SHARED_ERROR
        for step, time_ms in zip(observation.steps, times.tolist(), strict=True):
            words[index[step.key]].append((time_ms, error))
    listed = (np.array(words[number]).T for number in range(len(index)))
    return [(values, errors) for values, errors in listed]


def _kind_models(shapes: Sequence[StepShape], typical: Floats) -> dict[str, _Kind]:
    """Coefficients that are not negative, with the least relative error over the steps of a kind."""
    members: dict[str, list[int]] = defaultdict(list)
    for number, step in enumerate(shapes):
        members[step.kind].append(number)
    members[_ANY] = list(range(len(shapes)))
    models = {}
    for kind, numbers in members.items():
        rows = np.stack([_features(shapes[number]) for number in numbers])
        times = typical[numbers]
        coefficients, _ = nnls(rows / times[:, None], np.ones(len(numbers)))
        errors = rows @ coefficients / times - 1
        spread = math.sqrt(float(errors @ errors) / max(1, len(numbers) - int((coefficients > 0).sum())))
        models[kind] = _Kind(coefficients, max(KIND_ERROR, spread))
    return models
