"""Random search: the baseline that every searcher must beat."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from npas_ray.search.replayable import ReplayablePolicy
from npas_ray.space.choices import Architecture


class RandomPolicy(ReplayablePolicy):
    """Uniform samples of the space, each once."""

    name = "random"

    def _candidates(self, count: int, rng: np.random.Generator) -> Iterable[Architecture]:
        return [self.space.sample(rng) for _ in range(2 * count)]
