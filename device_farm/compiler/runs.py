"""Items in a row, divided among threads: contiguous runs whose largest load is as small as it can be."""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Iterator, Sequence

STEPS = 50  # of a bisection of the largest load


def runs(costs: Sequence[float], loads: Sequence[float]) -> list[int]:
    """Limits 0 = l[0] <= ... <= l[threads] = items; thread t takes the items l[t] .. l[t + 1] beside its `loads[t]`.

    The largest load is the smallest that contiguous runs allow; among those, loads are about equal.
    """
    before = [0.0, *itertools.accumulate(costs)]
    low, high = max((sum(loads) + before[-1]) / len(loads), *loads), max(loads) + before[-1]
    greedy = _filled(before, loads, high)
    for _ in range(STEPS):
        middle = (low + high) / 2
        limits = _filled(before, loads, middle)
        if limits[-1] == len(costs):
            greedy, high = limits, middle
        else:
            low = middle
    even = _even(before, loads)
    return even if _largest(before, loads, even) <= _largest(before, loads, greedy) * (1 + 1e-6) else greedy


def rectangles(first: int, last: int, width: int) -> Iterator[tuple[range, range]]:
    """A run of items of a table, row after row of `width` items, as at most three rectangles (rows, columns)."""
    (row, column), (end_row, end_column) = divmod(first, width), divmod(last, width)
    if row == end_row:
        if column < end_column:
            yield range(row, row + 1), range(column, end_column)
        return
    if column:
        yield range(row, row + 1), range(column, width)
        row += 1
    if row < end_row:
        yield range(row, end_row), range(width)
    if end_column:
        yield range(end_row, end_row + 1), range(end_column)


def _filled(before: Sequence[float], loads: Sequence[float], capacity: float) -> list[int]:
    """Each thread in turn takes what it can hold; the last limit tells whether that was all."""
    limits = [0]
    for load in loads:
        room = max(capacity - load, 0.0) * (1 + 1e-12)
        limits.append(max(limits[-1], bisect_right(before, before[limits[-1]] + room) - 1))
    return limits


def _even(before: Sequence[float], loads: Sequence[float]) -> list[int]:
    """Every limit where it is nearest to equal loads."""
    total = (sum(loads) + before[-1]) / len(loads)
    limits, target = [0], 0.0
    for load in loads[:-1]:
        target = min(target + max(total - load, 0.0), before[-1])
        above = min(max(bisect_right(before, target), 1), len(before) - 1)
        nearest = above if before[above] - target < target - before[above - 1] else above - 1
        limits.append(max(limits[-1], nearest))
    return [*limits, len(before) - 1]


def _largest(before: Sequence[float], loads: Sequence[float], limits: Sequence[int]) -> float:
    return max(
        load + before[last] - before[first]
        for load, (first, last) in zip(loads, itertools.pairwise(limits), strict=True)
    )
