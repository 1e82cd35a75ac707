"""Random and local search on a made-up task, fast: rows of an `Encoding` in, the curve of the best out. Pure.

The same rules as `RandomPolicy` and `LocalPolicy` have with batches of one, which suits local search best: tests hold
them against each other.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from npas_ray.search.encoding import Encoding, IntArray
from npas_ray.space.steps import near_choices

Floats = NDArray[np.float64]

#: per layer and choice: the choices that are one near step away
Steps = Sequence[Sequence[tuple[int, ...]]]


def steps_of(encoding: Encoding) -> Steps:
    """Costs as much as many searches do: work it out once."""
    return [near_choices(choices) for choices in encoding.choices]


#: random candidates before a local search looks at its first neighbourhood, as in LocalPolicy
INITIAL_RANDOM = 10


@dataclass(frozen=True)
class Task:
    """What is searched.

    `judge` gives the true accuracy `[m]` of rows `[m, L]`, and by how much they exceed their budgets `[m]`, 0 for none.
    An evaluation says the accuracy with `noise` (a standard deviation); a candidate over a budget counts as one
    evaluation, is not trained, and has the reward `chance - alpha * excess`.
    """

    encoding: Encoding
    judge: Callable[[IntArray], tuple[Floats, Floats]]
    noise: float
    chance: float
    alpha: float
    steps: Steps  # of the encoding, see steps_of


class _Curve:
    """True accuracy of the candidate that measured best, evaluation by evaluation; NaN before there is one."""

    def __init__(self, task: Task, evaluations: int, rng: np.random.Generator) -> None:
        self._task, self._noise = task, rng.normal(0.0, task.noise, evaluations)
        self.values = np.full(evaluations, np.nan)
        self.count = 0
        self._measured, self._true = -np.inf, np.nan

    @property
    def is_full(self) -> bool:
        return self.count == len(self.values)

    def evaluate(self, accuracy: float, excess: float) -> float:
        """One evaluation; its reward."""
        reward = self._task.chance - self._task.alpha * excess
        if excess <= 0:
            reward = accuracy + self._noise[self.count]
            if reward > self._measured:
                self._measured, self._true = reward, accuracy
        self.values[self.count] = self._true
        self.count += 1
        return float(reward)

    def filled(self) -> Floats:
        """The whole curve; a search that has seen the whole space stays where it is."""
        self.values[self.count :] = self._true
        return self.values


def random_search(task: Task, evaluations: int, rng: np.random.Generator) -> Floats:
    """The curve `[evaluations]` of uniform samples, each once."""
    curve = _Curve(task, evaluations, rng)
    rows = np.empty((0, len(task.encoding.sizes)), dtype=np.int64)
    for _ in range(20):  # small spaces repeat themselves
        more = rng.integers(task.encoding.sizes, size=(2 * evaluations, len(task.encoding.sizes)))
        rows, first = np.unique(np.concatenate([rows, more]), axis=0, return_index=True)
        rows = rows[np.argsort(first, kind="stable")]
        if len(rows) >= evaluations:
            break
    for accuracy, excess in zip(*task.judge(rows[:evaluations]), strict=True):
        curve.evaluate(accuracy, excess)
    return curve.filled()


def local_search(task: Task, evaluations: int, rng: np.random.Generator) -> Floats:
    """The curve `[evaluations]` of: the near neighbours of the best in random order, moving on when one is better."""
    curve = _Curve(task, evaluations, rng)
    known: set[bytes] = set()
    centres: list[tuple[float, int]] = []  # (-reward, which), the best on top
    rows: list[IntArray] = []
    around: dict[int, list[tuple[IntArray, float, float]]] = {}  # what is left of a centre's neighbours

    def take(row: IntArray, accuracy: float, excess: float) -> None:
        if row.tobytes() in known or curve.is_full:
            return
        known.add(row.tobytes())
        rows.append(row)
        heapq.heappush(centres, (-curve.evaluate(accuracy, excess), len(rows) - 1))

    start = rng.integers(task.encoding.sizes, size=(INITIAL_RANDOM, len(task.encoding.sizes)))
    for row, accuracy, excess in zip(start, *task.judge(start), strict=True):
        take(row, accuracy, excess)
    while centres and not curve.is_full:
        which = centres[0][1]
        if which not in around:
            near = _neighbours(rows[which], task.steps)
            order = rng.permutation(len(near))
            around[which] = list(zip(near[order], *task.judge(near[order]), strict=True)) if len(near) else []
        if around[which]:
            take(*around[which].pop())
        else:
            heapq.heappop(centres)
    return curve.filled()


def _neighbours(row: IntArray, steps: Steps) -> IntArray:
    """Rows `[m, L]` that are one near step away."""
    changes = [(layer, to) for layer, choice in enumerate(row.tolist()) for to in steps[layer][choice]]
    near = np.repeat(row[None], len(changes), axis=0)
    if changes:
        layers, choices = np.array(changes).T
        near[np.arange(len(changes)), layers] = choices
    return near
