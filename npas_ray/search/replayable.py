"""What all policies share: the record of what was proposed and observed, and randomness that depends on it alone."""

from __future__ import annotations

import dataclasses
import functools
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from threadpoolctl import ThreadpoolController

from npas_ray.errors import InvalidObservation
from npas_ray.search.policy import Observation, Policy, Status
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

    #: whether accuracies of a prior are enough for it to say what to measure first, where latencies are unknown
    opens_by_accuracy: bool = False

    #: which of some architectures are not worth an evaluation, whatever they may be; belongs to the settings, so it is
    #: set before the first proposal. What it refuses is proposed only if nothing else can be found
    veto: Veto | None = None

    #: set by a subclass that has nothing more to say: then random ones no longer take the place of what is missing
    finished: bool = False

    def __init__(self, space: SearchSpace, objective: Objective, *, seed: int) -> None:
        self.space = space
        self.objective = objective
        self.seed = whole("seed", seed, least=0)
        self._proposed: dict[Architecture, None] = {}
        self._pending: dict[Architecture, None] = {}
        self._observed: dict[Architecture, None] = {}
        self._observations: list[Observation] = []
        self._prior: list[Observation] = []
        self._start_with: list[Architecture] = []
        self._learned_prior: list[Observation] = []  # those that are as good as its own

    # --- for subclasses ----------------------------------------------------------------------------------------

    @abstractmethod
    def _candidates(self, count: int, rng: np.random.Generator) -> Iterable[Architecture]:
        """Candidates, best first; `count` of them are needed, more do no harm. All randomness comes from `rng`."""

    def _learn(self, observation: Observation) -> None:
        """Take in one valid observation; called in their order."""

    def _learn_prior(self, observation: Observation) -> bool:
        """Take in a result of another search, after it was checked; whether it is as good as one of this search.

        It is if this search could have come to it. Not learned: an accuracy without the latencies that have a budget
        here, and a candidate that was not trained because of another budget. A policy that can use a part overrides.
        """
        objective, latency_ms = self.objective, observation.latency_ms
        complete = observation.status is not Status.FAILED and all(model in latency_ms for model in objective.models)
        if observation.status is Status.OVER_BUDGET:
            complete = complete and objective.excess(latency_ms) > 0
        if complete:
            self._learn(observation)
            self._learned_prior.append(observation)
        return complete

    def _believed(self) -> dict[Architecture, float]:
        """How good the observed candidates are that may win: trained to the end, every budget kept. Changes nothing.

        By default the mean of what was observed of each.
        """
        found: dict[Architecture, list[float]] = {}
        for observation in self._observations:
            if observation.status is not Status.DONE or observation.accuracy is None:
                continue
            if self.objective.keeps(observation):
                found.setdefault(observation.architecture, []).append(observation.accuracy)
        return {architecture: sum(accuracies) / len(accuracies) for architecture, accuracies in found.items()}

    @property
    def experience(self) -> int:
        """Candidates that were proposed or that it knew from the start: what random ones are there for at first."""
        return len(self._proposed) + len(self._learned_prior)

    @property
    def prior(self) -> Sequence[Observation]:
        """Results of other searches that it began with; they are neither proposed nor observed."""
        return self._prior

    @property
    def observations(self) -> Sequence[Observation]:
        """All that was observed, in its order."""
        return self._observations

    def rewards(self, rng: np.random.Generator) -> dict[Architecture, float]:
        """Mean reward of every architecture that did not fail, in the order of their first observations; the prior's
        come before all.

        In mode front towards a target that is drawn from `rng`, see `Objective.towards`: another one for every batch.
        """
        known = [*self._learned_prior, *self._observations]
        objective = self.objective.towards(rng, known)
        found: dict[Architecture, list[float]] = {}
        for observation in known:
            reward = objective.reward(observation)
            if reward is not None:
                found.setdefault(observation.architecture, []).append(reward)
        return {architecture: sum(rewards) / len(rewards) for architecture, rewards in found.items()}

    @property
    def pending(self) -> list[Architecture]:
        """Proposed and not yet observed, in their order."""
        return list(self._pending)

    def is_known(self, architecture: Architecture) -> bool:
        """Proposed or observed before."""
        return architecture in self._proposed or architecture in self._observed

    # --- the interface -----------------------------------------------------------------------------------------

    def warm_start(
        self, *, prior: Sequence[Observation] = (), start_with: Sequence[Architecture] = ()
    ) -> ReplayablePolicy:
        """Begin with what other searches found; belongs to the settings, so it comes before all else, `restore` too.

        Args:
            prior: results to learn from. They count as neither proposed nor observed: what is good among them may be
                proposed, and measured here. Latencies may be missing, or be of device models without a budget.
            start_with: proposed before anything else, in this order; canonical architectures of the space.

        Returns itself. Raises RuntimeError if it is in use or was warm-started already, InvalidObservation (all or
        nothing) for results that cannot be believed and for architectures of another space.

        >>> from npas_ray.networks.backbone import DIGITS
        >>> from npas_ray.search.random_policy import RandomPolicy
        >>> space = SearchSpace(DIGITS)
        >>> favourite = space.parse(["3x3"] * 7)
        >>> RandomPolicy(space, Objective(), seed=0).warm_start(start_with=[favourite]).propose(2)[0] == favourite
        True
        """
        if self._proposed or self._observations or self._prior or self._start_with:
            raise RuntimeError(f"policy {self.name!r} is in use already; warm-start a new one, before it is restored")
        for observation in prior:
            self._check_prior(observation)
        for architecture in start_with:
            if architecture not in self.space:
                raise InvalidObservation(f"to start with {architecture.key}: {self._not_in_space(architecture)}")
        self._prior = list(prior)
        self._start_with = list(dict.fromkeys(start_with))
        with _threads().limit(limits=1):
            for observation in self._prior:
                self._learn_prior(observation)
        return self

    def propose(self, count: int) -> list[Architecture]:
        if count < 0:
            raise ValueError(f"the number of proposals is at least 0, got {count!r}")
        if count == 0:
            return []
        rng = np.random.default_rng([self.seed, len(self._proposed), len(self._observations)])
        waiting = [architecture for architecture in self._start_with if not self.is_known(architecture)]
        chosen = dict.fromkeys(list(self._allowed(waiting))[:count])
        self._under_way(chosen)  # when the rest is chosen
        if len(chosen) < count:
            with _threads().limit(limits=1):
                for candidate in self._allowed(self._candidates(count - len(chosen), rng)):
                    if len(chosen) == count:
                        break
                    if candidate in self.space and candidate not in chosen and not self.is_known(candidate):
                        chosen[candidate] = None
        if len(chosen) < count and self.veto is not None and not self.finished:
            known = {**self._proposed, **self._observed, **chosen}
            drawn = unseen(self.space, known=known, count=_DRAWS * (count - len(chosen)), rng=rng)
            chosen.update(dict.fromkeys(list(self._allowed(drawn))[: count - len(chosen)]))
        if len(chosen) < count and not self.finished:
            known = {**self._proposed, **self._observed, **chosen}
            chosen.update(dict.fromkeys(unseen(self.space, known=known, count=count - len(chosen), rng=rng)))
        self._under_way(chosen)
        return list(chosen)

    def _under_way(self, proposed: Iterable[Architecture]) -> None:
        for architecture in proposed:
            self._proposed[architecture] = self._pending[architecture] = None

    def _allowed(self, candidates: Iterable[Architecture]) -> Iterable[Architecture]:
        """Those that there is no veto against, in their order."""
        if self.veto is None:
            return candidates
        listed = [candidate for candidate in candidates if candidate in self.space]
        if not listed:
            return listed
        refused = self.veto(listed)
        return [candidate for candidate, no in zip(listed, refused, strict=True) if not no]

    def observe(self, observations: Sequence[Observation]) -> None:
        for observation in observations:
            self._check(observation)
        with _threads().limit(limits=1):
            for observation in observations:
                self._observed[observation.architecture] = None
                self._pending.pop(observation.architecture, None)
                self._observations.append(observation)
                self._learn(observation)

    def recommend(self, count: int) -> list[Architecture]:
        with _threads().limit(limits=1):
            believed = self._believed()
        return sorted(believed, key=lambda architecture: -believed[architecture])[:count]

    def restore(self, proposed: Sequence[Architecture], observations: Sequence[Observation]) -> None:
        if self._proposed or self._observations:
            raise RuntimeError(f"policy {self.name!r} is in use already; restore a new one")
        for observation in observations:
            self._check(observation)
        for architecture in proposed:
            if architecture not in self.space:
                raise InvalidObservation(f"proposal {architecture.key}: {self._not_in_space(architecture)}")
        self._under_way(proposed)
        self.observe(observations)

    def _check(self, observation: Observation) -> None:
        self.objective.check(observation)
        architecture = observation.architecture
        if architecture not in self.space:
            raise InvalidObservation(f"result of candidate {architecture.key}: {self._not_in_space(architecture)}")

    def _check_prior(self, observation: Observation) -> None:
        """As `_check`, but latencies may be missing."""
        some_ms = dict.fromkeys(self.objective.models, 1.0)
        believed = dataclasses.replace(observation, latency_ms={**some_ms, **observation.latency_ms})
        self._check(believed)

    def _not_in_space(self, architecture: Architecture) -> str:
        return (
            f"{architecture.to_json()} is no canonical architecture of this space, {self.space!r};"
            " does it come from a run of another configuration?"
        )
