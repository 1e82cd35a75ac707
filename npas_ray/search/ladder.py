"""The ladder of fidelities: cheap trainings first, and only what looks good is trained for longer (asha).

The stopping type of asynchronous successive halving (Li et al., "A System for Massively Parallel Hyperparameter
Tuning", MLSys 2020): nobody waits for a rung to fill. Whoever ends a rung goes on if it is among the best `keep` of all
who have ended that rung by then, itself included; else it is stopped.

    ladder = Ladder((0, 2), keep=0.5)
    climb = Climb(ladder)
    climb.record("a", epochs=0, accuracy=0.31)
    climb.next_rung("a")                                # 2: the first one goes on always
    climb.record("b", epochs=0, accuracy=0.24)
    climb.next_rung("b")                                # None: stopped, as only one of two goes on

Pure: the state is the results in their order. A decision is made once, when its result comes, from that result and the
results that the same rung had by then, whatever their order; other rungs and later results have no say in it. So the
climb that a journal replays is the climb that was, and goes on where that stood.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Ladder:
    """Epochs of training of each rung, rising; who ends the last one is finished. `keep` of a rung goes on.

    Raises ValueError. One rung is no ladder: everything is trained for that long.
    """

    rungs: tuple[int, ...]
    keep: float = 0.5

    def __post_init__(self) -> None:
        rising = all(a < b for a, b in zip(self.rungs, self.rungs[1:], strict=False))
        if not self.rungs or not rising or self.rungs[0] < 0:
            raise ValueError(f"rungs are epochs of training, >= 0, each more than the one before; got {self.rungs}")
        if not 0 < self.keep <= 1:
            raise ValueError(f"keep is the share of a rung that goes on, > 0 and at most 1; got {self.keep!r}")

    @property
    def top(self) -> int:
        """Epochs of the last rung."""
        return self.rungs[-1]

    def after(self, epochs: int) -> int | None:
        """The rung above one of them; None above the top."""
        return next((rung for rung in self.rungs if rung > epochs), None)


class Climb:
    """Who has ended which rung, and who goes on."""

    def __init__(self, ladder: Ladder) -> None:
        self.ladder = ladder
        self._results: dict[int, dict[str, float]] = {rung: {} for rung in ladder.rungs}  # accuracy by key, in order
        self._reached: dict[str, int] = {}  # the highest rung that it ended
        self._going_on: set[tuple[str, int]] = set()

    def record(self, key: str, *, epochs: int, accuracy: float) -> None:
        """A candidate has ended a rung. The first result counts; what comes again, or of no rung, changes nothing.

        Raises ValueError: the accuracy is not a number.
        """
        if math.isnan(accuracy):
            raise ValueError(f"candidate {key}: the accuracy after {epochs} epochs is not a number")
        results = self._results.get(epochs)
        if results is None or key in results:
            return
        results[key] = accuracy
        self._reached[key] = max(epochs, self._reached.get(key, epochs))
        if self._is_among_the_best(key, epochs):
            self._going_on.add((key, epochs))

    def next_rung(self, key: str) -> int | None:
        """Epochs that a candidate is to be trained for now; None if it is finished or stopped."""
        reached = self._reached.get(key)
        if reached is None:
            return self.ladder.rungs[0]
        return self.ladder.after(reached) if (key, reached) in self._going_on else None

    def is_finished(self, key: str) -> bool:
        """It ended the top rung."""
        return key in self._results[self.ladder.top]

    def overlooked(self) -> list[str]:
        """Stopped candidates that would go on if all results had been there, nearest to the top and best first.

        A rung's first results meet few others, and what is asked of them is a matter of luck.
        """
        stopped = [
            (rung, self._results[rung][key], key)
            for key, rung in self._reached.items()
            if rung != self.ladder.top and (key, rung) not in self._going_on
        ]
        found = [(rung, accuracy, key) for rung, accuracy, key in stopped if self._is_among_the_best(key, rung)]
        return [key for _, _, key in sorted(found, key=lambda one: (-one[0], -one[1]))]

    def _is_among_the_best(self, key: str, epochs: int) -> bool:
        """By the results that are there now. Equal ones stand or fall together, so the best always goes on."""
        results = self._results[epochs]
        better = sum(accuracy > results[key] for accuracy in results.values())
        return better < math.ceil(self.ladder.keep * len(results) - 1e-9)
