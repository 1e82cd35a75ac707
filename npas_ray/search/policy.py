"""The one interface of all searchers: a pure function of its seed and what it has observed. No Ray in here.

A policy is thrown away and rebuilt by replaying its observations in their order; the same seed and the same calls
give the same proposals.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from npas_ray.space.choices import Architecture


class Status(StrEnum):
    """How the evaluation of a candidate ended."""

    DONE = "done"  # accuracy and latency known
    OVER_BUDGET = "over-budget"  # latency known and too high: not trained
    FAILED = "failed"  # poisoned or out of retries; nothing to learn but to stay away


@dataclass(frozen=True)
class Observation:
    """What became of one candidate."""

    architecture: Architecture
    status: Status
    accuracy: float | None = None  # fraction of the validation set, 0..1
    latency_ms: Mapping[str, float] = field(default_factory=dict)  # by device model
    latency_ci_ms: Mapping[str, tuple[float, float]] = field(default_factory=dict)


class Policy(ABC):
    """Proposes what to try next.

    Proposals are canonical, legal and new: never one that was proposed or observed before. Fewer than asked for
    means that the space is exhausted.
    """

    name: str

    @abstractmethod
    def propose(self, count: int) -> list[Architecture]:
        """Up to `count` new candidates."""

    @abstractmethod
    def observe(self, observations: Sequence[Observation]) -> None:
        """Learn from results, which may come late, out of order, and for candidates that it did not propose."""
