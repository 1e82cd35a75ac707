"""A random search with a ladder, replayed over trainings that were done before."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from npas_ray.search.ladder import Climb, Ladder

#: accuracy and CPU seconds by epochs, by candidate
Rungs = Mapping[str, Mapping[int, tuple[float, float]]]


def best_after(rungs: Rungs, ladder: Ladder, *, budget_s: float, seed: int) -> tuple[str | None, int]:
    """(the best of those that ended the top rung, how many were met) when the training time is spent.

    Candidates come one after the other in an order that the seed decides; a training that does not fit any more is
    not begun.
    """
    climb, best, met, left_s = Climb(ladder), None, 0, budget_s
    keys = list(rungs)
    for index in np.random.default_rng(seed).permutation(len(keys)):
        key = keys[index]
        while (rung := climb.next_rung(key)) is not None:
            accuracy, cost_s = rungs[key][rung]
            if cost_s > left_s:
                return best, met
            left_s -= cost_s
            met += rung == ladder.rungs[0]
            climb.record(key, epochs=rung, accuracy=accuracy)
        if climb.is_finished(key) and (best is None or rungs[key][ladder.top][0] > rungs[best][ladder.top][0]):
            best = key
    return best, met
