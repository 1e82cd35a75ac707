"""Which candidates nobody beats, and how much of the plane they cover. Pure.

A point is (accuracy, latency_ms): more of the first and less of the second is better.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from npas_ray.search.hypervolume import hypervolume as volume

Item = TypeVar("Item")
Point = tuple[float, float]


def front(items: Iterable[Item], point: Callable[[Item], Point]) -> list[Item]:
    """The items that no other item dominates, fastest first.

    One dominates another if it is as good in both and better in one; equal items do not dominate each other.

    >>> front([(0.9, 2.0), (0.8, 1.0), (0.7, 1.5)], lambda p: p)
    [(0.8, 1.0), (0.9, 2.0)]
    """
    best: list[Item] = []
    ranked = sorted(items, key=lambda item: (point(item)[1], -point(item)[0]))
    for item in ranked:
        if not best or point(item)[0] > point(best[-1])[0] or point(item) == point(best[-1]):
            best.append(item)
    return best


def hypervolume(points: Iterable[Point], *, accuracy: float, latency_ms: float) -> float:
    """The area that the points dominate, up to a reference point: accuracy (a fraction) x ms.

    Points that are not better than the reference in both add nothing.

    >>> hypervolume([(0.5, 1.0), (0.75, 2.0)], accuracy=0.0, latency_ms=3.0)
    1.25
    """
    return volume([(-point_accuracy, at_ms) for point_accuracy, at_ms in points], (-accuracy, latency_ms))
