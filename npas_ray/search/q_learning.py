"""Tabular Q-learning over the layers of a network (npas, metaqnn)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from npas_ray.search.encoding import IntArray
from npas_ray.search.settings import fraction, whole


@dataclass(frozen=True)
class QLearningSettings:
    """Settings of the agent; the marks are those of docs on the paper (C read in code, r recalled, own ours).

    Attributes:
        learning_rate: C (metaqnn).
        replay: trajectories drawn from the memory and learned after every result. C (metaqnn).
        epsilon_start, epsilon_end: share of random actions at first and at last. C (metaqnn).
        epsilon_results: results after which epsilon has reached its end, in steps of a tenth. own: metaqnn takes
            2,700 networks for its schedule, nobody here has as many.
        initial_q: optimism about actions never tried. r (metaqnn).
    """

    learning_rate: float = 0.01
    replay: int = 128
    epsilon_start: float = 1.0
    epsilon_end: float = 0.1
    epsilon_results: int = 100
    initial_q: float = 0.5

    def __post_init__(self) -> None:
        for name in ("learning_rate", "epsilon_start", "epsilon_end", "initial_q"):
            fraction(name, getattr(self, name))
        for name in ("replay", "epsilon_results"):
            whole(name, getattr(self, name), least=1)
        if self.learning_rate == 0:
            raise ValueError("learning_rate is above 0: nothing would be learned")
        if self.epsilon_end > self.epsilon_start:
            raise ValueError(f"epsilon_start is at least epsilon_end, got {self.epsilon_start} < {self.epsilon_end}")


class QLearning:
    """State: (layer, choice of the previous layer). Action: choice of this layer. Discount 1.

    Every step of a network of `T` layers earns `r_T / T`, so the return of the whole network is its reward `r_T`.
    Architectures are rows of `Encoding`.

    >>> agent = QLearning([3, 3], seed=0)
    >>> agent.learn(np.array([2, 1]), 0.9)
    >>> agent.rollouts(4, np.random.default_rng(0)).shape
    (4, 2)
    """

    def __init__(
        self, sizes: Sequence[int] | IntArray, *, seed: int, settings: QLearningSettings | None = None
    ) -> None:
        self.settings = settings or QLearningSettings()
        self._sizes = [int(size) for size in sizes]
        self._seed = seed
        self._memory: list[IntArray] = []
        self._rewards: list[float] = []
        before = [1, *self._sizes[:-1]]
        #: q[layer][previous choice, choice]; the first layer has one state
        self.q: list[NDArray[np.float64]] = [
            np.full((previous, size), self.settings.initial_q)
            for previous, size in zip(before, self._sizes, strict=True)
        ]

    @property
    def results(self) -> int:
        """Number of results learned."""
        return len(self._rewards)

    @property
    def epsilon(self) -> float:
        """Share of random actions: from its start to its end in ten equal steps."""
        s = self.settings
        done = min(1.0, self.results / s.epsilon_results)
        return s.epsilon_start + (s.epsilon_end - s.epsilon_start) * math.floor(done * 10) / 10

    def learn(self, row: IntArray, reward: float) -> None:
        """Remember a trajectory `[L]`, then learn from a sample of the memory, last layer first."""
        self._memory.append(np.asarray(row))
        self._rewards.append(reward)
        rng = np.random.default_rng([self._seed, self.results])
        picks = rng.integers(self.results, size=self.settings.replay)
        picks[0] = self.results - 1  # what is new is always learned
        rows = np.stack([self._memory[i] for i in picks])  # replay x L
        gain = np.array([self._rewards[i] for i in picks]) / len(self._sizes)  # replay
        states = np.concatenate([np.zeros((len(rows), 1), dtype=np.int64), rows[:, :-1]], axis=1)
        future = np.zeros(len(rows))
        for layer in reversed(range(len(self._sizes))):
            self._update(layer, states[:, layer], rows[:, layer], gain + future)
            future = self.q[layer].max(axis=1)[states[:, layer]]

    def _update(self, layer: int, state: IntArray, action: IntArray, target: NDArray[np.float64]) -> None:
        """`Q += rate * (target - Q)` for every trajectory; k visits of one pair at once leave (1 - rate)^k of it."""
        q = self.q[layer]
        pair = state * q.shape[1] + action
        visits = np.bincount(pair, minlength=q.size)
        seen = np.flatnonzero(visits)
        mean = np.bincount(pair, weights=target, minlength=q.size)[seen] / visits[seen]
        keep = (1 - self.settings.learning_rate) ** visits[seen]
        flat = q.reshape(-1)
        flat[seen] = keep * flat[seen] + (1 - keep) * mean

    def rollouts(self, count: int, rng: np.random.Generator) -> IntArray:
        """`count` epsilon-greedy trajectories `[count, L]`; ties between the best actions are broken by chance."""
        previous = np.zeros(count, dtype=np.int64)
        columns = []
        for q, size in zip(self.q, self._sizes, strict=True):
            values = q[previous]  # count x size
            tied = values >= values.max(axis=1, keepdims=True) - 1e-12
            greedy = (tied * rng.random(values.shape)).argmax(axis=1)
            explore = rng.random(count) < self.epsilon
            previous = np.where(explore, rng.integers(size, size=count), greedy)
            columns.append(previous)
        return np.stack(columns, axis=1)
