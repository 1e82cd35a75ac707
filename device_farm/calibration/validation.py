"""How far a predictor can be trusted: networks are left out of the fit, a tenth of them at a time, and predicted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from device_farm.calibration.predictor import Floats, Observation, fit

FOLDS = 10
FEWEST = 3  # networks of which one can be left out


@dataclass(frozen=True)
class Validation:
    """Of quiet networks that were left out: `predicted_ms`, `std_ms` and `measured_ms`, each `[n]`."""

    predicted_ms: Floats
    std_ms: Floats
    measured_ms: Floats

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
    """Predicts every quiet network by a fit to the other folds; nothing if there are fewer than three networks."""
    if len(observations) < FEWEST:
        return Validation(np.empty(0), np.empty(0), np.empty(0))
    order = np.random.default_rng(seed).permutation(len(observations))
    folds = np.array_split(order, min(FOLDS, len(observations)))
    predicted, std, measured = [], [], []
    for fold in folds:
        left_out = {int(number) for number in fold}
        predictor = fit([o for number, o in enumerate(observations) if number not in left_out])
        asked = [observations[number] for number in sorted(left_out) if observations[number].quiet]
        answer = predictor.predict([[predictor.part(o.steps)] for o in asked])
        predicted += answer.mean_ms.tolist()
        std += answer.std_ms.tolist()
        measured += [o.latency_ms for o in asked]
    return Validation(np.array(predicted), np.array(std), np.array(measured))
