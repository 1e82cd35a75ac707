"""What all policies share: the record of what was proposed and observed, and randomness that depends on it alone."""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from threadpoolctl import ThreadpoolController

from npas_ray.errors import InvalidObservation
from npas_ray.search.policy import Observation, Policy
from npas_ray.search.reward import Objective
from npas_ray.search.settings import whole
from npas_ray.search.unseen import unseen
from npas_ray.space.choices import Architecture
from npas_ray.space.search_space import SearchSpace

Veto = Callable[[Sequence[Architecture]], Sequence[bool]]

#: random architectures for each one that is missing, before a vetoed one is taken
_DRAWS = 50


@functools.cache
def _threads() -> ThreadpoolController:
    return ThreadpoolController()


class ReplayablePolicy(Policy):
    """A policy whose subclass says what to try (`_candidates`) and how to learn (`_learn`); the rest is done here.

    - every call of `propose` draws from a generator seeded with (seed, proposals so far, observations so far), so
      there is no generator state to restore;
    - what `_candidates` gives is checked: illegal, not canonical and known architectures are dropped and random
      new ones take their place, until the space is exhausted;
    - observations are checked before any of them is learned;
    - linear algebra runs on one thread, so that no rounding depends on the machine's number of cores.
    """

    #: how many the caller should ask for at a time, if it can
    batch_size: int = 5

    #: which of some architectures are not worth an evaluation, whatever they may be; belongs to the settings, so it is
    #: set before the first proposal. What it refuses is proposed only if nothing else can be found
    veto: Veto | None = None

    def __init__(self, space: SearchSpace, objective: Objective, *, seed: int) -> None:
        self.space = space
        self.objective = objective
        self.seed = whole("seed", seed, least=0)
        self._proposed: dict[Architecture, None] = {}
        self._observed: dict[Architecture, None] = {}
        self._observations: list[Observation] = []

    # --- for subclasses ----------------------------------------------------------------------------------------

    @abstractmethod
    def _candidates(self, count: int, rng: np.random.Generator) -> Iterable[Architecture]:
        """Candidates, best first; `count` of them are needed, more do no harm. All randomness comes from `rng`."""

    def _learn(self, observation: Observation) -> None:
        """Take in one valid observation; called in their order."""

    @property
    def observations(self) -> Sequence[Observation]:
        """All that was observed, in its order."""
        return self._observations

    def rewards(self, rng: np.random.Generator) -> dict[Architecture, float]:
        """Mean reward of every architecture that did not fail, in the order of their first observations.

        In mode front towards a target that is drawn from `rng`, see `Objective.towards`: another one for every batch.
        """
        objective = self.objective.towards(rng, self._observations)
        found: dict[Architecture, list[float]] = {}
        for observation in self._observations:
            reward = objective.reward(observation)
            if reward is not None:
                found.setdefault(observation.architecture, []).append(reward)
        return {architecture: sum(rewards) / len(rewards) for architecture, rewards in found.items()}

    @property
    def pending(self) -> list[Architecture]:
        """Proposed and not yet observed, in their order."""
        return [architecture for architecture in self._proposed if architecture not in self._observed]

    def is_known(self, architecture: Architecture) -> bool:
        """Proposed or observed before."""
        return architecture in self._proposed or architecture in self._observed

    # --- the interface -----------------------------------------------------------------------------------------

    def propose(self, count: int) -> list[Architecture]:
        if count < 0:
            raise ValueError(f"the number of proposals is at least 0, got {count!r}")
        if count == 0:
            return []
        rng = np.random.default_rng([self.seed, len(self._proposed), len(self._observations)])
        chosen: dict[Architecture, None] = {}
        with _threads().limit(limits=1):
            for candidate in self._allowed(self._candidates(count, rng)):
                if len(chosen) == count:
                    break
                if candidate in self.space and not self.is_known(candidate):
                    chosen[candidate] = None
        if len(chosen) < count and self.veto is not None:
            known = {**self._proposed, **self._observed, **chosen}
            drawn = unseen(self.space, known=known, count=_DRAWS * (count - len(chosen)), rng=rng)
            chosen.update(dict.fromkeys(list(self._allowed(drawn))[: count - len(chosen)]))
        if len(chosen) < count:
            known = {**self._proposed, **self._observed, **chosen}
            chosen.update(dict.fromkeys(unseen(self.space, known=known, count=count - len(chosen), rng=rng)))
        self._proposed.update(chosen)
        return list(chosen)

    def _allowed(self, candidates: Iterable[Architecture]) -> Iterable[Architecture]:
        """Those that there is no veto against, in their order."""
        if self.veto is None:
            return candidates
        listed = [candidate for candidate in candidates if candidate in self.space]
        refused = self.veto(listed)
        return [candidate for candidate, no in zip(listed, refused, strict=True) if not no]

    def observe(self, observations: Sequence[Observation]) -> None:
        for observation in observations:
            self._check(observation)
        with _threads().limit(limits=1):
            for observation in observations:
                self._observed[observation.architecture] = None
                self._observations.append(observation)
                self._learn(observation)

    def restore(self, proposed: Sequence[Architecture], observations: Sequence[Observation]) -> None:
        if self._proposed or self._observations:
            raise RuntimeError(f"policy {self.name!r} is in use already; restore a new one")
        for observation in observations:
            self._check(observation)
        for architecture in proposed:
            if architecture not in self.space:
                raise InvalidObservation(f"proposal {architecture.key}: {self._not_in_space(architecture)}")
        self._proposed.update(dict.fromkeys(proposed))
        self.observe(observations)

    def _check(self, observation: Observation) -> None:
        self.objective.check(observation)
        architecture = observation.architecture
        if architecture not in self.space:
            raise InvalidObservation(f"result of candidate {architecture.key}: {self._not_in_space(architecture)}")

    def _not_in_space(self, architecture: Architecture) -> str:
        return (
            f"{architecture.to_json()} is no canonical architecture of this space, {self.space!r};"
            " does it come from a run of another configuration?"
        )
