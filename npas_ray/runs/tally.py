"""How far a search is, for the person who waits."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from npas_ray.journal import Candidate
from npas_ray.search.policy import Status
from npas_ray.search.reward import Mode, Objective


class Tally:
    """Counts conclusions and remembers the best candidate within the budgets."""

    def __init__(self, objective: Objective, *, wanted: int) -> None:
        self.wanted = wanted
        self.done = self.over_budget = self.failed = self.stopped = 0
        self.feasible = 0
        self._objective = objective
        self._best: tuple[float, str] | None = None

    @classmethod
    def of(cls, candidates: Iterable[Candidate], objective: Objective, *, wanted: int) -> Tally:
        """The tally of a journal."""
        tally = cls(objective, wanted=wanted)
        for candidate in candidates:
            if candidate.status is not None:
                observation = candidate.observation()
                tally._count(
                    candidate.status,
                    candidate.accuracy,
                    candidate.latency_ms,
                    feasible=objective.keeps(observation),
                    reward=objective.reward(observation),
                )
        return tally

    def add(self, result: dict[str, Any]) -> None:
        """One more conclusion, as Tune hands on what a trial reports: nested names joined by slashes."""
        latency_ms = {
            name.removeprefix("latency_ms/"): ms for name, ms in result.items() if name.startswith("latency_ms/")
        }
        feasible = self._objective.feasible(latency_ms)  # what is done keeps its budgets with their certainty
        self._count(
            Status(result["status"]), result["accuracy"], latency_ms, feasible=feasible, reward=result.get("reward")
        )

    def _count(
        self,
        status: Status,
        accuracy: float | None,
        latency_ms: dict[str, float],
        *,
        feasible: bool,
        reward: float | None,
    ) -> None:
        self.done += 1
        self.over_budget += status is Status.OVER_BUDGET
        self.failed += status is Status.FAILED
        self.stopped += status is Status.STOPPED
        if status is not Status.DONE or accuracy is None or not feasible:
            return
        self.feasible += 1
        worth = accuracy if self._objective.mode is Mode.BEST or reward is None else reward
        if self._best is None or worth > self._best[0]:
            latencies = ", ".join(f"{ms:.3g} ms on {model}" for model, ms in latency_ms.items())
            self._best = (worth, f"{accuracy:.1%} at {latencies}")

    @property
    def counts(self) -> tuple[int, int]:
        """(concluded, wanted)"""
        return self.done, self.wanted

    @property
    def details(self) -> dict[str, Any]:
        """The keywords of Progress.update."""
        best = self._best[1] if self._best else None
        return {"over_budget": self.over_budget, "failed": self.failed, "stopped": self.stopped, "best": best}
