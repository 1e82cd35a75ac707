"""One candidate's way: measured first, trained only within its budget, nothing repeated."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

import pytest

from device_farm.errors import DeviceGone, NoSuchDevice, Unstable, WrongAnswer
from npas_ray.journal import Candidate
from npas_ray.runs.evaluation import Evaluator
from npas_ray.search.ladder import Climb, Ladder
from npas_ray.search.policy import Observation, Status
from npas_ray.search.reward import Objective
from npas_ray.space.choices import Architecture, LayerChoice, Operator

Rungs = tuple[int, ...]
ARCHITECTURE = Architecture((LayerChoice(Operator.CONV3X3),))


class Notebook:
    """A book that lists what it is told, in order."""

    def __init__(self, ladder: Ladder) -> None:
        self.lines: list[tuple[Any, ...]] = []
        self.climb = Climb(ladder)

    def measured(self, key: str, model: str, measurement: Mapping[str, Any]) -> None:
        self.lines.append(("measured", model, measurement["latency_ms"]))

    def trained(self, key: str, evaluation: Mapping[str, Any]) -> None:
        self.lines.append(("trained", evaluation["accuracy"]))
        self.climb.record(key, epochs=evaluation["epochs"], accuracy=evaluation["accuracy"])

    def next_rung(self, key: str) -> int | None:
        return self.climb.next_rung(key)

    def conclude(self, key: str, status: Status, reason: str | None = None) -> None:
        self.lines.append(("conclude", status))


class Lab:
    """Latencies as given, accuracy 0.9 after two epochs; counts what was asked of it."""

    def __init__(
        self, latency_ms: Mapping[str, float | Exception], *, budgets_ms: Mapping[str, float], rungs: Rungs = (2,)
    ) -> None:
        self.latency_ms, self.measurements, self.book = latency_ms, 0, Notebook(Ladder(rungs))
        self.trained_for: list[int] = []
        self.evaluator = Evaluator(tuple(latency_ms), budgets_ms, rungs[-1], self.measure, self.train, self.book)

    @property
    def trainings(self) -> int:
        return len(self.trained_for)

    def measure(self, architecture: Architecture, model: str) -> Mapping[str, Any]:
        self.measurements += 1
        latency = self.latency_ms[model]
        if isinstance(latency, Exception):
            raise latency
        return {"latency_ms": latency}

    def train(self, architecture: Architecture, epochs: int) -> Future[Mapping[str, Any]]:
        self.trained_for.append(epochs)
        future: Future[Mapping[str, Any]] = Future()
        future.set_result({"accuracy": 0.9 - 0.1 * (2 - epochs), "seed": 0, "epochs": epochs})
        return future


def candidate(**known: Any) -> Candidate:
    return Candidate(1, ARCHITECTURE, None, None, 0.0, None, None, **known)


def test_a_candidate_within_its_budget_is_measured_and_trained() -> None:
    lab = Lab({"local": 1.0}, budgets_ms={"local": 2.0})
    outcome = lab.evaluator.evaluate(candidate())
    assert (outcome.status, outcome.accuracy, outcome.latency_ms) == (Status.DONE, 0.9, {"local": 1.0})
    assert lab.book.lines == [("measured", "local", 1.0), ("trained", 0.9), ("conclude", Status.DONE)]


def test_a_candidate_over_its_budget_is_not_trained() -> None:
    lab = Lab({"local": 3.0, "other": 1.0}, budgets_ms={"local": 2.0})
    outcome = lab.evaluator.evaluate(candidate())
    assert outcome.status is Status.OVER_BUDGET
    assert outcome.accuracy is None
    assert "3 ms on local, budget 2 ms" in str(outcome.reason)
    assert lab.trainings == 0
    assert lab.book.lines[-1] == ("conclude", Status.OVER_BUDGET)


def test_what_is_known_is_not_done_again() -> None:
    lab = Lab({"a": 1.0, "b": 1.5}, budgets_ms={})
    lab.book.climb.record(ARCHITECTURE.key, epochs=2, accuracy=0.7)
    known = {"measurements": {"a": {"latency_ms": 1.0}}, "evaluations": ({"accuracy": 0.7, "seed": 0},)}
    outcome = lab.evaluator.evaluate(candidate(**known))
    assert (lab.measurements, lab.trainings) == (1, 0)
    assert (outcome.accuracy, outcome.latency_ms) == (0.7, {"a": 1.0, "b": 1.5})
    assert lab.book.lines == [("measured", "b", 1.5), ("conclude", Status.DONE)]


def test_a_wrong_answer_concludes_the_candidate_with_its_reason() -> None:
    lab = Lab({"local": WrongAnswer("off by 3")}, budgets_ms={"local": 2.0})
    outcome = lab.evaluator.evaluate(candidate())
    assert (outcome.status, outcome.reason) == (Status.FAILED, "WrongAnswer: off by 3")
    assert outcome.latency_ms == {}


@pytest.mark.parametrize("error", [DeviceGone("unplugged"), NoSuchDevice("no pixel"), Unstable("noise")])
def test_trouble_of_the_farm_is_not_the_candidates_fault(error: Exception) -> None:
    lab = Lab({"local": error}, budgets_ms={"local": 2.0})
    with pytest.raises(type(error)):
        lab.evaluator.evaluate(candidate())
    assert lab.book.lines == []


@pytest.mark.parametrize("budgets_ms", [{}, {"local": 2.0}])
def test_a_good_candidate_climbs_the_whole_ladder(budgets_ms: Mapping[str, float]) -> None:
    lab, seen = Lab({"local": 1.0}, budgets_ms=budgets_ms, rungs=(0, 1, 2)), list[Observation]()
    outcome = lab.evaluator.evaluate(candidate(), on_rung=seen.append)
    assert (outcome.status, outcome.accuracy, lab.trained_for) == (Status.DONE, 0.9, [0, 1, 2])
    assert [dict(o.rungs) for o in seen] == [{0: pytest.approx(0.7)}, {0: pytest.approx(0.7), 1: pytest.approx(0.8)}]
    assert {o.latency_ms["local"] for o in seen} == {1.0}


def test_a_candidate_that_others_beat_is_stopped_with_what_it_reached() -> None:
    lab = Lab({"local": 1.0}, budgets_ms={"local": 2.0}, rungs=(0, 1, 2))
    lab.book.climb.record("a better one", epochs=1, accuracy=0.85)
    outcome = lab.evaluator.evaluate(candidate())
    assert (outcome.status, lab.trained_for) == (Status.STOPPED, [0, 1])
    assert outcome.accuracy == pytest.approx(0.8)
    assert outcome.reason == "80.0% after 1 of 2 epochs; others were better by then"
    assert lab.book.lines[-1] == ("conclude", Status.STOPPED)


def test_a_candidate_over_its_budget_meets_no_rung() -> None:
    lab = Lab({"local": 3.0}, budgets_ms={"local": 2.0}, rungs=(0, 1, 2))
    assert lab.evaluator.evaluate(candidate()).status is Status.OVER_BUDGET
    assert lab.trained_for == []


@pytest.mark.parametrize("stopped", [False, True])
def test_rungs_that_are_known_are_not_trained_again(stopped: bool) -> None:
    lab = Lab({"local": 1.0}, budgets_ms={"local": 2.0}, rungs=(0, 1, 2))
    if stopped:
        lab.book.climb.record("a better one", epochs=1, accuracy=0.9)
    evaluations = tuple({"accuracy": 0.7 + 0.1 * epochs, "epochs": epochs, "seed": 0} for epochs in (0, 1))
    for evaluation in evaluations:
        lab.book.climb.record(ARCHITECTURE.key, epochs=int(evaluation["epochs"]), accuracy=evaluation["accuracy"])
    outcome = lab.evaluator.evaluate(candidate(evaluations=evaluations))
    assert lab.trained_for == ([] if stopped else [2])
    assert outcome.status is (Status.STOPPED if stopped else Status.DONE)
    assert outcome.accuracy == pytest.approx(0.8 if stopped else 0.9)


@pytest.mark.parametrize(
    ("latency_ms", "high_ms", "certainty", "status"),
    [
        (1.9, 1.99, 0.975, Status.DONE),
        (1.9, 2.1, 0.975, Status.OVER_BUDGET),  # its interval straddles the budget
        (1.9, 2.1, 0.5, Status.DONE),  # the estimate counts
        (2.1, 2.2, 0.5, Status.OVER_BUDGET),
    ],
)
def test_a_budget_is_kept_with_the_certainty_that_is_asked_for(
    latency_ms: float, high_ms: float, certainty: float, status: Status
) -> None:
    lab = Lab({"local": latency_ms}, budgets_ms={"local": 2.0})
    objective = Objective({"local": 2.0}, certainty=certainty)
    evaluator = dataclasses.replace(lab.evaluator, counted_ms=objective.counted_ms)
    known = {"latency_ms": latency_ms, "ci_low_ms": latency_ms - 0.1, "ci_high_ms": high_ms}
    outcome = evaluator.evaluate(candidate(measurements={"local": known}))
    assert outcome.status is status
    assert lab.trainings == (status is Status.DONE)
    if status is Status.OVER_BUDGET and latency_ms < 2.0:
        assert outcome.reason == "1.9 ms on local, up to 2.1 ms by its interval, budget 2 ms"
