"""What a search maximises: accuracy, less a penalty for every budget that is exceeded (npas)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from npas_ray.errors import InvalidObservation
from npas_ray.search.policy import Observation, Status


@dataclass(frozen=True)
class Objective:
    """Reward of an observation: `V - alpha * sum over device models of max(0, h / H - 1)`.

    The paper's `r = V - alpha * max(0, h - H)` for any number of device models. The excess is relative to the budget,
    so that one `alpha` serves phones and servers: with alpha 1, ten percent over one budget costs ten points.

    Args:
        budgets_ms: `H` by device model; latencies of other models are ignored.
        alpha: reward lost when a budget is exceeded by 100 %.
        chance: accuracy of guessing; stands for `V` of a candidate that was over its budget and so was not trained.
            Such a candidate is thereby always worse than one that was trained and beats guessing.
    """

    budgets_ms: Mapping[str, float] = field(default_factory=dict)
    alpha: float = 1.0
    chance: float = 0.0

    def __post_init__(self) -> None:
        for model, budget_ms in self.budgets_ms.items():
            if not (math.isfinite(budget_ms) and budget_ms > 0):
                raise ValueError(f"the budget of {model!r} is a positive number of ms, got {budget_ms!r}")
        if not (math.isfinite(self.alpha) and self.alpha >= 0):
            raise ValueError(f"alpha is a number >= 0, got {self.alpha!r}")
        if not 0 <= self.chance < 1:
            raise ValueError(f"chance is a fraction in [0, 1), got {self.chance!r}")

    def excess(self, latency_ms: Mapping[str, float]) -> float:
        """Sum over the budgets of max(0, h / H - 1). Models that were not measured count as within their budget."""
        return sum(
            max(0.0, latency_ms[model] / budget_ms - 1)
            for model, budget_ms in self.budgets_ms.items()
            if model in latency_ms
        )

    def feasible(self, latency_ms: Mapping[str, float]) -> bool:
        """True if every budget was measured and kept."""
        return all(latency_ms.get(model, math.inf) <= budget_ms for model, budget_ms in self.budgets_ms.items())

    def reward(self, observation: Observation) -> float | None:
        """What to maximise; None for a failed candidate. Raises InvalidObservation as `check` does."""
        self.check(observation)
        if observation.status is Status.FAILED:
            return None
        trained = observation.status in (Status.DONE, Status.STOPPED) and observation.accuracy is not None
        value = observation.accuracy if trained and observation.accuracy is not None else self.chance
        return value - self.alpha * self.excess(observation.latency_ms)

    def check(self, observation: Observation) -> None:
        """Raises InvalidObservation if the result cannot be believed or is incomplete."""
        who = f"result of candidate {observation.architecture.key}"
        accuracy = observation.accuracy
        if accuracy is not None and not 0 <= accuracy <= 1:  # False for NaN too
            raise InvalidObservation(f"{who}: accuracy is a fraction in [0, 1], got {accuracy!r}")
        for model, latency_ms in observation.latency_ms.items():
            if not (math.isfinite(latency_ms) and latency_ms > 0):
                raise InvalidObservation(f"{who}: latency on {model!r} is a positive number of ms, got {latency_ms!r}")
        if observation.status in (Status.DONE, Status.STOPPED):
            if accuracy is None:
                raise InvalidObservation(f"{who}: status is {observation.status}, but it has no accuracy")
            missing = [model for model in self.budgets_ms if model not in observation.latency_ms]
            if missing:
                raise InvalidObservation(
                    f"{who}: status is {observation.status}, but there is no latency on"
                    f" {', '.join(map(repr, missing))}, which has a budget;"
                    f" measured: {', '.join(map(repr, observation.latency_ms)) or 'nothing'}"
                )
        if observation.status is Status.OVER_BUDGET and not observation.latency_ms:
            raise InvalidObservation(f"{who}: status is over-budget, but it has no latency")
