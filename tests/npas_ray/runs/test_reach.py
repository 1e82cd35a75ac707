from __future__ import annotations

from typing import Any

import pytest

from npas_ray.errors import NoFeasibleCandidate, RunError
from npas_ray.journal import Candidate
from npas_ray.networks.backbone import DIGITS, make_backbone
from npas_ray.runs.reach import check_reach, none_feasible, smallest_architecture, trained_candidate
from npas_ray.search.policy import Status
from npas_ray.search.reward import Objective
from npas_ray.space.choices import Architecture, LayerChoice, Operator, Scheme
from npas_ray.space.search_space import SearchSpace

SKIPS = Architecture((LayerChoice(Operator.SKIP),) * 2)


def measured(latency_ms: float, half_width: float = 0.0) -> dict[str, Any]:
    ends = {"ci_low_ms": latency_ms * (1 - half_width), "ci_high_ms": latency_ms * (1 + half_width)}
    return {"latency_ms": latency_ms} | ends


def test_the_smallest_network_leaves_out_what_it_may() -> None:
    space = SearchSpace(DIGITS)
    smallest = smallest_architecture(space, block_height=32)
    assert smallest in space
    for index, choice in enumerate(smallest.layers):
        assert choice.operator is Operator.SKIP or LayerChoice(Operator.SKIP) not in space.choices(index)
    space = SearchSpace(DIGITS, operators=[Operator.CONV3X3, Operator.CONV1X1], schemes=[Scheme.FILTER], rates=[1, 5])
    smallest = smallest_architecture(space, block_height=32)
    assert set(smallest.layers) == {LayerChoice(Operator.CONV1X1, Scheme.FILTER, 5.0)}


def test_of_a_head_the_rate_is_the_highest() -> None:
    backbone = make_backbone(
        "head", input_shape=(1, 8, 8), stem=(16, 1), blocks=((16, 1),), classes=10, searchable_head=True
    )
    assert smallest_architecture(SearchSpace(backbone), block_height=8).layers[-1].rate > 1


@pytest.mark.parametrize(
    ("bare", "smallest", "dense_ms", "outcome"),
    [
        (measured(0.5), measured(0.6), 2.0, "nothing"),
        (measured(1.5), measured(1.6), 2.0, "impossible"),
        (measured(1.05, 0.1), measured(1.06, 0.1), 2.0, "nothing"),  # their intervals reach below the budget
        (measured(0.5), measured(1.5), 2.0, "a warning"),  # fewest operations do not prove it
        (measured(1.5), measured(1.6), 0.9, "nothing"),  # the dense network keeps the budget
    ],
)
def test_a_budget_out_of_reach_is_known_before_the_search(
    bare: dict[str, Any], smallest: dict[str, Any], dense_ms: float, outcome: str
) -> None:
    space = SearchSpace(DIGITS)

    def measure(architecture: Architecture, model: str) -> dict[str, Any]:
        assert model == "a"
        return smallest if architecture in space else bare

    def check() -> list[str]:
        return check_reach(space, Objective({"a": 1.0}), block_height=32, dense_ms={"a": dense_ms}, measure=measure)

    if outcome == "impossible":
        with pytest.raises(NoFeasibleCandidate, match=r"keeps 1 ms on a: even without any of its blocks it takes 1\.5"):
            check()
    else:
        assert len(check()) == (outcome == "a warning")


def candidate(ordinal: int, status: Status | None, **latency_ms: float) -> Candidate:
    measurements = {model: measured(ms) for model, ms in latency_ms.items()}
    return Candidate(ordinal, SKIPS, status, None, 0.0, 1.0, ordinal, measurements)


def test_the_end_names_the_budget_that_is_to_blame() -> None:
    candidates = [candidate(i, Status.OVER_BUDGET, a=0.5, b=3.0 + i) for i in range(1, 4)]
    said = str(none_feasible(candidates, Objective({"a": 1.0, "b": 2.0})))
    assert "none of 3 candidates" in said
    assert "the fastest took 4 ms on b" in said
    assert " on a;" not in said


def test_the_end_says_that_budgets_contradict_each_other() -> None:
    candidates = [candidate(1, Status.OVER_BUDGET, a=0.5, b=3.0), candidate(2, Status.OVER_BUDGET, a=2.0, b=1.0)]
    candidates.append(candidate(3, Status.FAILED))
    error = none_feasible(candidates, Objective({"a": 1.0, "b": 2.0}))
    assert "each alone was kept (a 1, b 1 times), never all at once" in str(error)
    assert "1 failed" in str(error)
    assert error.exit_code == 3


def test_only_what_was_trained_to_the_end_can_be_chosen() -> None:
    candidates = [candidate(1, Status.DONE, a=1.0), candidate(2, Status.STOPPED, a=1.0), candidate(3, None)]
    assert trained_candidate(candidates, 1) is candidates[0]
    for ordinal, said in ((2, "#2 cannot be shipped: it is stopped"), (3, "under way"), (4, "has #1 to #3")):
        with pytest.raises(RunError, match=said):
            trained_candidate(candidates, ordinal)
