"""Where pruning pays: a choice of a layer against the same layer dense, on the best kernels for each. Pure.

A point is called slower only if the measurement's own noise leaves next to no doubt; where there is doubt it stays in
the search, which measures whole candidates anyway.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

#: standard deviations of the difference that a verdict needs: 1 wrong word in 40
SURE = 2.0
#: of the dense time: what is less slower than this is no reason to forbid anything
MARGIN = 0.02


class Verdict(StrEnum):
    PAYS = "pays"
    SLOWER = "slower"
    UNCLEAR = "unclear"


@dataclass(frozen=True)
class Point:
    """One choice of one layer. Times are those of all steps of the layer, in ms."""

    layer: str
    choice: str
    against: str  # what it must beat: the same operator, dense
    time_ms: float
    against_ms: float
    difference_ms: float  # of the choice less that of its rival
    std_ms: float  # of the difference
    seen: int  # networks in which it was measured
    verdict: Verdict

    def __str__(self) -> str:
        return (
            f"{self.layer} {self.choice}: {1e3 * self.time_ms:.3g} us, {self.against} {1e3 * self.against_ms:.3g} us"
            f" (difference {1e3 * self.difference_ms:+.2g} +- {2e3 * self.std_ms:.2g})"
        )


def verdict(difference_ms: float, *, std_ms: float, against_ms: float) -> Verdict:
    """What a difference in time says, given its standard deviation and the time of the rival.

    >>> verdict(0.3, std_ms=0.1, against_ms=1.0).value
    'slower'
    >>> verdict(0.3, std_ms=0.2, against_ms=1.0).value
    'unclear'
    """
    if difference_ms - SURE * std_ms > MARGIN * against_ms:
        return Verdict.SLOWER
    return Verdict.PAYS if difference_ms + SURE * std_ms < 0 else Verdict.UNCLEAR
