"""Random rows and their variations, many at once."""

from __future__ import annotations

import numpy as np

from npas_ray.search.encoding import Encoding, IntArray
from npas_ray.space.steps import near_choices


class Moves:
    """Vectorised walking in a space: rows of an `Encoding` in, rows out. Every combination of choices is legal."""

    def __init__(self, encoding: Encoding) -> None:
        self._sizes = encoding.sizes
        near = [near_choices(choices) for choices in encoding.choices]
        widest = max((len(n) for of_layer in near for n in of_layer), default=0)
        shape = (len(near), int(self._sizes.max()), max(widest, 1))
        self._near = np.zeros(shape, dtype=np.int64)  # near choices of (layer, choice), padded
        self._near_count = np.zeros(shape[:2], dtype=np.int64)
        for layer, of_layer in enumerate(near):
            for choice, steps in enumerate(of_layer):
                self._near[layer, choice, : len(steps)] = steps
                self._near[layer, choice, len(steps) :] = choice
                self._near_count[layer, choice] = len(steps)

    def random(self, count: int, rng: np.random.Generator) -> IntArray:
        """Uniform rows `[count, L]`."""
        return rng.integers(self._sizes, size=(count, len(self._sizes)))

    def mutate(self, rows: IntArray, rng: np.random.Generator) -> IntArray:
        """A variation of each row: one layer is changed, often two, seldom more; half of the changes are near moves."""
        count, layers = rows.shape
        changes = 1 + rng.geometric(0.55, size=count) - 1  # 1, 2, ... with mean 1.8
        order = rng.random(rows.shape).argsort(axis=1).argsort(axis=1)
        changed = order < np.minimum(changes, layers)[:, None]
        everywhere = np.arange(layers)
        steps = np.maximum(self._near_count[everywhere, rows], 1)
        near = self._near[everywhere, rows, (rng.random(rows.shape) * steps).astype(np.int64)]
        far = rng.integers(self._sizes, size=rows.shape)
        moved = np.where(rng.random(rows.shape) < 0.5, near, far)
        return np.where(changed, moved, rows)

    def cross(self, rows: IntArray, others: IntArray, rng: np.random.Generator) -> IntArray:
        """Every layer from one of two parents `[m, L]`, by a fair coin."""
        return np.where(rng.random(rows.shape) < 0.5, rows, others)
