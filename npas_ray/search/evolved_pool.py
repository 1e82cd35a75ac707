"""A pool of candidates that is evolved under an acquisition: what is promising is not found by drawing at random."""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np
from numpy.typing import NDArray

from npas_ray.search.encoding import IntArray
from npas_ray.search.moves import Moves

Floats = NDArray[np.float64]

#: share of a round's candidates that are crossovers
_CROSSED = 0.3


def evolve(
    moves: Moves,
    start: IntArray,
    score: Callable[[IntArray], Floats],
    *,
    known: Collection[bytes],
    size: int,
    rounds: int,
    rng: np.random.Generator,
) -> IntArray:
    """Unknown rows `[m, L]`, best score first, after `rounds` of variation of the best and selection from `start`.

    `size` candidates are made in two rounds. `known` are the bytes of rows that must not come out.
    """
    known = set(known)
    pool, scores = np.empty((0, start.shape[1]), dtype=np.int64), np.empty(0)
    fresh = start
    for round_ in range(rounds + 1):
        if round_:
            top = pool[: max(4, size // 8)]
            first, second = top[rng.integers(len(top), size=(2, max(1, size // 2)))]
            fresh = moves.mutate(first, rng)
            crossed = rng.random(len(fresh)) < _CROSSED
            fresh[crossed] = moves.cross(first, second, rng)[crossed]
        new = {key: row for row in fresh if (key := row.tobytes()) not in known}
        if new:
            known.update(new)
            fresh = np.array([new[key] for key in sorted(new)])
            pool, scores = np.concatenate([pool, fresh]), np.concatenate([scores, score(fresh)])
            order = np.argsort(-np.round(scores, 9), kind="stable")
            pool, scores = pool[order], scores[order]
        if not len(pool):
            break
    return pool
