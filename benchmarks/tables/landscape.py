"""A table as something to search in."""

from __future__ import annotations

import numpy as np

from benchmarks._landscapes import Floats, Landscape
from benchmarks.tables.surrogate import expit, logit
from benchmarks.tables.table import Table
from npas_ray.search.encoding import IntArray

#: of random architectures that keep the budget, by seed in turn: from hard to reach to hardly in the way
SHARES = (0.03, 0.1, 0.3, 0.6)


class Tabular(Landscape):
    """A table, noise as between its seeds and sessions, and a budget that `feasible_share` of the space keeps."""

    def __init__(self, table: Table, *, feasible_share: float, train_all: bool = False) -> None:
        super().__init__(table.space, latency_noise=table.noise.latency, train_all=train_all)
        self.table = table
        sample = self.random(4000, np.random.default_rng(1))
        self.budget_ms = float(np.quantile(table.latency(sample), feasible_share))

    def accuracy(self, rows: IntArray) -> Floats:
        return self.table.accuracy(rows)

    def latency_ms(self, rows: IntArray) -> Floats:
        return self.table.latency(rows)

    def noisy(self, accuracy: float, rng: np.random.Generator) -> float:
        return float(expit(logit(np.array(accuracy)) + rng.normal(0, self.table.noise.evaluation)))
