"""What searchers are let loose on: accuracy and latency of every architecture of a space, with a real one's noise.

`Analytic` landscapes are made up: accuracy is additive effects, pairwise interactions and a collapse under heavy
pruning, then saturates; latency is additive. Every seed is another one. `Adversarial` ones contradict what `npas`
believes of networks. Those of the tables are in benchmarks/tables/landscape.py.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from npas_ray.networks.backbone import DIGITS, Block, make_backbone
from npas_ray.networks.operators import body_layers, pruned_layers
from npas_ray.search.axes import latency_on
from npas_ray.search.encoding import Encoding, IntArray
from npas_ray.search.policy import Observation, Status
from npas_ray.search.reward import Mode, Objective
from npas_ray.space.choices import Architecture, LayerChoice, Operator, Scheme
from npas_ray.space.search_space import SearchSpace

Floats = NDArray[np.float64]
MODEL, CHANCE = "device", 0.1
#: what a calibrated predictor is wrong by: its bias, and errors that stay the same for the same architecture. Rounder
#: and worse than measured (benchmarks/results/predictor-digits.json: bias 0.2 %, 95 % of the errors below 4 %)
PREDICTOR_BIAS, PREDICTOR_ERROR = 0.02, 0.03


class Landscape(ABC):
    """A task: a space, a latency budget, and what evaluations say. Subclasses know the truth.

    With `front` there is no budget: all networks are looked for that no other one beats in accuracy and latency, up to
    the latency that the budget would be.

    Attributes:
        accuracy_noise, latency_noise: standard deviations of an evaluation, of the accuracy and relative.
        train_all: candidates over the budget are trained, too.
    """

    def __init__(
        self, space: SearchSpace, *, accuracy_noise: float = 0.007, latency_noise: float = 0.01, train_all: bool = False
    ) -> None:
        self.space, self.encoding = space, Encoding(space)
        self.accuracy_noise, self.latency_noise, self.train_all = accuracy_noise, latency_noise, train_all
        self.budget_ms = np.inf
        self.front = False

    @abstractmethod
    def accuracy(self, rows: IntArray) -> Floats:
        """Noiseless accuracy `[m]` of rows `[m, L]`."""

    @abstractmethod
    def latency_ms(self, rows: IntArray) -> Floats:
        """Noiseless latency `[m]`."""

    @property
    def objective(self) -> Objective:
        """Best accuracy within the budget, or the front up to it."""
        if self.front:
            axis = latency_on(MODEL)
            return Objective(mode=Mode.FRONT, axes=(axis,), reference={axis: self.budget_ms}, chance=CHANCE)
        return Objective({MODEL: self.budget_ms}, chance=CHANCE)

    def random(self, count: int, rng: np.random.Generator) -> IntArray:
        """Uniform rows `[count, L]`."""
        return rng.integers(self.encoding.sizes, size=(count, self.encoding.layers))

    def noisy(self, accuracy: float, rng: np.random.Generator) -> float:
        """What one training of a true accuracy says."""
        return float(np.clip(accuracy + rng.normal(0, self.accuracy_noise), 0, 1))

    def evaluate(self, architecture: Architecture, rng: np.random.Generator) -> Observation:
        """What a real evaluation would say, noise included."""
        row = self.encoding.encode([architecture])
        latency_ms = float(self.latency_ms(row)[0] * np.exp(rng.normal(0, self.latency_noise)))
        if latency_ms > self.budget_ms and not self.train_all and not self.front:
            return Observation(architecture, Status.OVER_BUDGET, None, {MODEL: latency_ms})
        accuracy = self.noisy(float(self.accuracy(row)[0]), rng)
        return Observation(architecture, Status.DONE, accuracy, {MODEL: latency_ms})

    def predict(self, architectures: Sequence[Architecture]) -> dict[str, Floats]:
        """A latency predictor with a calibrated one's errors."""
        rows = self.encoding.encode(architectures)
        error = np.array(
            [np.random.default_rng([5, *row]).normal(PREDICTOR_BIAS, PREDICTOR_ERROR) for row in rows.tolist()]
        )
        return {MODEL: self.latency_ms(rows) * np.exp(error)}

    def surely_over(self, architectures: Sequence[Architecture]) -> Sequence[bool]:
        """A veto: what the predictor's 95 % interval has wholly above the budget."""
        if not architectures:
            return []
        over = self.predict(architectures)[MODEL] * np.exp(-1.96 * PREDICTOR_ERROR) > self.budget_ms
        return [bool(one) for one in over]

    def true_value(self, architecture: Architecture) -> float:
        """The noiseless accuracy, less what the noiseless latency is over the budget, relative to it."""
        row = self.encoding.encode([architecture])
        excess = max(0.0, float(self.latency_ms(row)[0]) / self.budget_ms - 1)
        return float(self.accuracy(row)[0]) - excess

    def true_point(self, architecture: Architecture) -> tuple[float, float]:
        """Noiseless error, and latency relative to the budget."""
        row = self.encoding.encode([architecture])
        return 1 - float(self.accuracy(row)[0]), float(self.latency_ms(row)[0]) / self.budget_ms

    def optimum(self) -> float:
        """Best noiseless accuracy within the budget."""
        return float(self.accuracy(self.best_rows())[0])

    def best_rows(self, count: int = 1) -> IntArray:
        """The best rows `[count, L]` within the budget, best first: by evolution, then single and double changes."""
        rng = np.random.default_rng(0)

        def score(rows: IntArray) -> Floats:
            latency_ms = self.latency_ms(rows)
            return np.where(latency_ms <= self.budget_ms, self.accuracy(rows), -latency_ms)

        rows = self.random(2000, rng)
        for _ in range(150):
            a, b = rows[rng.integers(400, size=(2, 1600))]
            child = np.where(rng.random(a.shape) < 0.5, a, b)
            child = np.where(rng.random(a.shape) < 1.2 / a.shape[1], self.random(1600, rng), child)
            rows = np.unique(np.concatenate([rows[:400], child]), axis=0)
            rows = rows[np.argsort(-score(rows), kind="stable")][:2000]
        singles = [(layer, c) for layer, size in enumerate(self.encoding.sizes) for c in range(size)]
        found = [rows[:count]]
        for start in rows[:3]:
            row, value = start, float(score(start[None])[0])
            while True:
                one = np.repeat(row[None], len(singles), axis=0)
                one[np.arange(len(singles)), [layer for layer, _ in singles]] = [c for _, c in singles]
                picks = rng.integers(len(singles), size=(60_000, 2))
                two = np.repeat(row[None], len(picks), axis=0)
                for column in (0, 1):
                    layer, choice = np.array(singles)[picks[:, column]].T
                    two[np.arange(len(picks)), layer] = choice
                around = np.concatenate([one, two])
                scores = score(around)
                if scores.max() <= value:
                    break
                row, value = around[scores.argmax()], float(scores.max())
            found.append(row[None])
        rows = np.unique(np.concatenate(found), axis=0)
        return rows[np.argsort(-score(rows), kind="stable")][:count]


