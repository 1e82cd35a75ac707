"""The one interface of all searchers: a pure function of its seed, what it proposed and what it observed. No Ray here.

The state of a policy is (settings, seed, proposals in order, observations in order) and nothing else. How the
observations were grouped, and how calls of `propose` and `observe` were interleaved, leaves no trace. So a policy is
thrown away and rebuilt from a journal, which holds the proposals in order and the conclusions in order:

    policy = make_policy(...)                           # same name, space, objective, seed and settings
    policy.restore(proposed, observations)              # then propose(n) is what the lost policy would have said
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
    STOPPED = "stopped"  # latency known, and an accuracy after too few epochs to compare with: others looked better
    OVER_BUDGET = "over-budget"  # latency known and too high: not trained
    FAILED = "failed"  # poisoned or out of retries; nothing to learn but to stay away


@dataclass(frozen=True)
class Observation:
    """What became of one candidate."""

    architecture: Architecture
    status: Status
    accuracy: float | None = None  # fraction of the validation set, 0..1, after the most epochs that it got
    latency_ms: Mapping[str, float] = field(default_factory=dict)  # by device model
    latency_ci_ms: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    rungs: Mapping[int, float] = field(default_factory=dict)  # accuracy by epochs of training, where there is a ladder


class Policy(ABC):
    """Proposes what to try next.

    Proposals are canonical, legal and new: never one that was proposed or observed before. Fewer than asked for
    means that the space is exhausted.
    """

    name: str

    @abstractmethod
    def propose(self, count: int) -> list[Architecture]:
        """Up to `count` new candidates, which count as proposed from now on. Raises ValueError if `count` < 0."""

    @abstractmethod
    def observe(self, observations: Sequence[Observation]) -> None:
        """Learn from results, which may come late, out of order, and for candidates that it did not propose.

        All or nothing: raises InvalidObservation (a ValueError) before anything is learned.
        """

    def recommend(self, count: int) -> list[Architecture]:
        """Up to `count` of the observed candidates that were trained to the end and keep every budget, best first.

        What to ship if the search ended now, and what is worth evaluating again. None from a policy without an opinion.
        """
        return []

    @abstractmethod
    def restore(self, proposed: Sequence[Architecture], observations: Sequence[Observation]) -> None:
        """Become the policy that made these proposals and was told these observations, each in their order.

        Raises RuntimeError if this policy has proposed or observed already, InvalidObservation as `observe` does.
        """
