"""Regularised evolution, which knows of latency (Real et al., 2019)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from npas_ray.search.encoding import Encoding
from npas_ray.search.latency_surrogate import LatencyPredictor, latency_surrogate
from npas_ray.search.policy import Observation
from npas_ray.search.replayable import ReplayablePolicy
from npas_ray.search.reward import Objective
from npas_ray.search.settings import fraction, whole
from npas_ray.space.choices import Architecture
from npas_ray.space.search_space import SearchSpace

#: children that are drawn for each one that is wanted, before one that is too slow or known is taken all the same
_DRAWS = 30
#: children that are drawn at the most at a time; what is missing is random
_MOST_DRAWS = 3000


class EvolutionPolicy(ReplayablePolicy):
    """The best of a few random members of the population has a child; the oldest member dies.

    The population is the latest results that earned a reward, so a lucky one dies as well. A child differs from its
    parent by one small step of one layer (`SearchSpace.near_neighbours`), sometimes by any. Children that are known, or
    that surely exceed a budget, are not born.

    In mode front the best is the best within a target that is drawn for every batch.

    Args:
        population_size: results that live.
        tournament_size: members of which the best is the parent.
        initial_random: candidates before there are children: random ones that may keep the budgets.
        near: share of mutations that are small steps; the others take any choice of a layer.
        least_chance: probability of keeping every budget below which a child is refused. 0 refuses none.
        batch_size: how many the caller should ask for at a time.
        latency_predictor: latency by device model for a batch of architectures; without it, latency is learned
            from the measurements.
    """

    name = "evolution"

    def __init__(
        self,
        space: SearchSpace,
        objective: Objective,
        *,
        seed: int,
        population_size: int = 30,
        tournament_size: int = 8,
        initial_random: int = 15,
        near: float = 0.8,
        least_chance: float = 0.2,
        batch_size: int = 5,
        latency_predictor: LatencyPredictor | None = None,
    ) -> None:
        super().__init__(space, objective, seed=seed)
        self._population_size = whole("population_size", population_size, least=1)
        self._tournament_size = whole("tournament_size", tournament_size, least=1)
        self._initial_random = whole("initial_random", initial_random, least=1)
        self._near = fraction("near", near)
        self._least_chance = fraction("least_chance", least_chance)
        self.batch_size = whole("batch_size", batch_size, least=1)
        if latency_predictor is not None and not callable(latency_predictor):
            raise ValueError(f"latency_predictor is a function of architectures, got {latency_predictor!r}")
        self._encoding = Encoding(space)
        self._latency = latency_surrogate(objective, self._encoding, space.backbone, predictor=latency_predictor)
        self._population: list[Observation] = []  # the latest results, oldest first

    def _learn(self, observation: Observation) -> None:
        if self.objective.reward(observation) is None:
            return
        self._population = [*self._population, observation][-self._population_size :]
        row = self._encoding.encode([observation.architecture])[0]
        self._latency.learn(row, self.objective.learned_ms(observation))

    def _candidates(self, count: int, rng: np.random.Generator) -> list[Architecture]:
        objective = self.objective.towards(rng, self._population)
        members = [(member.architecture, objective.reward(member) or 0.0) for member in self._population]
        start = not members or self.experience < self._initial_random
        drawn: dict[Architecture, None] = {}
        for _ in range(min(_DRAWS * count, _MOST_DRAWS)):
            child = self.space.sample(rng) if start else self._child(members, rng)
            if not self.is_known(child):
                drawn[child] = None
        if not drawn or not objective.budgets_ms or self._least_chance == 0:
            return list(drawn)
        self._latency.refresh()
        self._latency.budgets_ms = dict(objective.budgets_ms)
        chance = np.exp(self._latency.log_feasible(self._encoding.encode(drawn)))
        doomed = dict(zip(drawn, chance < self._least_chance, strict=True))
        return sorted(drawn, key=lambda child: bool(doomed[child]))  # in their order, the doomed last

    def _child(self, members: Sequence[tuple[Architecture, float]], rng: np.random.Generator) -> Architecture:
        picks = rng.integers(len(members), size=self._tournament_size)
        parent, _ = max((members[i] for i in picks), key=lambda member: member[1])
        return self.space.mutate(parent, rng, near=bool(rng.random() < self._near))
