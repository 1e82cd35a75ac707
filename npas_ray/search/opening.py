"""What to measure first where nothing is known of latency: small to middling networks, whatever the budgets."""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np
from numpy.typing import NDArray

from npas_ray.search.encoding import IntArray
from npas_ray.search.evolved_pool import evolve
from npas_ray.search.moves import Moves

Floats = NDArray[np.float64]

#: rounds of evolution below each limit
_ROUNDS = 4


def spread_over(work: Floats, count: int) -> NDArray[np.int64]:
    """Indices of all of `work` `[m]`, those first that are spread evenly over the smaller half, smallest first."""
    order = np.argsort(work, kind="stable")
    picks = order[np.unique(np.linspace(0, len(order) / 2, count).astype(np.int64))]
    return np.concatenate([picks, np.setdiff1d(order, picks)])


def best_within(
    limits: Floats,
    *,
    moves: Moves,
    start: IntArray,
    work: Callable[[IntArray], Floats],
    value: Callable[[IntArray], Floats],
    known: Collection[bytes],
    rng: np.random.Generator,
) -> IntArray:
    """For each limit of work the row `[L]` of most value within it, another one for each: `[len(limits), L]` or fewer.

    `start` `[m, L]` is evolved; where nothing keeps a limit, the row of least work. None of `known` comes out.
    """
    chosen: list[IntArray] = []
    taken = set(known)
    for limit in limits.tolist():

        def score(rows: IntArray, limit: float = limit) -> Floats:
            load = work(rows)
            # any that keeps the limit before all others
            return np.where(load <= limit, np.arctan(value(rows)), -2.0 - load / max(limit, 1.0))

        pool = evolve(moves, start, score, known=taken, size=len(start), rounds=_ROUNDS, rng=rng)
        if not len(pool):
            break
        chosen.append(pool[0])
        taken.add(pool[0].tobytes())
    return np.array(chosen, dtype=np.int64).reshape(-1, start.shape[1])
