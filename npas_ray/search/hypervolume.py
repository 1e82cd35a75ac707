"""Which points nobody beats, and how much of the space they dominate, in any number of dimensions. Pure.

A point is a row of numbers of which less is better, each: an accuracy goes in as an error.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def nondominated(points: ArrayLike) -> NDArray[np.bool_]:
    """Which of the points `[n, d]` no other one dominates: `[n]`.

    One dominates another if it is as good in everything and better in something; equal points do not dominate each
    other. Raises ValueError for what is not a table of finite numbers.

    >>> nondominated([[1.0, 2.0], [2.0, 1.0], [2.0, 2.0]]).tolist()
    [True, True, False]
    """
    table = _table(points)
    kept = np.ones(len(table), dtype=bool)
    for index, point in enumerate(table):  # n x d at a time, where n x n x d would not fit for thousands
        if kept[index]:
            kept &= ~((table >= point).all(axis=1) & (table > point).any(axis=1))
    return kept


def hypervolume(points: ArrayLike, reference: Sequence[float] | Floats) -> float:
    """The volume that the points `[n, d]` dominate, up to the reference `[d]`: exact, by slicing (hso).

    Points that are not better than the reference in everything add nothing. About n^(d - 2) n log n steps: for a few
    hundred points in up to four dimensions. Raises ValueError for shapes that do not match and numbers not finite.

    >>> hypervolume([[0.5, 1.0], [0.25, 2.0]], [1.0, 3.0])
    1.25
    """
    table, corner = _table(points), np.asarray(reference, dtype=np.float64)
    if corner.ndim != 1 or not len(corner) or not np.isfinite(corner).all():
        raise ValueError(f"a reference is a row of finite numbers, got {reference!r}")
    if not len(table):
        return 0.0
    if table.shape[1] != len(corner):
        raise ValueError(f"the points have {table.shape[1]} coordinates, the reference has {len(corner)}")
    return _volume(table[(table < corner).all(axis=1)], corner)


def contributions(points: ArrayLike, reference: Sequence[float] | Floats) -> Floats:
    """The volume that each of the points `[n, d]` alone dominates, `[n]`: what would be lost without it."""
    table = _table(points)
    whole = hypervolume(table, reference)
    return np.array([whole - hypervolume(np.delete(table, index, axis=0), reference) for index in range(len(table))])


def _volume(table: Floats, corner: Floats) -> float:
    if not len(table):
        return 0.0
    if table.shape[1] == 1:
        return float(corner[0] - table.min())
    if table.shape[1] == 2:
        by_first = table[np.lexsort((table[:, 1], table[:, 0]))]
        widths = np.diff(np.append(by_first[:, 0], corner[0]))
        return float((widths * (corner[1] - np.minimum.accumulate(by_first[:, 1]))).sum())
    table = table[nondominated(table)]
    table = table[np.argsort(table[:, -1], kind="stable")]
    levels = np.append(table[:, -1], corner[-1])
    slices = (
        (levels[index + 1] - level) * _volume(table[: index + 1, :-1], corner[:-1])
        for index, level in enumerate(levels[:-1])
        if levels[index + 1] > level
    )
    return float(sum(slices))


def _table(points: ArrayLike) -> Floats:
    table = np.asarray(points, dtype=np.float64)
    if table.size == 0:
        return table.reshape(0, table.shape[1] if table.ndim == 2 else 0)
    if table.ndim != 2 or not np.isfinite(table).all():
        raise ValueError(f"points are a table [n, d] of finite numbers, got {points!r}")
    return table
