from __future__ import annotations

import math
from typing import Any

import pytest

from npas_ray.errors import InvalidObservation
from npas_ray.search.policy import Observation, Status
from npas_ray.search.reward import Objective
from npas_ray.space.choices import Architecture, LayerChoice, Operator

ARCHITECTURE = Architecture((LayerChoice(Operator.CONV3X3),))


def _done(accuracy: float, **latency_ms: float) -> Observation:
    return Observation(ARCHITECTURE, Status.DONE, accuracy, latency_ms)


def test_within_the_budget_the_reward_is_the_accuracy() -> None:
    assert Objective({"a": 10.0}).reward(_done(0.8, a=10.0)) == 0.8
    assert Objective().reward(_done(0.8)) == 0.8


def test_excess_is_relative_and_adds_up_over_models() -> None:
    objective = Objective({"a": 10.0, "b": 2.0}, alpha=0.5)
    assert objective.reward(_done(0.8, a=11.0, b=3.0)) == pytest.approx(0.8 - 0.5 * (0.1 + 0.5))
    assert objective.reward(_done(0.8, a=5.0, b=2.2)) == pytest.approx(0.8 - 0.5 * 0.1)
    assert objective.reward(_done(0.8, a=5.0, b=1.0, c=1e6)) == 0.8


def test_untrained_over_budget_counts_as_guessing() -> None:
    objective = Objective({"a": 10.0, "b": 1.0}, chance=0.1)
    over = Observation(ARCHITECTURE, Status.OVER_BUDGET, None, {"a": 15.0})
    assert objective.reward(over) == pytest.approx(0.1 - 0.5)
    pretended = Observation(ARCHITECTURE, Status.OVER_BUDGET, 0.9, {"a": 15.0})
    assert objective.reward(pretended) == pytest.approx(0.1 - 0.5)


def test_failed_has_no_reward() -> None:
    assert Objective({"a": 1.0}).reward(Observation(ARCHITECTURE, Status.FAILED)) is None


def test_feasible_needs_every_budgeted_model() -> None:
    objective = Objective({"a": 10.0, "b": 2.0})
    assert objective.feasible({"a": 10.0, "b": 2.0})
    assert not objective.feasible({"a": 10.0})
    assert not objective.feasible({"a": 10.1, "b": 2.0})


@pytest.mark.parametrize("accuracy", [math.nan, math.inf, -math.inf, -0.01, 1.01, 93.0])
def test_refuses_accuracies_that_are_no_fractions(accuracy: float) -> None:
    with pytest.raises(InvalidObservation, match=r"accuracy is a fraction in \[0, 1\]"):
        Objective().reward(_done(accuracy))


def test_refusal_names_candidate_and_models() -> None:
    with pytest.raises(InvalidObservation, match=rf"{ARCHITECTURE.key}.*no latency on 'b'.*measured: 'a'"):
        Objective({"a": 1.0, "b": 1.0}).reward(_done(0.5, a=1.0))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"budgets_ms": {"a": 0.0}}, "budget of 'a' is a positive number"),
        ({"budgets_ms": {"a": math.nan}}, "budget of 'a'"),
        ({"alpha": -1.0}, "alpha"),
        ({"alpha": math.inf}, "alpha"),
        ({"chance": 1.0}, "chance"),
    ],
)
def test_refuses_impossible_objectives(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Objective(**arguments)
