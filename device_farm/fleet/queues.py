"""The queue of one model: higher priorities first, fair shares within one, and nobody waits for ever."""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Mapping

from device_farm.fleet.fair import FairQueue
from device_farm.fleet.words import Job, Policy


class JobQueue:
    """Jobs by priority. Whose turn has not come for `patience_s` is overdue, and gets every `overdue_every`-th lease.

    So of n priorities that have jobs waiting, each gets at least one lease in `overdue_every * (n - 1)` once it has
    waited `patience_s`, whatever is asked above it, until it has nothing waiting or it is its turn. Priorities should
    be few: with an overdue lease they are looked through.
    """

    def __init__(self, policy: Policy, weights: Mapping[str, float]) -> None:
        self._policy = policy
        self._weights = weights
        self._levels: dict[int, FairQueue] = {}
        self._tops: list[int] = []  # a heap of -priority, each once; emptied levels are skipped
        self._listed: set[int] = set()  # what `_tops` holds
        self._waiting: OrderedDict[int, float] = OrderedDict()  # priority -> since when; the longest unserved first
        self._on_top = 0  # leases in a row that went to the highest priority

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def push(self, job: Job, sequence: int, *, now: float) -> None:
        level = self._level(job.priority)
        if not level:
            if job.priority not in self._listed:
                self._listed.add(job.priority)
                heapq.heappush(self._tops, -job.priority)
            self._waiting[job.priority] = now
        level.push(job.client, sequence, job.key)

    def pop(self, *, now: float) -> tuple[int, str]:
        """Sequence and key of the next job. Only from a queue that is not empty."""
        priority = self._next(now)
        level = self._levels[priority]
        job = level.pop()
        if not level:
            del self._waiting[priority]
            if not self._waiting:
                self._tops.clear()
                self._listed.clear()
        if level.is_idle:
            del self._levels[priority]
        return job

    def begin(self, job: Job, *, now: float) -> float:
        """A lease of a job that was popped begins. Returns what its client is charged for now."""
        below = bool(self._waiting) and job.priority < self._top()
        self._on_top = 0 if below else self._on_top + 1
        if job.priority in self._waiting:
            self._waiting.move_to_end(job.priority)
            if not below:
                self._waiting[job.priority] = now
        return self._level(job.priority).begin(job.client)

    def end(self, job: Job, *, charged_s: float, held_s: float | None) -> None:
        """The lease ended after `held_s`; None: it costs the client nothing."""
        level = self._levels[job.priority]
        level.end(job.client, charged_s=charged_s, held_s=held_s)
        if level.is_idle:
            del self._levels[job.priority]

    def _next(self, now: float) -> int:
        if len(self._waiting) > 1 and self._on_top >= self._policy.overdue_every - 1:
            latest_s = now - self._policy.patience_s
            overdue = (priority for priority, since_s in self._waiting.items() if since_s <= latest_s)
            return next(overdue, self._top())
        return self._top()

    def _top(self) -> int:
        while -self._tops[0] not in self._waiting:
            self._listed.remove(-heapq.heappop(self._tops))
        return -self._tops[0]

    def _level(self, priority: int) -> FairQueue:
        level = self._levels.get(priority)
        if level is None:
            level = self._levels[priority] = FairQueue(self._weights)
        return level
