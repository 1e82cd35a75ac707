"""How far a predictor can be trusted: networks are left out of the fit, a tenth of them at a time, and predicted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from device_farm.calibration.predictor import LATENCY_ERROR, Floats, Observation, fit

FOLDS = 10
FEWEST = 3  # networks of which one can be left out
ENOUGH = 10  # errors to tell a misfit from luck
HALF_NORMAL = 0.6745  # standard deviations to each side that hold half of a normal distribution


@dataclass(frozen=True)
class Validation:
    """Of quiet networks that were left out: `predicted_ms`, `std_ms` and `measured_ms`, each `[n]`.

    `misfit` is what `fit` takes, and what the standard deviations have in them.
    """

    predicted_ms: Floats
    std_ms: Floats
    measured_ms: Floats
    misfit: float = LATENCY_ERROR

    @property
    def relative_errors(self) -> Floats:
        """|predicted / measured - 1|"""
        return np.abs(self.predicted_ms / self.measured_ms - 1)

    @property
    def stretch(self) -> Floats:
        """|error| / std, ascending: what `fit` takes."""
        return np.sort(np.abs(self.predicted_ms - self.measured_ms) / self.std_ms)

    @property
    def rank_correlation(self) -> float:
        """Spearman's."""
        from scipy.stats import spearmanr

        return float(spearmanr(self.predicted_ms, self.measured_ms).statistic)


def validate(observations: Sequence[Observation], *, seed: int = 0) -> Validation:
    """Predicts every quiet network by a fit to the other folds; nothing if there are fewer than three networks.

    Once to learn the misfit, and again with it: what all sums of steps have in common as an error, more measurements
    do not make smaller, so it must not be a factor of a standard deviation that they do.
    """
    first = _left_out(observations, LATENCY_ERROR, seed)
    misfit = _misfit(first)
    return first if misfit == LATENCY_ERROR else _left_out(observations, misfit, seed)


def _left_out(observations: Sequence[Observation], misfit: float, seed: int) -> Validation:
    if len(observations) < FEWEST:
        return Validation(np.empty(0), np.empty(0), np.empty(0))
    order = np.random.default_rng(seed).permutation(len(observations))
    folds = np.array_split(order, min(FOLDS, len(observations)))
    predicted, std, measured = [], [], []
    for fold in folds:
        left_out = {int(number) for number in fold}
        rest = [observation for number, observation in enumerate(observations) if number not in left_out]
        predictor = fit(rest, misfit=misfit)
        asked = [observations[number] for number in sorted(left_out) if observations[number].quiet]
        answer = predictor.predict([[predictor.part(o.steps)] for o in asked])
        predicted += answer.mean_ms.tolist()
        std += answer.std_ms.tolist()
        measured += [o.latency_ms for o in asked]
    return Validation(np.array(predicted), np.array(std), np.array(measured), misfit)


def _misfit(validation: Validation) -> float:
    """That with which half of the errors are below half of a normal distribution's; at least the least."""
    if len(validation.measured_ms) < ENOUGH:
        return LATENCY_ERROR
    errors = validation.relative_errors
    own = np.maximum((validation.std_ms / validation.predicted_ms) ** 2 - validation.misfit**2, 0.0)
    candidates = np.geomspace(LATENCY_ERROR, 1.0, 400)
    typical = np.median(errors / np.sqrt(own + candidates[:, None] ** 2), axis=1)  # falls with the misfit
    return float(candidates[min(int(np.searchsorted(-typical, -HALF_NORMAL)), len(candidates) - 1)])
