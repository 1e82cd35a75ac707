"""The best is believed only after further seeds; what was lucky falls back, what was unlucky gets its chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from npas_ray.errors import NoFeasibleCandidate
from npas_ray.journal import Candidate, Journal
from npas_ray.networks.backbone import DIGITS
from npas_ray.runs.conductor import Conductor
from npas_ray.runs.confirmation import (
    FINALISTS,
    PROMOTED,
    SEEDS_TO_BELIEVE,
    SEEDS_TO_COMPARE,
    confirm,
    ranking,
    undecided,
)
from npas_ray.search.ladder import Ladder
from npas_ray.search.policy import Status
from npas_ray.search.random_policy import RandomPolicy
from npas_ray.search.reward import Objective
from npas_ray.space.choices import Architecture, LayerChoice, Operator, Scheme
from npas_ray.space.search_space import SearchSpace

OBJECTIVE = Objective({"local": 2.0})


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


@dataclass
class Lab:
    """Trains at once: accuracy 0.3 without an epoch, else what `true` says. Dies after so many trainings."""

    true: Mapping[str, float]
    lives: int = 1000
    objective: Objective = OBJECTIVE
    epochs: int = 2
    seed: int = 7
    done: list[tuple[str, int, int]] = field(default_factory=list)

    def train(self, architecture: Architecture, epochs: int, *, seed: int | None = None) -> Future[Mapping[str, Any]]:
        if len(self.done) == self.lives:
            raise InterruptedError
        seed = self.seed if seed is None else seed
        self.done.append((architecture.key, epochs, seed))
        future: Future[Mapping[str, Any]] = Future()
        future.set_result({"accuracy": self.true[architecture.key], "epochs": epochs, "seed": seed})
        return future


def conductor_of(path: Path) -> Conductor:
    if not path.exists():
        Journal.create(path, config={}).close()
    policy = RandomPolicy(SearchSpace(DIGITS), OBJECTIVE, seed=0)
    return Conductor(Journal.open(path), policy, candidates=6, ladder=Ladder((0, 2)))


def searched(path: Path, at_no_epoch: Sequence[float], true: Sequence[float]) -> tuple[Conductor, list[str]]:
    """A search with a ladder that is through: keys in the order of their proposals."""
    conductor, keys = conductor_of(path), list[str]()
    for low, top in zip(at_no_epoch, true, strict=True):
        issued = conductor.issue()
        assert issued
        keys.append(issued.key)
        conductor.measured(issued.key, "local", {"latency_ms": 1.0, "ci_low_ms": 1.0, "ci_high_ms": 1.0})
        conductor.trained(issued.key, {"accuracy": low, "epochs": 0, "seed": 7})
        if conductor.next_rung(issued.key):
            conductor.trained(issued.key, {"accuracy": top, "epochs": 2, "seed": 7})
            conductor.conclude(issued.key, Status.DONE)
        else:
            conductor.conclude(issued.key, Status.STOPPED)
    return conductor, keys


LOW, TRUE = (0.30, 0.29, 0.20, 0.10, 0.15, 0.12), (0.90, 0.95, 0.85, 0.80, 0.70, 0.60)


def test_who_was_stopped_by_bad_luck_can_still_win(tmp_path: Path) -> None:
    conductor, keys = searched(tmp_path / "journal.sqlite", LOW, TRUE)
    lab = Lab(dict(zip(keys, TRUE, strict=True)))
    assert [conductor.recall(key).status for key in keys[:3]] == [Status.DONE, Status.STOPPED, Status.STOPPED]
    winner = confirm(lab, conductor)
    assert (winner.key, winner.status, winner.reason) == (keys[1], Status.DONE, PROMOTED)
    assert winner.rungs == {0: 0.29, 2: 0.95}
    assert [e["seed"] for e in winner.best_trained] == [7, 8, 9, 10, 11]
    assert {epochs for _, epochs, _ in lab.done} == {2}
    assert conductor.recall(keys[3]).status is Status.STOPPED


@pytest.mark.parametrize("lives", [0, 1, 2, 4, 7])
def test_a_confirmation_that_is_cut_off_goes_on(tmp_path: Path, lives: int) -> None:
    path = tmp_path / "journal.sqlite"
    conductor, keys = searched(path, LOW, TRUE)
    true = dict(zip(keys, TRUE, strict=True))
    whole = Lab(true)
    with pytest.raises(InterruptedError):
        confirm(Lab(true, lives=lives), conductor)
    again = conductor_of(path)  # from the journal alone
    assert confirm(whole, again).key == keys[1]
    assert sum(candidate.reason == PROMOTED for candidate in again.candidates()) <= FINALISTS
    trained = [(c.key, e["epochs"], e["seed"]) for c in again.candidates() for e in c.evaluations]
    assert len(trained) == len(set(trained))


def test_if_all_who_climbed_broke_down_those_below_get_their_chance(tmp_path: Path) -> None:
    conductor, keys = conductor_of(tmp_path / "journal.sqlite"), list[str]()
    for low in (0.3, 0.2, 0.1):
        issued = conductor.issue()
        assert issued
        keys.append(issued.key)
        conductor.measured(issued.key, "local", {"latency_ms": 1.0, "ci_low_ms": 1.0, "ci_high_ms": 1.0})
        conductor.trained(issued.key, {"accuracy": low, "epochs": 0, "seed": 7})
        conductor.conclude(issued.key, Status.FAILED if low == 0.3 else Status.STOPPED)
    assert confirm(Lab(dict.fromkeys(keys, 0.8)), conductor).key in keys[1:]


def test_nothing_to_choose_from_is_said(tmp_path: Path) -> None:
    conductor = conductor_of(tmp_path / "journal.sqlite")
    issued = conductor.issue()
    assert issued
    conductor.conclude(issued.key, Status.FAILED, "crashed")
    with pytest.raises(NoFeasibleCandidate, match="none of 1 candidates"):
        confirm(Lab({}), conductor)
