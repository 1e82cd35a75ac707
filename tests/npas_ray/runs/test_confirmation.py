"""The best is believed only after further seeds; what was lucky falls back, what was unlucky gets its chance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from npas_ray.journal import Candidate
from npas_ray.runs.confirmation import FINALISTS, SEEDS_TO_BELIEVE, SEEDS_TO_COMPARE, ranking, undecided
from npas_ray.search.policy import Status
from npas_ray.search.reward import Objective
from npas_ray.space.choices import Architecture, LayerChoice, Operator, Scheme


def confirmed(true: Sequence[float], first: Sequence[float], *, noise: float, seed: int) -> tuple[int, list[int]]:
    """Who is believed, and how many seeds each one got."""
    rng = np.random.default_rng(seed)
    seen = {str(index): [accuracy] for index, accuracy in enumerate(first)}
    while True:
        ranked = dict(sorted(seen.items(), key=lambda item: -float(np.mean(item[1]))))
        wanted = undecided(ranked)
        if not wanted:
            return int(next(iter(ranked))), [len(seen[str(index)]) for index in range(len(true))]
        for key, more in wanted.items():
            seen[key] += [true[int(key)] + noise * float(rng.normal()) for _ in range(more)]


def test_a_lucky_candidate_falls_back() -> None:
    true = [0.90, 0.91, 0.89, 0.88, 0.80]
    winner, seeds = confirmed(true, [0.93, 0.91, 0.89, 0.88, 0.80], noise=0.0, seed=0)
    assert winner == 1
    assert seeds == [SEEDS_TO_BELIEVE, SEEDS_TO_BELIEVE, SEEDS_TO_COMPARE, 1, 1]
    assert sum(count > 1 for count in seeds) == FINALISTS


def test_confirming_is_worth_its_trainings() -> None:
    gained, cost = [], []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        true = 0.9 - np.abs(rng.normal(0, 0.015, 40))
        first = true + 0.009 * rng.normal(size=40)
        winner, seeds = confirmed(true.tolist(), first.tolist(), noise=0.009, seed=seed)
        gained.append(true[winner] - true[first.argmax()])
        cost.append(sum(seeds) - 40)
    assert np.mean(gained) > 0.001
    assert np.mean(cost) < 20


def test_only_what_was_trained_to_the_end_within_the_budget_can_win() -> None:
    def candidate(
        ordinal: int, status: Status, accuracy: float, *, epochs: int = 2, latency_ms: float = 1
    ) -> Candidate:
        return Candidate(
            ordinal,
            Architecture((LayerChoice(Operator.CONV3X3, Scheme.FILTER, float(1 + ordinal)),)),
            status,
            None,
            0.0,
            0.0,
            ordinal,
            {"local": {"latency_ms": latency_ms, "ci_low_ms": latency_ms, "ci_high_ms": latency_ms + 0.1}},
            ({"accuracy": accuracy, "epochs": epochs, "seed": 0},),
        )

    known = [
        candidate(1, Status.STOPPED, 0.99, epochs=1),
        candidate(2, Status.DONE, 0.98, latency_ms=3.0),
        candidate(3, Status.DONE, 0.8),
        candidate(4, Status.DONE, 0.9),
        candidate(5, Status.DONE, 0.9, latency_ms=0.5),
        candidate(6, Status.DONE, 0.95, latency_ms=1.95),  # its interval reaches beyond the budget
    ]
    assert [c.ordinal for c in ranking(known, Objective({"local": 2.0}))] == [5, 4, 3]
