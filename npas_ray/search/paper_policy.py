"""The paper's searcher: a Q-learning agent fills a pool, Bayesian optimisation picks what is evaluated (npas)."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from npas_ray.search.acquisition import choose_batch
from npas_ray.search.encoding import Encoding
from npas_ray.search.gaussian_process import GaussianProcess
from npas_ray.search.policy import Observation
from npas_ray.search.q_learning import QLearning, QLearningSettings
from npas_ray.search.replayable import ReplayablePolicy
from npas_ray.search.reward import Mode, Objective
from npas_ray.search.settings import fraction, whole
from npas_ray.search.wl_kernel import WLKernel
from npas_ray.space.choices import Architecture
from npas_ray.space.labelled_graph import labelled_graph
from npas_ray.space.search_space import SearchSpace

#: tells the generator of the agent's targets from others of the same seed
_TARGETS = 7


class PaperPolicy(ReplayablePolicy):
    """Faithful to the paper, as far as the paper is known.

    Everything is about one number, the reward `V - alpha * excess` of `Objective`: the agent learns it, the GP models
    it, the incumbent is the best of it. Marks of certainty as in the project's notes on the paper: **A** abstract,
    **C** read in code of the authors or of a method that the paper builds on, **r** recalled, own: our decision.

    Args:
        pool_size: candidates among which the GP chooses. C (nas-bowl: 100-200).
        batch_size: how many the caller should ask for at a time. C (nas-bowl: 5).
        initial_random: results of random candidates before the GP is asked. C (nas-bowl: 10).
        mutate_fraction: share of the pool that mutates the best `parents`, the agent generates the rest. C (nas-bowl:
            half; npas: the agent generates the pool, r). 0 is the agent alone.
        parents: C (nas-bowl: 10).
        wl_depth: deepest subtrees of the kernel; the depth up to it with the best marginal likelihood is used. C
            (nas-bowl: 1-2).
        q_learning: settings of the agent, with their marks. C (metaqnn), and r that the paper follows it.

    State and action (layer and previous choice; next choice), reward shaping `r_T / T`, replay: r, see `QLearning`.
    Expected improvement and a batch of B: A and r. Kriging believer as batch rule: own. A candidate over its budget
    is not trained in this system, so its reward has the accuracy of guessing (`Objective.chance`): own. Failed
    candidates teach nothing.
    """

    name = "paper"

    def __init__(
        self,
        space: SearchSpace,
        objective: Objective,
        *,
        seed: int,
        pool_size: int = 200,
        batch_size: int = 5,
        initial_random: int = 10,
        mutate_fraction: float = 0.5,
        parents: int = 10,
        wl_depth: int = 2,
        q_learning: QLearningSettings | None = None,
    ) -> None:
        super().__init__(space, objective, seed=seed)
        self.batch_size = whole("batch_size", batch_size, least=1)
        self._pool_size = whole("pool_size", pool_size, least=1)
        self._initial_random = whole("initial_random", initial_random, least=0)
        self._mutations = round(fraction("mutate_fraction", mutate_fraction) * pool_size)
        self._parents = whole("parents", parents, least=1)
        self._encoding = Encoding(space)
        self._agent = QLearning(self._encoding.sizes, seed=seed, settings=q_learning)
        self._kernel = WLKernel(lambda architecture: labelled_graph(space.backbone, architecture), depth=wl_depth)
        self._results: list[Observation] = []  # that have a reward
        self._architectures: list[Architecture] = []  # of them
        self._rewards: list[float] = []  # of them, towards the target of the batch

    def _learn(self, observation: Observation) -> None:
        rng = np.random.default_rng([self.seed, len(self._results), _TARGETS])
        reward = self.objective.towards(rng, self._results).reward(observation)
        if reward is None:
            return
        self._results.append(observation)
        self._architectures.append(observation.architecture)
        self._rewards.append(reward)
        self._agent.learn(self._encoding.encode([observation.architecture])[0], reward)

    def _candidates(self, count: int, rng: np.random.Generator) -> Iterable[Architecture]:
        if len(self._rewards) < max(1, self._initial_random):
            return [self.space.sample(rng) for _ in range(2 * count)]
        if self.objective.mode is Mode.FRONT:
            objective = self.objective.towards(rng, self._results)
            self._rewards = [objective.reward(result) or 0.0 for result in self._results]
        pool = self._pool(max(self._pool_size, 2 * count), rng)
        if not pool:
            return []
        pending = self.pending
        points = [*pool, *pending]
        surrogate = GaussianProcess.fit(self._kernel.grams(self._architectures), np.array(self._rewards))
        cross = self._kernel.grams(points, self._architectures)[surrogate.kernel]
        own = self._kernel.grams(points)[surrogate.kernel]
        mean, covariance = surrogate.joint(cross, own)
        chosen = choose_batch(
            mean,
            covariance,
            noise=surrogate.noise,
            incumbent=float(surrogate.fitted.max()),
            count=count,
            pending=len(pending),
        )
        return [pool[index] for index in chosen]

    def _pool(self, size: int, rng: np.random.Generator) -> list[Architecture]:
        """Unknown architectures: mutations of the best, rollouts of the agent."""
        order = sorted(range(len(self._rewards)), key=lambda i: -self._rewards[i])
        best = list(dict.fromkeys(self._architectures[i] for i in order))[: self._parents]
        pool: dict[Architecture, None] = {}
        for _ in range(4 * self._mutations):  # some are known, some meet again
            if len(pool) >= self._mutations:
                break
            self._offer(pool, self.space.mutate(best[int(rng.integers(len(best)))], rng))
        for row in self._agent.rollouts(2 * (size - len(pool)), rng):
            if len(pool) >= size:
                break
            self._offer(pool, self._encoding.decode(row))
        return list(pool)

    def _offer(self, pool: dict[Architecture, None], architecture: Architecture) -> None:
        if not self.is_known(architecture):
            pool[architecture] = None
