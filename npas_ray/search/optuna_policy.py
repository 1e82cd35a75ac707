"""A sampler of Optuna's as a policy, through ask and tell; which ones there are is in optuna_policies.py.

A study is rebuilt from the observations, in their order, and every call of `propose` has a sampler of its own seed, so
that what these policies say depends on proposals and observations alone, like with all others. What an observation is
to a study:

- done, over budget: complete. Its value is the reward of `Objective`; how far it exceeds each budget is a constraint.
  In mode front the values are the accuracy and the costs on all axes: the samplers know what to do with a front.
- stopped by the ladder: pruned, with the accuracies of its rungs as intermediate values, where the sampler knows that
  (TPE on one value); else complete with the accuracy that it got.
- failed: failed, which samplers pass over.
- under way: running, which TPE and the Gaussian process take into account.

A suggestion that is known already is refused and asked for again a few times, then its nearest unknown neighbour is
taken: a sampler that has converged goes on near where it stands.
"""

from __future__ import annotations

import logging
import math
import warnings
from abc import abstractmethod
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from npas_ray.search.parameters import Parameters, parametrised
from npas_ray.search.policy import Observation, Status
from npas_ray.search.replayable import ReplayablePolicy
from npas_ray.search.reward import Mode, Objective
from npas_ray.search.settings import whole, yes_or_no
from npas_ray.space.choices import Architecture
from npas_ray.space.search_space import SearchSpace

if TYPE_CHECKING:  # importing optuna takes half a second, its Gaussian process imports torch
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.study import Study
    from optuna.trial import FrozenTrial


