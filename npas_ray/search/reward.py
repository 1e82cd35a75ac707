"""What a search maximises: accuracy, less a penalty for every budget that is exceeded (npas), or a whole front."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from scipy.special import ndtr, ndtri

from npas_ray.errors import InvalidObservation
from npas_ray.search.axes import Costs, check_axis, model_of
from npas_ray.search.hypervolume import hypervolume
from npas_ray.search.policy import Observation, Status
from npas_ray.space.choices import Architecture

#: a 95 % interval reaches so many standard deviations to either side
_INTERVAL = 1.959964
Intervals = Mapping[str, tuple[float, float]]


class Mode(StrEnum):
    """What a search looks for."""

    BEST = "best"  # the most accurate network within the budgets
    FRONT = "front"  # all networks within the budgets that no other one beats in accuracy and every axis


@dataclass(frozen=True)
class Objective:
    """What is looked for, and how good an observation is.

    In mode `best` the reward is the paper's `r = V - alpha * max(0, h - H)` for any number of device models: `V - alpha
    * sum over device models of max(0, h / H - 1)`. The excess is relative to the budget, so that one `alpha` serves
    phones and servers: with alpha 1, ten percent over one budget costs ten points.

    In mode `front` the goal is the hypervolume: the share of the box from (accuracy 1, all costs 0) to the reference
    (accuracy 0, `reference`) that the candidates dominate. Policies that need one number for each candidate work
    `towards` a target that they draw for every batch. The reward of one candidate is the share of that box that it
    dominates alone, `V * product over axes of max(0, 1 - cost / reference)`, less the same penalty for budgets.

    A budget is hard, and a latency is known up to its interval: what counts against the budget is the latency below
    which the true one lies with probability `certainty`. At 0.975 that is the upper end of the 95 % interval, at 0.5
    the estimate itself. Without an interval the estimate counts.

    Args:
        budgets_ms: `H` by device model; latencies of other models are ignored, but for those of `axes`.
        alpha: reward lost when a budget is exceeded by 100 %.
        chance: accuracy of guessing; stands for `V` of a candidate that was over its budget and so was not trained.
            Such a candidate is thereby always worse than one that was trained and beats guessing.
        mode: best or front.
        axes: in mode front: costs beside the accuracy, see `axes.py`.
        reference: in mode front: the cost by axis from which on a candidate adds nothing; the budget of a device model
            stands in for that of its latency.
        costs: size and energy of an architecture by axis, where they are among the axes.
        certainty: with which a budget has to be kept, in [0.5, 1).
        limits: budgets on the axes that the architecture alone decides, by axis. Set by `towards`.
    """

    budgets_ms: Mapping[str, float] = field(default_factory=dict)
    alpha: float = 1.0
    chance: float = 0.0
    mode: Mode = Mode.BEST
    axes: tuple[str, ...] = ()
    reference: Mapping[str, float] = field(default_factory=dict)
    costs: Costs | None = None
    certainty: float = 0.975
    limits: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for model, budget_ms in self.budgets_ms.items():
            if not (math.isfinite(budget_ms) and budget_ms > 0):
                raise ValueError(f"the budget of {model!r} is a positive number of ms, got {budget_ms!r}")
        if not (math.isfinite(self.alpha) and self.alpha >= 0):
            raise ValueError(f"alpha is a number >= 0, got {self.alpha!r}")
        if not 0 <= self.chance < 1:
            raise ValueError(f"chance is a fraction in [0, 1), got {self.chance!r}")
        if not 0.5 <= self.certainty < 1:
            raise ValueError(f"certainty is a probability in [0.5, 1), got {self.certainty!r}")
        if self.mode is Mode.FRONT:
            self._check_front()

    def _check_front(self) -> None:
        if not self.axes or len(set(self.axes)) != len(self.axes):
            raise ValueError(f"a front has at least one axis beside the accuracy, each once; got {list(self.axes)}")
        for axis in self.axes:
            check_axis(axis)
            reference = self.reference_of(axis)
            if not (reference is not None and math.isfinite(reference) and reference > 0):
                raise ValueError(f"axis {axis!r} needs a positive reference (or a budget), got {reference!r}")
            if model_of(axis) is None and self.costs is None:
                raise ValueError(f"axis {axis!r} needs costs: a function from architectures to it")

    # --- budgets -----------------------------------------------------------------------------------------------

    def counted_ms(self, latency_ms: Mapping[str, float], latency_ci_ms: Intervals | None = None) -> dict[str, float]:
        """By device model, the latency that counts against its budget, see `certainty`."""
        steps = float(ndtri(self.certainty)) / _INTERVAL
        counted = dict(latency_ms)
        for model, (_, high_ms) in (latency_ci_ms or {}).items():
            if model in counted and math.isfinite(high_ms):
                counted[model] += steps * max(0.0, high_ms - counted[model])
        return counted

    def excess(self, latency_ms: Mapping[str, float]) -> float:
        """Sum over the budgets of max(0, h / H - 1). Models that were not measured count as within their budget."""
        return sum(
            max(0.0, latency_ms[model] / budget_ms - 1)
            for model, budget_ms in self.budgets_ms.items()
            if model in latency_ms
        )

    def feasible(self, latency_ms: Mapping[str, float], latency_ci_ms: Intervals | None = None) -> bool:
        """True if every budget was measured and is kept with `certainty`."""
        counted_ms = self.counted_ms(latency_ms, latency_ci_ms)
        return all(counted_ms.get(model, math.inf) <= budget_ms for model, budget_ms in self.budgets_ms.items())

    def probability_feasible(self, latency_ms: Mapping[str, float], latency_ci_ms: Intervals | None = None) -> float:
        """That the true latencies keep every budget, given the measurements' 95 % intervals; 0 where one is missing."""
        probability = 1.0
        for model, budget_ms in self.budgets_ms.items():
            estimate_ms = latency_ms.get(model, math.inf)
            low_ms, high_ms = (latency_ci_ms or {}).get(model, (estimate_ms, estimate_ms))
            std_ms = ((high_ms - estimate_ms) if budget_ms >= estimate_ms else (estimate_ms - low_ms)) / _INTERVAL
            if math.isfinite(std_ms) and std_ms > 0:
                probability *= float(ndtr((budget_ms - estimate_ms) / std_ms))
            else:
                probability *= estimate_ms <= budget_ms
        return probability

    def keeps(self, observation: Observation) -> bool:
        """Whether the latencies of an observation keep every budget with `certainty`."""
        return self.feasible(observation.latency_ms, observation.latency_ci_ms)

    # --- the front ---------------------------------------------------------------------------------------------

    def reference_of(self, axis: str) -> float | None:
        """The cost from which on a candidate adds nothing to the front; None if it was not said."""
        model = model_of(axis)
        default = None if model is None else self.budgets_ms.get(model)
        return self.reference.get(axis, default)

    @property
    def models(self) -> tuple[str, ...]:
        """Device models whose latency matters, those with a budget first."""
        of_axes = (model for axis in self.axes if (model := model_of(axis)) is not None)
        return tuple(dict.fromkeys((*self.budgets_ms, *of_axes)))

    def cost(self, axis: str, architecture: Architecture, latency_ms: Mapping[str, float]) -> float | None:
        """The cost of a network on one axis, in its unit; None if it was not measured."""
        model = model_of(axis)
        if model is not None:
            return latency_ms.get(model)
        return None if self.costs is None else float(self.costs(architecture)[axis])

    def shares(self, observation: Observation) -> list[float]:
        """Cost / reference on every axis of an observation that passed `check`, and was measured on all of them."""
        costs = ((axis, self.cost(axis, observation.architecture, observation.latency_ms)) for axis in self.axes)
        return [(math.inf if cost is None else cost) / (self.reference_of(axis) or math.inf) for axis, cost in costs]

    def learned_ms(self, observation: Observation) -> Mapping[str, float]:
        """The latencies that a surrogate should learn: in mode best those that count against budgets."""
        if self.mode is Mode.FRONT:
            return observation.latency_ms
        return self.counted_ms(observation.latency_ms, observation.latency_ci_ms)

    def point(self, observation: Observation) -> tuple[float, ...] | None:
        """(error, cost / reference for every axis): less is better, 1 is the reference. In mode front.

        None for what is on no front: not trained to the end, over a budget, or not measured on every axis.
        """
        if observation.status is not Status.DONE or observation.accuracy is None or not self.keeps(observation):
            return None
        shares = self.shares(observation)
        return (1 - observation.accuracy, *shares) if all(map(math.isfinite, shares)) else None

    def hypervolume(self, observations: Iterable[Observation]) -> float:
        """The share of the box up to the reference that the observations dominate, in [0, 1]. In mode front."""
        points = [point for observation in observations if (point := self.point(observation)) is not None]
        return hypervolume(points, (1.0,) * (1 + len(self.axes)))

    def towards(self, rng: np.random.Generator, observations: Iterable[Observation] = ()) -> Objective:
        """For policies that want one number: the best network within budgets that are drawn at random on every axis.

        Uniform between the cheapest of the observations and the reference, so that all parts of the front that count
        for the hypervolume get their share. In mode best it is this objective itself, and `rng` is not touched.
        """
        if self.mode is Mode.BEST:
            return self
        observations = list(observations)
        budgets_ms, limits = dict(self.budgets_ms), dict(self.limits)
        for axis in self.axes:
            most = self.reference_of(axis) or math.inf
            seen = (self.cost(axis, o.architecture, o.latency_ms) for o in observations)
            least = min((cost for cost in seen if cost is not None), default=0.0)
            target = float(min(least, most) + rng.random() * max(0.0, most - least)) or most
            model = model_of(axis)
            if model is not None:
                budgets_ms[model] = min(target, budgets_ms.get(model, math.inf))
            else:
                limits[axis] = target
        return dataclasses.replace(self, mode=Mode.BEST, budgets_ms=budgets_ms, limits=limits)

    # --- one observation ---------------------------------------------------------------------------------------

    def reward(self, observation: Observation) -> float | None:
        """What to maximise; None for a failed candidate. Raises InvalidObservation as `check` does."""
        self.check(observation)
        if observation.status is Status.FAILED:
            return None
        trained = observation.status in (Status.DONE, Status.STOPPED) and observation.accuracy is not None
        value = observation.accuracy if trained and observation.accuracy is not None else self.chance
        if self.mode is Mode.FRONT:
            value *= math.prod(max(0.0, 1 - share) for share in self.shares(observation) if math.isfinite(share))
        counted_ms = self.counted_ms(observation.latency_ms, observation.latency_ci_ms)
        excess = self.excess(counted_ms)
        for axis, limit in self.limits.items():
            cost = self.cost(axis, observation.architecture, observation.latency_ms)
            excess += 0.0 if cost is None else max(0.0, cost / limit - 1)
        return value - self.alpha * excess

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
            missing = [model for model in self.models if model not in observation.latency_ms]
            if missing:
                raise InvalidObservation(
                    f"{who}: status is {observation.status}, but there is no latency on"
                    f" {', '.join(map(repr, missing))}, which has a budget or an axis; measured:"
                    f" {', '.join(map(repr, observation.latency_ms)) or 'nothing'}"
                )
        if observation.status is Status.OVER_BUDGET and not observation.latency_ms:
            raise InvalidObservation(f"{who}: status is over-budget, but it has no latency")
