"""What happens to one candidate: measure, train rung by rung if it is fast enough. Pure; its parts are handed in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol

from device_farm.errors import CompileError, InvalidGraph, Poisoned, RunnerFailed, UnsupportedOperator, WrongAnswer
from npas_ray.journal import Candidate
from npas_ray.search.policy import Observation, Status
from npas_ray.search.reward import Intervals
from npas_ray.space.choices import Architecture

# what the farm says of a candidate; any other error is about the farm itself
CANDIDATE_FAULTS = (InvalidGraph, UnsupportedOperator, CompileError, WrongAnswer, RunnerFailed, Poisoned)


class Book(Protocol):
    """Where facts are written down; every call has committed when it returns. See Conductor."""

    def measured(self, key: str, model: str, measurement: Mapping[str, Any]) -> None: ...
    def trained(self, key: str, evaluation: Mapping[str, Any]) -> None: ...
    def next_rung(self, key: str) -> int | None: ...
    def conclude(self, key: str, status: Status, reason: str | None = None) -> None: ...


@dataclass(frozen=True)
class Outcome:
    """How the evaluation of one candidate ended."""

    status: Status
    accuracy: float | None
    latency_ms: dict[str, float]
    reason: str | None = None


@dataclass(frozen=True)
class Evaluator:
    """Evaluates candidates one at a time.

    `measure(architecture, model)` gives the Measurement as JSON, `train(architecture, epochs)` starts a fast evaluation
    and gives a future of its JSON. The book says for how many epochs, and after each training whether there is another
    one; `epochs` are those of a candidate that is finished. `budgets_ms` maps a device model to the latency above which
    nothing is trained; models without a budget are measured all the same. Training starts beside the measurement only
    if no budget could forbid it. `counted_ms(latency_ms, latency_ci_ms)` says which latency counts against a budget:
    see Objective.
    """

    models: tuple[str, ...]
    budgets_ms: Mapping[str, float]
    epochs: int
    measure: Callable[[Architecture, str], Mapping[str, Any]]
    train: Callable[[Architecture, int], Future[Mapping[str, Any]]]
    book: Book
    counted_ms: Callable[[Mapping[str, float], Intervals], Mapping[str, float]] = lambda latency_ms, _: latency_ms

    def evaluate(self, candidate: Candidate, *, on_rung: Callable[[Observation], None] = lambda _: None) -> Outcome:
        """Measures and trains what is not known yet, writes each fact down when it is there, concludes.

        `on_rung` is told of each training that another one follows, as if the candidate had been stopped there.
        Raises whatever the farm or the trainer raises about itself (not about the candidate): try again later.
        """
        rung = self.book.next_rung(candidate.key)
        training = self.train(candidate.architecture, rung) if rung is not None and not self.budgets_ms else None
        try:
            latency_ms, intervals_ms = self._latencies(candidate)
        except CANDIDATE_FAULTS as error:
            return self._conclude(candidate, Status.FAILED, None, {}, f"{type(error).__name__}: {error}")
        counted_ms = self.counted_ms(latency_ms, intervals_ms)
        over = [m for m, budget_ms in self.budgets_ms.items() if m in counted_ms and counted_ms[m] > budget_ms]
        if over:
            reason = ", ".join(_over(m, latency_ms[m], counted_ms[m], self.budgets_ms[m]) for m in over)
            return self._conclude(candidate, Status.OVER_BUDGET, None, latency_ms, reason)
        rungs, accuracy, epochs = dict(candidate.rungs), candidate.accuracy, candidate.epochs
        while rung is not None:
            evaluation = (training or self.train(candidate.architecture, rung)).result()
            if not 0 <= evaluation["accuracy"] <= 1:  # False for NaN too
                reason = f"its training gave an accuracy of {evaluation['accuracy']!r}"
                return self._conclude(candidate, Status.FAILED, None, latency_ms, reason)
            self.book.trained(candidate.key, evaluation)
            accuracy, epochs, training = float(evaluation["accuracy"]), rung, None
            rungs[epochs] = accuracy
            rung = self.book.next_rung(candidate.key)
            if rung is not None:
                on_rung(Observation(candidate.architecture, Status.STOPPED, accuracy, latency_ms, rungs=dict(rungs)))
        if accuracy is not None and epochs is not None and epochs < self.epochs:
            reason = f"{accuracy:.1%} after {epochs} of {self.epochs} epochs; others were better by then"
            return self._conclude(candidate, Status.STOPPED, accuracy, latency_ms, reason)
        return self._conclude(candidate, Status.DONE, accuracy, latency_ms, None)

    def _latencies(self, candidate: Candidate) -> tuple[dict[str, float], Intervals]:
        """By device model the latency, and its interval where the measurement says."""
        latency_ms, intervals_ms = {}, {}
        for model in self.models:
            measurement: Mapping[str, Any] | None = candidate.measurements.get(model)
            if measurement is None:
                measurement = dict(self.measure(candidate.architecture, model))
                self.book.measured(candidate.key, model, measurement)
            latency_ms[model] = float(measurement["latency_ms"])
            low_ms, high_ms = measurement.get("ci_low_ms"), measurement.get("ci_high_ms")
            if low_ms is not None and high_ms is not None:
                intervals_ms[model] = (float(low_ms), float(high_ms))
        return latency_ms, intervals_ms

    def _conclude(
        self,
        candidate: Candidate,
        status: Status,
        accuracy: float | None,
        latency_ms: dict[str, float],
        reason: str | None,
    ) -> Outcome:
        self.book.conclude(candidate.key, status, reason)
        return Outcome(status, accuracy, latency_ms, reason)


def _over(model: str, latency_ms: float, counted_ms: float, budget_ms: float) -> str:
    """Why a candidate is over a budget; of one whose estimate keeps it, how far up its interval reaches."""
    sure = "" if latency_ms > budget_ms else f" up to {counted_ms:.4g} ms by its interval,"
    return f"{latency_ms:.4g} ms on {model},{sure} budget {budget_ms:g} ms"
