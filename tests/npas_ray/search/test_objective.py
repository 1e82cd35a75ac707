"""Hard budgets under uncertain latencies, and the front: its points, reward and hypervolume."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npas_ray.errors import InvalidObservation
from npas_ray.search.policy import Observation, Status
from npas_ray.search.reward import Mode, Objective
from npas_ray.space.choices import Architecture, LayerChoice, Operator

BIG = Architecture((LayerChoice(Operator.CONV3X3),))
SMALL = Architecture((LayerChoice(Operator.SKIP),))


def done(accuracy: float, architecture: Architecture = BIG, **latency_ms: float) -> Observation:
    return Observation(architecture, Status.DONE, accuracy, latency_ms)


def costs(architecture: Architecture) -> dict[str, float]:
    return {"size": 900.0 if architecture == BIG else 100.0, "energy": 1.0}


FRONT = Objective(
    {"a": 10.0},
    mode=Mode.FRONT,
    axes=("latency:a", "latency:b", "size"),
    reference={"latency:b": 4.0, "size": 1000.0},
    costs=costs,
    chance=0.1,
)


# --- budgets ---------------------------------------------------------------------------------------------------


def test_what_counts_is_the_upper_end_of_the_interval() -> None:
    objective = Objective({"a": 1.0, "b": 1.0})
    counted = objective.counted_ms({"a": 0.9, "b": 0.5}, {"a": (0.85, 1.1)})
    assert counted == pytest.approx({"a": 1.1, "b": 0.5})
    assert not objective.feasible({"a": 0.9, "b": 0.5}, {"a": (0.85, 1.1)})
    assert objective.feasible({"a": 0.9, "b": 0.5}, {"a": (0.85, 0.99)})
    assert objective.feasible({"a": 0.9, "b": 0.5})
    assert Objective({"a": 1.0}, certainty=0.5).feasible({"a": 0.9}, {"a": (0.85, 1.1)})


def test_the_reward_charges_what_counts() -> None:
    straddling = Observation(BIG, Status.DONE, 0.8, {"a": 0.9}, {"a": (0.7, 1.1)})
    assert Objective({"a": 1.0}).reward(straddling) == pytest.approx(0.8 - 0.1)
    assert Objective({"a": 1.0}, certainty=0.5).reward(straddling) == 0.8
    assert Objective({"a": 1.0}).learned_ms(straddling) == pytest.approx({"a": 1.1})


# A half interval is nothing or wider than the rounding of its ends.
HALF = st.just(0.0) | st.floats(1e-9, 0.5)


@given(st.floats(0.5, 2.0), HALF, HALF, st.floats(0.5, 2.0), st.floats(0.5, 0.999))
def test_the_rule_is_the_probability(
    latency_ms: float, below: float, above: float, budget_ms: float, certainty: float
) -> None:
    """A budget is kept by the rule iff it is kept with the certainty, up to the rounding of the two ways to say so."""
    interval = {"a": (latency_ms - below, latency_ms + above)}
    objective = Objective({"a": budget_ms}, certainty=certainty)
    probability = objective.probability_feasible({"a": latency_ms}, interval)
    if abs(probability - certainty) > 1e-3 and certainty > 0.501:
        assert objective.feasible({"a": latency_ms}, interval) == (probability > certainty)


def test_the_probability_of_all_budgets_is_a_product() -> None:
    objective = Objective({"a": 1.0, "b": 2.0})
    at_the_edge = {"a": 1.0, "b": 2.0}
    intervals = {"a": (0.9, 1.1), "b": (1.5, 2.5)}
    assert objective.probability_feasible(at_the_edge, intervals) == pytest.approx(0.25)
    assert objective.probability_feasible({"a": 0.9, "b": 1.0}, {"a": (0.8, 1.0)}) == pytest.approx(0.975, abs=1e-3)
    assert objective.probability_feasible({"a": 0.9}) == 0.0
    assert Objective().probability_feasible({}) == 1.0


def test_a_stopped_candidate_is_judged_by_what_it_reached() -> None:
    stopped = Observation(BIG, Status.STOPPED, 0.4, {"a": 1.1}, rungs={1: 0.4})
    assert Objective({"a": 1.0}).reward(stopped) == pytest.approx(0.4 - 0.1)
    with pytest.raises(InvalidObservation, match="status is stopped, but it has no accuracy"):
        Objective().reward(Observation(BIG, Status.STOPPED))


# --- the front -------------------------------------------------------------------------------------------------


def test_a_point_is_the_error_and_the_costs_in_units_of_the_reference() -> None:
    assert FRONT.point(done(0.75, a=5.0, b=1.0)) == pytest.approx((0.25, 0.5, 0.25, 0.9))
    assert FRONT.models == ("a", "b")


@pytest.mark.parametrize(
    "observation",
    [
        done(0.9, a=11.0, b=1.0),
        Observation(BIG, Status.DONE, 0.9, {"a": 9.9, "b": 1.0}, {"a": (9.0, 10.2)}),
        Observation(BIG, Status.STOPPED, 0.9, {"a": 1.0, "b": 1.0}),
        Observation(BIG, Status.OVER_BUDGET, None, {"a": 11.0, "b": 1.0}),
        Observation(BIG, Status.FAILED),
    ],
)
def test_what_is_on_no_front(observation: Observation) -> None:
    assert FRONT.point(observation) is None
    assert FRONT.hypervolume([observation]) == 0.0


def test_one_candidates_reward_is_the_box_that_it_dominates() -> None:
    observation = done(0.75, a=5.0, b=1.0)
    assert FRONT.reward(observation) == pytest.approx(0.75 * 0.5 * 0.75 * 0.1)
    assert FRONT.hypervolume([observation]) == pytest.approx(FRONT.reward(observation))
    wider = [observation, done(0.5, SMALL, a=5.0, b=1.0)]
    assert FRONT.hypervolume(wider) == pytest.approx(0.5 * 0.75 * (0.75 * 0.1 + 0.5 * 0.8))


def test_slower_than_the_reference_adds_nothing_but_is_no_fault() -> None:
    assert FRONT.reward(done(0.9, a=5.0, b=6.0)) == 0.0
    assert FRONT.reward(done(0.9, a=11.0, b=1.0)) == pytest.approx(-0.1)


def test_towards_a_target_all_axes_have_a_limit() -> None:
    observed = [done(0.9, SMALL, a=2.0, b=1.0), done(0.9, BIG, a=8.0, b=3.0)]
    for seed in range(50):
        target = FRONT.towards(np.random.default_rng(seed), observed)
        assert 2.0 <= target.budgets_ms["a"] <= 10.0
        assert 1.0 <= target.budgets_ms["b"] <= 4.0
        assert 100.0 <= target.limits["size"] <= 1000.0
        excess = max(0, 900 / target.limits["size"] - 1)
        fits = done(0.9, BIG, a=1.0, b=0.5)
        assert target.reward(fits) == pytest.approx(0.9 - excess)
    best = Objective({"a": 1.0})
    assert best.towards(np.random.default_rng(0)) is best


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"axes": ()}, "at least one axis"),
        ({"axes": ("size", "size")}, "each once"),
        ({"axes": ("speed",)}, "'latency:MODEL', 'size' or 'energy', got 'speed'"),
        ({"axes": ("latency:",)}, "got 'latency:'"),
        ({"axes": ("latency:a",)}, "needs a positive reference"),
        ({"axes": ("latency:a",), "reference": {"latency:a": float("nan")}}, "needs a positive reference"),
        ({"axes": ("size",), "reference": {"size": 1.0}}, "needs costs"),
        ({"axes": ("latency:a",), "budgets_ms": {"a": 1.0}, "certainty": 1.0}, "certainty"),
    ],
)
def test_refuses_impossible_fronts(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Objective(mode=Mode.FRONT, **arguments)


def test_a_result_without_an_axis_is_refused() -> None:
    with pytest.raises(InvalidObservation, match="no latency on 'b', which has a budget or an axis; measured: 'a'"):
        FRONT.reward(done(0.9, a=1.0))
