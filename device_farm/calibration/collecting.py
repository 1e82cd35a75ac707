"""Measures a list of networks, several under way at once, each written down when it is there."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from device_farm.calibration.journal import Journal, Record, record_of
from device_farm.compiler.graph import Graph
from device_farm.errors import (
    CalibrationError,
    CompileError,
    InvalidGraph,
    Poisoned,
    RunnerFailed,
    Unstable,
    UnsupportedOperator,
    WrongAnswer,
)
from device_farm.measurement.types import Measurement

#: asks for a measurement of a graph with weights from a seed; what it returns waits for it, or raises FarmError
Submit = Callable[[Graph, int], Callable[[], Measurement]]

ATTEMPTS = 3  # at a network whose measurement a busy core disturbed
_FAULTS = (InvalidGraph, UnsupportedOperator, CompileError, WrongAnswer, RunnerFailed, Poisoned)


@dataclass(frozen=True)
class Case:
    """A network to measure, made when it is its turn."""

    label: tuple[str, ...]
    graph: Callable[[], Graph]


def collect(
    cases: Sequence[Case],
    submit: Submit,
    journal: Journal,
    *,
    at_once: Callable[[], int],
    attempts: int = ATTEMPTS,
    told: Callable[[Record], None] = lambda record: None,
) -> None:
    """Measures what the journal lacks, `at_once` under way, which may change meanwhile.

    A core that was shared all the time is tried again later.

    A network that fails by its own fault is written down as that. Raises what the farm raises about itself (nothing
    that was measured is lost), and CalibrationError if half of the networks failed.
    """
    for attempt in range(attempts):
        todo = [case for case in cases if _wanted(journal.records.get(case.label), attempt)]
        for record in _measured(todo, submit, attempt, at_once=at_once, last=attempt == attempts - 1):
            journal.write(record)
            told(record)
    records = [journal.records[case.label] for case in cases]
    failed = [record for record in records if record.latency_ms is None]
    if len(failed) > len(records) / 2:
        raise CalibrationError(
            f"{len(failed)} of {len(records)} networks could not be measured; the last one: {failed[-1].failure}"
        )


def is_complete(cases: Sequence[Case], journal: Journal, *, attempts: int = ATTEMPTS) -> bool:
    """Whether `collect` would have nothing to do."""
    return not any(_wanted(journal.records.get(case.label), attempts - 1) for case in cases)


def _wanted(record: Record | None, attempt: int) -> bool:
    return record is None or (not record.is_final and record.attempt < attempt)


def _measured(
    todo: Sequence[Case], submit: Submit, attempt: int, *, at_once: Callable[[], int], last: bool
) -> Iterator[Record]:
    # Another seed for another attempt: a farm answers a repeated question from memory.
    under_way: deque[tuple[Case, Callable[[], Measurement]]] = deque()
    queue = deque(todo)
    while queue or under_way:
        while queue and len(under_way) < at_once():
            case = queue.popleft()
            under_way.append((case, submit(case.graph(), attempt)))
        case, wait = under_way.popleft()
        try:
            yield record_of(case.label, wait(), attempt=attempt)
        except Unstable as error:
            why = str(error) if last else None
            yield Record(label=case.label, attempt=attempt, failure=why)
        except _FAULTS as error:
            yield Record(label=case.label, attempt=attempt, failure=f"{type(error).__name__}: {error}")
