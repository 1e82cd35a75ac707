"""When to look again. A timer that has lost its point is dropped by whoever is woken."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from enum import IntEnum
from typing import NamedTuple


class Kind(IntEnum):
    LEASE = 0  # of a device, under `fence`
    DEVICE = 1  # its state ends or has lasted too long
    ABSENT = 2  # a model without a usable device
    UNFIT = 3  # a model without a device fit to measure
    SUSPICION = 4  # of a device that was lost in the middle of a program


class Timer(NamedTuple):
    at_s: float
    kind: Kind
    name: str  # serial or model
    fence: int = 0


class Timers:
    """A heap of timers."""

    def __init__(self, has_a_point: Callable[[Timer], bool]) -> None:
        self._has_a_point = has_a_point
        self._heap: list[Timer] = []

    def set(self, at_s: float, kind: Kind, name: str, *, fence: int = 0) -> None:
        heapq.heappush(self._heap, Timer(at_s, kind, name, fence))

    def next_s(self) -> float | None:
        """When the next timer that has a point is due."""
        while self._heap:
            if self._has_a_point(self._heap[0]):
                return self._heap[0].at_s
            heapq.heappop(self._heap)
        return None

    def due(self, now: float) -> Timer | None:
        """Takes the next timer that is due and has a point. Timers that are set meanwhile count."""
        while self._heap and self._heap[0].at_s <= now:
            timer = heapq.heappop(self._heap)
            if self._has_a_point(timer):
                return timer
        return None