DEEP = make_backbone(  # of the shape of MobileNetV2 at 64 pixels
    "deep",
    input_shape=(3, 64, 64),
    stem=(16, 2),
    blocks=tuple(
        (channels, stride if i == 0 else 1)
        for channels, repeats, stride in ((16, 1, 1), (24, 3, 2), (32, 4, 2), (64, 4, 2), (96, 4, 1), (160, 4, 2))
        for i in range(repeats)
    ),
    classes=10,
)
ANALYTIC_SPACES: dict[str, Callable[[], SearchSpace]] = {
    "digits": lambda: SearchSpace(DIGITS),
    "deep": lambda: SearchSpace(DEEP),
    "conv3x3": lambda: SearchSpace(
        DIGITS, operators=(Operator.CONV3X3, Operator.SKIP), rates=(1, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 10, 12)
    ),
}


_OPERATOR_EFFECT = {
    Operator.CONV3X3: 0.0,
    Operator.CONV1X1_DW3X3_CONV1X1: 0.05,
    Operator.DW3X3_CONV1X1: -0.25,
    Operator.CONV1X1: -0.7,
    Operator.SKIP: -0.9,
}
_SCHEME_HARM = {
    Scheme.FILTER: 0.45,
    Scheme.PATTERN: 0.2,
    Scheme.BLOCK_PUNCHED: 0.25,
    Scheme.BLOCK_BASED: 0.28,
    Scheme.KERNEL_BLOCK: 0.34,
}
_GMACS_PER_S = {
    Operator.CONV3X3: 40.0,
    Operator.CONV1X1: 35.0,
    Operator.DW3X3_CONV1X1: 25.0,
    Operator.CONV1X1_DW3X3_CONV1X1: 28.0,
}
_SCHEME_GAIN = {
    Scheme.FILTER: 1.0,
    Scheme.PATTERN: 0.6,
    Scheme.BLOCK_PUNCHED: 0.9,
    Scheme.BLOCK_BASED: 0.85,
    Scheme.KERNEL_BLOCK: 1.0,
}


