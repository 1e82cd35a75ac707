"""Optuna's samplers where they must differ to be policies. Imports Optuna and torch."""

from __future__ import annotations

from optuna.samplers import GPSampler, NSGAIISampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState


class ReplayedNSGAII(NSGAIISampler):
    """The first `population_size` results are the first generation, the next ones the second, whenever they came.

    Optuna notes the generation when a trial starts, in the study; a study that is rebuilt does not know that.
    """

    def get_trial_generation(self, study: Study, trial: FrozenTrial) -> int:
        return len(self._complete(study)) // self._size

    def get_population(self, study: Study, generation: int) -> list[FrozenTrial]:
        return self._complete(study)[generation * self._size : (generation + 1) * self._size]

    def get_parent_population(self, study: Study, generation: int) -> list[FrozenTrial]:
        """In the order of the study; Optuna's own is another one when it is asked for the first time."""
        return sorted(super().get_parent_population(study, generation), key=lambda trial: trial.number)

    @property
    def _size(self) -> int:
        return self.population_size or 1

    @staticmethod
    def _complete(study: Study) -> list[FrozenTrial]:
        return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


class BoundedGP(GPSampler):
    """Optuna's Gaussian process with a say in how long its acquisition is optimised, which costs most of its time."""

    def __init__(self, *, seed: int, n_startup_trials: int, preliminary_samples: int, local_searches: int) -> None:
        super().__init__(seed=seed, n_startup_trials=n_startup_trials, warn_independent_sampling=False)
        self._n_preliminary_samples = preliminary_samples
        self._n_local_search = local_searches
