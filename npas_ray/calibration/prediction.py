"""The latency of candidates from a calibration, thousands a second: what a search may ask instead of measuring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from device_farm.calibration.predictor import Part, Prediction, Predictor
from npas_ray.calibration.pieces import Piece, Pieces
from npas_ray.space.choices import Architecture


@dataclass(frozen=True)
class CandidatePredictor:
    """Predicts candidates of one backbone on devices of one model."""

    pieces: Pieces
    predictor: Predictor
    _parts: dict[Piece, Part] = field(default_factory=dict, compare=False, repr=False)

    def predict(self, architectures: Sequence[Architecture], *, confidence: float = 0.95) -> Prediction:
        """Latencies `[m]` in ms with intervals. Raises ValueError for another number of layers."""
        networks = [[self.part(piece) for piece in self.pieces.of(a)] for a in architectures]
        return self.predictor.predict(networks, confidence=confidence)

    def part(self, piece: Piece) -> Part:
        part = self._parts.get(piece)
        if part is None:
            part = self._parts[piece] = self.predictor.part(self.pieces.steps(piece))
        return part


@dataclass(frozen=True)
class ModelPredictors:
    """By device model: a `LatencyPredictor` of npas_ray.search.

    Example:
        >>> make_policy("npas", space, objective, seed=0, settings={"latency_predictor": ModelPredictors(by_model)})
    """

    by_model: Mapping[str, CandidatePredictor]

    def __call__(self, architectures: Sequence[Architecture]) -> dict[str, NDArray[np.float64]]:
        """Latencies `[m]` in ms by model."""
        return {model: predictor.predict(architectures).mean_ms for model, predictor in self.by_model.items()}

    def surely_over(
        self, architectures: Sequence[Architecture], budgets_ms: Mapping[str, float], *, confidence: float = 0.95
    ) -> NDArray[np.bool_]:
        """`[m]`: whether even the lower end of some model's interval is above its budget."""
        over = np.zeros(len(architectures), dtype=np.bool_)
        for model, predictor in self.by_model.items():
            if model in budgets_ms:
                over |= predictor.predict(architectures, confidence=confidence).low_ms > budgets_ms[model]
        return over