class Analytic(Landscape):
    """A made-up task, another one for every seed; `feasible_share` of random architectures keep the budget."""

    def __init__(self, space: SearchSpace, *, seed: int, feasible_share: float = 0.15, train_all: bool = False) -> None:
        super().__init__(space, train_all=train_all)
        rng = np.random.default_rng([77, seed])
        layers = self.encoding.layers
        importance = rng.lognormal(0.0, 0.5, layers)
        self._value, self._latency, self._log_rate, self._traits = [], [], [], []
        mixing = rng.normal(size=(7, 3))
        for layer, choices in enumerate(self.encoding.choices):
            taste = {operator: rng.normal(0, 0.2) for operator in Operator}
            harm = {scheme: rng.lognormal(0, 0.35) for scheme in Scheme}
            speed = {operator: rng.lognormal(0, 0.15) for operator in Operator}
            gain = {scheme: rng.uniform(0.8, 1.0) for scheme in Scheme}
            block = space.backbone.blocks[layer]
            self._value.append(
                importance[layer]
                * np.array(
                    [
                        _OPERATOR_EFFECT[c.operator]
                        + taste[c.operator]
                        - _SCHEME_HARM.get(c.scheme, 0.0) * harm[c.scheme] * np.log(c.rate) ** 1.4
                        for c in choices
                    ]
                )
            )
            self._latency.append(np.array([_latency_ms(block, c, speed[c.operator], gain[c.scheme]) for c in choices]))
            self._log_rate.append(np.array([np.log(c.rate) for c in choices]))
            features = np.array([[c.operator is o for o in Operator] + [np.log(c.rate)] for c in choices])
            self._traits.append(np.tanh(features.astype(np.float64) @ mixing))  # k x 3
        near = [(i, i + 1) for i in range(layers - 1)]
        far = [tuple(sorted(rng.choice(layers, 2, replace=False))) for _ in range(layers if layers > 2 else 0)]
        self._pairs = [(a, b, rng.normal(0, 0.15, (3, 3))) for a, b in [*near, *far]]
        self._spread = np.sqrt(7 / layers)
        sample = self.random(4000, rng)
        raw = self._raw(sample)
        self._middle, self._deviation = float(np.median(raw)), float(raw.std())
        self.top = float(rng.uniform(0.88, 0.96))
        self.budget_ms = float(np.quantile(self.latency_ms(sample), feasible_share))

    def _raw(self, rows: IntArray) -> Floats:
        columns = range(rows.shape[1])
        total = sum(self._value[layer][rows[:, layer]] for layer in columns) * self._spread
        for a, b, weights in self._pairs:
            total = total + self._spread * np.einsum(
                "ni,ij,nj->n", self._traits[a][rows[:, a]], weights, self._traits[b][rows[:, b]]
            )
        pruned = sum(self._log_rate[layer][rows[:, layer]] for layer in columns) / rows.shape[1]
        return np.asarray(total - 2.0 * np.maximum(pruned - 1.5, 0.0) ** 2)

    def accuracy(self, rows: IntArray) -> Floats:
        quality = 1.3 + 0.9 * (self._raw(rows) - self._middle) / self._deviation
        return np.asarray(CHANCE + (self.top - CHANCE) / (1 + np.exp(-quality)))

    def latency_ms(self, rows: IntArray) -> Floats:
        return np.asarray(sum(self._latency[layer][rows[:, layer]] for layer in range(rows.shape[1])) + 0.02)


class Adversarial(Analytic):
    """Where neighbouring choices have nothing in common, layers far apart decide together, and latency is no sum.

    Half of the accuracy comes from effects that every choice has for itself, whatever its operator, scheme and rate.
    Pairs of layers have effects of their own for every pair of (classes of) choices, and so has latency.
    """

    #: classes of choices, blind to what they are, that interact
    CLASSES = 5

    def _raw(self, rows: IntArray) -> Floats:
        if not hasattr(self, "_odd"):
            rng = np.random.default_rng([78, *np.frombuffer(self._value[0][:2].tobytes(), dtype=np.uint32)])
            layers, sizes = self.encoding.layers, self.encoding.sizes
            self._odd = [rng.normal(0, 0.5, size) for size in sizes]
            self._class = [rng.integers(self.CLASSES, size=size) for size in sizes]
            order = rng.permutation(layers)
            self._far = list(zip(order, np.roll(order, layers // 2), strict=True))
            self._joint = rng.normal(0, 0.35, (layers, self.CLASSES, self.CLASSES))
            self._slower = rng.normal(0, 0.1, (layers, self.CLASSES, self.CLASSES))
        single = sum(self._odd[layer][rows[:, layer]] for layer in range(rows.shape[1]))
        return np.asarray(super()._raw(rows) + self._spread * (single + self._pairwise(self._joint, rows)))

    def latency_ms(self, rows: IntArray) -> Floats:
        return np.asarray(
            super().latency_ms(rows) * np.exp(self._pairwise(self._slower, rows) / np.sqrt(rows.shape[1]))
        )

    def _pairwise(self, tables: Floats, rows: IntArray) -> Floats:
        classes = [self._class[layer][rows[:, layer]] for layer in range(rows.shape[1])]
        return np.asarray(sum(table[classes[a], classes[b]] for table, (a, b) in zip(tables, self._far, strict=True)))


def _latency_ms(block: Block, choice: LayerChoice, speed: float, gain: float) -> float:
    if choice.operator is Operator.SKIP:
        return 0.0
    height, width, time_ms = block.height, block.width, 0.001
    pruned = pruned_layers(choice)
    for layer in body_layers(block, choice.operator):
        height, width = -(-height // layer.stride), -(-width // layer.stride)
        macs = float(np.prod(layer.weight_shape)) * height * width
        if pruned is not None and layer.name in pruned.layers:
            macs /= 1 + (choice.rate - 1) * _SCHEME_GAIN[choice.scheme] * gain
        time_ms += 1e-6 * macs / (_GMACS_PER_S[choice.operator] * speed) + 0.001
    return time_ms
