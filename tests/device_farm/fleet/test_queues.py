"""Priorities, and that they starve nobody."""

from __future__ import annotations

import itertools
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from device_farm.fleet.queues import JobQueue
from device_farm.fleet.words import Job, Policy


def job(key: str, priority: int, client: str = "") -> Job:
    return Job(key, key, "phone", client=client, priority=priority)


def serve(queue: JobQueue, *, now: float) -> str:
    """One lease of a second."""
    _, key = queue.pop(now=now)
    leased = job(key, int(key.split("/")[0]))
    queue.end(leased, charged_s=queue.begin(leased, now=now), held_s=1.0)
    return key


def test_the_higher_priority_goes_first_while_nobody_has_waited_long() -> None:
    queue = JobQueue(Policy(patience_s=1000), {})
    for n, priority in enumerate([0, 2, 1, 2, 0]):
        queue.push(job(f"{priority}/{n}", priority), n, now=0)
    order = []
    while queue:
        order.append(serve(queue, now=1))
    assert order == ["2/1", "2/3", "1/2", "0/0", "0/4"]


@settings(max_examples=60)
@given(
    levels=st.sets(st.integers(-3, 10), min_size=2, max_size=5),
    every=st.integers(1, 10),
    patience_s=st.sampled_from([1.0, 20.0, 100.0]),
)
def test_every_priority_is_served_within_the_bound_though_higher_ones_never_end(
    levels: set[int], every: int, patience_s: float
) -> None:
    queue = JobQueue(Policy(patience_s=patience_s, overdue_every=every), {})
    sequence = itertools.count()
    for level in levels:
        queue.push(job(f"{level}/", level), next(sequence), now=0)
    last = dict.fromkeys(levels, 0.0)
    got: Counter[int] = Counter()
    for now in range(1, 600):
        level = int(serve(queue, now=now).split("/")[0])
        queue.push(job(f"{level}/", level), next(sequence), now=now)
        last[level] = now
        got[level] += 1
        for other in levels:
            assert now - last[other] <= patience_s + every * (len(levels) - 1) + 1
    lower = sum(count for level, count in got.items() if level != max(levels))
    assert lower <= 599 / every + 1  # no more than that is taken from the highest


def test_priorities_that_nobody_asks_for_any_more_are_forgotten() -> None:
    queue = JobQueue(Policy(), {})
    for n in range(1000):
        queue.push(job(f"{n}/", n), n, now=0)
        serve(queue, now=0)
    assert not queue and not queue._levels and len(queue._tops) <= 1
