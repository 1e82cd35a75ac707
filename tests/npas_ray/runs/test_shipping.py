"""Which candidates are shipped and evaluated again; the training itself is in test_front_search.py."""

from __future__ import annotations

from typing import Any

from npas_ray.journal import Candidate
from npas_ray.runs.confirmation import front_members, ranking
from npas_ray.search.policy import Status
from npas_ray.search.reward import Mode, Objective
from npas_ray.space.choices import Architecture, LayerChoice, Operator

OPERATORS = [Operator.CONV3X3, Operator.CONV1X1, Operator.SKIP, Operator.DW3X3_CONV1X1]


def candidate(
    ordinal: int, accuracy: float, latency_ms: float, *, half_width: float = 0.0, status: Status = Status.DONE
) -> Candidate:
    measurement: dict[str, Any] = {
        "latency_ms": latency_ms,
        "ci_low_ms": latency_ms * (1 - half_width),
        "ci_high_ms": latency_ms * (1 + half_width),
    }
    architecture = Architecture((LayerChoice(OPERATORS[ordinal]),))
    evaluations = ({"accuracy": accuracy, "seed": 0},)
    return Candidate(ordinal, architecture, status, None, 0.0, 1.0, ordinal, {"a": measurement}, evaluations)


def ordinals(candidates: list[Candidate]) -> list[int]:
    return [candidate.ordinal for candidate in candidates]


def test_the_best_is_the_most_accurate_that_surely_keeps_its_budget() -> None:
    candidates = [candidate(0, 0.9, 0.99, half_width=0.05), candidate(1, 0.8, 0.99), candidate(2, 0.7, 0.1)]
    assert ordinals(ranking(candidates, Objective({"a": 1.0}))) == [1, 2]
    assert ordinals(ranking(candidates, Objective({"a": 1.0}, certainty=0.5))) == [0, 1, 2]


FRONT = Objective(mode=Mode.FRONT, axes=("latency:a",), reference={"latency:a": 1.0})


def test_of_a_front_the_compromise_comes_first() -> None:
    candidates = [candidate(0, 0.95, 0.9), candidate(1, 0.9, 0.3), candidate(2, 0.3, 0.01), candidate(3, 0.8, 0.4)]
    assert ordinals(ranking(candidates, FRONT)) == [1, 3, 2, 0]


def test_members_are_what_nothing_beats() -> None:
    candidates = [candidate(0, 0.95, 0.9), candidate(1, 0.9, 0.3), candidate(2, 0.3, 0.01), candidate(3, 0.8, 0.4)]
    assert ordinals(front_members(candidates, FRONT)) == [0, 1, 2]
    stopped = candidate(1, 0.9, 0.3, status=Status.STOPPED)
    assert ordinals(front_members([candidates[0], stopped, candidates[3]], FRONT)) == [0, 3]
    assert front_members([], FRONT) == []
