"""The one writer of the journal and the one owner of the policy. Pure; `search_run` runs it as a Ray actor.

Calls come one after the other, so the order of the journal's rows is the order in which the policy saw them, and a
policy rebuilt from the journal is the policy that died.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from npas_ray.journal import Candidate, Journal
from npas_ray.search.ladder import Climb, Ladder
from npas_ray.search.policy import Policy, Status
from npas_ray.space.choices import Architecture

# so many candidates in a row lost to infrastructure mean that the infrastructure is broken, not the candidates
MAX_FAILURES_IN_A_ROW = 4


@dataclass(frozen=True)
class Issued:
    """A candidate that is to be evaluated now."""

    ordinal: int
    key: str
    architecture: Architecture


class Conductor:
    """Issues candidates and takes their results; `candidates` is how many the run is to have.

    Rebuilds policy and climb from the journal: candidates that were under way are issued again before new ones, and go
    on at the rung of the ladder that they had reached.
    """

    def __init__(
        self, journal: Journal, policy: Policy, *, candidates: int, ladder: Ladder, batch_size: int = 1
    ) -> None:
        self._journal = journal
        self._policy = policy
        self._climb = Climb(ladder)
        for _, _, key, evaluation in journal.events("trained"):
            self._record(str(key), evaluation)
        self._wanted = candidates
        self._batch_size = batch_size
        known = journal.candidates()
        self._proposed = len(known)
        self._queue = deque(
            Issued(candidate.ordinal, candidate.key, candidate.architecture)
            for candidate in known
            if candidate.status is None
        )
        self._unexplained: list[tuple[str, str]] = []  # lost to infrastructure since the last success
        self._exhausted = False
        policy.restore([candidate.architecture for candidate in known], journal.observations())

    def issue(self) -> Issued | None:
        """The next candidate, in the journal before it is returned; None when there are enough or no more."""
        if not self._queue:
            self._propose()
        return self._queue.popleft() if self._queue else None

    def recall(self, key: str) -> Candidate:
        """All that is on disk of a candidate. Raises JournalError if it was never issued."""
        return self._journal.candidate(key)

    def _propose(self) -> None:
        while not self._exhausted and not self._queue and self._proposed < self._wanted:
            proposals = self._policy.propose(min(self._batch_size, self._wanted - self._proposed))
            self._exhausted = not proposals
            for architecture in proposals:
                if not self._journal.propose(architecture):
                    continue  # a policy that repeats itself costs a proposal, never an evaluation
                self._proposed += 1
                self._queue.append(Issued(self._proposed, architecture.key, architecture))

    def measured(self, key: str, model: str, measurement: Mapping[str, Any]) -> None:
        """A latency of a candidate; on disk when this returns."""
        self._journal.measured(key, model=model, measurement=measurement)

    def trained(self, key: str, evaluation: Mapping[str, Any]) -> None:
        """An accuracy of a candidate; on disk when this returns. Saying it twice changes nothing."""
        if not any(_same_training(known, evaluation) for known in self._journal.candidate(key).evaluations):
            self._journal.trained(key, evaluation=evaluation)
            self._record(key, evaluation)

    def _record(self, key: str, evaluation: Mapping[str, Any]) -> None:
        top = self._climb.ladder.top  # what was journaled before there were ladders was trained to the end
        self._climb.record(key, epochs=evaluation.get("epochs", top), accuracy=evaluation["accuracy"])

    def next_rung(self, key: str) -> int | None:
        """Epochs that a candidate is to be trained for next; None if it is finished or stopped."""
        return self._climb.next_rung(key)

    def overlooked(self) -> list[str]:
        """Keys of stopped candidates that all results together would let go on, the most promising first."""
        open_or_failed = {c.key for c in self._journal.candidates() if c.status is not Status.STOPPED}
        return [key for key in self._climb.overlooked() if key not in open_or_failed]

    def promote(self, key: str, reason: str) -> None:
        """A stopped candidate has been trained to the end after all; on disk when this returns."""
        self._journal.promote(key, reason=reason)

    def conclude(self, key: str, status: Status, reason: str | None = None) -> None:
        """The last word on a candidate; on disk when this returns. Saying it twice changes nothing."""
        self._conclude(key, status, reason)
        for lost, why in self._unexplained:  # others work, so those were at fault themselves
            self._conclude(lost, Status.FAILED, why)
        self._unexplained.clear()

    def _conclude(self, key: str, status: Status, reason: str | None) -> None:
        if self._journal.conclude(key, status=status, reason=reason):
            self._policy.observe([self._journal.candidate(key).observation()])

    def lost(self, key: str, reason: str) -> bool:
        """A candidate whose evaluation broke again and again. True if the run should stop and be resumed later.

        Whether the candidate or the infrastructure is at fault shows when the next one ends: it is concluded as
        failed as soon as another candidate gets through, and left open if none does.
        """
        self._unexplained.append((key, reason))
        return len(self._unexplained) >= MAX_FAILURES_IN_A_ROW

    def unexplained(self) -> list[tuple[str, str]]:
        """(key, reason) of the candidates lost to infrastructure since the last success."""
        return list(self._unexplained)

    def candidates(self) -> list[Candidate]:
        """All candidates in the order of their proposals."""
        return self._journal.candidates()

    def note(self, kind: str, data: Any) -> None:
        """Anything else that the journal should remember."""
        self._journal.note(kind, data)


def _same_training(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    return all(a.get(name) == b.get(name) for name in ("epochs", "seed"))
