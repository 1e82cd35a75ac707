"""What happens to one candidate: measure, and train if it is fast enough. Pure; its parts are handed in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol

from device_farm.errors import CompileError, InvalidGraph, Poisoned, RunnerFailed, UnsupportedOperator, WrongAnswer
from npas_ray.journal import Candidate
from npas_ray.search.policy import Status
from npas_ray.space.choices import Architecture

# what the farm says of a candidate; any other error is about the farm itself
CANDIDATE_FAULTS = (InvalidGraph, UnsupportedOperator, CompileError, WrongAnswer, RunnerFailed, Poisoned)


class Book(Protocol):
    """Where facts are written down; every call has committed when it returns. See Conductor."""

    def measured(self, key: str, model: str, measurement: Mapping[str, Any]) -> None: ...
    def trained(self, key: str, evaluation: Mapping[str, Any]) -> None: ...
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

    `measure(architecture, model)` gives the Measurement as JSON, `train(architecture)` starts a fast evaluation and
    gives a future of its JSON. `budgets_ms` maps a device model to the latency above which nothing is trained;
    models without a budget are measured all the same. Training starts beside the measurement only if no budget could
    forbid it.
    """

    models: tuple[str, ...]
    budgets_ms: Mapping[str, float]
    measure: Callable[[Architecture, str], Mapping[str, Any]]
    train: Callable[[Architecture], Future[Mapping[str, Any]]]
    book: Book

    def evaluate(self, candidate: Candidate) -> Outcome:
        """Measures and trains what is not known yet, writes each fact down when it is there, concludes.

        Raises whatever the farm or the trainer raises about itself (not about the candidate): try again later.
        """
        known = candidate.evaluations
        training = self.train(candidate.architecture) if not known and not self.budgets_ms else None
        try:
            latency_ms = self._latencies(candidate)
        except CANDIDATE_FAULTS as error:
            return self._conclude(candidate, Status.FAILED, None, {}, f"{type(error).__name__}: {error}")
        over = [m for m, budget in self.budgets_ms.items() if m in latency_ms and latency_ms[m] > budget]
        if over:
            reason = ", ".join(f"{latency_ms[m]:.4g} ms on {m}, budget {self.budgets_ms[m]:g} ms" for m in over)
            return self._conclude(candidate, Status.OVER_BUDGET, None, latency_ms, reason)
        if known:
            return self._conclude(candidate, Status.DONE, known[-1]["accuracy"], latency_ms, None)
        evaluation = (training or self.train(candidate.architecture)).result()
        self.book.trained(candidate.key, evaluation)
        return self._conclude(candidate, Status.DONE, evaluation["accuracy"], latency_ms, None)

    def _latencies(self, candidate: Candidate) -> dict[str, float]:
        latency_ms = {}
        for model in self.models:
            measurement: Mapping[str, Any] | None = candidate.measurements.get(model)
            if measurement is None:
                measurement = dict(self.measure(candidate.architecture, model))
                self.book.measured(candidate.key, model, measurement)
            latency_ms[model] = float(measurement["latency_ms"])
        return latency_ms

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
