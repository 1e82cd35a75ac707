"""Optuna's samplers as policies: TPE, NSGA-II and the Gaussian process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import threadpool_limits

from npas_ray.search.optuna_policy import OptunaPolicy
from npas_ray.search.reward import Objective
from npas_ray.search.settings import fraction, whole, yes_or_no
from npas_ray.space.choices import Architecture
from npas_ray.space.search_space import SearchSpace

if TYPE_CHECKING:  # importing optuna takes half a second, its Gaussian process imports torch
    from optuna.samplers import BaseSampler
    from optuna.study import Study


class TPEPolicy(OptunaPolicy):
    """Tree-structured Parzen estimators (optuna).

    Args:
        n_startup_trials: random candidates at first.
        n_ei_candidates: among which each suggestion is chosen.
        multivariate: whether parameters are sampled together; None is Optuna's choice: yes, but not for a front.
        constant_liar: whether candidates under way are kept away from.
    """

    name = "optuna-tpe"
    knows_pruned = True

    def __init__(
        self,
        space: SearchSpace,
        objective: Objective,
        *,
        seed: int,
        n_startup_trials: int = 10,
        n_ei_candidates: int = 24,
        multivariate: bool | None = None,
        constant_liar: bool = True,
        parameters: str = "factors",
        constraints: bool = True,
        batch_size: int = 5,
    ) -> None:
        super().__init__(
            space, objective, seed=seed, parameters=parameters, constraints=constraints, batch_size=batch_size
        )
        self._settings: dict[str, Any] = {
            "n_startup_trials": whole("n_startup_trials", n_startup_trials, least=1),
            "n_ei_candidates": whole("n_ei_candidates", n_ei_candidates, least=1),
            "multivariate": None if multivariate is None else yes_or_no("multivariate", multivariate),
            "constant_liar": yes_or_no("constant_liar", constant_liar),
        }

    def _sampler(self, seed: int) -> BaseSampler:
        from optuna.samplers import TPESampler

        return TPESampler(seed=seed, **self._settings)


class NSGA2Policy(OptunaPolicy):
    """Genetic search with non-dominated sorting and constraints (optuna, nsga2).

    Args:
        population_size: results of a generation. Optuna's own 50 leaves two generations in 100 evaluations.
        mutation_prob: of each parameter; None is one parameter in the mean.
        crossover_prob: of a child to have two parents.
        swapping_prob: of each parameter to come from the second.
    """

    name = "optuna-nsga2"

    def __init__(
        self,
        space: SearchSpace,
        objective: Objective,
        *,
        seed: int,
        population_size: int = 20,
        mutation_prob: float | None = None,
        crossover_prob: float = 0.9,
        swapping_prob: float = 0.5,
        parameters: str = "factors",
        constraints: bool = True,
        batch_size: int = 5,
    ) -> None:
        super().__init__(
            space, objective, seed=seed, parameters=parameters, constraints=constraints, batch_size=batch_size
        )
        self._population_size = whole("population_size", population_size, least=2)
        self._settings: dict[str, Any] = {
            "population_size": self._population_size,
            "mutation_prob": None if mutation_prob is None else fraction("mutation_prob", mutation_prob),
            "crossover_prob": fraction("crossover_prob", crossover_prob),
            "swapping_prob": fraction("swapping_prob", swapping_prob),
        }

    def _sampler(self, seed: int) -> BaseSampler:
        from npas_ray.search.optuna_samplers import ReplayedNSGAII

        return ReplayedNSGAII(seed=seed, **self._settings)


class GPPolicy(OptunaPolicy):
    """A Gaussian process with a Matern kernel and log expected improvement (optuna).

    Args:
        n_startup_trials: random candidates at first.
        max_results: the process learns from at most this many results, the best half and the latest half: one more
            suggestion costs the cube of it.
        preliminary_samples, local_searches: of the acquisition, Optuna's own.
        constraints: a process of its own for every budget, which takes five times as long; without, budgets enter by
            the reward alone.
    """

    name = "optuna-gp"
    retries = 0  # it would say the same again

    def __init__(
        self,
        space: SearchSpace,
        objective: Objective,
        *,
        seed: int,
        n_startup_trials: int = 10,
        max_results: int = 200,
        preliminary_samples: int = 2048,
        local_searches: int = 10,
        parameters: str = "factors",
        constraints: bool = False,
        batch_size: int = 5,
    ) -> None:
        super().__init__(
            space, objective, seed=seed, parameters=parameters, constraints=constraints, batch_size=batch_size
        )
        self._settings: dict[str, Any] = {
            "n_startup_trials": whole("n_startup_trials", n_startup_trials, least=1),
            "preliminary_samples": whole("preliminary_samples", preliminary_samples, least=1),
            "local_searches": whole("local_searches", local_searches, least=2),
        }
        self._max_results = whole("max_results", max_results, least=10)

    def _candidates(self, count: int, rng: np.random.Generator) -> list[Architecture]:
        import torch  # noqa: F401 - its threads are there from now on, and can be limited

        with threadpool_limits(limits=1):
            return super()._candidates(count, rng)

    def _sampler(self, seed: int) -> BaseSampler:
        from npas_ray.search.optuna_samplers import BoundedGP

        return BoundedGP(seed=seed, **self._settings)

    def _current_study(self) -> Study:
        """A study of the results that it learns from."""
        trials = self._trials
        if len(trials) > self._max_results:
            latest = self._max_results // 2
            older = sorted(range(len(trials) - latest), key=lambda i: -self._worth[i])
            best = sorted(older[: self._max_results - latest])
            trials = [trials[i] for i in best] + trials[-latest:]
        study = self._new_study()
        study.add_trials(trials)
        return study
