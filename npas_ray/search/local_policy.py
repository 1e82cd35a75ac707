"""Local search: the baseline that few searchers beat on architecture benchmarks (White et al., 2020)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from npas_ray.search.replayable import ReplayablePolicy
from npas_ray.search.reward import Objective
from npas_ray.search.settings import whole
from npas_ray.space.choices import Architecture
from npas_ray.space.search_space import SearchSpace


class LocalPolicy(ReplayablePolicy):
    """Tries the near neighbours of the best candidate in random order, and moves on as soon as one is better.

    When all near neighbours of the best are known, it is a local optimum, and the search restarts from the best
    candidate that still has untried ones: on budgets of a few hundred that beats a restart from nowhere.

    In mode front the best is the best within a target that is drawn for every batch.

    Args:
        initial_random: random candidates before the first neighbourhood.
    """

    name = "local"

    def __init__(self, space: SearchSpace, objective: Objective, *, seed: int, initial_random: int = 10) -> None:
        super().__init__(space, objective, seed=seed)
        self._initial_random = whole("initial_random", initial_random, least=1)

    def _candidates(self, count: int, rng: np.random.Generator) -> Iterator[Architecture]:
        for _ in range(self._initial_random - self.experience):
            yield self.space.sample(rng)
        mean = self.rewards(rng)
        for centre in sorted(mean, key=lambda architecture: -mean[architecture]):
            neighbours = [n for n in self.space.near_neighbours(centre) if not self.is_known(n)]
            for index in rng.permutation(len(neighbours)):
                yield neighbours[index]
