"""The conductor: exactly as many candidates as asked for, each once, across crashes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from npas_ray.journal import Journal
from npas_ray.runs.conductor import MAX_FAILURES_IN_A_ROW, Conductor
from npas_ray.search.ladder import Ladder
from npas_ray.search.policy import Observation, Policy, Status
from npas_ray.space.choices import RATES, Architecture, LayerChoice, Operator, Scheme

EVERYTHING = [Architecture((LayerChoice(Operator.CONV3X3, Scheme.FILTER, rate),)) for rate in RATES[1:]]


class Counting(Policy):
    """Proposes six architectures in order and remembers what it was told."""

    name = "counting"

    def __init__(self) -> None:
        self.proposed: list[Architecture] = []
        self.told: list[Observation] = []

    def propose(self, count: int) -> list[Architecture]:
        new = [architecture for architecture in EVERYTHING if architecture not in self.proposed][:count]
        self.proposed += new
        return new

    def observe(self, observations: Sequence[Observation]) -> None:
        self.told += observations

    def restore(self, proposed: Sequence[Architecture], observations: Sequence[Observation]) -> None:
        self.proposed += proposed
        self.told += observations


@pytest.fixture
def path(tmp_path: Path) -> Path:
    Journal.create(tmp_path / "journal.sqlite", config={}).close()
    return tmp_path / "journal.sqlite"


def conductor(
    path: Path, *, candidates: int = 4, batch_size: int = 1, rungs: tuple[int, ...] = (2,)
) -> tuple[Conductor, Counting]:
    policy, journal = Counting(), Journal.open(path)
    return Conductor(journal, policy, candidates=candidates, ladder=Ladder(rungs), batch_size=batch_size), policy


def finish(conductor: Conductor, key: str, accuracy: float = 0.5) -> None:
    conductor.measured(key, "local", {"latency_ms": 1.0, "ci_low_ms": 1.0, "ci_high_ms": 1.0})
    conductor.trained(key, {"accuracy": accuracy, "seed": 0})
    conductor.conclude(key, Status.DONE)


def test_as_many_candidates_as_asked_for(path: Path) -> None:
    first, policy = conductor(path, candidates=4, batch_size=3)
    issued = [first.issue() for _ in range(6)]
    assert [i.ordinal if i else None for i in issued] == [1, 2, 3, 4, None, None]
    assert len(policy.proposed) == 4  # the second batch was cut to what was missing


def test_a_proposal_is_in_the_journal_before_it_is_issued(path: Path) -> None:
    first, _ = conductor(path)
    issued = first.issue()
    assert issued is not None
    with Journal.open(path, read_only=True) as journal:
        assert [candidate.key for candidate in journal.candidates()] == [issued.key]


def test_after_a_crash_what_was_under_way_is_issued_again_and_nothing_else(path: Path) -> None:
    first, _ = conductor(path, candidates=4)
    one, two = first.issue(), first.issue()
    assert one and two
    finish(first, two.key)
    first.measured(one.key, "local", {"latency_ms": 2.0, "ci_low_ms": 2.0, "ci_high_ms": 2.0})
    second, policy = conductor(path, candidates=4)  # the first one is gone without a word
    assert policy.proposed == [one.architecture, two.architecture]
    assert [o.architecture for o in policy.told] == [two.architecture]
    again = second.issue()
    assert again == one
    assert second.recall(one.key).latency_ms == {"local": 2.0}
    rest = [second.issue() for _ in range(3)]
    assert [i.ordinal if i else None for i in rest] == [3, 4, None]


def test_an_exhausted_space_ends_the_search(path: Path) -> None:
    first, _ = conductor(path, candidates=100, batch_size=5)
    issued = [first.issue() for _ in range(8)]
    assert sum(i is not None for i in issued) == len(EVERYTHING)


def test_a_conclusion_is_told_once(path: Path) -> None:
    first, policy = conductor(path)
    issued = first.issue()
    assert issued
    finish(first, issued.key)
    first.conclude(issued.key, Status.FAILED, "a late echo")
    assert [o.status for o in policy.told] == [Status.DONE]


def test_a_lost_candidate_is_its_own_fault_once_another_gets_through(path: Path) -> None:
    first, policy = conductor(path)
    one, two = first.issue(), first.issue()
    assert one and two
    assert not first.lost(one.key, "trainer died")
    assert first.recall(one.key).status is None
    finish(first, two.key)
    assert first.recall(one.key).status is Status.FAILED
    assert first.recall(one.key).reason == "trainer died"
    assert first.unexplained() == []
    assert {o.architecture for o in policy.told} == {one.architecture, two.architecture}


def test_losses_in_a_row_stop_the_run_and_stay_open(path: Path) -> None:
    first, _ = conductor(path, candidates=6)
    issued = [first.issue() for _ in range(MAX_FAILURES_IN_A_ROW)]
    verdicts = [first.lost(i.key, "no phone") for i in issued if i]
    assert verdicts == [False] * (MAX_FAILURES_IN_A_ROW - 1) + [True]
    second, _ = conductor(path, candidates=6)
    again = [second.issue() for _ in range(MAX_FAILURES_IN_A_ROW)]
    assert again == issued


def rung(conductor: Conductor, key: str, epochs: int, accuracy: float) -> int | None:
    conductor.trained(key, {"accuracy": accuracy, "epochs": epochs, "seed": 0})
    return conductor.next_rung(key)


def test_a_candidate_goes_on_after_a_crash_at_the_rung_that_it_had_reached(path: Path) -> None:
    first, _ = conductor(path, rungs=(0, 1, 2))
    one, two, three = first.issue(), first.issue(), first.issue()
    assert one and two and three
    assert first.next_rung(one.key) == 0
    assert rung(first, one.key, 0, 0.3) == 1
    assert rung(first, one.key, 1, 0.8) == 2
    assert rung(first, two.key, 0, 0.2) is None
    second, _ = conductor(path, rungs=(0, 1, 2))  # the first one is gone: nobody was concluded
    assert second.next_rung(one.key) == 2
    assert second.next_rung(two.key) is None
    assert second.next_rung(three.key) == 0
    assert rung(second, one.key, 2, 0.9) is None
    second.conclude(one.key, Status.DONE)
    assert second.recall(one.key).rungs == {0: 0.3, 1: 0.8, 2: 0.9}


def test_a_training_that_is_told_twice_is_journaled_once(path: Path) -> None:
    first, _ = conductor(path, rungs=(0, 1))
    one = first.issue()
    assert one
    assert [rung(first, one.key, 0, 0.3) for _ in range(2)] == [1, 1]  # Ray calls an actor again after a crash
    second, _ = conductor(path, rungs=(0, 1))
    assert rung(second, one.key, 0, 0.3) == 1
    assert [e["epochs"] for e in second.recall(one.key).evaluations] == [0]


def test_a_stopped_candidate_is_learned_from_and_may_be_promoted(path: Path) -> None:
    first, policy = conductor(path, rungs=(0, 2))
    issued = [first.issue() for _ in range(4)]
    for index, (candidate, accuracy) in enumerate(zip(issued, (0.30, 0.28, 0.2, 0.1), strict=True)):
        assert candidate
        first.measured(candidate.key, "local", {"latency_ms": 1.0, "ci_low_ms": 1.0, "ci_high_ms": 1.0})
        goes_on = rung(first, candidate.key, 0, accuracy) is not None
        assert goes_on == (index == 0)
        if goes_on:
            rung(first, candidate.key, 2, 0.9)
        first.conclude(candidate.key, Status.DONE if goes_on else Status.STOPPED)
    assert [(o.status, o.accuracy, o.rungs) for o in policy.told[:2]] == [
        (Status.DONE, 0.9, {0: 0.30, 2: 0.9}),
        (Status.STOPPED, 0.28, {0: 0.28}),
    ]
    unlucky = issued[1]
    assert unlucky and first.overlooked() == [unlucky.key]  # second of two was too little, second of four is not
    rung(first, unlucky.key, 2, 0.95)
    first.promote(unlucky.key, "why not")
    first.promote(issued[0].key if issued[0] else "", "done already")
    again, policy = conductor(path, rungs=(0, 2))
    assert again.overlooked() == []
    assert [o.status for o in policy.told] == [Status.DONE, Status.DONE, Status.STOPPED, Status.STOPPED]
    assert policy.told[1].rungs == {0: 0.28, 2: 0.95}


def test_what_was_journaled_before_there_were_ladders_was_trained_to_the_end(path: Path) -> None:
    first, _ = conductor(path)
    one = first.issue()
    assert one
    first.trained(one.key, {"accuracy": 0.5, "seed": 0})
    assert first.next_rung(one.key) is None
    first.conclude(one.key, Status.DONE)
    first.trained(one.key, {"accuracy": 0.7, "seed": 1, "epochs": 2})
    known = first.recall(one.key)
    assert known.accuracy == pytest.approx(0.6)
    assert len(known.best_trained) == 2
    assert not known.observation().rungs