class OptunaPolicy(ReplayablePolicy):
    """A study and a sampler; subclasses say which sampler.

    Args:
        parameters: how the space is said to Optuna: "choices" or "factors", see `npas_ray.search.parameters`.
        constraints: whether budgets are told as constraints beside the reward.
        batch_size: how many the caller should ask for at a time.
    """

    #: suggestions that are asked for again when they are known, for each proposal
    retries = 4
    #: whether the sampler understands pruned trials
    knows_pruned = False

    def __init__(
        self,
        space: SearchSpace,
        objective: Objective,
        *,
        seed: int,
        parameters: str,
        constraints: bool,
        batch_size: int,
    ) -> None:
        super().__init__(space, objective, seed=seed)
        self.batch_size = whole("batch_size", batch_size, least=1)
        if parameters not in set(Parameters):
            raise ValueError(f"parameters is one of {', '.join(Parameters)}, got {parameters!r}")
        self._constraints = yes_or_no("constraints", constraints)
        self._said = parametrised(space, Parameters(parameters))
        self._trials: list[FrozenTrial] = []
        self._worth: list[float] = []  # the reward of each
        self._study: Study | None = None
        self._in_study = 0
        self._distributions: dict[str, BaseDistribution] = {}

    @abstractmethod
    def _sampler(self, seed: int) -> BaseSampler:
        """A new sampler."""

    # --- learning ----------------------------------------------------------------------------------------------

    def _learn(self, observation: Observation) -> None:
        from optuna.trial import TrialState, create_trial

        worth = self.objective.reward(observation)
        values = None if worth is None else self._values(observation, worth)
        if worth is None or values is None:
            return
        pruned = observation.status is Status.STOPPED and self.knows_pruned and len(values) == 1
        trial = create_trial(
            state=TrialState.PRUNED if pruned else TrialState.COMPLETE,
            values=values,
            params=self._params(observation.architecture),
            distributions=self._space_of_optuna(),
            intermediate_values=(dict(observation.rungs) or {1: values[0]}) if pruned else None,
        )
        counted_ms = self.objective.counted_ms(observation.latency_ms, observation.latency_ci_ms)
        for model, budget_ms in self.objective.budgets_ms.items() if self._constraints else ():
            trial.set_constraint(model, counted_ms.get(model, budget_ms) / budget_ms - 1)
        self._trials.append(trial)
        self._worth.append(worth)

    def _values(self, observation: Observation, worth: float) -> list[float] | None:
        """What the study is told; None where a cost is not known. Costs beyond the reference are all alike."""
        if self.objective.mode is Mode.BEST:
            return [worth]
        shares = self.objective.shares(observation)
        accuracy = self.objective.chance if observation.accuracy is None else observation.accuracy
        return [accuracy, *(min(share, 1.0) for share in shares)] if all(map(math.isfinite, shares)) else None

    def _new_study(self) -> Study:
        import optuna

        costs = len(self.objective.axes) if self.objective.mode is Mode.FRONT else 0
        minimised = [optuna.study.StudyDirection.MINIMIZE] * costs
        return optuna.create_study(directions=[optuna.study.StudyDirection.MAXIMIZE, *minimised])

    def _space_of_optuna(self) -> dict[str, BaseDistribution]:
        from optuna.distributions import CategoricalDistribution, IntDistribution

        if not self._distributions:
            self._distributions = {
                parameter.name: IntDistribution(0, len(parameter.values) - 1)
                if parameter.ordered
                else CategoricalDistribution(range(len(parameter.values)))
                for parameter in self._said.parameters
                if len(parameter.values) > 1
            }
        return self._distributions

    def _params(self, architecture: Architecture) -> dict[str, int]:
        positions = self._said.positions(architecture)
        return {name: positions[name] for name in self._space_of_optuna()}

    # --- proposing ---------------------------------------------------------------------------------------------

    def _candidates(self, count: int, rng: np.random.Generator) -> list[Architecture]:
        if not self._space_of_optuna():  # one point
            return []
        wanted = count if self.veto is None else 3 * count  # a veto looks at all of them before the first is taken
        found: dict[Architecture, None] = {}
        with _quiet():
            study = self._current_study()
            study.sampler = self._sampler(int(rng.integers(2**31)))
            running = [self._run(study, architecture) for architecture in self.pending]
            while len(found) < wanted:
                architecture = self._ask(study, running, found, rng)
                if architecture is None:
                    break
                found[architecture] = None
            self._forget(study, running)
        return list(found)

    def _ask(
        self, study: Study, running: list[int], taken: Collection[Architecture], rng: np.random.Generator
    ) -> Architecture | None:
        """What the sampler suggests next, or near it what is neither known nor taken."""
        fixed = {parameter.name: 0 for parameter in self._said.parameters}
        for _ in range(1 + self.retries):
            trial = study.ask(self._space_of_optuna())
            suggested = self._said.architecture(fixed | trial.params)
            if not self.is_known(suggested) and suggested not in taken:
                running.append(trial.number)
                return suggested
            self._forget(study, [trial.number])
        for near in (self.space.near_neighbours, self.space.neighbours):
            unknown = [n for n in near(suggested) if not self.is_known(n) and n not in taken]
            if unknown:
                chosen = unknown[int(rng.integers(len(unknown)))]
                running.append(self._run(study, chosen))
                return chosen
        return None

    def _current_study(self) -> Study:
        """The study with all observations."""
        if self._study is None:
            self._study = self._new_study()
        self._study.add_trials(self._trials[self._in_study :])
        self._in_study = len(self._trials)
        return self._study

    def _run(self, study: Study, architecture: Architecture) -> int:
        """The number of a trial that is under way."""
        from optuna.trial import TrialState, create_trial

        params, distributions = self._params(architecture), self._space_of_optuna()
        study.add_trial(create_trial(state=TrialState.RUNNING, params=params, distributions=distributions))
        return len(study.get_trials(deepcopy=False)) - 1

    @staticmethod
    def _forget(study: Study, numbers: Sequence[int]) -> None:
        """Trials that were under way in this call of `propose` only: no sampler looks at failed ones."""
        from optuna.trial import TrialState

        for number in numbers:
            study.tell(number, state=TrialState.FAIL)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Optuna's messages about studies and experimental features."""
    logger = logging.getLogger("optuna")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
