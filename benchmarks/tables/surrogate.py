"""What a table answers for architectures that are not in it: ridge regression, and small networks for what it leaves.

Not of the kind that the policies use (no Gaussian process, no kernel), so that none of them is at home on it. The
weights are committed with the table as plain arrays: the benchmark asks the same surrogate everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from benchmarks.tables.features import Features, Floats
from npas_ray.search.encoding import IntArray

#: of the networks: how many, hidden units, steps of training, rows of a step
MEMBERS, HIDDEN, STEPS, BATCH = 4, 32, 250, 256
#: what the squares of the line's weights cost (accuracy, latency), per row of the table
PENALTY, TIME_PENALTY = 0.06, 0.02


@dataclass(frozen=True)
class Surrogate:
    """A straight line, and networks (mean of `E`) for its error: in logits of accuracies, or logarithms of times.

    All arrays; what they are multiplied with is standardised by the first two.
    """

    centre: Floats  # d
    scale: Floats  # d
    line: Floats  # d, or e for times: over Features.of_time
    level: Floats  # scalar: the line's
    least: Floats  # scalar: times are at least that; 0 of accuracies
    first: Floats  # E x d x h
    first_bias: Floats  # E x 1 x h
    second: Floats  # E x h x 1
    second_bias: Floats  # E x 1 x 1

    def __call__(self, features: Features, rows: IntArray) -> Floats:
        """Accuracies, or times in ms, `[m]`."""
        seen = features(rows)
        hidden = _silu(_standard(seen, self.centre, self.scale) @ self.first + self.first_bias)
        error = (hidden @ self.second + self.second_bias)[:, :, 0].mean(axis=0)
        if self.least > 0:
            times = np.maximum(features.of_time(rows) @ self.line + self.level, self.least)
            return np.asarray(times * np.exp(np.clip(error, -0.5, 0.5)))
        return expit(seen @ self.line + self.level + error)

    def arrays(self, prefix: str) -> dict[str, NDArray[Any]]:
        """To be kept in a file: the bulk with three digits."""
        kinds = {f.name: np.float16 if f.name == "first" else np.float32 for f in fields(self)}
        return {prefix + name: np.asarray(getattr(self, name), dtype=kind) for name, kind in kinds.items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], prefix: str) -> Surrogate:
        return cls(**{f.name: np.asarray(arrays[prefix + f.name], dtype=np.float64) for f in fields(cls)})


def fit_accuracy(features: Features, rows: IntArray, accuracy: Floats, counts: Floats, *, seed: int = 0) -> Surrogate:
    """From accuracies `[n]` that are means of `counts [n]` evaluations."""
    seen, wanted = features(rows), logit(accuracy)
    weights = counts / (counts + 1) * 2  # an evaluation is as uncertain as the surrogate
    line, level = _ridge(seen, wanted, penalty=PENALTY * len(rows), weights=weights)
    networks = _networks(seen, wanted - seen @ line - level, weights, seed=seed)
    return Surrogate(line=line, level=np.array(level), least=np.array(0.0), **networks)


def fit_latency(features: Features, rows: IntArray, latency_ms: Floats, *, seed: int = 0) -> Surrogate:
    """From times `[n]`; errors count relative to them."""
    seen, of_time, weights = features(rows), features.of_time(rows), (latency_ms.mean() / latency_ms) ** 2
    line, level = _ridge(of_time, latency_ms, penalty=TIME_PENALTY * len(rows), weights=weights)
    least = 0.5 * float(latency_ms.min())
    error = np.log(latency_ms / np.maximum(of_time @ line + level, least))
    networks = _networks(seen, error, np.ones(len(rows)), seed=seed)
    return Surrogate(line=line, level=np.array(level), least=np.array(least), **networks)


def _ridge(x: Floats, wanted: Floats, *, penalty: float, weights: Floats) -> tuple[Floats, float]:
    """Slopes `[d]` and level; each standardised slope's square costs `penalty`."""
    centre, scale = np.average(x, axis=0, weights=weights), x.std(axis=0)
    scale = np.where(scale > 1e-9, scale, np.inf)  # what never changes explains nothing
    level = float(np.average(wanted, weights=weights))
    z = (x - centre) / scale
    left = wanted - level
    if len(z) > z.shape[1]:
        line = np.linalg.solve(z.T @ (weights[:, None] * z) + penalty * np.eye(z.shape[1]), z.T @ (weights * left))
    else:  # the same, where there are fewer rows than slopes
        line = z.T @ np.linalg.solve(z @ z.T + penalty * np.diag(1 / weights), left)
    line = line / scale
    return line, level - float(centre @ line)


def _networks(x: Floats, wanted: Floats, weights: Floats, *, seed: int) -> dict[str, Floats]:
    """The networks' arrays; the same bits for the same arguments on one torch thread of one machine.

    Members differ by their first weights and by the rows that their steps see.
    """
    centre, scale = x.mean(axis=0), x.std(axis=0)
    scale = np.where(scale > 1e-9, scale, 1.0)
    spread = max(float(wanted.std()), 1e-9)
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.from_numpy(_standard(x, centre, scale)).float()
    targets = torch.from_numpy(wanted / spread).float()
    counts = torch.from_numpy(weights / weights.mean()).float()
    d = inputs.shape[1]
    parameters = [
        (torch.randn(MEMBERS, d, HIDDEN, generator=generator) / d**0.5).requires_grad_(),
        torch.zeros(MEMBERS, 1, HIDDEN, requires_grad=True),
        torch.zeros(MEMBERS, HIDDEN, 1, requires_grad=True),
        torch.zeros(MEMBERS, 1, 1, requires_grad=True),
    ]
    optimizer = torch.optim.AdamW(parameters, lr=1e-2, weight_decay=3.0)
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = 1e-2 * (1 - step / STEPS)
        chosen = torch.randint(len(targets), (MEMBERS, BATCH), generator=generator)
        optimizer.zero_grad()
        hidden = functional.silu(inputs[chosen] @ parameters[0] + parameters[1])
        out = (hidden @ parameters[2] + parameters[3])[:, :, 0]
        (counts[chosen] * (out - targets[chosen]) ** 2).mean(dim=1).sum().backward()
        optimizer.step()
    first, first_bias, second, second_bias = (parameter.detach().double().numpy() for parameter in parameters)
    return {
        "centre": centre,
        "scale": scale,
        "first": first,
        "first_bias": first_bias,
        "second": second * spread,
        "second_bias": second_bias * spread,
    }


def _standard(x: Floats, centre: Floats, scale: Floats) -> Floats:
    return np.clip((x - centre) / scale, -6, 6)


def _silu(values: Floats) -> Floats:
    return np.asarray(values / (1 + np.exp(-np.clip(values, -60, 60))))


def logit(accuracy: Floats) -> Floats:
    """Accuracies near 0 and 1 are pulled apart."""
    clipped = np.clip(accuracy, 0.02, 0.995)
    return np.asarray(np.log(clipped / (1 - clipped)))


def expit(value: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-value)))
