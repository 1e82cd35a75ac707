"""Latency as a policy knows it: learned from the measurements so far, or predicted and then corrected by them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_ndtr

from npas_ray.networks.backbone import Backbone
from npas_ray.search.capacity import searchable_blocks, work
from npas_ray.search.encoding import Encoding, IntArray
from npas_ray.search.gaussian_process import GaussianProcess, likeliest
from npas_ray.search.reward import Objective
from npas_ray.space.choices import Architecture, Operator, Scheme

Floats = NDArray[np.float64]
#: predicts `latency_ms [m]` by device model for `m` architectures
LatencyPredictor = Callable[[Sequence[Architecture]], Mapping[str, Floats]]


class LatencySurrogate(ABC):
    """What is believed of the latency of candidates, per device model that has a budget or an axis of the front."""

    def __init__(self, objective: Objective) -> None:
        self.budgets_ms = dict(objective.budgets_ms)
        self.models = objective.models
        self._rows: dict[str, list[IntArray]] = {model: [] for model in self.models}
        self._latency_ms: dict[str, list[float]] = {model: [] for model in self.models}

    def learn(self, row: IntArray, latency_ms: Mapping[str, float]) -> None:
        """Take in what was measured of one architecture `[L]`."""
        for model in self.models:
            if model in latency_ms:
                self._rows[model].append(row)
                self._latency_ms[model].append(latency_ms[model])

    @abstractmethod
    def predict(self, model: str, rows: IntArray) -> tuple[Floats, Floats] | None:
        """Mean and standard deviation `[m]` in ms of the latency of rows `[m, L]`; None if nothing is known."""

    @abstractmethod
    def refresh(self) -> None:
        """Take what was learned into account from now on."""

    @property
    def known(self) -> bool:
        """Whether anything can be said of the latency on every device model that matters."""
        return all(self._latency_ms.values())

    def log_feasible(self, rows: IntArray) -> Floats:
        """log P(every budget is kept) `[m]`. Zeros where nothing is known."""
        total = np.zeros(len(rows))
        for model, budget_ms in self.budgets_ms.items():
            belief = self.predict(model, rows)
            if belief is not None:
                mean_ms, std_ms = belief
                total += log_ndtr((budget_ms - mean_ms) / np.maximum(std_ms, 1e-3 * budget_ms))
        return total

    def load(self, rows: IntArray) -> Floats:
        """The largest of expected latency / budget `[m]`; NaN where nothing is known."""
        loads = [
            belief[0] / budget_ms
            for model, budget_ms in self.budgets_ms.items()
            if (belief := self.predict(model, rows)) is not None
        ]
        return np.max(loads, axis=0) if loads else np.full(len(rows), np.nan)


class LearnedLatency(LatencySurrogate):
    """Learned online. Latency is nearly a sum over layers, so the surrogate is a sum over layers as well.

    A linear model with Gaussian priors, as a Gaussian process: a broad prior on the time per MAC of each operator and
    scheme, and a narrower one on how much each layer differs from that. How much narrower is fitted. The first few
    measurements fix the scale, later ones the details: median error 8 % after 8 random measurements, 2.5 % after 30
    and 1 % after 150, on analytic landscapes with 1 % of noise.
    """

    #: prior deviations of the details, relative to the time of a MAC; the most likely is used
    _DETAILS = (0.05, 0.2, 0.6)
    #: measurements that it learns from, the latest; more cost time and say nothing new
    _LATEST = 500
    #: the scale is guessed from few measurements: variances count 1 + this / measurements times
    _DOUBT = 8.0
    #: details and noise are fitted anew whenever there are this many times as many measurements
    _GROWTH = 1.05

    def __init__(self, objective: Objective, encoding: Encoding, backbone: Backbone) -> None:
        super().__init__(objective)
        self._features = CostFeatures(encoding, backbone)
        self._beliefs: dict[str, _Additive] = {}
        self._fits: dict[str, tuple[int, float, float]] = {}  # milestone, details, ratio of noise to signal

    def refresh(self) -> None:
        self._beliefs = {
            model: self._belief(model, measured) for model, measured in self._latency_ms.items() if measured
        }

    def _belief(self, model: str, measured: Sequence[float]) -> _Additive:
        details, ratio = self._fitted(model, measured)
        rows = np.stack(self._rows[model][-self._LATEST :])
        targets = np.array(measured[-self._LATEST :])
        return _Additive.given(self._features, rows, targets, details=details, noise_ratio=ratio)

    def _fitted(self, model: str, measured: Sequence[float]) -> tuple[float, float]:
        """Deviation of the details and ratio of noise to signal, as fitted at the last milestone, see `_GROWTH`."""
        milestone = 1
        while (following := int(milestone * self._GROWTH) + 1) <= len(measured):
            milestone = following
        known = self._fits.get(model)
        if known is None or known[0] != milestone:
            rows = np.stack(self._rows[model][:milestone][-self._LATEST :])
            grams = [self._features.gram(rows, details) for details in self._DETAILS]
            kernel, ratio = likeliest(grams, np.array(measured[:milestone][-self._LATEST :]))
            known = self._fits[model] = (milestone, self._DETAILS[kernel], ratio)
        return known[1:]

    def predict(self, model: str, rows: IntArray) -> tuple[Floats, Floats] | None:
        if model not in self._beliefs:
            return None
        belief = self._beliefs[model]
        mean, std = belief.predict(rows)
        few = 1 + self._DOUBT / belief.measurements
        return mean, np.sqrt(few * (std**2 + belief.noise))


@dataclass(frozen=True)
class _Additive:
    """A Gaussian process over the features of latency, in which all that is asked of a row is a sum over its layers."""

    measurements: int
    noise: float  # variance of a measurement
    _features: CostFeatures
    _details: float
    _process: GaussianProcess
    _whitened: Floats  # of every choice of every layer, K x n

    @classmethod
    def given(
        cls, features: CostFeatures, rows: IntArray, targets: Floats, *, details: float, noise_ratio: float
    ) -> _Additive:
        """Given measurements `[n]` of rows `[n, L]`."""
        of_choices = features.of_choices(rows, details)
        process = GaussianProcess.given(features.encoding.sums(rows, of_choices), targets, noise_ratio=noise_ratio)
        whitened = np.ascontiguousarray(process.whiten(of_choices.T).T)
        return cls(len(rows), process.noise, features, details, process, whitened)

    def predict(self, rows: IntArray) -> tuple[Floats, Floats]:
        """Mean and standard deviation `[m]` of rows `[m, L]`."""
        whitened = self._features.encoding.sums(rows, self._whitened)
        return self._process.predict_whitened(whitened, self._features.diagonal(rows, self._details))


class CostFeatures:
    """Features of latency whose effects have prior variance 1.

    Shared by all layers: work (MACs in units of a typical layer) by operator, kept after pruning and in all, kept work
    by scheme, and uses of each operator. The same again for every layer of its own, times `details`.
    """

    #: prior deviations relative to the time of kept work: of all work (what pruning does not save), of a scheme, a use
    ALL, SCHEME, USE = 0.3, 0.3, 0.5

    def __init__(self, encoding: Encoding, backbone: Backbone) -> None:
        self.encoding = encoding
        costs = [
            [work(backbone, block, choice) for choice in choices]
            for block, choices in zip(searchable_blocks(backbone), encoding.choices, strict=True)
        ]
        tables = [
            np.array([(cost.macs, cost.dense_macs) for cost in of_layer]) for of_layer in costs
        ]  # per layer: k x 2
        unit = float(np.mean([table[:, 1].mean() for table in tables])) or 1.0
        of_all: list[Floats] = []  # per layer: k x d
        self._own: list[Floats] = []  # per layer: k x d of the layer
        for table, choices in zip(tables, encoding.choices, strict=True):
            kept, full = table.T[:, :, None] / unit  # each k x 1
            operator = _one_hot([choice.operator for choice in choices], list(Operator))
            scheme = _one_hot([choice.scheme for choice in choices], list(Scheme))
            kinds = [(choice.operator, choice.scheme) for choice in choices]
            kind = _one_hot(kinds, sorted(set(kinds)))
            shared = [operator * kept, self.ALL * operator * full, self.SCHEME * scheme * kept, self.USE * operator]
            own = [operator * kept, operator * full, kind * kept, self.USE * operator, self.USE * kind]
            of_all.append(np.concatenate(shared, axis=1))
            self._own.append(np.concatenate(own, axis=1))
        self._shared: Floats = np.concatenate(of_all)  # K x d
        #: of the layer's own features, how those of two choices agree, k x k; of each choice with itself, K x 1
        self._agree = [own @ own.T for own in self._own]
        self._own_squares: Floats = np.concatenate([np.diag(agree) for agree in self._agree])[:, None]

    def __call__(self, rows: IntArray, details: float) -> Floats:
        """Features `[m, d]` of rows `[m, L]`; `details` is the prior deviation of what a layer adds."""
        own = (details * of_layer[rows[:, layer]] for layer, of_layer in enumerate(self._own))
        return np.concatenate([self.encoding.sums(rows, self._shared), *own], axis=1)

    def of_choices(self, rows: IntArray, details: float) -> Floats:
        """Products `[K, n]` of every choice's features with those of rows `[n, L]`; see `Encoding.sums` for K."""
        products = self._shared @ self.encoding.sums(rows, self._shared).T
        own = [agree[:, rows[:, layer]] for layer, agree in enumerate(self._agree)]
        return np.asarray(products + details**2 * np.concatenate(own))

    def gram(self, rows: IntArray, details: float) -> Floats:
        """Products `[n, n]` of the features of rows `[n, L]`."""
        return self.encoding.sums(rows, self.of_choices(rows, details))

    def diagonal(self, rows: IntArray, details: float) -> Floats:
        """Products `[m]` of the features of rows `[m, L]` with themselves."""
        shared = self.encoding.sums(rows, self._shared)
        own = self.encoding.sums(rows, self._own_squares)[:, 0]
        return np.asarray(np.einsum("md,md->m", shared, shared) + details**2 * own)


