"""Searchers against each other on analytic landscapes over real search spaces.

    python benchmarks/searchers.py [--quick] [--json FILE] [--seeds N] [--space NAME ...] [--policy NAME ...]
                                   [--train-all]

Every seed is another landscape (accuracy: additive effects + pairwise interactions + collapse under heavy pruning, then
saturation; latency: additive, 1 % measurement noise; accuracies 0.7 points of noise), the same for all policies.
Candidates over the latency budget are not trained, as in a real search (but see --train-all). The regret is the
accuracy of the best architecture within the budget (found by climbing on the noiseless landscape) less the noiseless
accuracy of the policy's choice, the candidate that measured best; in points. No network is trained here.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npas_ray.networks.backbone import DIGITS, Block, make_backbone
from npas_ray.networks.operators import body_layers, pruned_layers
from npas_ray.search.encoding import Encoding, IntArray
from npas_ray.search.policy import Observation, Status
from npas_ray.search.registry import make_policy
from npas_ray.search.replayable import ReplayablePolicy
from npas_ray.search.reward import Objective
from npas_ray.space.choices import Architecture, LayerChoice, Operator, Scheme
from npas_ray.space.search_space import SearchSpace

Floats = NDArray[np.float64]
CHANCE, ACCURACY_NOISE, LATENCY_NOISE = 0.1, 0.007, 0.01
CHECKPOINTS = (25, 50, 100, 200)

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
SPACES: dict[str, Callable[[], SearchSpace]] = {
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


class Landscape:
    """A made-up task: accuracy and latency of every architecture of a space."""

    def __init__(self, space: SearchSpace, *, seed: int, feasible_share: float = 0.15, train_all: bool = False) -> None:
        rng = np.random.default_rng([77, seed])
        self.space, self.encoding, self.train_all = space, Encoding(space), train_all
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
        sample = self._random(4000, rng)
        raw = self._raw(sample)
        self._middle, self._deviation = float(np.median(raw)), float(raw.std())
        self.top = float(rng.uniform(0.88, 0.96))
        self.budget_ms = float(np.quantile(self.latency_ms(sample), feasible_share))
        self.objective = Objective({"device": self.budget_ms}, chance=CHANCE)

    def _random(self, count: int, rng: np.random.Generator) -> IntArray:
        return rng.integers(self.encoding.sizes, size=(count, self.encoding.layers))

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
        """Noiseless accuracy `[m]` of rows `[m, L]`."""
        quality = 1.3 + 0.9 * (self._raw(rows) - self._middle) / self._deviation
        return np.asarray(CHANCE + (self.top - CHANCE) / (1 + np.exp(-quality)))

    def latency_ms(self, rows: IntArray) -> Floats:
        """Noiseless latency `[m]`."""
        return np.asarray(sum(self._latency[layer][rows[:, layer]] for layer in range(rows.shape[1])) + 0.02)

    def evaluate(self, architecture: Architecture, rng: np.random.Generator) -> Observation:
        """What a real evaluation would say, noise included."""
        row = self.encoding.encode([architecture])
        latency_ms = float(self.latency_ms(row)[0] * np.exp(rng.normal(0, LATENCY_NOISE)))
        if latency_ms > self.budget_ms and not self.train_all:
            return Observation(architecture, Status.OVER_BUDGET, None, {"device": latency_ms})
        accuracy = float(np.clip(self.accuracy(row)[0] + rng.normal(0, ACCURACY_NOISE), 0, 1))
        return Observation(architecture, Status.DONE, accuracy, {"device": latency_ms})

    def predict(self, architectures: Sequence[Architecture]) -> dict[str, Floats]:
        """A predictor with a bias of 2 % and errors of 3 % that stay the same for the same architecture."""
        rows = self.encoding.encode(architectures)
        error = np.array([np.random.default_rng([5, *row]).normal(0.02, 0.03) for row in rows.tolist()])
        return {"device": self.latency_ms(rows) * np.exp(error)}

    def optimum(self) -> float:
        """Best noiseless accuracy within the budget: evolution, then climbing over all single and double changes."""
        rng = np.random.default_rng(0)

        def score(rows: IntArray) -> Floats:
            kept = self.latency_ms(rows) <= self.budget_ms
            return np.where(kept, self.accuracy(rows), -self.latency_ms(rows))

        rows = self._random(2000, rng)
        for _ in range(150):
            a, b = rows[rng.integers(400, size=(2, 1600))]
            child = np.where(rng.random(a.shape) < 0.5, a, b)
            child = np.where(rng.random(a.shape) < 1.2 / a.shape[1], self._random(1600, rng), child)
            rows = np.unique(np.concatenate([rows[:400], child]), axis=0)
            rows = rows[np.argsort(-score(rows), kind="stable")][:2000]
        best = float(score(rows[:1])[0])
        singles = [(layer, c) for layer, size in enumerate(self.encoding.sizes) for c in range(size)]
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
            best = max(best, value)
        return best


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


def run(landscape: Landscape, policy: ReplayablePolicy, *, seed: int, evaluations: int) -> tuple[Floats, float]:
    """Noiseless accuracy of the incumbent after each evaluation, CPU seconds of proposing one (of the last batches)."""
    rng = np.random.default_rng([99, seed])
    curve: list[float] = []
    seconds = []
    measured, true = -1.0, CHANCE
    while len(curve) < evaluations:
        start = time.process_time()
        batch = policy.propose(policy.batch_size)
        seconds.append((time.process_time() - start) / max(1, len(batch)))
        if not batch:
            break
        results = [landscape.evaluate(architecture, rng) for architecture in batch]
        policy.observe(results)
        for result in results:
            feasible = landscape.objective.feasible(result.latency_ms)
            if feasible and result.accuracy is not None and result.accuracy > measured:
                measured = result.accuracy
                true = float(landscape.accuracy(landscape.encoding.encode([result.architecture]))[0])
            curve.append(true)
    curve += [true] * (evaluations - len(curve))
    return np.array(curve[:evaluations]), float(np.median(seconds[-10:]))


def policy_for(name: str, landscape: Landscape, seed: int) -> ReplayablePolicy:
    """By its name in the registry; "npas+predictor" is told the latency by a predictor."""
    kind, _, predictor = name.partition("+")
    settings = {"latency_predictor": landscape.predict} if predictor else {}
    return make_policy(kind, landscape.space, landscape.objective, seed=seed, settings=settings)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="10 seeds, 100 evaluations, the digits space")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--space", nargs="+", choices=SPACES, default=list(SPACES))
    parser.add_argument(
        "--train-all", action="store_true", help="train candidates over the budget too, as the paper did"
    )
    parser.add_argument("--policy", nargs="+", default=["random", "local", "paper", "npas", "npas+predictor"])
    arguments = parser.parse_args()
    seeds = 10 if arguments.quick else arguments.seeds
    checkpoints = [c for c in CHECKPOINTS if c <= (100 if arguments.quick else 200)]
    spaces = ["digits"] if arguments.quick else arguments.space
    report: dict[str, Any] = {"seeds": seeds, "spaces": {}}
    for name in spaces:
        space = SPACES[name]()
        landscapes = [Landscape(space, seed=seed, train_all=arguments.train_all) for seed in range(seeds)]
        optima = np.array([landscape.optimum() for landscape in landscapes])
        print(f"\n{name}: {space.layers} layers, {float(space.size):.1e} architectures, {seeds} analytic landscapes,")
        print(
            f"best within budget {100 * optima.min():.1f}-{100 * optima.max():.1f} %."
            " Regret in points, mean (quartiles):"
        )
        print(f"{'searcher':16}" + "".join(f"{f'after {c}':>22}" for c in checkpoints) + f"{'CPU ms/cand.':>14}")
        rows: dict[str, object] = {}
        for policy in arguments.policy:
            runs = [
                run(landscape, policy_for(policy, landscape, seed), seed=seed, evaluations=checkpoints[-1])
                for seed, landscape in enumerate(landscapes)
            ]
            regret = 100 * (optima[:, None] - np.stack([curve for curve, _ in runs]))
            cost_ms = 1e3 * float(np.median([cost for _, cost in runs]))
            cells = []
            for c in checkpoints:
                low, high = np.quantile(regret[:, c - 1], [0.25, 0.75])
                cells.append(f"{regret[:, c - 1].mean():7.2f} ({low:5.2f}-{high:5.2f})")
            print(f"{policy:16}" + "".join(f"{cell:>22}" for cell in cells) + f"{cost_ms:14.1f}", flush=True)
            rows[policy] = {
                "regret_points": {str(c): regret[:, c - 1].tolist() for c in checkpoints},
                "propose_ms": cost_ms,
            }
        report["spaces"][name] = rows
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
