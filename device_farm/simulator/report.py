"""What came of a simulated day."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class SearchReport:
    """How one search fared. Waits are from asking to the first lease."""

    jobs: int
    measured: int
    device_s: float  # that its measurements took, while the other searches of its priority waited, too
    finished_s: float
    wait_median_s: float
    wait_longest_s: float


@dataclass(frozen=True)
class Report:
    """Same scenario, same seed: the same report, bit by bit. Times are virtual."""

    phones: int
    jobs: int
    measured: int
    failed: Mapping[str, int]  # by error
    lost: int  # asked and never answered
    doubled: int  # measured and answered more than once
    fenced: int  # results that came under a lease that had ended, and did not count
    wrong_numbers: int  # answers off by more than 3 %
    largest_error: float  # of all answers, relative
    most_harmed: int  # phones that one artifact crashed on, at most
    leases: int
    retries: int  # leases beyond the first one of a job
    unfit: int  # leases that ended with the phone saying so
    restarts: int
    notes: Mapping[str, int]
    seconds: float  # until all was answered
    utilisation: float  # of the phones that could serve while jobs for them waited, the part that was at work
    idle_while_queued_s: float  # phone-seconds that could have been used, and were not
    serving: float  # of all phones' time until the end, the part in which they could serve
    broker_wait_s: float  # phone-seconds spent waiting for the broker
    wait_median_s: float
    wait_p95_s: float
    wait_longest_s: float
    searches: Mapping[str, SearchReport]

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)