def _one_hot(values: Sequence[object], kinds: Sequence[object]) -> Floats:
    return np.array([[value == kind for kind in kinds] for value in values], dtype=np.float64)


class PredictedLatency(LatencySurrogate):
    """A predictor's word, corrected by the bias and with the error that its predictions of measured candidates had.

    What is learned from the measurements beside it counts by its own error: little at first, most of it in the end.

    Args:
        predictor: latency by device model for a batch of architectures.
        learned: the second opinion; without it the predictor is alone.
        error: relative standard deviation that is assumed before anything was measured, worth five measurements.
    """

    def __init__(
        self,
        objective: Objective,
        encoding: Encoding,
        predictor: LatencyPredictor,
        *,
        learned: LearnedLatency | None = None,
        error: float = 0.05,
    ) -> None:
        super().__init__(objective)
        self._learned = learned
        self._encoding = encoding
        self._predictor = predictor
        self._error = error
        self._answers: dict[bytes, dict[str, float]] = {}
        self._correction: dict[str, tuple[float, float]] = {}

    def _ask(self, model: str, rows: IntArray) -> Floats:
        """The predictor's word `[m]` in ms, asked once for each architecture."""
        if len(self._answers) > 50_000:
            self._answers.clear()
        keys = [row.tobytes() for row in rows]
        new = [i for i, key in enumerate(keys) if key not in self._answers]
        if new:
            answer = self._predictor([self._encoding.decode(rows[i]) for i in new])
            columns = {}
            for wanted in self.models:
                column = np.asarray(answer[wanted], dtype=np.float64) if wanted in answer else np.empty(0)
                if column.shape != (len(new),) or not (np.isfinite(column).all() and (column > 0).all()):
                    raise ValueError(
                        f"the latency predictor must give {len(new)} positive numbers of ms for {wanted!r}, got"
                        f" {column[:5] if wanted in answer else 'none'}"
                    )
                columns[wanted] = column.tolist()
            for place, i in enumerate(new):
                self._answers[keys[i]] = {wanted: column[place] for wanted, column in columns.items()}
        return np.array([self._answers[key][model] for key in keys])

    @property
    def known(self) -> bool:
        return True

    def learn(self, row: IntArray, latency_ms: Mapping[str, float]) -> None:
        super().learn(row, latency_ms)
        if self._learned is not None:
            self._learned.learn(row, latency_ms)

    def refresh(self) -> None:
        if self._learned is not None:
            self._learned.refresh()
        for model, measured in self._latency_ms.items():
            errors = np.empty(0)
            if measured:
                errors = np.log(np.array(measured) / self._ask(model, np.stack(self._rows[model])))
            weight = 5.0
            bias = float(errors.sum() / (len(errors) + 1.0))
            variance = (((errors - bias) ** 2).sum() + weight * self._error**2) / (len(errors) + weight)
            self._correction[model] = (bias, float(np.sqrt(variance)))

    def predict(self, model: str, rows: IntArray) -> tuple[Floats, Floats] | None:
        bias, error = self._correction.get(model, (0.0, self._error))
        mean = self._ask(model, rows) * np.exp(bias)
        std = mean * error
        other = None if self._learned is None else self._learned.predict(model, rows)
        if other is None:
            return mean, std
        weight, other_weight = std**-2, np.maximum(other[1], 1e-9) ** -2
        total = weight + other_weight
        return (weight * mean + other_weight * other[0]) / total, total**-0.5


def latency_surrogate(
    objective: Objective, encoding: Encoding, backbone: Backbone, *, predictor: LatencyPredictor | None
) -> LatencySurrogate:
    """What is learned from the measurements, joined with a predictor's word if there is one."""
    learned = LearnedLatency(objective, encoding, backbone)
    return learned if predictor is None else PredictedLatency(objective, encoding, predictor, learned=learned)
